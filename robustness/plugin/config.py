"""Options, their ini keys, and the state of the run that they define."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from robustness.util import paths as files
from robustness.util import project

if TYPE_CHECKING:
    from robustness.cards.from_options import CardOptions
    from robustness.plugin.state import RunState

SESSION = pytest.StashKey["RunState"]()
NAMED = pytest.StashKey[bool]()
REREAD = pytest.StashKey[list[str]]()

OPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "model",
        {"action": "append", "metavar": "NAME"},
        "run only this model's card (repeatable); default: all cards on embedded data",
    ),
    ("card", {"action": "append", "metavar": "FILE"}, "also run this card, or all cards in this folder (repeatable)"),
    ("factory", {"metavar": "MODULE:CALLABLE"}, "measure the model that this callable returns, without a card"),
    ("argument", {"action": "append", "metavar": "KEY=VALUE"}, "a keyword argument of that factory (repeatable)"),
    ("dataset", {"metavar": "FILE"}, "the labelled images to measure that model on"),
    (
        "weights",
        {"action": "append", "metavar": "FILE"},
        "test these weights: FILE, or NAME=FILE with several models",
    ),
    (
        "profile",
        {"metavar": "NAME"},
        "measure the sweeps of this profile, without claims: quick, default, …",
    ),
    (
        "forward-seconds",
        {"metavar": "SECONDS"},
        "time limit for one forward pass over a batch (default 600; also: ROBUSTNESS_FORWARD_SECONDS)",
    ),
    ("images", {"type": int, "metavar": "N"}, "test on this many images, stratified by class"),
    ("data", {"metavar": "DIR"}, "the folder with the data sets (also: ROBUSTNESS_DATA)"),
    ("store", {"metavar": "DIR"}, "the folder for evidence and trained weights (also: ROBUSTNESS_STORE)"),
    ("device", {"metavar": "DEVICE"}, "cpu, cuda, cuda:N or auto (default): a GPU if there is one"),
    ("dtype", {"metavar": "DTYPE"}, "precision of the models: float32 (default), bf16, or tf32 on a GPU"),
    ("seed", {"type": int, "metavar": "N"}, "the seed of all random numbers (default 0)"),
    (
        "engine",
        {"metavar": "ENGINE"},
        "compute missing evidence before the tests, by ray[=ADDRESS][,workers=N][,cores=N][,gpus=SHARE]; default: "
        "local",
    ),
    (
        "report",
        {"action": "append", "metavar": "FILE"},
        "write the report here: .html, .md, .json, .csv, .tex, or github, the job's summary (repeatable)",
    ),
    ("shard", {"metavar": "I/N"}, "run the I-th of N parts of the models, for `robustness merge` (docs/ci.md)"),
    (
        "strict",
        {"action": "store_true"},
        "missing data or weights are errors (exit code 1), not skips (11); an inconclusive gate fails (10)",
    ),
    (
        "baseline-max-age",
        {"metavar": "DAYS"},
        "a gate whose baseline was accepted more than this many days ago, or does not say when, is an error",
    ),
    ("inconclusive", {"metavar": "FATE"}, "an inconclusive gate: red (fails) or warning (default: red if strict)"),
)


def joined(arguments: Sequence[str]) -> list[str]:
    """
    Return a command line with the values of this plugin's options joined to them by ``=``.

    Pytest looks for its ini file before it knows the options of plugins: it takes an option's value, if it exists, for
    a folder of tests.

    >>> joined(["--robustness-store", "tests", "--robustness-strict", "suites", "--", "--robustness-data", "x"])
    ['--robustness-store=tests', '--robustness-strict', 'suites', '--', '--robustness-data', 'x']
    """
    valued = {f"--robustness-{name}" for name, settings, _ in OPTIONS if "metavar" in settings}
    end = arguments.index("--") if "--" in arguments else len(arguments)
    paths: list[str] = []
    for argument in arguments[:end]:
        if paths and paths[-1] in valued and not argument.startswith("--"):
            argument = f"{paths.pop()}={argument}"
        paths.append(argument)
    return [*paths, *arguments[end:]]


def read_again(config: pytest.Config) -> bool:
    """Check whether pytest may have taken an option's value for a folder of tests; note the corrected command line."""
    arguments = [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *config.invocation_params.args]
    values = [argument.partition("=")[2] for argument in joined(arguments) if argument not in arguments]
    if is_worker(config) or not any(files.exists(config.invocation_params.dir / v.split("::")[0]) for v in values):
        return False
    config.stash[REREAD] = joined(config.invocation_params.args)
    return True


def main_again(config: pytest.Config) -> int | pytest.ExitCode:
    """Run pytest with the command line from `joined`, instead of the run that misread it."""
    before = os.environ.get("PYTEST_ADDOPTS")
    if before is not None:
        os.environ["PYTEST_ADDOPTS"] = shlex.join(joined(shlex.split(before)))
    try:
        return pytest.main(config.stash[REREAD], config.invocation_params.plugins)
    finally:
        if before is not None:
            os.environ["PYTEST_ADDOPTS"] = before


def option(config: pytest.Config, name: str) -> Any:
    """Return an option's value: from the command line, else from the ini file."""
    name = f"robustness_{name.replace('-', '_')}"
    value = config.getoption(name)
    return config.getini(name) if value is None else value


def run_state(config: pytest.Config) -> RunState:
    """Return the state of this run, created on first use."""
    if SESSION not in config.stash:
        from robustness.classifiers import call_factory
        from robustness.errors import RobustnessError
        from robustness.plugin.options import RunOptions
        from robustness.plugin.state import RunState
        from robustness.util.progress import is_drawable, progress_bar

        worker = getattr(config, "workerinput", {})
        handed = _from_root(config, "pytest_robustness_models")
        cards = config.getoption("robustness_card")
        cards = cards or [ini_folder(config) / path for path in config.getini("robustness_card") or ()]
        try:
            cards = cards or project.cards(config.rootpath)
        except RobustnessError as error:
            raise pytest.UsageError(str(error)) from None
        options = RunOptions(
            handed=tuple(handed),
            named=tuple(Path(path).resolve() for path in cards),
            draft=_draft(config),
            profile=option(config, "profile"),
            weights=tuple(option(config, "weights") or ()),
            images=_optional_integer(config, "images"),
            folder=_start(config, "weights"),
            models=tuple(option(config, "model") or ()),
            data=_folder(config, "data"),
            store=_folder(config, "store"),
            device=option(config, "device") or "auto",
            dtype=option(config, "dtype") or "float32",
            seed=_integer(option(config, "seed"), "seed"),
            strict=bool(option(config, "strict")),
            inconclusive=option(config, "inconclusive"),
            baseline_max_age=_optional_integer(config, "baseline-max-age"),
            shard=option(config, "shard"),
            chosen=(config.option.keyword, config.option.markexpr),
            workers=int(worker.get("workercount", 0) or _xdist_workers(config)),
            worker=int(re.sub(r"\D", "", worker.get("workerid", "")) or 0),
            run=worker.get("robustness_run") or worker.get("testrunuid"),
            engine=option(config, "engine") or "local",
            kind=worker.get("robustness_kind"),
        )
        try:
            if (limit := option(config, "forward-seconds")) is not None:  # workers and engines read it there
                os.environ["ROBUSTNESS_FORWARD_SECONDS"] = str(limit)
            call_factory.seconds_from_environment(os.environ, "ROBUSTNESS_FORWARD_SECONDS")
            options.check()
        except RobustnessError as error:
            raise pytest.UsageError(str(error)) from None
        past = partial(own_line, config)
        with aside(config):
            moving = is_drawable() and not is_worker(config)

        def say(message: str) -> None:
            with past():
                sys.stderr.write(f"robustness: {message}\n")

        call_factory.notify = say
        config.stash[SESSION] = RunState(options, say, lambda what: progress_bar(f"robustness: {what}", past, moving))
    return config.stash[SESSION]


def _draft(config: pytest.Config) -> CardOptions | None:
    """Return the model that options describe instead of a card; missing options are reported when its card is built."""
    if not (option(config, "factory") or option(config, "dataset")):
        return None
    from robustness.cards.from_options import CardOptions
    from robustness.workspace.context import data_root

    weights = option(config, "weights") or [None]
    named = [name for name in ("card", "model") if config.getoption(f"robustness_{name}")]
    if named or len(weights) > 1:
        raise pytest.UsageError(
            f"--robustness-{named[0] if named else 'weights'}: a model without a card (--robustness-factory) must be "
            "the only one of its run, with one weights file; write cards for several (robustness init)"
        )
    return CardOptions(
        _start(config, "factory"),
        option(config, "factory"),
        tuple(option(config, "argument") or ()),
        weights[0],
        option(config, "dataset"),
        data=data_root(_folder(config, "data")),
    )


def _start(config: pytest.Config, name: str) -> Path:
    """Return the folder to which an option's paths are relative: where pytest was called, or that of the ini file."""
    return config.invocation_params.dir if config.getoption(f"robustness_{name}") else ini_folder(config)


def _from_root(config: pytest.Config, hook: str) -> Iterator[Path]:
    """Return the paths from a hook's implementations, one or several each, relative to the root folder."""
    try:
        answers = getattr(config.pluginmanager.hook, hook)(config=config)
    except Exception as error:  # at the hook's definition
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise pytest.UsageError(
            f"{hook} raised {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        ) from error
    for answer in answers:
        paths = list(answer) if isinstance(answer, list | tuple | set | Iterator) else [answer]
        if wrong := [path for path in paths if not isinstance(path, str | Path)]:
            raise pytest.UsageError(f"{hook} must return paths, as text or Path, got {wrong[0]!r}")
        yield from (config.rootpath / path for path in paths)


def ini_folder(config: pytest.Config) -> Path:
    """Return the folder to which paths in the ini file are relative, wherever pytest was called."""
    return config.rootpath if config.inipath is None else config.inipath.parent


def _folder(config: pytest.Config, name: str) -> str | None:
    """Return a folder from the command line, or from the ini file; the environment takes precedence over the latter."""
    folder: str | None = config.getoption(f"robustness_{name}")
    if folder or os.environ.get(f"ROBUSTNESS_{name.upper()}"):
        return folder
    named = config.getini(f"robustness_{name}")
    return str(ini_folder(config) / files.expanded(named)) if named else None


def _optional_integer(config: pytest.Config, name: str) -> int | None:
    value = option(config, name)
    return None if value is None else _integer(value, name)


def _integer(value: Any, name: str) -> int:
    try:
        return int(value or 0)
    except ValueError:
        raise pytest.UsageError(f"robustness_{name} must be a whole number, got {value!r}") from None


def _xdist_workers(config: pytest.Config) -> int:
    return max(1, len(getattr(config.option, "tx", None) or ()))


@contextmanager
def aside(config: pytest.Config) -> Iterator[None]:
    """Write past pytest's capture; a worker's standard error is the terminal's."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
        return
    with capture.global_and_fixture_disabled():
        yield


@contextmanager
def own_line(config: pytest.Config) -> Iterator[None]:
    """
    Write past pytest's capture, on a line of its own: pytest may have begun one with dots.

    A worker does not know what its controller has printed, so it ends the line in any case.
    """
    with aside(config):
        if is_worker(config):
            sys.stderr.write("\n")
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None and reporter._tw.width_of_current_line:
            reporter.currentfspath = None  # it writes the file's name again
            reporter._tw.line()
            reporter._tw.flush()
        yield


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


CARDS = ("card", "factory", "dataset")
"""Options, and ini keys, that name models."""


def has_cards(config: pytest.Config) -> bool:
    """Return whether any models are named: otherwise the plugin ignores this run."""
    if config.pluginmanager.hook.pytest_robustness_models.get_hookimpls():
        return True
    return any(option(config, name) for name in CARDS) or bool(_of_project(config))


def _of_project(config: pytest.Config) -> bool:
    """Return whether the project names cards; an unreadable table counts, so that the error is reported."""
    if NAMED not in config.stash:
        from robustness.errors import RobustnessError

        try:
            config.stash[NAMED] = bool(project.settings(config.rootpath).get("models"))
        except RobustnessError:
            config.stash[NAMED] = True
    return config.stash[NAMED]


def report_files(config: pytest.Config) -> list[Path]:
    """Return the report files: from the option, else the ini file, else the hooks."""
    named = [config.invocation_params.dir / path for path in config.getoption("robustness_report") or ()]
    if not named:
        named = [ini_folder(config) / path for path in config.getini("robustness_report") or ()]
    if not named:
        named = list(_from_root(config, "pytest_robustness_reports"))
    return named
