"""The state of a run: what is accounted for how, and when a run may not be called green."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
from plugin_project import CARD

from robustness.plugin import problems, run_report
from robustness.plugin.options import RunOptions
from robustness.plugin.state import WORST_FIRST, RunState
from robustness.reporting import terminal
from robustness.reporting.report_types import OUTCOMES


@pytest.fixture
def run(project) -> RunState:
    """A session on the tiny project, whose evidence is there, with every claim planned once."""
    project.fill()
    made = RunState(RunOptions(handed=(project.root / "models",), store=str(project.store)))
    made.plan((f"t.py::t[{name}]", name) for name in made.claims)
    return made


def hear(run: RunState, claim: str, outcome: str, **numbers) -> None:
    run.record(f"t.py::t[{claim}]", outcome, numbers, f"it {outcome}")


CLAIM = "tiny:normal:0.3:accuracy"


def test_planned_and_never_heard(run):
    """Catches: a claim that nobody reported left out, or passed."""
    assert {outcome.outcome for outcome in run.all_outcomes()} == {"not run"}
    assert len(run.all_outcomes()) == 7
    assert problems.messages(run) == ["7 of 7 claims did not run, for instance tiny:clean:0:accuracy"]
    for name in run.claims:
        hear(run, name, "passed")
    assert problems.messages(run) == []


@pytest.mark.parametrize("red", ["failed", "error", "vacuous"])
def test_a_failure_goes_before_what_was_said_first(run, red):
    """Catches: a crash after a check forgotten; a later word that makes a red claim green."""
    for first, second in ((red, "passed"), ("passed", red), (red, "skipped"), ("skipped", red)):
        run.outcomes.clear()
        hear(run, CLAIM, first)
        hear(run, CLAIM, second)
        assert run.outcomes[f"t.py::t[{CLAIM}]"].outcome == red


def test_tests_that_nobody_planned(run):
    """Catches: a claim that counts although it is no test of this run."""
    run.record("t.py::other", "failed", {}, "no")
    assert run.outcomes == {}
    run.plan([("t.py::stranger[x:y:0:accuracy]", "x:y:0:accuracy")])
    assert len(run.planned) == 7


def test_the_worst_of_several_tests_on_a_claim(run):
    """Catches: the first or the last test's word, or one claim counted twice."""
    words = ("passed", "skipped", "failed", "error", "vacuous")
    for i, (first, second) in enumerate(itertools.permutations(words, 2)):
        both = RunState(run.options)
        nodeids = [f"t.py::a{i}", f"t.py::b{i}"]
        both.plan((nodeid, CLAIM) for nodeid in nodeids)
        for nodeid, outcome in zip(nodeids, (first, second), strict=True):
            both.record(nodeid, outcome, {}, outcome)
        (counted,) = both.all_outcomes()
        worst = first if WORST_FIRST.index(first) < WORST_FIRST.index(second) else second
        assert counted.outcome == worst
    assert WORST_FIRST[-2:] == ("skipped", "passed")
    assert sorted(WORST_FIRST) == sorted(OUTCOMES)


def test_one_of_two_tests_on_a_claim_did_not_run(run):
    both = RunState(run.options)
    both.plan([("t.py::a", CLAIM), ("t.py::b", CLAIM)])
    both.record("t.py::b", "passed", {}, "")
    assert problems.messages(both) == [f"1 of 1 claims did not run, for instance {CLAIM}"]


def test_problems_of_who_asked_for_what(project):
    """Catches: a run of somebody's own tests red for want of claims; one of the suites green for it."""
    empty = RunState(RunOptions())
    assert problems.messages(empty) == []
    empty.requested.add("card")
    assert problems.messages(empty) == [
        "no card is selected; name models with --robustness-model or cards with --robustness-card"
    ]
    some = RunState(RunOptions(handed=(project.card,)))
    some.requested.add("card")
    assert problems.messages(some) == []
    some.requested.add("claim")
    assert problems.messages(some)[0].startswith("no claim ran")


DOUBT = "suites/test_doubts.py::test_doubts[tiny-zero gradients]"
NO_CLAIMS = CARD.partition("[claims.clean]")[0]


@pytest.mark.parametrize(
    ("card", "cause"),
    [
        ("", "no card"),
        (CARD, "no test selected"),
        (NO_CLAIMS, "nothing claimed"),
        (NO_CLAIMS.partition("[sweeps.normal]")[0], "nothing swept"),
    ],
)
def test_a_run_in_which_nothing_ran_says_why(project, card, cause):
    """Catches: one advice for all, "get what is missing", where nothing is missing but a claim or a test."""
    project.card.write_text(card) if card else project.card.unlink()
    made = RunState(RunOptions(handed=(project.root / "models",), store=str(project.store)))
    made.requested |= {"claim", "card"}
    ((found, _),) = problems.causes(made)
    assert found == cause


def test_each_problem_has_its_cause(run):
    """Catches: a doubt, a contract or a dead worker advised as if data were missing."""
    for name in run.claims:
        hear(run, name, "passed")
    assert problems.causes(run) == []
    run.record_other(DOUBT, "tiny: zero gradients")
    run.record_other("suites/test_properties.py::test_contracts[tiny]", "tiny breaks 1 contract(s)")
    assert [cause for cause, _ in problems.causes(run)] == ["doubt", "other test"]
    assert run_report.build_report(run, complete=True, code=1).run.causes == ["doubt", "other test"]
    run.outcomes.popitem()
    assert [cause for cause, _ in problems.causes(run)][-1] == "not run"
    assert list(terminal.summary(run_report.build_report(run, complete=True, code=1)))[-1].startswith(
        "next: the same command with -n 0"
    )


def test_all_skipped(run):
    for name in run.claims:
        hear(run, name, "skipped")
    assert problems.messages(run) == ["all 7 claims were skipped"]
    hear(run, CLAIM, "failed")
    assert problems.messages(run) == []


def test_document_of_what_was_not_kept(run, project):
    """Catches: a report that fails, sweeps or trains where the store has lost what the claims were judged on."""
    keys = {sweep: run.workspace.key(run.cards[0], sweep) for sweep in ("normal", "uniform")}
    kept = RunState(run.options)
    for each in (run, kept):
        for name, claim in each.claims.items():
            each.plan([(f"t.py::t[{name}]", name)])
            hear(
                each,
                name,
                "passed",
                evidence=keys.get(claim.sweep),
                value=0.9,
                low=0.8,
                high=1.0,
                n=200,
                method="wilson",
            )
    shown = run_report.build_report(kept, complete=True, code=0).models[0]
    assert [sweep.evidence is not None for sweep in shown.sweeps] == [True] * 3
    shutil.rmtree(project.store)
    lost = RunState(run.options, planned=run.planned, outcomes=run.outcomes, keys=run.keys, requested=run.requested)
    document = run_report.build_report(lost, complete=True, code=0)
    assert document.verdict == "passed"
    assert [sweep.evidence for sweep in document.models[0].sweeps] == [None] * 3
    assert project.logged("passes") == project.logged("trainings") == []


def test_notices_of_all(run):
    """Catches: a worker's notices lost, or told once for each worker."""
    run.collected_notices += ["from a worker", "from both", "from both"]
    run.workspace.notice("from both")
    run.workspace.notice("own")
    assert run.notices == ["from a worker", "from both", "own"]


def test_lent_module(run):
    """Catches: the module that is swept in the hands of tests; one that is loaded for each of them."""
    card = run.cards[0]
    lent = run.classifier(card)
    assert lent is run.classifier(card)
    assert lent is not run.workspace.classifier(card).module
    assert not lent.training


def test_header_names_all(project):
    project.write("models/other.toml", CARD.replace('"tiny"', '"other"', 1))
    made = RunState(
        RunOptions(handed=(project.root / "models",), store="/my/store", data="/my/data", seed=4, device="cpu")
    )
    first, second = made.header()
    assert re.fullmatch(
        r"robustness: models other, tiny; device cpu, seed 4, "
        r"pytest-robustness [\d.]+\S*, torch [\d.]+\S*, numpy [\d.]+\S*",
        first,
    )
    assert second == f"robustness: store {Path('/my/store')}, data root {Path('/my/data')}"
