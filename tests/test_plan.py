"""`robustness plan`: what it counts is what is made, what is there is not counted, and nothing is made meanwhile."""

import math
from collections import Counter

import helpers
import numpy as np
import pytest

from robustness import cards
from robustness.cli import main
from robustness.cli.plan import plan_lines
from robustness.decisions import Argmax
from robustness.engines import EngineSpec
from robustness.planning import timing
from robustness.planning.costs import HEADER, Cost, Plan, total
from robustness.planning.planner import Planner
from robustness.planning.timing import Pace, Rest, memory
from robustness.util import hardware

SLOW = """
import time
from torch import nn

class Net(nn.Linear):
    def forward(self, inputs):
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass
        return super().forward(inputs.flatten(1))

def factory(classes=10):
    return Net(784, classes)

def recipe(module, images, job):
    raise AssertionError("a plan trains nothing")
"""
SEEDED = helpers.CARD.replace('[recipe]\ncallable = "{module}:recipe"\n', "").replace(
    'factory"', 'factory"\nseed = 1', 1
)
RAISES = """
from torch import nn

class Net(nn.Linear):
    def forward(self, inputs):
        raise KeyError(3)

def factory():
    return Net(1, 1)
"""
ATTACKS = """
[sweeps.fgsm]
kind = "fgsm"
strengths = [0.0, 0.1, 0.2]
[sweeps.pgd]
kind = "pgd"
steps = 5
strengths = [0.1, 0.2]
[sweeps.spread]
kind = "uniform"
strengths = [{{ uniform = [0.1, 0.3] }}, 0.5]
"""


@pytest.fixture(autouse=True)
def one_core(own_path, monkeypatch):
    monkeypatch.setattr(hardware, "cpu_count", lambda: 1)
    monkeypatch.setattr(timing, "RUNS", 1)


def test_what_is_planned_is_what_is_made(tmp_path):
    """Catches: a strength, a pass or a column of the evidence that is left out; 0 swept twice."""
    path = helpers.project(tmp_path, card=SEEDED + ATTACKS)
    path.write_text("probabilities = true\n" + path.read_text())
    card, harness = cards.load(path), helpers.harness(path)
    plan = Planner(harness).plan(card)
    assert [cost.label for cost in plan.made] == [f"tiny:{name}" for name in ("clean", *card.file.sweeps)]
    passes = {cost.label.partition(":")[2]: (cost.strengths, cost.forward, cost.backward) for cost in plan.made}
    pgd = 2 * (5 + 1), 2 * 5
    assert passes == {"clean": (1, 1, 0), "normal": (2, 2, 0), "fgsm": (2, 3, 1), "pgd": (2, *pgd), "spread": (2, 2, 0)}
    for cost in plan.made:
        sweep = cost.label.partition(":")[2]
        evidence = harness.evidence(card, sweep)
        size = harness.store.path("evidence", harness.key(card, sweep)).stat().st_size
        assert size - HEADER < cost.evidence < size + HEADER
        assert cost.images == len(evidence)
        assert cost.batches == math.ceil(len(evidence) / evidence.provenance["batch_size"])
    again = Planner(helpers.harness(path)).plan(card)
    assert (again.made, again.memory, again.inputs) == ((), 0, 0)
    assert len(again.stored) == 5


def test_time_is_that_of_the_passes(tmp_path):
    """A model that burns 10 ms of processor time a pass. Catches: a factor, or passes of a gradient, lost or twice."""
    path = helpers.project(tmp_path, SLOW, SEEDED + ATTACKS)
    plan = Planner(helpers.harness(path)).plan(cards.load(path))
    for cost in plan.made:
        due = 0.01 * cost.forward * cost.batches
        assert due <= cost.seconds(1) - cost.start < 1.25 * due + 0.02, cost
        assert 3 * 0.01 <= cost.start < 0.2  # the trials of the model before the first batch


def test_what_is_not_trained_comes_first_and_is_not_trained_now(tmp_path, monkeypatch, capsys):
    """Catches: a plan that trains, or that says nothing of the training that it leaves out."""
    monkeypatch.chdir(tmp_path)
    path = helpers.project(tmp_path, SLOW)
    store = tmp_path / "store"
    assert main.main(["plan", "tiny", "--store", str(store)]) == 0
    printed = capsys.readouterr().out
    assert "not counted: tiny is not trained: `robustness train tiny` comes first" in printed
    assert "2 sweeps to make: 90 images forward, 0 backward" in printed
    assert not (store / "weights").exists()
    assert not (store / "evidence").exists()
    assert path.is_file()


def test_what_a_transfer_needs_of_its_source_is_planned_once(tmp_path):
    """Catches: the source's own sweeps left out, or counted again for a second card; its gradient in the target's."""
    path = helpers.project(tmp_path, card=SEEDED)
    other = path.with_name("other.toml")
    moved = SEEDED.replace("seed = 1", "seed = 2").replace('"tiny"', '"other"')
    transfer = '\n[sweeps.moved]\nkind = "fgsm"\nsource = "tiny.toml"\nstrengths = [0.1, 0.2, 0.3]\n'
    module = path.read_text().split('factory = "')[1].split(":")[0]
    other.write_text((moved + transfer).format(module=module))
    harness = helpers.harness(path)
    planner = Planner(harness)
    whole = total([planner.plan(cards.load(file)) for file in (path, other)])
    made = {cost.label: (cost.forward, cost.backward) for cost in whole.made}
    assert len(made) == len(whole.made) == 6
    assert made["tiny:moved"] == made["other:moved"] == (4, 1)  # of these one, with its gradient, on the source
    assert harness.evidence(cards.load(other), "moved").status == ("ok",) * 3
    left = Planner(helpers.harness(path)).plan(cards.load(other))
    assert [cost.label for cost in left.made] == ["other:normal"]


def test_a_generator_is_said_to_come_first(tmp_path):
    """Catches: a plan that fits a generator, or leaves out what it does in the sweep."""
    path = helpers.project(tmp_path, card=SEEDED + '\n[sweeps.gan]\nkind = "gan"\nstrengths = [0.1]\n')
    plan = Planner(helpers.harness(path)).plan(cards.load(path))
    assert plan.first == ("the generator of gan is fitted to tiny first",)
    assert not (path.parents[2] / "store" / "generators").exists()


def test_engines_share_the_work(monkeypatch):
    """Catches: threads counted for Ray's workers, a start for each chunk, or whole sweeps cut for the plain engine."""
    costs = [Cost(f"m:{i}", 4000, 1, 1, 0, 10, batches=8, start=1.0, batch=2.0) for i in range(3)]
    plan = Plan(tuple(costs))
    assert plan.seconds("plain", 1, 2) == 3 * (1 + 4 * 2)
    assert plan.seconds("plain", 2, 1) == 2 * (1 + 8 * 2)
    assert plan.seconds("ray", 1, 1) == 3 * 8 * 2
    assert plan.seconds("ray", 12, 1) == 4
    assert plan.seconds("ray", 12, 2) == 2
    assert plan.seconds("ray", 1000, 1) == 4, "no chunk is shared"
    assert Cost("m:x", 10, 1, 1, 0, 1, batches=4, start=0.0, batch=1.0, side_by_side=False).seconds(2) == 4


def test_the_sum_is_put_together_from_its_parts(tmp_path, monkeypatch):
    """Catches: a gradient taken for a forward, or counted beside it."""
    path = helpers.project(tmp_path, card=SEEDED + ATTACKS)
    monkeypatch.setattr(timing, "pace", lambda *_, gradient, **__: Pace(1.0, 10.0, 35.0 if gradient else 0.0))
    rest = Rest(0.5, Counter(forward=12, backward=10))
    monkeypatch.setattr(timing, "rest", lambda *_, **__: rest)
    plan = Planner(helpers.harness(path)).plan(cards.load(path))
    assert {cost.batch for cost in plan.made} == {0.5 + 2 * 10 + 10 * 35}


@pytest.mark.parametrize("abreast", [1, 3])
def test_a_run_that_is_timed_is_one_batch_a_thread(monkeypatch, abreast):
    """Catches: a plan that takes longer for a large model than it must; a thread that is left out."""
    images, passes, seen = helpers.images(40), list[int](), Counter()
    module = helpers.linear(images)
    module.register_forward_hook(lambda *_: passes.append(1))
    monkeypatch.setattr(timing, "ENOUGH", math.inf)
    for runs in (1, 2, 4):
        monkeypatch.setattr(timing, "RUNS", runs)
        passes.clear()
        timing.pace(module, images, Argmax(), device="cpu", batch_size=4, abreast=abreast, gradient=False)
        seen[runs] = len(passes)
    assert (seen[2] - seen[1], seen[4] - seen[2]) == (abreast, 2 * abreast)


def test_memory_is_the_peak_of_the_work():
    """Catches: memory read after the work, when it is free again."""
    without, used = memory(lambda: None, "cpu"), memory(lambda: np.ones(2**26), "cpu")
    assert 2**28 < used - without < 2**30


def test_one_card_that_cannot_be_planned_keeps_no_other_out(tmp_path):
    """Catches: an error that ends the plan, or a sum that hides what is missing from it."""
    broken = helpers.project(tmp_path, RAISES, SEEDED.replace('"tiny"', '"broken"'))
    bad = cards.load(broken)
    path = helpers.project(tmp_path, card=SEEDED)
    lines, wrong = plan_lines(helpers.harness(path), [bad, cards.load(path)], EngineSpec())
    assert wrong == ["broken: its forward pass raised KeyError: 3; `robustness check` looks it over"]
    assert any(line.startswith("NOT IN THIS PLAN: 1 of 2 cards") for line in lines)
    assert any(line.startswith("2 sweeps to make") for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "no model is called nobody; known: tiny"),
        (["--card", "nowhere.toml"], "there is no such card"),
        (["--engine", "dask"], "`engine` must be plain or ray[=ADDRESS], got 'dask'"),
    ],
)
def test_cards_that_are_not_there(tmp_path, monkeypatch, capsys, words, said):
    """Catches: an empty plan, which looks as if nothing were to be done."""
    helpers.project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main.main(["plan", "--store", str(tmp_path / "store"), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--workers", "0"], ["--workers", "two"]])
def test_words_that_are_none(words, capsys):
    with pytest.raises(SystemExit):
        main.main(["plan", *words])
    assert words[1] in capsys.readouterr().err


def test_all_is_in_the_store(tmp_path, capsys, monkeypatch):
    """Catches: zeros that look like a plan."""
    path = helpers.project(tmp_path, card=SEEDED)
    harness = helpers.harness(path)
    card = cards.load(path)
    harness.evidence(card, "normal")
    lines, wrong = plan_lines(helpers.harness(path), [card], EngineSpec("ray", workers=4))
    assert not wrong
    assert "nothing is to be made: all 2 sweeps are in the store" in lines
