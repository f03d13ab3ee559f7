"""The commands and options of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import robustness
from robustness.classifiers.precision import DTYPES
from robustness.cli import argument_types as types
from robustness.cli.command_parser import EXAMPLE, CommandParser
from robustness.mutations import kinds

ENGINE = "local (default) or ray[=ADDRESS][,workers=N][,cores=N][,gpus=SHARE]"
DESCRIPTION = "Test image classifiers against robustness thresholds."
EPILOG = "`robustness COMMAND --help` shows the options of a command, and an example."
REPORTS = "the file to write, in the format of its suffix, or github, the job's summary (repeatable)"
EMBEDDED = "model names (default: those on embedded data)"


def parser() -> CommandParser:
    """
    Describe all commands; the common options may come before or after a command's name.

    >>> parser().parse_args(["--seed", "3", "update-thresholds", "digits-mlp", "--fresh", "0"]).seed
    3
    """
    whole = CommandParser("robustness", description=DESCRIPTION, epilog=EPILOG, parents=[_common()])
    whole.add_argument("--version", action="version", version=f"pytest-robustness {robustness.__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND")
    _add_starting(commands)
    _add_running(commands)
    _add_training(commands)
    _add_reports(commands)
    _add_baseline(commands)
    _add_compare(commands)
    _add_mutate(commands)
    _add_evidence(commands)
    _add_files(commands)
    return whole


def _add_starting(commands: Any) -> None:
    """Describe the commands for a new model."""
    init = _add(
        commands, "init", "write a card for a model, from options or from answers on a terminal",
        "robustness init --factory nets:build --weights net.safetensors --dataset images.npz",
    )  # fmt: skip
    check = _add(
        commands, "check", "inspect a model in seconds: its outputs, its speed, and what to fix",
        "robustness check digits-mlp",
    )  # fmt: skip
    for command in (init, check):
        command.add_argument("--factory", metavar="MODULE:CALLABLE", help="what returns the model")
        command.add_argument(
            "--argument", metavar="KEY=VALUE", action="append", help="keyword argument of the factory (repeatable)"
        )
        command.add_argument("--weights", metavar="FILE", help="its weights")
        command.add_argument("--dataset", metavar="FILE", help="the labelled images to test on")
        command.add_argument("--name", metavar="NAME", help="its name (default: that of its weights file)")
        command.add_argument(
            "--images", metavar="N", type=types.whole_number(1, 2**31), help="test on this many images"
        )
    init.add_argument("--profile", metavar="NAME", default="default", help="the profile with its sweeps (default)")
    init.add_argument("--claims", action="store_true", help="measure the model, and add claims that it meets now")
    init.add_argument("-o", "--output", metavar="FILE", help="the file to write (default: NAME.toml)")
    init.add_argument("--force", action="store_true", help="overwrite an existing file")
    check.add_argument("models", nargs="*", metavar="MODEL", help="model names, or card files")
    check.add_argument(
        "--margin", metavar="M", type=types.share, default=0.02,
        help="say how many images a 95 %% margin of error of ± M needs (0.02)",
    )  # fmt: skip
    profiles = _add(
        commands, "profiles", "list the sweeps of every profile, with their forward and backward passes",
        "robustness profiles --shape 3,32,32",
    )  # fmt: skip
    profiles.add_argument(
        "--shape", metavar="C,H,W", type=types.shape, default=(1, 28, 28), help="shape of the images (default: 1,28,28)"
    )
    for command in (check, profiles):
        _add_text_output(command)


def _add_running(commands: Any) -> None:
    """Describe the commands that sweep."""
    run = _add(
        commands, "run", "run the suites; arguments after -- go to pytest, for example: -- -n auto -k noise",
        "robustness run digits-mlp -o report.html -- -n auto",
    )  # fmt: skip
    run.add_argument("--shard", metavar="I/N", help="only the I-th of N parts of the models, for `robustness merge`")
    run.add_argument("-o", "--output", "--report", metavar="FILE", action="append", dest="report", help=REPORTS)
    run.add_argument("--strict", action="store_true", help="missing data and inconclusive gates fail")
    sweep = _add(
        commands, "sweep",
        "compute the evidence of all sweeps into the store, without checking claims; finished sweeps are reused",
        "robustness sweep digits-mlp --device cuda",
    )  # fmt: skip
    plan = _add(
        commands, "plan", "estimate the cost of sweeps: passes, evidence, memory and time",
        "robustness plan digits-mlp --workers 4",
    )  # fmt: skip
    plan.add_argument(
        "--workers", metavar="N", type=types.whole_number(1, 10**6),
        help="workers of the engine (default: 1; ray: cores)",
    )  # fmt: skip
    transfer = _add(
        commands, "transfer", "attack each model with examples computed on every other, as a matrix",
        "robustness transfer digits-mlp digits-cnn --sweep fgsm",
    )  # fmt: skip
    transfer.add_argument("--sweep", metavar="NAME", default="fgsm", help="an attack in the cards (default: fgsm)")
    corruption = _add(
        commands, "corruption-error", "mean corruption error (mCE) of models, relative to a reference",
        "robustness corruption-error digits-eyes-cnn --reference digits-mlp",
    )  # fmt: skip
    corruption.add_argument("--reference", metavar="MODEL", required=True, help="the reference model's name")
    for command in (run, sweep, plan, transfer, corruption):
        command.add_argument("models", nargs="*", metavar="MODEL", help=EMBEDDED)
        if command in (run, sweep, plan):
            command.add_argument("--engine", metavar="ENGINE", help=ENGINE)
        command.add_argument(
            "--dtype", metavar="DTYPE", choices=DTYPES, default="float32", help="float32 (default), tf32 or bf16"
        )
        if command is not run:
            _add_text_output(command)


def _add_training(commands: Any) -> None:
    """Describe the commands that train."""
    train = _add(
        commands, "train", "train models by their recipes into the store",
        "robustness train digits-mlp --seeds 0,1,2",
    )  # fmt: skip
    train.add_argument(
        "--seeds", metavar="A,B,...", type=types.seeds, help="with these seeds instead of the card's own"
    )
    train.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="also write the weights to this file; for one model and seed"
    )
    update = _add(
        commands, "update-thresholds", "update weights and thresholds that no longer match the recipe",
        "robustness update-thresholds digits-mlp",
    )  # fmt: skip
    update.add_argument(
        "--seeds", metavar="N", type=types.whole_number(5, 1000),
        help="number of training seeds (default: by training time)",
    )  # fmt: skip
    update.add_argument(
        "--fresh", metavar="N", type=types.whole_number(0, 1000), default=20,
        help="number of further seeds that validate the thresholds (20)",
    )  # fmt: skip
    update.add_argument("--force", action="store_true", help="also update what is up to date, and handwritten claims")
    _add_text_output(update)
    for command in (train, update):
        _add_workers(command)
        command.add_argument("models", nargs="*", metavar="MODEL", help=EMBEDDED)


def _add_reports(commands: Any) -> None:
    """Describe the commands that read the reports of runs."""
    report = _add(
        commands, "report", "write the report of finished runs, from their JSON and stored evidence",
        "robustness report run.json -o report.html",
    )  # fmt: skip
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN.json", help="a JSON report of --robustness-report")
    report.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="the file to write, .html, .md, … (default: RUN.html beside it)",
    )  # fmt: skip
    merge = _add(
        commands, "merge", "merge the reports of all shards of a run into one report, verdict and exit code",
        "robustness merge shard-1.json shard-2.json -o run.json",
    )  # fmt: skip
    merge.add_argument("runs", nargs="+", type=Path, metavar="SHARD.json", help="the report of each shard")
    merge.add_argument("-o", "--output", type=Path, metavar="FILE", action="append", required=True, help=REPORTS)
    verify = _add(
        commands, "verify", "judge a verdict again, from its statement, the files that it names and stored evidence",
        "robustness verify verdict.intoto.json",
    )  # fmt: skip
    verify.add_argument(
        "statement", type=Path, metavar="FILE", help="a statement of --robustness-report FILE.intoto.json"
    )
    _add_text_output(verify)
    flip = _add(
        commands, "show-flip", "show the effect of a perturbation that a search found on an image",
        'robustness show-flip digits-mlp 12 "fill box (3, 4)-(5, 6) with 0.5"',
    )  # fmt: skip
    flip.add_argument("models", nargs=1, metavar="MODEL", help="the model's name")
    flip.add_argument("row", metavar="ROW", type=types.whole_number(0, 2**63), help="the index of the test image")
    flip.add_argument("description", metavar="DESCRIPTION", help="the perturbation, as the failed test printed it")
    _add_text_output(flip)


def _add_baseline(commands: Any) -> None:
    actions = _add(commands, "baseline", "manage accepted models, against which retrained ones are tested")
    actions = actions.add_subparsers(metavar="ACTION")
    accept = _add(
        actions, "accept", "accept runs or retrainings as the baseline of a model",
        "robustness baseline accept run.json --model digits-mlp", command="baseline accept",
    )  # fmt: skip
    accept.add_argument("runs", nargs="*", metavar="RUN.json", type=Path, help="a JSON report of --robustness-report")
    accept.add_argument("--model", metavar="NAME", required=True, help="the model's name in the reports")
    accept.add_argument(
        "--seeds", metavar="A,B,...", type=types.seeds, help="instead of reports: train its recipe with these seeds"
    )
    _add_workers(accept)
    accept.add_argument(
        "-o", "--output", "--to", metavar="FILE", type=Path, dest="to",
        help="the baseline file to write (default: as in its card)",
    )  # fmt: skip


def _add_compare(commands: Any) -> None:
    compare = _add(
        commands, "compare", "compare two runs, or a run with its baseline; the exit status is 1 if anything is worse",
        "robustness compare before.json after.json -o comparison.html",
    )  # fmt: skip
    compare.add_argument(
        "runs", nargs="+", metavar="FILE.json", type=Path,
        help="two JSON reports of --robustness-report, or a baseline and a report; one report alone is compared with "
        "the baselines of its models' cards",
    )  # fmt: skip
    compare.add_argument(
        "--format", choices=("text", "md", "json", "html", "github"),
        help="text, md, json, html or github, a comment for a pull request (default: as the suffix, else text)",
    )  # fmt: skip
    compare.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="the file to write, or github, the job's summary; without it, the result is printed",
    )


def _add_mutate(commands: Any) -> None:
    mutate = _add(
        commands, "mutate", "damage models on purpose, and show what their claims and gates detect",
        "robustness mutate digits-mlp --damage noise=0.5,1 -o detected.md",
    )  # fmt: skip
    mutate.add_argument("models", nargs="*", metavar="MODEL", help=EMBEDDED)
    mutate.add_argument(
        "--damage", metavar="KIND[=LEVEL,...]", type=types.damage, action="append",
        help="only this damage, at these levels (repeatable; default: all kinds at their default levels; kinds: "
        f"{', '.join(kinds.KINDS)})",
    )  # fmt: skip
    mutate.add_argument(
        "--all-levels", action="store_true", help="all levels, not only from the worst to the first undetected one"
    )
    mutate.add_argument(
        "--retrainings", metavar="N", type=types.whole_number(0, 1000),
        help="undamaged retrainings, none of which should fail (10)",
    )  # fmt: skip
    _add_workers(mutate)
    mutate.add_argument(
        "--keep", action="store_true",
        help="store the results in mutation/ beside the card, for the reports of later runs",
    )  # fmt: skip
    mutate.add_argument(
        "-o", "--output", metavar="FILE", type=Path, action="append", help="a .json or .md file to write (repeatable)"
    )


def _add_evidence(commands: Any) -> None:
    actions = _add(commands, "evidence", "inspect or remove evidence in the store")
    actions = actions.add_subparsers(metavar="ACTION")
    listed = _add(
        actions, "list", "list all evidence by model and time, and whether it is still valid",
        "robustness evidence list", command="evidence list",
    )  # fmt: skip
    show = _add(
        actions, "show", "show everything about one entry", "robustness evidence show 3f2a", command="evidence show"
    )
    show.add_argument("key", metavar="KEY", help="its key, or a prefix of it")
    prune = _add(
        actions, "prune", "remove evidence; it is recomputed when needed",
        "robustness evidence prune --older-than 30 --dry-run", command="evidence prune",
    )  # fmt: skip
    prune.add_argument(
        "--broken", action="store_true", help="truncated or foreign files, and leftovers of killed runs and downloads"
    )
    prune.add_argument("--older-than", metavar="DAYS", type=types.days, help="entries that are older")
    prune.add_argument("--all", action="store_true", help="all evidence, and leftovers of killed processes")
    prune.add_argument("--dry-run", action="store_true", help="list what would be removed, and remove nothing")
    for command in (listed, show, prune):
        _add_text_output(command)


def _add_files(commands: Any) -> None:
    """Describe the commands for files of data and cards."""
    data = _add(commands, "data", "get a data set").add_subparsers(metavar="NAME")
    mnist = _add(
        data, "mnist", "download MNIST and verify the published checksums", "robustness data mnist --root data",
        command="data mnist",
    )  # fmt: skip
    mnist.add_argument(
        "-o", "--output", "--root", metavar="DIR", type=Path, dest="root",
        help="the folder to download it to (default: as --data)",
    )  # fmt: skip
    checked = _add(
        commands, "check-cards", "check card files, without importing what they name",
        "robustness check-cards models/digits-mlp.toml",
    )  # fmt: skip
    checked.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a card")
    migrate = _add(
        commands, "migrate", "rewrite cards and baselines whose names have changed, in place",
        "robustness migrate models",
    )  # fmt: skip
    migrate.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="a card, a baseline, a pyproject.toml, or a folder of these"
    )
    for command in (checked, migrate):
        _add_text_output(command)


def _add(to: Any, name: str, text: str, example: str = "", *, command: str = "") -> Any:
    """Add a command; what only has commands below it has no example of its own."""
    parser = to.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[_common(again=True)],
        epilog=f"{EXAMPLE}{example}" if example else None,
    )  # fmt: skip
    parser.set_defaults(command=command or name)
    return parser


def _add_text_output(command: Any) -> None:
    """Add the option of a command that prints its result (`common.copied`)."""
    command.add_argument(
        "-o", "--output", metavar="FILE", type=Path, dest="copy", help="also write what is printed to this text file"
    )


def _add_workers(command: Any) -> None:
    command.add_argument(
        "--workers", metavar="N", type=types.whole_number(1, 1000), help="parallel trainings (default: cores)"
    )


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
    add("--device", "auto", "cpu, cuda, cuda:N or auto (default): a GPU if there is one", type=types.device)
    add("--seed", 0, "the seed of all random numbers (default 0)", type=types.whole_number(0, 2**63), metavar="N")
    add("--card", None, "a card, or a folder of cards (repeatable; default: models/)", action="append", metavar="FILE")
    return common
