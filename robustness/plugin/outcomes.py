"""Collects the outcomes of tests and reports them at the end: report files, tables, and why a run failed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from robustness.errors import printable
from robustness.plugin.config import SESSION, has_cards, is_worker, report_files, run_state

if TYPE_CHECKING:
    from robustness.plugin.state import RunState
    from robustness.reporting.report import RunReport

REPORTS = pytest.StashKey[list[str]]()
DOCUMENT: pytest.StashKey[RunReport] = pytest.StashKey()
STATEMENT = ".intoto.json"
"""How the file of an in-toto statement ends."""


class OutcomePlugin:
    """Receives every test's report, in the process that prints them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._runs = False
        self._dots = dict[tuple[str, str], str]()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Register the claims that will run."""
        if SESSION not in self._config.stash:
            return
        from robustness.cards import Card
        from robustness.plugin.state import gate_id

        run = run_state(self._config)
        if session.items and all(item.get_closest_marker("timing") for item in session.items):
            run.requested.discard("claim")  # only timing was requested
        params = ((item.nodeid, getattr(getattr(item, "callspec", None), "params", {})) for item in session.items)
        selected = list(params)
        run.plan_params((nodeid, each.get("claim") or each.get("measured")) for nodeid, each in selected)
        run.plan_gates(
            (nodeid, gate_id(each["gate"])) for nodeid, each in selected if isinstance(each.get("gate"), Card)
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """In the controller, which collects nothing, register the claims that will run."""
        if not has_cards(self._config):
            return
        from robustness.errors import RobustnessError
        from robustness.plugin.xdist_scheduler import claim_in_nodeid, nodeid_parameters

        run = run_state(self._config)
        with suppress(RobustnessError):  # cards that cannot be read: the workers' collection fails with the reason
            pairs = ((nodeid, claim_in_nodeid(nodeid, run.claims)) for nodeid in ids)
            run.plan((nodeid, claim) for nodeid, claim in pairs if claim is not None)
            # pytest escapes what is not ASCII.
            shown = {name.encode("unicode_escape").decode(): each for name, each in run.measurable.items()}
            run.plan_params((nodeid, shown.get(nodeid_parameters(nodeid))) for nodeid in ids)
            run.plan_gates((nodeid, nodeid.rpartition("[")[2].removesuffix("]")) for nodeid in ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the outcome of a test with a claim."""
        if SESSION not in self._config.stash:
            return
        session = run_state(self._config)
        if report.nodeid in session.gates and (report.when == "call" or not report.passed):
            _record_gate(session, report)
        if report.failed:
            _record_doubt(session, report)
        measured = report.nodeid in session.measuring.planned
        if report.failed and "card" in dict(report.user_properties):
            session.record_other(report.nodeid, _reason(report))
        if not (measured or report.nodeid in session.planned) or (report.when != "call" and report.passed):
            return
        numbers = dict(report.user_properties)
        if measured:
            fate = "skipped" if report.skipped else str(numbers.get("outcome", "not run"))
            fate = fate if report.passed or report.skipped else "error"
            session.record_measured(report.nodeid, fate, numbers, "" if report.passed else _reason(report))
            return
        if report.passed:
            outcome = str(numbers.get("outcome", "not run"))
            message = str(numbers.get("message", "the test passed without `claim.check(evidence)`"))
        elif report.skipped:
            waived = numbers.get("outcome") == "waived"
            outcome, message = ("waived", str(numbers["message"])) if waived else ("skipped", _reason(report))
        else:
            outcome = str(numbers.get("outcome", "error"))
            outcome = "error" if outcome == "passed" else outcome
            message = _reason(report)
            if outcome == "failed" and report.when == "call" and "prerequisite" in numbers:
                message = str(numbers["message"])  # the test printed a shorter one
        session.record(report.nodeid, outcome, numbers, message)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """
        Print one dot for the claims of a sweep that pass, and one for the doubts of a model that are not raised.

        What fails or is skipped prints its letters.
        """
        if report.when != "call" or not report.passed or SESSION not in self._config.stash:
            return None
        group = self._group(report.nodeid)
        if group is None or self._dots.setdefault(group, report.nodeid) == report.nodeid:
            return None
        return "passed", "", "PASSED"

    def _group(self, nodeid: str) -> tuple[str, str] | None:
        """Return the model and the sweep of a claim, or the model of a doubt."""
        from robustness.cards.doubts import doubt_of
        from robustness.errors import RobustnessError

        run = run_state(self._config)
        if claim := run.planned.get(nodeid):
            return claim.model, claim.sweep
        with suppress(RobustnessError):  # cards that cannot be read have no doubts
            if doubted := doubt_of(nodeid, [card.name for card in run.cards]):
                return doubted[0], "doubts"
        return None

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take over a worker's records; a worker that died has none."""
        output = getattr(node, "workeroutput", {}).get("robustness")
        if output:
            session = run_state(self._config)
            session.requested.update(output["requested"])
            session.collected_notices += output["notices"]
            session.unreadable = session.unreadable or output["unreadable"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Note that tests will run, not only be listed."""
        options = session.config.option
        self._runs = not options.collectonly and not getattr(options, "setuponly", False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In a worker, hand over the records. Otherwise, write the report, and fail for what is missing."""
        if SESSION not in self._config.stash:
            return
        run = run_state(self._config)
        if is_worker(self._config):
            output = {"requested": sorted(run.requested), "notices": run.notices, "unreadable": run.unreadable}
            self._config.workeroutput["robustness"] = output  # type: ignore[attr-defined]
            return
        if self._runs:
            _spare_hypothesis(self._config)
            _finish(self._config, session, run)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the tables, the notices, and the paths of the report."""
        document = self._config.stash.get(DOCUMENT, None)
        lines = self._config.stash.get(REPORTS, [])
        if document is None and not lines:
            return
        from robustness.reporting import terminal

        terminalreporter.section("robustness")
        if document is not None:
            if terminalreporter.verbosity >= 0:
                width, verbose = max(100, terminalreporter._tw.fullwidth), terminalreporter.verbosity > 0
                for line in terminal.terminal(document, width, verbose=verbose):
                    terminalreporter.write_line(printable(line), **terminal.colour(line))
            for line in (*terminal.summary(document), *terminal.suggested_claims(document)):
                terminalreporter.write_line(printable(line), **terminal.colour(line))
        for line in lines:
            terminalreporter.write_line(printable(line))


def _spare_hypothesis(config: pytest.Config) -> None:
    """
    Unregister Hypothesis's plugin if no test has used it.

    Its terminal summary imports all of Hypothesis to report nothing: a second or more, half of a warm run.
    """
    if "hypothesis" not in sys.modules and config.pluginmanager.has_plugin("hypothesispytest"):
        config.pluginmanager.unregister(name="hypothesispytest")


def _record_doubt(session: RunState, report: pytest.TestReport) -> None:
    """Record a doubt that was raised or could not be checked; if a worker died, only the id is known."""
    from robustness.cards.doubts import doubt_of
    from robustness.errors import RobustnessError

    with suppress(RobustnessError):  # cards that cannot be read have no doubts
        if doubted := doubt_of(report.nodeid, [card.name for card in session.cards]):
            session.doubted.setdefault(doubted[0], []).append(doubted[1])


def _record_gate(session: RunState, report: pytest.TestReport) -> None:
    """Record the outcome of a gate, with its test's message or the reason why there is none."""
    properties = dict(report.user_properties)
    if report.skipped:
        outcome, message = "skipped", _reason(report)
    elif "outcome" in properties:
        outcome, message = str(properties["outcome"]), str(properties["message"])
        outcome = "error" if report.failed and outcome == "passed" else outcome
    else:
        outcome = "error" if report.failed else "not run"
        message = _reason(report) if report.failed else "the test passed without `gate.check(sweep)`"
    session.record_gate(report.nodeid, outcome, message, json.loads(str(properties.get("gate", "{}"))))


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr).strip()


def _finish(config: pytest.Config, session: pytest.Session, run: RunState) -> None:
    from robustness.errors import RobustnessError
    from robustness.plugin import problems, run_report
    from robustness.reporting import writers
    from robustness.reporting.report_types import SKIPPED, UNDECIDED

    if run.unreadable:
        if session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):  # otherwise collection reported it
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            config.stash[REPORTS] = [run.unreadable]
        return
    messages = problems.messages(run)
    if not (run.planned or run.measuring.planned or run.gates or messages):
        return
    undecided = len(problems.undecided(run))
    if session.exitstatus == pytest.ExitCode.TESTS_FAILED and session.testsfailed == undecided > 0 and not messages:
        session.exitstatus = UNDECIDED
    if messages and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if (skipped := problems.skipped(run)) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = SKIPPED
    complete = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, UNDECIDED, SKIPPED)
    document = config.stash[DOCUMENT] = run_report.build_report(run, complete=complete, code=int(session.exitstatus))
    written = config.stash[REPORTS] = [skipped] if session.exitstatus == SKIPPED else []
    files = report_files(config) if run.planned or run.measuring.planned or run.gates else []
    files = _without_job_summary(session, document, files, written)
    if complete and any(path.suffix.lower() == writers.ILLUSTRATED for path in files):
        run_report.add_gallery(run, document)
    for path in files:
        try:
            _write(run, document, path)
            written.append(f"report: {os.path.relpath(path, config.invocation_params.dir)}")
        except RobustnessError as error:
            written.append(f"report not written: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def _write(run: RunState, document: RunReport, path: Path) -> None:
    """Write a file of the report, or the statement of its verdict."""
    from robustness.plugin import run_report
    from robustness.reporting import writers

    if path.name.endswith(STATEMENT):
        run_report.write_statement(run, document, path)
    else:
        writers.write(document, path)


def _without_job_summary(
    session: pytest.Session, document: RunReport, files: list[Path], written: list[str]
) -> list[Path]:
    """Append the report to the summary of a GitHub job if that is asked for, and return the other files."""
    from robustness.errors import RobustnessError
    from robustness.reporting import job_summary

    others = [path for path in files if not job_summary.is_job_summary(path)]
    if len(others) < len(files):
        try:
            written.append(f"report: {job_summary.write(document, Path(job_summary.NAME))}")
        except RobustnessError as error:
            written.append(f"report not written: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
    return others
