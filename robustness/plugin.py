"""
The pytest plugin: options, fixtures, and hooks that call the modules which do the work.

Loading it imports neither torch nor NumPy nor pydantic: whoever has it installed and asks for no suite pays nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card, Claim
    from robustness.evidence import Evidence
    from robustness.session import Session

T = TypeVar("T")

SESSION = pytest.StashKey["Session"]()

OPTIONS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("model", {"action": "append", "metavar": "NAME"}, "run this model's card (repeatable); default: embedded data"),
    ("card", {"action": "append", "metavar": "FILE"}, "also run this card, or all cards of this folder (repeatable)"),
    ("data", {"metavar": "DIR"}, "the folder that holds the data sets (also: ROBUSTNESS_DATA)"),
    ("store", {"metavar": "DIR"}, "the folder that keeps evidence and trained weights (also: ROBUSTNESS_STORE)"),
    ("device", {"metavar": "DEVICE"}, "cpu, cuda, cuda:N or auto (default): a GPU if there is one"),
    ("seed", {"type": int, "metavar": "N"}, "the seed of all draws (default 0)"),
    ("report", {"action": "append", "metavar": "FILE"}, "write the report here: .md, .json, .csv or .tex (repeatable)"),
    ("strict", {"action": "store_true"}, "missing data or weights are errors, not skips"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each with an ini twin (``--robustness-model`` and ``robustness_model``)."""
    group = parser.getgroup("robustness", "robustness of image classifiers")
    for name, settings, text in OPTIONS:
        group.addoption(f"--robustness-{name}", default=None, help=text, **settings)
        kind = {"append": "linelist", "store_true": "bool"}.get(settings.get("action", ""), "string")
        parser.addini(f"robustness_{name}", text, type=kind, default=None)  # type: ignore[arg-type]


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks by which a project hands over its models and reports."""
    from robustness import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker, refuse what cannot be, and begin to listen."""
    config.addinivalue_line(
        "markers", "claims(family=..., metric=...): which of the selected cards' claims a test that uses `claim` holds"
    )
    if not is_worker(config):
        _check_options(config)
    config.pluginmanager.register(_Listener(config), "robustness-listener")


def _check_options(config: pytest.Config) -> None:
    """Refuse before the run what the user asked for and cannot have; whoever asked for nothing pays nothing."""
    from robustness.errors import RobustnessError

    try:
        if option(config, "report"):
            from robustness.reporting import formats

            for path in _report_files(config):
                formats.check(path)
        if _has_cards(config) and any(option(config, name) for name in ("seed", "device")):
            session_of(config)
        if _has_cards(config) and any(config.getoption(f"robustness_{name}") for name in ("model", "card")):
            _ = session_of(config).cards
    except RobustnessError as error:
        raise pytest.UsageError(str(error)) from None


def option(config: pytest.Config, name: str) -> Any:
    """Give an option's value: from the command line, else from the ini file."""
    given = config.getoption(f"robustness_{name}")
    return config.getini(f"robustness_{name}") if given is None else given


def session_of(config: pytest.Config) -> Session:
    """Give the state of this run, made when it is first needed."""
    if SESSION not in config.stash:
        from robustness.errors import RobustnessError
        from robustness.progress import bar
        from robustness.session import Options, Session

        worker = getattr(config, "workerinput", {})
        hook = config.pluginmanager.hook
        handed = _from_root(config, hook.pytest_robustness_models(config=config))
        cards = config.getoption("robustness_card")
        cards = cards or [_ini_folder(config) / path for path in config.getini("robustness_card") or ()]
        options = Options(
            handed=tuple(handed),
            named=tuple(Path(path).resolve() for path in cards),
            models=tuple(option(config, "model") or ()),
            data=_folder(config, "data"),
            store=_folder(config, "store"),
            device=option(config, "device") or "auto",
            seed=_integer(option(config, "seed"), "seed"),
            strict=bool(option(config, "strict")),
            workers=int(worker.get("workercount", 0) or _xdist_workers(config)),
            worker=int(re.sub(r"\D", "", worker.get("workerid", "")) or 0),
            run=worker.get("testrunuid"),
        )
        try:
            options.check()
        except RobustnessError as error:
            raise pytest.UsageError(str(error)) from None
        aside = partial(_aside, config)

        def say(message: str) -> None:
            with aside():
                sys.stderr.write(f"robustness: {message}\n")

        config.stash[SESSION] = Session(options, say, lambda what: bar(f"robustness: {what}", aside))
    return config.stash[SESSION]


def _from_root(config: pytest.Config, found: Iterable[Any]) -> Iterator[Path]:
    """Give the paths that hooks name, one or several each; they start from the root folder."""
    for paths in found:
        yield from (config.rootpath / path for path in ([paths] if isinstance(paths, str | Path) else paths))


def _ini_folder(config: pytest.Config) -> Path:
    """Give the folder that paths in the ini file start from, wherever pytest was called."""
    return config.rootpath if config.inipath is None else config.inipath.parent


def _folder(config: pytest.Config, name: str) -> str | None:
    if (given := config.getoption(f"robustness_{name}")) is not None:
        return given or None
    named = config.getini(f"robustness_{name}")
    return str(_ini_folder(config) / Path(named).expanduser()) if named else None


def _integer(given: Any, name: str) -> int:
    try:
        return int(given or 0)
    except ValueError:
        raise pytest.UsageError(f"robustness_{name} must be a whole number, got {given!r}") from None


def _xdist_workers(config: pytest.Config) -> int:
    return max(1, len(getattr(config.option, "tx", None) or ()))


@contextmanager
def _aside(config: pytest.Config) -> Iterator[None]:
    """Write past pytest's capture; a worker's standard error is the terminal's."""
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
        return
    with capture.global_and_fixture_disabled():
        yield


def is_worker(config: pytest.Config) -> bool:
    """Say whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


# ------------------------------------------------------------------ what runs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per claim (or card) of the selected cards."""
    wanted = next((name for name in ("claim", "card") if _is_ours(metafunc.definition, name)), None)
    if wanted is None:
        return
    from robustness.errors import RobustnessError

    session = session_of(metafunc.config)
    session.asked.add(wanted)
    try:
        cards, every = session.cards, session.claims
    except RobustnessError as error:
        first, session.unreadable = not session.unreadable, str(error)
        if first and not is_worker(metafunc.config):  # said once: not in every module, nor by every worker
            raise _red(error) from None
        cards, every = [], {}
    if wanted == "claim":
        claims = [claim for claim in every.values() if _holds(metafunc.definition, claim)]
        metafunc.parametrize("claim", claims, ids=[claim.id for claim in claims], indirect=True)
    else:
        metafunc.parametrize("card", cards, ids=[card.name for card in cards], indirect=True)


def _is_ours(definition: Any, name: str) -> bool:
    """Say whether a test gets this fixture from here: others may call theirs so, or parametrize an argument."""
    for found in reversed(definition._fixtureinfo.name2fixturedefs.get(name, ())):
        if getattr(found.func, "__module__", None) == __name__:
            return True
        if name not in found.argnames:  # one that does ask for it extends it
            return False
    return False


def _holds(definition: pytest.Item, claim: Claim) -> bool:
    known = vars(claim)
    for mark in definition.iter_markers("claims"):
        if other := [*map(repr, mark.args), *(key for key in mark.kwargs if key not in known)]:
            raise pytest.fail.Exception(
                f"{definition.nodeid}: the marker `claims` takes {', '.join(f'{key}=...' for key in known)}; "
                f"got {', '.join(other)}",
                pytrace=False,
            )
        if any(known[key] != value for key, value in mark.kwargs.items()):
            return False
    return True


def _red(error: Exception) -> BaseException:
    """Give what fails a test (or a module) with the sentence of an expected error alone."""
    return pytest.fail.Exception(str(error), pytrace=False)


@pytest.fixture
def card(request: pytest.FixtureRequest) -> Card:
    """A selected model's card; beside `claim`, the card that claims it."""
    if hasattr(request, "param"):
        return request.param  # type: ignore[no-any-return]
    return request.getfixturevalue("claim").card  # type: ignore[no-any-return]


@pytest.fixture
def classifier(request: pytest.FixtureRequest, card: Card) -> nn.Module:
    """The card's module with its weights, in evaluation mode; loaded once a process, and not the one that is swept."""
    return _told(request.config, lambda: session_of(request.config).classifier(card))


@pytest.fixture
def sweep(request: pytest.FixtureRequest, card: Card) -> Callable[[str], Evidence]:
    """Give the evidence of one of the card's sweeps by its name, or of "clean"."""
    harness = session_of(request.config).harness

    def evidence(name: str = "clean") -> Evidence:
        return _told(request.config, lambda: harness.evidence(card, name))

    return evidence


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> ClaimCheck:
    """One claim of a selected card; `claim.check(evidence)` holds the model to it."""
    return ClaimCheck(request.node, session_of(request.config), request.param)


class ClaimCheck:
    """A claim under test: its `card`, `sweep`, `strength`, `metric`, `threshold`, and `check`."""

    def __init__(self, node: pytest.Item, session: Session, claim: Claim) -> None:
        self._node = node
        self._claim = claim
        self.card = session.card(claim.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._claim, name)

    def check(self, evidence: Evidence) -> None:
        """Judge the claim, note the numbers on the test, and fail with a sentence where it is not held."""
        from robustness import claims

        verdict = claims.judge(self._claim, evidence)
        self._node.user_properties += claims.properties(verdict, evidence).items()
        if not verdict.held:
            pytest.fail(verdict.message, pytrace=False)


def _told(config: pytest.Config, make: Callable[[], T]) -> T:
    """Make something; skip where data are missing (an error when strict), fail with a sentence where it cannot be."""
    from robustness.errors import DataMissing, RobustnessError

    try:
        return make()
    except RobustnessError as error:
        if isinstance(error, DataMissing) and not session_of(config).options.strict:
            raise pytest.skip.Exception(str(error)) from None
        raise _red(error) from None


# ------------------------------------------------------------------ what is heard


def pytest_report_header(config: pytest.Config) -> Sequence[str]:
    """Say models, data, device, seed and versions, where a project has handed over models."""
    from robustness.errors import RobustnessError

    if is_worker(config) or not _has_cards(config):
        return []
    try:
        return session_of(config).header()
    except RobustnessError as error:
        return [f"robustness: {error}"]


def _has_cards(config: pytest.Config) -> bool:
    return bool(config.pluginmanager.hook.pytest_robustness_models.get_hookimpls() or option(config, "card"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which claims are to run."""
    if SESSION not in session.config.stash:
        return
    run = session_of(session.config)
    params = ((item.nodeid, getattr(getattr(item, "callspec", None), "params", {})) for item in session.items)
    run.plan_params((nodeid, given.get("claim")) for nodeid, given in params)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """Note in the controller, which collects nothing, which claims are to run."""
    if _has_cards(node.config):
        from robustness.errors import RobustnessError
        from robustness.scheduling import claim_of

        run = session_of(node.config)
        with suppress(RobustnessError):  # cards that cannot be read: the workers' collection fails with the reason
            found = ((nodeid, claim_of(nodeid, run.claims)) for nodeid in ids)
            run.plan((nodeid, claim) for nodeid, claim in found if claim is not None)


class _Listener:
    """Hears every test's report, in the process that prints them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runs = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if SESSION not in self._config.stash:
            return
        session = session_of(self._config)
        if report.nodeid not in session.planned or (report.when != "call" and report.passed):
            return
        numbers = dict(report.user_properties)
        if report.passed:
            outcome = str(numbers.get("outcome", "never ran"))
            message = str(numbers.get("message", "the test passed without `claim.check(evidence)`"))
        elif report.skipped:
            outcome, message = "skipped", _reason(report)
        else:
            outcome = str(numbers.get("outcome", "errored"))
            outcome = "errored" if outcome == "held" else outcome
            message = _reason(report)
        session.hear(report.nodeid, outcome, numbers, message)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over what a worker noted; one that died left nothing."""
        told = getattr(node, "workeroutput", {}).get("robustness")
        if told:
            session = session_of(self._config)
            session.asked.update(told["asked"])
            session.heard += told["notices"]
            session.unreadable = session.unreadable or told["unreadable"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Note that tests are to run, and not only to be listed."""
        options = session.config.option
        self._runs = not options.collectonly and not getattr(options, "setuponly", False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In a worker: hand over what was noted. Elsewhere: write the report, and be red for what is missing."""
        if SESSION not in self._config.stash:
            return
        run = session_of(self._config)
        if is_worker(self._config):
            told = {"asked": sorted(run.asked), "notices": run.notices, "unreadable": run.unreadable}
            self._config.workeroutput["robustness"] = told  # type: ignore[attr-defined]
            return
        if self._runs:
            _spare_hypothesis(self._config)
            _finish(self._config, session, run)


def _spare_hypothesis(config: pytest.Config) -> None:
    """
    Let Hypothesis's plugin go where no test has used it.

    Its terminal summary imports all of Hypothesis, only to find that there is nothing to say: a second or
    more, half of a warm run.
    """
    if "hypothesis" not in sys.modules and config.pluginmanager.has_plugin("hypothesispytest"):
        config.pluginmanager.unregister(name="hypothesispytest")


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr).strip()


# ------------------------------------------------------------------ what is said at the end

REPORTS = pytest.StashKey[list[str]]()


def _finish(config: pytest.Config, session: pytest.Session, run: Session) -> None:
    from robustness.errors import RobustnessError
    from robustness.reporting import formats

    if run.unreadable:
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):  # else collection said it
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            config.stash[REPORTS] = [run.unreadable]
        return
    problems = run.problems()
    if not run.planned and not problems:
        return
    if problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    complete = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    document = config.stash[DOCUMENT] = run.document(complete=complete)
    written = config.stash[REPORTS] = []
    for path in _report_files(config) if run.planned else ():
        try:
            formats.write(document, path)
            written.append(f"report: {os.path.relpath(path, config.invocation_params.dir)}")
        except RobustnessError as error:
            written.append(f"report not written: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


DOCUMENT = pytest.StashKey[dict[str, Any]]()


def _report_files(config: pytest.Config) -> list[Path]:
    named = [config.invocation_params.dir / path for path in config.getoption("robustness_report") or ()]
    if not named:
        named = [_ini_folder(config) / path for path in config.getini("robustness_report") or ()]
    if not named:
        named = list(_from_root(config, config.pluginmanager.hook.pytest_robustness_reports(config=config)))
    return named


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show a table per model, what was noted, and where the report lies."""
    document = config.stash.get(DOCUMENT, None)
    lines = config.stash.get(REPORTS, [])
    if document is None and not lines:
        return
    from robustness.reporting import tables

    terminalreporter.section("robustness")
    if document is not None:
        if terminalreporter.verbosity >= 0:
            for line in tables.terminal(document):
                terminalreporter.write_line(line)
        for line in tables.summary(document):
            terminalreporter.write_line(line)
    for line in lines:
        terminalreporter.write_line(line)


# ------------------------------------------------------------------ xdist


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep all claims on one sweep on one worker, where xdist would spread them; other modes are the user's."""
    from robustness.errors import RobustnessError

    if not _has_cards(config) or config.getvalue("dist") != "load":
        return None
    try:
        sweeps = {name: f"{claim.model}:{claim.sweep}" for name, claim in session_of(config).claims.items()}
    except RobustnessError:
        return None  # collection fails with the reason
    from robustness.scheduling import SweepScheduling

    return SweepScheduling(config, log, sweeps) if sweeps else None


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """With GPUs, ``-n auto`` is their number: one worker each."""
    from robustness import hardware

    if not _has_cards(config) or (option(config, "device") or "auto").startswith("cpu"):
        return None
    return hardware.gpus() or None
