"""
The pytest plugin: options, fixtures, and hooks that call the other modules.

Loading it imports neither torch nor NumPy nor pydantic: it costs nothing in runs that do not use it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from robustness.plugin import config as settings
from robustness.plugin import fixtures, supervised_run
from robustness.plugin.config import OPTIONS, SESSION, has_cards, is_worker, option, report_files, run_state
from robustness.plugin.outcomes import OutcomePlugin
from robustness.util import output

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.plugin.state import RunState


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each with an ini twin (``--robustness-model`` and ``robustness_model``)."""
    group = parser.getgroup("robustness", "robustness of image classifiers")
    for name, about, text in OPTIONS:
        group.addoption(f"--robustness-{name}", default=None, help=text, **about)
        kind = {"append": "linelist", "store_true": "bool"}.get(about.get("action", ""), "string")
        parser.addini(f"robustness_{name.replace('-', '_')}", text, type=kind, default=None)  # type: ignore[arg-type]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks with which a project names its models and reports."""
    from robustness.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Skip a run that took an option's value for a folder of tests; the command line is parsed again."""
    if settings.read_again(early_config):
        args.clear()
        early_config.known_args_namespace.noconftest = True
    else:
        supervised_run.supervise_early(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Run pytest with the corrected command line if it was misread; supervise the run."""
    if settings.REREAD in config.stash:
        return settings.main_again(config)
    if has_cards(config):
        supervised_run.supervise(config, config.option)
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, check the options, and register the outcome plugin."""
    config.addinivalue_line(
        "markers", "claims(family=..., metric=...): selects the claims that a test with the fixture `claim` checks"
    )
    config.addinivalue_line("markers", "timing: times attacks; runs only on request, with `-m timing -n 0`")
    output.prepare()
    if not is_worker(config):
        if "pytest_robustness" in sys.modules:  # otherwise the plugin was named by its module
            sys.modules["pytest_robustness"].check()
        _check_options(config)
    config.pluginmanager.register(fixtures, "robustness-fixtures")
    config.pluginmanager.register(OutcomePlugin(config), "robustness-listener")


def _check_options(config: pytest.Config) -> None:
    """Reject impossible options before the run; cost nothing if none is set."""
    from robustness.errors import RobustnessError

    try:
        if option(config, "report"):
            from robustness.reporting import job_summary

            for path in report_files(config):
                job_summary.check(path)
        if has_cards(config) and any(
            option(config, name) is not None for name in ("seed", "device", "dtype", "images", "shard", "engine")
        ):
            run_state(config)
        named = ("model", "card", "weights", "factory", "dataset", "profile", "shard")
        if has_cards(config) and any(config.getoption(f"robustness_{name}") for name in named):
            _ = run_state(config).cards
    except RobustnessError as error:
        raise pytest.UsageError(str(error)) from None
    except OSError as error:  # for errors in what an option names
        raise pytest.UsageError(str(error)) from None


def pytest_report_header(config: pytest.Config) -> Sequence[str]:
    """Return the header: models, data, device, seed and versions, if the project has models."""
    from robustness.errors import RobustnessError

    if is_worker(config) or not has_cards(config):
        return []
    try:
        return run_state(config).header()
    except RobustnessError as error:
        return [f"robustness: {error}"]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Let an engine compute what the cards need before xdist's workers start: its controller collects nothing."""
    config = session.config
    supervised_run.tell(config, "begun")
    if is_worker(config) or not getattr(config.option, "tx", None) or config.option.collectonly:
        return
    if option(config, "engine") and has_cards(config):
        _fill(config, lambda run: run.needed())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Report the result of the run to the waiting process: nothing later can change it."""
    yield
    supervised_run.tell(session.config, str(int(session.exitstatus)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Let an engine compute what the collected tests need, if they run in this process."""
    config = session.config
    if is_worker(config) or getattr(config.option, "tx", None) or config.option.collectonly or session.testsfailed:
        return
    if option(config, "engine") and SESSION in config.stash:
        _fill(config, lambda run: run.planned_sweeps())


def _fill(config: pytest.Config, wanted: Callable[[RunState], list[tuple[Card, str]]]) -> None:
    from robustness.errors import CardError, RobustnessError

    try:
        run = run_state(config)
        run.fill(wanted(run))
    except CardError:
        return  # collection fails with the reason
    except RobustnessError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send an xdist worker the evidence's device type and the id of its run."""
    if SESSION in node.config.stash and option(node.config, "engine"):
        workspace = run_state(node.config).workspace
        node.workerinput |= {"robustness_run": workspace.store.run, "robustness_kind": workspace.kind}


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep all claims on one sweep on one worker in xdist's default mode; leave other modes unchanged."""
    from robustness.errors import RobustnessError

    if not has_cards(config) or config.getvalue("dist") != "load":
        return None
    try:
        sweeps = {name: f"{claim.model}:{claim.sweep}" for name, claim in run_state(config).claims.items()}
    except RobustnessError:
        return None  # collection fails with the reason
    from robustness.plugin.xdist_scheduler import SweepScheduling

    return SweepScheduling(config, log, sweeps) if sweeps else None


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """With GPUs, ``-n auto`` means one worker per GPU."""
    from robustness.util import hardware

    if not has_cards(config) or (option(config, "device") or "auto").startswith("cpu"):
        return None
    return hardware.gpu_count() or None
