"""The commands and options of the command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from robustness.classifiers.precision import DTYPES
from robustness.mutations import kinds

ENGINE = "local (default) or ray[=ADDRESS][,workers=N][,cores=N][,gpus=SHARE]"
DESCRIPTION = "Test image classifiers against robustness thresholds."


# Old names of commands, each with the new one.
RENAMED = {"renew": "update-thresholds", "replay": "show-flip"}


class _Parser(argparse.ArgumentParser):
    """A parser that names the new command if an old one is typed."""

    def error(self, message: str) -> NoReturn:
        for old, new in RENAMED.items():
            if message.startswith(f"argument COMMAND: invalid choice: {old!r}"):
                self.exit(2, f"robustness: `robustness {old}` is called `robustness {new}` now\n")
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """
    Describe all commands; the common options may come before or after a command's name.

    >>> parser().parse_args(["--seed", "3", "update-thresholds", "digits-mlp", "--fresh", "0"]).seed
    3
    """
    whole = _Parser("robustness", description=DESCRIPTION, parents=[_common()])
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = _add(commands, "run", "run the suites; arguments after -- go to pytest, for example: -- -n auto -k noise")
    run.add_argument("--shard", metavar="I/N", help="only the I-th of N parts of the models, for `robustness merge`")
    run.add_argument(
        "--report",
        metavar="FILE",
        action="append",
        help="write the report to this file, in the format of its suffix (repeatable)",
    )
    run.add_argument("--strict", action="store_true", help="missing data and inconclusive gates fail")
    sweep = _add(
        commands,
        "sweep",
        "compute the evidence of all sweeps into the store, without checking claims; finished sweeps are reused",
    )
    plan = _add(commands, "plan", "estimate the cost of sweeps: passes, evidence, memory and time")
    plan.add_argument(
        "--workers", metavar="N", type=_whole(1, 10**6), help="workers of the engine (default: 1; ray: cores)"
    )
    train = _add(commands, "train", "train models by their recipes into the store")
    for command in (run, sweep, plan):
        command.add_argument("--engine", metavar="ENGINE", help=ENGINE)
    train.add_argument("--seeds", metavar="A,B,...", type=_seeds, help="with these seeds instead of the card's own")
    train.add_argument(
        "--output", metavar="FILE", type=Path, help="also write the weights to this file; for one model and seed"
    )
    update = _add(commands, "update-thresholds", "update weights and thresholds that no longer match the recipe")
    update.add_argument(
        "--seeds", metavar="N", type=_whole(5, 1000), help="number of training seeds (default: by training time)"
    )
    update.add_argument(
        "--fresh",
        metavar="N",
        type=_whole(0, 1000),
        default=20,
        help="number of further seeds that validate the thresholds (20)",
    )
    update.add_argument("--force", action="store_true", help="also update what is up to date, and handwritten claims")
    for command in (train, update):
        command.add_argument("--workers", metavar="N", type=_whole(1, 1000), help="parallel trainings (default: cores)")
    transfer = _add(commands, "transfer", "attack each model with examples computed on every other, as a matrix")
    transfer.add_argument("--sweep", metavar="NAME", default="fgsm", help="an attack in the cards (default: fgsm)")
    corruption = _add(commands, "corruption-error", "mean corruption error (mCE) of models, relative to a reference")
    corruption.add_argument("--reference", metavar="MODEL", required=True, help="the reference model's name")
    for command in (run, sweep, plan, train, update, transfer, corruption):
        command.add_argument("models", nargs="*", metavar="MODEL", help="model names (default: those on embedded data)")
    for command in (run, sweep, plan, transfer, corruption):
        command.add_argument(
            "--dtype", metavar="DTYPE", choices=DTYPES, default="float32", help="float32 (default), tf32 or bf16"
        )
    report = _add(commands, "report", "write the report of finished runs, from their JSON and stored evidence")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN.json", help="a JSON report of --robustness-report")
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="the file to write, .html, .md, … (default: RUN.html beside it)"
    )
    merge = _add(commands, "merge", "merge the reports of all shards of a run into one report, verdict and exit code")
    merge.add_argument("runs", nargs="+", type=Path, metavar="SHARD.json", help="the report of each shard")
    merge.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FILE",
        action="append",
        required=True,
        help="the file to write, in the format of its suffix (repeatable)",
    )
    checked = _add(commands, "check-cards", "check card files, without importing what they name")
    checked.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a card")
    migrate = _add(commands, "migrate", "rewrite cards and baselines whose names have changed, in place")
    migrate.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="a card, a baseline, a pyproject.toml, or a folder of these"
    )
    flip = _add(commands, "show-flip", "show the effect of a perturbation that a search found on an image")
    flip.add_argument("models", nargs=1, metavar="MODEL", help="the model's name")
    flip.add_argument("row", metavar="ROW", type=_whole(0, 2**63), help="the index of the test image")
    flip.add_argument("description", metavar="DESCRIPTION", help="the perturbation, as the failed test printed it")
    data = _add(commands, "data", "get a data set").add_subparsers(metavar="NAME", required=True)
    mnist = _add(data, "mnist", "download MNIST and verify the published checksums", command="data mnist")
    mnist.add_argument("--root", metavar="DIR", type=Path, help="the folder to download it to (default: as --data)")
    _add_starting(commands)
    _add_baseline(commands)
    _add_mutate(commands)
    compare = _add(commands, "compare", "compare two runs side by side, from their JSON reports")
    compare.add_argument("runs", nargs=2, metavar="RUN.json", type=Path, help="a JSON report of --robustness-report")
    _add_evidence(commands)
    return whole


def _add_starting(commands: Any) -> None:
    """Describe the commands for a new model."""
    init = _add(commands, "init", "write a card for a model, from options or from answers on a terminal")
    check = _add(commands, "check", "inspect a model in seconds: its outputs, its speed, and what to fix")
    for command in (init, check):
        command.add_argument("--factory", metavar="MODULE:CALLABLE", help="what returns the model")
        command.add_argument(
            "--argument", metavar="KEY=VALUE", action="append", help="keyword argument of the factory (repeatable)"
        )
        command.add_argument("--weights", metavar="FILE", help="its weights")
        command.add_argument("--dataset", metavar="FILE", help="the labelled images to test on")
        command.add_argument("--name", metavar="NAME", help="its name (default: that of its weights file)")
        command.add_argument("--images", metavar="N", type=_whole(1, 2**31), help="test on this many images")
    init.add_argument("--profile", metavar="NAME", default="default", help="the profile with its sweeps (default)")
    init.add_argument("--claims", action="store_true", help="measure the model, and add claims that it meets now")
    init.add_argument("--output", metavar="FILE", help="the file to write (default: NAME.toml)")
    init.add_argument("--force", action="store_true", help="overwrite an existing file")
    check.add_argument("models", nargs="*", metavar="MODEL", help="model names, or card files")
    check.add_argument(
        "--margin",
        metavar="M",
        type=_share,
        default=0.02,
        help="say how many images a 95 %% margin of error of ± M needs (0.02)",
    )
    profiles = _add(commands, "profiles", "list the sweeps of every profile, with their forward and backward passes")
    profiles.add_argument(
        "--shape", metavar="C,H,W", type=_shape, default=(1, 28, 28), help="shape of the images (default: 1,28,28)"
    )


def _shape(text: str) -> tuple[int, int, int]:
    """
    Parse the shape of images.

    >>> _shape("3,224,224")
    (3, 224, 224)
    """
    size, parts = _whole(1, 2**16), text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"must be channels, height and width, such as 3,224,224, got {text!r}")
    channels, height, width = (size(part.strip()) for part in parts)
    return channels, height, width


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.001 <= share < 0.5:
        raise argparse.ArgumentTypeError(
            f"must be a fraction from 0.001 to 0.5, such as 0.02 for two points, got {text!r}"
        )
    return share


def _add_baseline(commands: Any) -> None:
    actions = _add(commands, "baseline", "manage accepted models, against which retrained ones are tested")
    actions = actions.add_subparsers(metavar="ACTION", required=True)
    accept = _add(actions, "accept", "accept runs or retrainings as the baseline of a model", command="baseline accept")
    accept.add_argument("runs", nargs="*", metavar="RUN.json", type=Path, help="a JSON report of --robustness-report")
    accept.add_argument("--model", metavar="NAME", required=True, help="the model's name in the reports")
    accept.add_argument(
        "--seeds", metavar="A,B,...", type=_seeds, help="instead of reports: train its recipe with these seeds"
    )
    accept.add_argument("--workers", metavar="N", type=_whole(1, 1000), help="parallel trainings (default: cores)")
    accept.add_argument("--to", metavar="FILE", type=Path, help="the baseline file to write (default: as in its card)")


def _add_mutate(commands: Any) -> None:
    mutate = _add(commands, "mutate", "damage models on purpose, and show what their claims and gates detect")
    mutate.add_argument("models", nargs="*", metavar="MODEL", help="model names (default: those on embedded data)")
    mutate.add_argument(
        "--damage", metavar="KIND[=LEVEL,...]", type=_damage, action="append",
        help="only this damage, at these levels (repeatable; default: all kinds at their default levels; kinds: "
        f"{', '.join(kinds.KINDS)})",
    )  # fmt: skip
    mutate.add_argument(
        "--all-levels", action="store_true", help="all levels, not only from the worst to the first undetected one"
    )
    mutate.add_argument(
        "--retrainings", metavar="N", type=_whole(0, 1000), help="undamaged retrainings, none of which should fail (10)"
    )
    mutate.add_argument("--workers", metavar="N", type=_whole(1, 1000), help="parallel trainings (default: cores)")
    mutate.add_argument(
        "--keep",
        action="store_true",
        help="store the results in mutation/ beside the card, for the reports of later runs",
    )
    mutate.add_argument(
        "--output", metavar="FILE", type=Path, action="append", help="a .json or .md file to write (repeatable)"
    )


def _damage(text: str) -> tuple[str, tuple[float, ...]]:
    """
    Parse a kind of damage and its levels.

    >>> _damage("noise=0.5,1")
    ('noise', (0.5, 1.0))
    """
    try:
        kind, levels = kinds.parse_mutation(text)
    except kinds.MutationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return kind.name, levels


def _add_evidence(commands: Any) -> None:
    actions = _add(commands, "evidence", "inspect or remove evidence in the store")
    actions = actions.add_subparsers(metavar="ACTION", required=True)
    _add(actions, "list", "list all evidence, and whether it is still valid", command="evidence list")
    show = _add(actions, "show", "show everything about one entry", command="evidence show")
    show.add_argument("key", metavar="KEY", help="its key, or a prefix of it")
    prune = _add(actions, "prune", "remove evidence; it is recomputed when needed", command="evidence prune")
    prune.add_argument(
        "--broken",
        action="store_true",
        help="truncated or foreign files, and leftovers of killed runs and downloads",
    )
    prune.add_argument("--older-than", metavar="DAYS", type=_days, help="entries that are older")
    prune.add_argument("--all", action="store_true", help="all evidence, and leftovers of killed processes")
    prune.add_argument("--dry-run", action="store_true", help="list what would be removed, and remove nothing")


def _add(to: Any, name: str, text: str, *, command: str = "") -> Any:
    parser = to.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[_common(again=True)])
    parser.set_defaults(command=command or name)
    return parser


def _common(*, again: bool = False) -> argparse.ArgumentParser:
    """Describe the common options; ``again`` after a command's name, without defaults that override earlier ones."""
    common = argparse.ArgumentParser(add_help=False)
    options = common.add_argument_group("for every command")

    def add(name: str, default: object, text: str, **settings: Any) -> None:
        options.add_argument(name, default=argparse.SUPPRESS if again else default, help=text, **settings)

    add(
        "--store",
        None,
        "folder for evidence and weights (default: ROBUSTNESS_STORE, or the user's cache)",
        metavar="DIR",
    )
    add("--data", None, "folder with the data sets (default: ROBUSTNESS_DATA, or the user's cache)", metavar="DIR")
    add("--device", "auto", "cpu, cuda, cuda:N or auto (default): a GPU if there is one", type=_device)
    add("--seed", 0, "the seed of all random numbers (default 0)", type=_whole(0, 2**63), metavar="N")
    add("--card", None, "a card, or a folder of cards (repeatable; default: models/)", action="append", metavar="FILE")
    return common


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {text!r}")
        return int(text)

    return number


def _seeds(text: str) -> list[int]:
    """
    Parse distinct seeds.

    >>> _seeds("0,1,2,1")
    [0, 1, 2]
    """
    seed = _whole(0, 2**63)
    return list(dict.fromkeys(seed(part.strip()) for part in text.split(",")))


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 <= days < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of days, 0 or more, got {text!r}")
    return days


def _device(text: str) -> str:
    kind, _, number = text.partition(":")
    if text in ("cpu", "cuda", "auto") or (kind == "cuda" and number.isdecimal()):
        return text
    raise argparse.ArgumentTypeError(f"must be cpu, cuda, cuda:N or auto, got {text!r}")
