"""The rule by which the claims of all five papers are judged."""

import json
import math
from itertools import chain

import pytest

from reports import digits_noise, eyes_parseval, folds, hybrid_gan, label_2n, signs_adversarial, verdicts
from reports.commands import OUTPUT, ROOT
from reports.digits_noise import criteria as digits
from reports.eyes_parseval import page as eyes
from reports.hybrid_gan import criteria as hybrid
from reports.hybrid_gan import page as hybrid_page
from reports.label_2n import page as label
from reports.rows import Measured
from reports.signs_adversarial import page as signs
from reports.verdicts import Verdict, decided, listed, pending

PAPERS = (digits_noise, eyes_parseval, hybrid_gan, label_2n, signs_adversarial)


@pytest.mark.parametrize(
    ("kind", "scale", "judged"),
    [
        ("level", "full", True),
        ("ordering", "full", True),
        ("level", "short", False),
        ("ordering", "short", True),
        ("level", "medium", False),
        ("ordering", "medium", True),
        ("level", "smoke", False),
        ("ordering", "smoke", False),
        ("level", "mixed", False),
        ("ordering", "mixed", False),
    ],
)
@pytest.mark.parametrize("holds", [True, False])
def test_a_reduced_scale_judges_orderings_alone(kind, scale, judged, holds):
    """Catches: a size that small networks miss called not reproduced, or that they happen to meet called reproduced."""
    outcome = {True: "reproduced", False: "not reproduced"}[holds] if judged else "not testable here"
    assert decided("claim", {"a": 0.5}, holds, kind=kind, scale=scale).outcome == outcome
    assert decided("claim", {"a": 0.5}, holds, kind=kind, scale=scale, testable=False).outcome == "not testable here"
    missing = decided("claim", {"a": math.nan}, holds, kind=kind, scale=scale).outcome
    assert missing == ("not reproduced" if judged else "not testable here")


def test_a_claim_that_waits_for_numbers_is_not_judged():
    judged = decided("claim", {"a": 0.5}, False, kind="ordering", scale="short")
    assert pending(judged, []) == judged
    assert pending(judged, ["net"]) == Verdict("claim", "not measured yet", "net not measured yet", "ordering")
    level = decided("claim", {"a": 0.5}, True, kind="level", scale="short")
    assert pending(level, ["net"]).outcome == "not testable here"


def test_the_table_says_the_rule_and_each_criterion_s_kind():
    judged = [decided("b > a", {"b": 1.0}, True, kind="ordering", scale="short")]
    assert listed(judged).startswith(verdicts.RULE)
    assert "| b > a   | ordering    | **reproduced** |" in listed(judged)
    assert "**holds**" in listed(judged, own=True)


def committed():
    """Yield paper, scale and verdicts of every committed result."""
    result = json.loads((OUTPUT / "digits_noise.json").read_text(encoding="utf-8"))
    yield "digits_noise", result["scale"], digits.verdicts(result)
    for result in folds.results(OUTPUT, "signs_adversarial"):
        yield "signs_adversarial", result["scale"], signs.verdicts(result)
    for result in folds.results(OUTPUT, "hybrid_gan"):
        yield "hybrid_gan", result["scale"], hybrid.verdicts(hybrid_page.found(result))
    for result in folds.results(OUTPUT, "eyes_parseval"):
        yield "eyes_parseval", result["scale"], [decide(Measured.of(result)) for decide in eyes.CLAIMS]
    for result in folds.results(OUTPUT, "label_2n"):
        yield "label_2n", result["scale"], label.judged(label.measured(result))


def test_every_committed_result_is_judged_by_the_rule():
    """Catches: a paper whose scale does not reach the rule, a criterion that none of the results could ever decide."""
    seen = list(committed())
    assert {name for name, _, _ in seen} == {package.__name__.removeprefix("reports.") for package in PAPERS}
    for name, scale, judged in seen:
        for verdict in judged:
            assert verdict.kind in ("level", "ordering")
            if scale != "full" and verdict.kind == "level":
                assert verdict.outcome == "not testable here", (name, verdict)
    orderings = [v for v in chain.from_iterable(judged for _, _, judged in seen) if v.kind == "ordering"]
    assert {"reproduced", "not reproduced"} <= {verdict.outcome for verdict in orderings}


def test_there_is_one_rule():
    """Catches: a page that makes its own verdicts."""
    for file in (ROOT / "reports").rglob("*.py"):
        if file.name != "verdicts.py":
            text = file.read_text(encoding="utf-8")
            assert "Verdict(" not in text, file
            assert '"not testable here"' not in text, file
