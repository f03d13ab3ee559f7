"""The rule by which the claims of all five papers are judged."""

import math

import pytest

from reports import verdicts
from reports.verdicts import PROJECT_WORDS, Criterion, Verdict, judge, verdict_table


@pytest.mark.parametrize(
    ("scale", "kinds"),
    [("full", "level ordering"), ("medium", "ordering"), ("short", "ordering"), ("smoke", ""), ("mixed", "")],
)
@pytest.mark.parametrize("kind", ["level", "ordering"])
@pytest.mark.parametrize("holds", [True, False])
def test_a_reduced_scale_judges_orderings_alone(scale, kinds, kind, holds):
    """Catches: a size that small networks miss called not reproduced, or that they happen to meet called reproduced."""
    judged = kind in kinds.split()
    outcome = {True: "reproduced", False: "not reproduced"}[holds] if judged else "not testable here"
    criterion = Criterion(kind, "claim", {"a": 0.5}, holds)
    assert judge(criterion, scale).outcome == outcome
    assert judge(criterion._replace(testable=False), scale).outcome == "not testable here"
    missing = judge(criterion._replace(values={"a": math.nan}), scale).outcome
    assert missing == ("not reproduced" if judged else "not testable here")


def test_a_claim_that_waits_for_numbers_is_not_judged():
    ordering = Criterion("ordering", "claim", {"a": 0.5}, False, missing=["net"])
    assert judge(ordering, "short") == Verdict("claim", "not measured yet", "net not measured yet", "ordering")
    assert judge(ordering._replace(kind="level"), "short").outcome == "not testable here"


def test_the_table_has_the_rule_and_each_criterion_s_kind():
    judged = [judge(Criterion("ordering", "b > a", {"b": 1.0}, True), "short")]
    assert verdict_table(judged).startswith(verdicts.RULE)
    assert "| b > a   | ordering    | **reproduced** |" in verdict_table(judged)
    assert "**holds**" in verdict_table(judged, words=PROJECT_WORDS)
