"""Metrics of other packages: Cohen's kappa of docs/metrics.md, as an entry point and as a line of the registry."""

import importlib
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints

import helpers
import numpy as np
import pages
import pytest
from sklearn.metrics import cohen_kappa_score

from robustness import cards, claims
from robustness.errors import CardError, EntryPointError
from robustness.gate.differences import GateError, cell_value, paired_difference
from robustness.metrics.chance_level import chance_level
from robustness.metrics.metric import MetricError
from robustness.metrics.registry import METRICS, find, gateable, measure_matrix, parse

DOCUMENTATION = str(helpers.ROOT / "documentation")
sys.path.insert(0, DOCUMENTATION)
import reference_metrics  # noqa: E402  # as mkdocs finds it, from the hook's own folder

sys.path.remove(DOCUMENTATION)

CLAIMS = """
[claims.clean]
kappa = 0.5

[claims.normal]
kappa = [0.4, 0.1]

[gate]
kind = "paired"
margin = 0.02
metrics = ["kappa"]
"""


@pytest.fixture(autouse=True)
def _fresh():
    """Entry points are read once per process."""
    helpers.forget_entry_points(METRICS)
    yield
    helpers.forget_entry_points(METRICS)


@pytest.fixture
def kappa(tmp_path, monkeypatch):
    """The page's file, importable."""
    (block,) = (block for block in pages.blocks(helpers.ROOT / "docs/metrics.md") if block.title == "cohen_kappa.py")
    (tmp_path / "cohen_kappa.py").write_text(block.text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("cohen_kappa")
    sys.modules.pop("cohen_kappa", None)


@pytest.fixture(params=["an entry point", "an entry point that is patched in", "a line of the registry"])
def known(request, kappa, tmp_path, monkeypatch):
    """Kappa, made known in each way."""
    if request.param == "a line of the registry":
        monkeypatch.setitem(METRICS.built_in, "kappa", kappa.KAPPA)
    elif request.param == "an entry point":
        helpers.install_entry_points(tmp_path, METRICS.group, {"kappa": "cohen_kappa:KAPPA"}, "kappa-metrics")
    else:
        point = EntryPoint("kappa", "cohen_kappa:KAPPA", METRICS.group)
        monkeypatch.setattr(
            "robustness.util.registry.entry_points",
            lambda group: EntryPoints([point] if group == METRICS.group else []),
        )
    return kappa.KAPPA


@pytest.fixture
def evidence(tmp_path_factory):
    """Evidence of mostly right predictions under the sweep of a card."""
    path = helpers.project(tmp_path_factory.mktemp("project"))
    swept = helpers.open_workspace(path).evidence(cards.load(path), "normal")
    random = np.random.default_rng(0)
    lost = random.random(swept.predictions.shape) < np.array([[0.1], [0.3]])
    return replace(swept, predictions=np.where(lost, (swept.labels + 1) % 10, swept.labels).astype(np.int32))


def test_kappa_is_claimed_and_gated(known, evidence, tmp_path):
    """Catches: a table somewhere that must list a metric beside the registry."""
    assert find("kappa") is known
    assert gateable("kappa")
    assert chance_level("kappa", evidence.labels, evidence.classes) == (0, 0, 0)
    card = cards.load(helpers.project(tmp_path / "project", card=helpers.CARD + CLAIMS))
    for claim in card.claims():
        if claim.sweep == "normal":
            verdict = claims.judge(claim, evidence)
            row = evidence.index(claim.strength)
            due = cohen_kappa_score(evidence.labels, evidence.predictions[row])
            assert verdict.outcome == "passed"
            assert verdict.measured.value == pytest.approx(due)
            assert verdict.measured.interval.low < due < verdict.measured.interval.high
            assert claims.judge(replace(claim, threshold=0.99), evidence).outcome == "failed"
            assert claims.judge(replace(claim, threshold=0.0), evidence).outcome == "vacuous"
    worse = replace(evidence, predictions=evidence.predictions[::-1])
    difference = paired_difference("kappa", evidence, worse, "0.2")
    due = [cohen_kappa_score(evidence.labels, evidence.predictions[row]) for row in (0, 1)]
    assert (difference.baseline, difference.candidate) == pytest.approx(due)
    assert (difference.drop, difference.method) == (pytest.approx(due[0] - due[1]), "delta")
    assert 0 < difference.error < 0.5
    assert cell_value("kappa", evidence, "0.2") == pytest.approx(due[0])
    assert "| `kappa` | Cohen's kappa: agreement" in reference_metrics.page()


def test_kappa_without_influence_cannot_be_gated(kappa, evidence, tmp_path, monkeypatch):
    """Catches: a gate that takes whatever has a value."""
    monkeypatch.setitem(METRICS.built_in, "kappa", replace(kappa.KAPPA, influence=None))
    assert not gateable("kappa")
    with pytest.raises(GateError, match="kappa: follows from no predictions"):
        paired_difference("kappa", evidence, evidence, "0.2")
    with pytest.raises(CardError, match=r"gate\.metrics: must be among .*; got 'kappa'"):
        cards.load(helpers.project(tmp_path / "project", card=helpers.CARD + CLAIMS))


def test_kappa_s_interval_is_not_that_of_a_share(kappa, monkeypatch):
    """Of two classes that are mixed up. Catches: Wilson's interval of a negative number, which begins at 0."""
    monkeypatch.setitem(METRICS.built_in, "kappa", kappa.KAPPA)
    measured = measure_matrix("kappa", np.array([[10, 40], [40, 10]]))
    assert measured.value == pytest.approx(-0.6)
    low, high = measured.interval
    assert -1 < low < -0.6 < high < 0
    draws = np.random.default_rng(1).multinomial(100, [0.1, 0.4, 0.4, 0.1], 2000).reshape(-1, 2, 2)
    spread = np.std([kappa.kappa(draw).value for draw in draws])
    assert (high - low) / 2 / 1.96 == pytest.approx(spread, rel=0.05)


def test_kappa_s_gradient_is_its_slope(kappa):
    """One more image in a cell of a large table. Catches: an influence in the docs that is another metric's."""
    matrix = np.random.default_rng(3).integers(1, 30, (4, 4)) * 10**6
    estimate = kappa.kappa(matrix)
    for cell in np.ndindex(4, 4):
        more = matrix.copy()
        more[cell] += 1000
        slope = (kappa.kappa(more).value - estimate.value) / 1000 * matrix.sum()
        centred = estimate.gradient[cell] - (estimate.gradient * matrix / matrix.sum()).sum()
        assert slope == pytest.approx(centred, rel=1e-3, abs=1e-4)


def test_a_card_may_claim_what_is_negative_at_worst(kappa, tmp_path, monkeypatch):
    """Catches: thresholds in (0, 1] for every metric, thresholds beyond what it can reach."""
    monkeypatch.setitem(METRICS.built_in, "kappa", kappa.KAPPA)
    for threshold, said in ((1.5, r"must lie in \(-1, 1\], got 1.5"), (-1.0, "got -1")):
        text = helpers.CARD + f"\n[claims.normal]\nkappa = [0.5, {threshold}]\n"
        with pytest.raises(CardError, match=said):
            cards.load(helpers.project(tmp_path / f"p{threshold}", card=text))


def test_packages_are_imported_only_when_they_are_asked_for(kappa, tmp_path):
    """Catches: every run that imports every package with a metric, a typing error hidden behind a broken package."""
    helpers.install_entry_points(
        tmp_path, METRICS.group, {"kappa": "cohen_kappa:KAPPA", "broken": "not_there:METRIC"}, "kappa-metrics"
    )
    del sys.modules["cohen_kappa"]
    assert find("accuracy") is METRICS["accuracy"]
    with pytest.raises(MetricError, match=r"snr, kappa, broken; got 'kapa'; did you mean 'kappa'"):
        parse("kapa", 3)
    assert "cohen_kappa" not in sys.modules
    assert parse("kappa", 3).metric.description.startswith("Cohen")
    assert "cohen_kappa" in sys.modules


@pytest.mark.parametrize(
    ("points", "asked", "said"),
    [
        (
            {"broken": "not_there:METRIC"},
            "broken",
            "entry point `broken = not_there:METRIC` of kappa-metrics 1.2 in the group robustness.metrics cannot be "
            "imported (ModuleNotFoundError: No module named 'not_there'); fix or uninstall it",
        ),
        ({"broken": "cohen_kappa:GONE"}, "broken", "AttributeError: module 'cohen_kappa' has no attribute 'GONE'"),
        ({"broken": "cohen_kappa:kappa"}, "broken", "must be a robustness.metrics.metric.Metric, got <function kappa"),
        ({"broken": "cohen_kappa:KAPPA"}, "broken", "must be named as its entry point, got 'kappa'; rename one"),
        ({"accuracy": "cohen_kappa:KAPPA"}, None, "'accuracy' is built in; rename the entry point"),
    ],
    ids=["no module", "no object", "no metric", "another name", "built in"],
)
def test_a_metric_that_cannot_be_used_says_whose_it_is(kappa, tmp_path, points, asked, said):
    """Catches: a traceback out of another package, one that takes the place of accuracy."""
    helpers.install_entry_points(tmp_path, METRICS.group, points, "kappa-metrics")
    with pytest.raises(EntryPointError) as caught:
        list(METRICS) if asked is None else parse(asked, 3)
    assert said in str(caught.value)
    assert "kappa-metrics 1.2" in str(caught.value)
    assert find("accuracy") is METRICS["accuracy"]
    if asked:
        with pytest.raises(CardError) as caught:  # a problem of the card that names it, beside the card's others
            cards.load(helpers.project(tmp_path / "project", card=helpers.CARD + CLAIMS.replace("kappa", asked)))
        assert said in str(caught.value)


def test_one_name_of_two_packages_is_refused(kappa, tmp_path):
    """Catches: whichever of two is found first."""
    for name in ("one", "other"):
        helpers.install_entry_points(tmp_path, METRICS.group, {"kappa": f"cohen_kappa:{name.upper()}"}, name)
    with pytest.raises(EntryPointError, match="also has the name 'kappa'; uninstall one of them") as caught:
        find("kappa")
    assert "one 1.2" in str(caught.value)
    assert "other 1.2" in str(caught.value)
