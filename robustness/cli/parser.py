"""The words of the command line: which commands and options there are, and what they mean."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robustness.classifiers.precision import DTYPES
from robustness.mutations import kinds

ENGINE = "plain (default) or ray[=ADDRESS][,workers=N][,cores=N][,gpus=SHARE]"
DESCRIPTION = "Hold image classifiers to robustness thresholds: what the suites (pytest suites/) need, ahead of them."


def parser() -> argparse.ArgumentParser:
    """
    Describe all commands; the options that all have may stand before or after a command's name.

    >>> parser().parse_args(["--seed", "3", "renew", "digits-mlp", "--fresh", "0"]).seed
    3
    """
    whole = argparse.ArgumentParser("robustness", description=DESCRIPTION, parents=[_common()])
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = _add(commands, "run", "run the suites; what stands behind -- is for pytest, as in: -- -n auto -k noise")
    run.add_argument("--shard", metavar="I/N", help="the I-th of N parts of the models alone, for `robustness merge`")
    run.add_argument("--report", metavar="FILE", action="append", help="write the report here, by suffix (repeatable)")
    run.add_argument("--strict", action="store_true", help="missing data and undecided gates are red")
    sweep = _add(
        commands, "sweep", "fill the store with the evidence of all sweeps, judging none; finished ones are found"
    )
    plan = _add(commands, "plan", "say what sweeps will cost: passes, evidence, memory and time, before they are made")
    plan.add_argument("--workers", metavar="N", type=_whole(1, 10**6), help="of the engine (default: 1; ray: cores)")
    train = _add(commands, "train", "train models by their recipes into the store")
    for command in (run, sweep, plan):
        command.add_argument("--engine", metavar="ENGINE", help=ENGINE)
    train.add_argument("--seeds", metavar="A,B,...", type=_seeds, help="with these seeds instead of the card's own")
    train.add_argument("--output", metavar="FILE", type=Path, help="write them there too; of one model and seed")
    renew = _add(commands, "renew", "make weights and thresholds anew where they no longer fit the recipe")
    renew.add_argument("--seeds", metavar="N", type=_whole(5, 1000), help="healthy trainings (default: by their time)")
    renew.add_argument(
        "--fresh", metavar="N", type=_whole(0, 1000), default=20, help="others that try the thresholds (20)"
    )
    renew.add_argument("--force", action="store_true", help="renew what is not due too, and claims written by hand")
    for command in (train, renew):
        command.add_argument(
            "--workers", metavar="N", type=_whole(1, 1000), help="trainings side by side (default: cores)"
        )
    transfer = _add(commands, "transfer", "attack each model with examples made on each other: the matrix of transfer")
    transfer.add_argument("--sweep", metavar="NAME", default="fgsm", help="an attack of the cards (default: fgsm)")
    for command in (commands.choices[name] for name in ("run", "sweep", "plan", "train", "renew", "transfer")):
        command.add_argument("models", nargs="*", metavar="MODEL", help="model names (default: those on embedded data)")
    for command in (commands.choices[name] for name in ("run", "sweep", "plan", "transfer")):
        command.add_argument(
            "--dtype", metavar="DTYPE", choices=DTYPES, default="float32", help="float32 (default), tf32 or bf16"
        )
    report = _add(commands, "report", "write the report of runs that are over, from their JSON and stored evidence")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN.json", help="what --robustness-report RUN.json left")
    report.add_argument(
        "--output", type=Path, metavar="FILE", help="where to, by suffix .html, .md, … (default: RUN.html beside it)"
    )
    merge = _add(commands, "merge", "make one report, verdict and exit code of the reports of all shards of a run")
    merge.add_argument("runs", nargs="+", type=Path, metavar="SHARD.json", help="the report of each shard")
    merge.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="FILE",
        action="append",
        required=True,
        help="where to, by suffix (repeatable)",
    )
    checked = _add(commands, "check-cards", "say what is wrong with card files, importing nothing that they name")
    checked.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a card")
    migrate = _add(commands, "migrate", "rewrite cards and baselines whose names have changed, in place")
    migrate.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="a card, a baseline, a pyproject.toml, or a folder of these"
    )
    replay = _add(commands, "replay", "show again what a perturbation that a search found does to an image")
    replay.add_argument("models", nargs=1, metavar="MODEL", help="the model's name")
    replay.add_argument("row", metavar="ROW", type=_whole(0, 2**63), help="the number of the test image")
    replay.add_argument("description", metavar="DESCRIPTION", help="the perturbation, as the failed test printed it")
    data = _add(commands, "data", "get a data set").add_subparsers(metavar="NAME", required=True)
    mnist = _add(data, "mnist", "download MNIST and hold it to the published sums", command="data mnist")
    mnist.add_argument("--root", metavar="DIR", type=Path, help="the folder to bring it to (default: as --data)")
    _add_starting(commands)
    _add_baseline(commands)
    _add_mutate(commands)
    compare = _add(commands, "compare", "show two runs side by side, from their JSON reports")
    compare.add_argument("runs", nargs=2, metavar="RUN.json", type=Path, help="what --robustness-report wrote")
    _add_evidence(commands)
    return whole


def _add_starting(commands: Any) -> None:
    """Describe the commands for a model that is new here."""
    init = _add(commands, "init", "write a card for a model: from options, or from answers on a terminal")
    check = _add(commands, "check", "look a model over in seconds: what it gives, how fast, and what to mend")
    for command in (init, check):
        command.add_argument("--factory", metavar="MODULE:CALLABLE", help="what gives the model")
        command.add_argument("--argument", metavar="KEY=VALUE", action="append", help="of the factory (repeatable)")
        command.add_argument("--weights", metavar="FILE", help="its weights")
        command.add_argument("--dataset", metavar="FILE", help="the labelled images to test on")
        command.add_argument("--name", metavar="NAME", help="what to call it (default: as its weights)")
        command.add_argument("--images", metavar="N", type=_whole(1, 2**31), help="test on so many images")
    init.add_argument("--profile", metavar="NAME", default="default", help="the sweeps that it gets (default)")
    init.add_argument("--claims", action="store_true", help="measure it, and claim what it keeps now")
    init.add_argument("--output", metavar="FILE", help="the file to write (default: NAME.toml)")
    init.add_argument("--force", action="store_true", help="write over a file that is there")
    check.add_argument("models", nargs="*", metavar="MODEL", help="models of cards, or files of cards")
    check.add_argument(
        "--margin",
        metavar="M",
        type=_share,
        default=0.02,
        help="name the images that 95 %% of accuracy ± M takes (0.02)",
    )
    profiles = _add(commands, "profiles", "list the sweeps of every profile, with the passes that they take")
    profiles.add_argument(
        "--shape", metavar="C,H,W", type=_shape, default=(1, 28, 28), help="of the images (default: 1,28,28)"
    )


def _shape(text: str) -> tuple[int, int, int]:
    """
    Read the shape of images.

    >>> _shape("3,224,224")
    (3, 224, 224)
    """
    size, parts = _whole(1, 2**16), text.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"must be channels, height and width, as 3,224,224, got {text!r}")
    channels, height, width = (size(part.strip()) for part in parts)
    return channels, height, width


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.001 <= share < 0.5:
        raise argparse.ArgumentTypeError(f"must be a share from 0.001 to 0.5, as 0.02 for two points, got {text!r}")
    return share


def _add_baseline(commands: Any) -> None:
    actions = _add(commands, "baseline", "keep accepted models, which retrained ones are held against")
    actions = actions.add_subparsers(metavar="ACTION", required=True)
    accept = _add(actions, "accept", "make runs, or retrainings, the baseline of a model", command="baseline accept")
    accept.add_argument("runs", nargs="*", metavar="RUN.json", type=Path, help="what --robustness-report wrote")
    accept.add_argument("--model", metavar="NAME", required=True, help="the model's name in them")
    accept.add_argument("--seeds", metavar="A,B,...", type=_seeds, help="instead: train by its recipe from these seeds")
    accept.add_argument("--workers", metavar="N", type=_whole(1, 1000), help="trainings side by side (default: cores)")
    accept.add_argument("--to", metavar="FILE", type=Path, help="the baseline to write (default: as its card says)")


def _add_mutate(commands: Any) -> None:
    mutate = _add(commands, "mutate", "damage models on purpose, and show what their claims and gates catch of it")
    mutate.add_argument("models", nargs="*", metavar="MODEL", help="model names (default: those on embedded data)")
    mutate.add_argument(
        "--damage", metavar="KIND[=LEVEL,...]", type=_damage, action="append",
        help="this damage alone, at these levels (repeatable; default: all kinds at levels of their own; kinds: "
        f"{', '.join(kinds.KINDS)})",
    )  # fmt: skip
    mutate.add_argument("--all-levels", action="store_true", help="all levels, and not from the worst to one uncaught")
    mutate.add_argument(
        "--retrainings", metavar="N", type=_whole(0, 1000), help="undamaged, of which none should be red (10)"
    )
    mutate.add_argument("--workers", metavar="N", type=_whole(1, 1000), help="trainings side by side (default: cores)")
    mutate.add_argument(
        "--keep", action="store_true", help="keep it in caught/ beside the card, where the reports of runs find it"
    )
    mutate.add_argument(
        "--output", metavar="FILE", type=Path, action="append", help="a .json or .md file to write (repeatable)"
    )


def _damage(text: str) -> tuple[str, tuple[float, ...]]:
    """
    Read a kind of damage and its levels.

    >>> _damage("noise=0.5,1")
    ('noise', (0.5, 1.0))
    """
    try:
        kind, levels = kinds.parse_mutation(text)
    except kinds.MutationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return kind.name, levels


def _add_evidence(commands: Any) -> None:
    actions = _add(commands, "evidence", "look at the evidence in the store, or remove some")
    actions = actions.add_subparsers(metavar="ACTION", required=True)
    _add(actions, "list", "list all evidence, and whether it is believed now", command="evidence list")
    show = _add(actions, "show", "show everything about one entry", command="evidence show")
    show.add_argument("key", metavar="KEY", help="its key, or how that begins")
    prune = _add(actions, "prune", "remove evidence; it is swept again when it is needed", command="evidence prune")
    prune.add_argument(
        "--broken",
        action="store_true",
        help="what is torn or foreign, and what killed runs and downloads left",
    )
    prune.add_argument("--older-than", metavar="DAYS", type=_days, help="what was written longer ago")
    prune.add_argument("--all", action="store_true", help="all evidence, and what killed processes left")
    prune.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")


def _add(to: Any, name: str, text: str, *, command: str = "") -> Any:
    made = to.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[_common(again=True)])
    made.set_defaults(command=command or name)
    return made


def _common(*, again: bool = False) -> argparse.ArgumentParser:
    """Describe the options of every command; ``again`` after its name, where none must undo what stood before it."""
    common = argparse.ArgumentParser(add_help=False)
    options = common.add_argument_group("for every command")

    def add(name: str, default: object, text: str, **settings: Any) -> None:
        options.add_argument(name, default=argparse.SUPPRESS if again else default, help=text, **settings)

    add(
        "--store",
        None,
        "where evidence and weights are kept (else ROBUSTNESS_STORE, else the user's cache)",
        metavar="DIR",
    )
    add("--data", None, "where data sets lie (else ROBUSTNESS_DATA, else the user's cache)", metavar="DIR")
    add("--device", "auto", "cpu, cuda, cuda:N or auto (default): a GPU if there is one", type=_device)
    add("--seed", 0, "the seed of all draws (default 0)", type=_whole(0, 2**63), metavar="N")
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
    Read seeds, each once.

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
