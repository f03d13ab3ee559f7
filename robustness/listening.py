"""Hearing what came of every test, and saying it at the end: the report, the tables, and why a run is red."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from robustness.settings import SESSION, has_cards, is_worker, report_files, session_of

if TYPE_CHECKING:
    from robustness.session import Session

REPORTS = pytest.StashKey[list[str]]()
DOCUMENT = pytest.StashKey[dict[str, Any]]()


class Listener:
    """Hears every test's report, in the process that prints them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runs = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which claims are to run."""
        if SESSION not in self._config.stash:
            return
        run = session_of(self._config)
        if session.items and all(item.get_closest_marker("timing") for item in session.items):
            run.asked.discard("claim")  # timing was asked for, and nothing else
        params = ((item.nodeid, getattr(getattr(item, "callspec", None), "params", {})) for item in session.items)
        run.plan_params((nodeid, given.get("claim")) for nodeid, given in params)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Note in the controller, which collects nothing, which claims are to run."""
        if not has_cards(self._config):
            return
        from robustness.errors import RobustnessError
        from robustness.scheduling import claim_of

        run = session_of(self._config)
        with suppress(RobustnessError):  # cards that cannot be read: the workers' collection fails with the reason
            found = ((nodeid, claim_of(nodeid, run.claims)) for nodeid in ids)
            run.plan((nodeid, claim) for nodeid, claim in found if claim is not None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what came of a test that holds a claim."""
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

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show a table per model, what was noted, and where the report lies."""
        document = self._config.stash.get(DOCUMENT, None)
        lines = self._config.stash.get(REPORTS, [])
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
    files = report_files(config) if run.planned else []
    if complete and any(path.suffix.lower() == formats.ILLUSTRATED for path in files):
        run.illustrate(document)
    for path in files:
        try:
            formats.write(document, path)
            written.append(f"report: {os.path.relpath(path, config.invocation_params.dir)}")
        except RobustnessError as error:
            written.append(f"report not written: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
