"""`robustness plan`: what it counts is what is made, what is there is not counted, and nothing is made meanwhile."""

import importlib
import math

import helpers
import numpy as np
import pytest

from robustness import cards
from robustness.cli import main
from robustness.cli.plan import plan_lines
from robustness.engines import EngineSpec
from robustness.planning import costs, planner
from robustness.planning.costs import HEADER, Cost, Plan
from robustness.planning.planner import Planner
from robustness.util import hardware
from robustness.workspace import chunk_cache

TICKS = """
from torch import nn

SEEN = []

class Net(nn.Linear):
    def forward(self, inputs):
        SEEN.append(len(inputs))
        return super().forward(inputs.flatten(1))

def factory(classes=10):
    return Net(784, classes)

def recipe(module, images, job):
    raise AssertionError("a plan trains nothing")
"""
SEEDED = helpers.CARD.replace('[recipe]\ncallable = "{module}:recipe"\n', "")
SEEDED = SEEDED.replace('factory"', 'factory"\nseed = 1', 1)
RAISES = TICKS.replace("SEEN.append(len(inputs))", "raise KeyError(3)")
CUT = """
class Cut(nn.Module):
    def forward(self, inputs):
        return inputs.detach()

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


def project(root, source=helpers.MODULE, card=SEEDED, per_class=3):
    """Write a project and return the card's path, the card and a workspace."""
    path = helpers.project(root, source, card.replace("per_class = 3", f"per_class = {per_class}"))
    return path, cards.load(path), helpers.open_workspace(path)


def test_what_is_planned_is_what_is_made(tmp_path):
    """Catches: a strength, a pass or a column of the evidence that is left out; 0 swept twice."""
    path, card, workspace = project(tmp_path, card="store_probabilities = true\n" + SEEDED + ATTACKS)
    plan = Planner(workspace).plan(card)
    assert [cost.label for cost in plan.costs] == [f"tiny:{name}" for name in ("clean", *card.file.sweeps)]
    passes = {cost.label.partition(":")[2]: (cost.strengths, cost.forward, cost.backward) for cost in plan.costs}
    pgd = 2 * (5 + 1), 2 * 5
    assert passes == {"clean": (1, 1, 0), "normal": (2, 2, 0), "fgsm": (2, 3, 1), "pgd": (2, *pgd), "spread": (2, 2, 0)}
    for cost in plan.costs:
        sweep = cost.label.partition(":")[2]
        evidence = workspace.evidence(card, sweep)
        size = workspace.store.path("evidence", workspace.key(card, sweep)).stat().st_size
        assert size - HEADER < cost.evidence < size + HEADER
        assert cost.images == len(evidence)
        assert cost.batches == math.ceil(len(evidence) / evidence.provenance["batch_size"])
    again = Planner(helpers.open_workspace(path)).plan(card)
    assert (again.costs, again.memory) == ((), 0)
    assert len(again.stored) == 5


def passes_seen(card):
    """The images of each pass through a card's model of TICKS, those that it was tried on among them."""
    return importlib.import_module(card.file.model.factory.partition(":")[0]).SEEN


def images_seen(card):
    """How many images have gone through it."""
    return sum(passes_seen(card))


@pytest.mark.parametrize("per_class", [3, 30])
def test_time_is_that_of_the_sweep(tmp_path, per_class):
    """A millisecond an image and pass. Catches: a batch or a pass lost or twice, time that does not grow with n."""
    path, card, workspace = project(tmp_path, TICKS, SEEDED + ATTACKS, per_class)
    plan = Planner(workspace, lambda: images_seen(card) / 1000).plan(card)
    other = helpers.open_workspace(path)
    for cost in plan.costs:
        before = images_seen(card)
        other.evidence(card, cost.label.partition(":")[2])
        assert cost.images == 10 * per_class
        assert cost.seconds(1) == pytest.approx((images_seen(card) - before) / 1000), cost
        assert cost.seconds(1) - cost.start == pytest.approx(cost.forward * cost.batches * cost.batch_size / 1000)


def test_the_first_round_warms_up(tmp_path, monkeypatch):
    """Catches: what is slow once, in the first batch of a process, taken for the time of each batch."""
    monkeypatch.setattr(planner, "choose_batch_size", lambda *_: 10)
    (_, card, workspace), asked = project(tmp_path, TICKS), []

    def clock():
        asked.append(None)
        return images_seen(card) / 1000 + (len(asked) > 3)  # asked before and after the trials, then each round

    clean, _ = Planner(workspace, clock).plan(card).costs
    assert clean.batch == pytest.approx(clean.batch_size / 1000)


@pytest.mark.parametrize(
    ("per_class", "seconds", "clean", "normal"),
    [(9, 1.0, 1, 1), (9, 0.02, 1 + 2, 1 + 1), (9, 0.001, 1 + costs.ROUNDS, 1 + costs.ROUNDS)]
    + [(batches, 1e-6, batches, batches) for batches in (1, 2, 3)],
)
def test_what_is_slow_is_timed_once_and_no_more_than_is_swept(tmp_path, monkeypatch, per_class, seconds, clean, normal):
    """
    Catches: a plan that repeats what takes minutes, or trusts what took a moment once; a plan of a small sweep that
    takes longer than the sweep.
    """
    monkeypatch.setattr(planner, "choose_batch_size", lambda *_: 10)
    _, card, workspace = project(tmp_path, TICKS, per_class=per_class)
    plan = Planner(workspace, lambda: images_seen(card) * seconds).plan(card)
    assert [cost.batches for cost in plan.costs] == [per_class] * 2
    assert passes_seen(card).count(10) == clean + 2 * normal  # two strengths


@pytest.mark.parametrize(
    ("cores", "images", "batches", "size", "rounds"),
    [(1, 20, 2, 10, 2), (2, 20, 2, 10, 1), (3, 20, 2, 10, 1), (2, 30, 4, 8, 2), (3, 30, 4, 8, 2)],
)
def test_a_round_is_one_batch_a_core(tmp_path, monkeypatch, cores, images, batches, size, rounds):
    """
    This clock adds up what threads take. Catches: a plan that takes longer than it must; a core that is left out; more
    threads than there are batches; two whole rounds for one and a half.
    """
    monkeypatch.setattr(hardware, "cpu_count", lambda: cores)
    monkeypatch.setattr(planner, "choose_batch_size", lambda *_: size)
    _, card, workspace = project(tmp_path, TICKS, per_class=images // 10)
    clean, _ = Planner(workspace, lambda: images_seen(card) / 1000).plan(card).costs
    assert (clean.images, clean.batches, clean.batch_size) == (images, batches, size)
    assert clean.batch == pytest.approx(batches / rounds * size / 1000)
    assert clean.seconds(cores) - clean.start == pytest.approx(batches * size / 1000)


def test_a_model_that_keeps_state_has_one_thread(tmp_path, monkeypatch):
    """Catches: a time for two threads of a sweep that works in one."""
    source = TICKS.replace("super().forward(inputs.flatten(1))", "super().forward(inputs.flatten(1)) + len(SEEN)")
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    _, card, workspace = project(tmp_path, source)
    for cost in Planner(workspace).plan(card).costs:
        assert not cost.parallel
        assert cost.seconds(2) == cost.seconds(1)


@pytest.mark.parametrize(("lost", "images"), [([1], 200), ([0], 1000), ([], 0)])
def test_finished_chunks_cost_nothing(tmp_path, monkeypatch, lost, images):
    """A sweep that was cut off. Catches: images counted that a run takes from the store; a division by no batches."""
    path, card, workspace = project(tmp_path, per_class=120)
    monkeypatch.setattr(chunk_cache, "EVERY", 0.0)
    monkeypatch.setattr(chunk_cache.StoredChunks, "remove", lambda self: None)
    workspace.evidence(card, "normal")
    key = workspace.key(card, "normal")
    workspace.store.path("evidence", key).unlink()
    for chunk in lost:
        (workspace.store.root / "chunks" / key[:2] / key / f"{chunk}.safetensors").unlink()
    plan = Planner(helpers.open_workspace(path)).plan(card)
    (cost,) = plan.costs
    assert (cost.label, cost.images, plan.stored) == ("tiny:normal", images, ("tiny:clean",))
    assert cost.batches == math.ceil(images / cost.batch_size)
    assert len(cost.chunks(1)) == len(lost)


def test_it_says_what_it_was_measured_on_and_that_nothing_is_left(tmp_path):
    """Catches: a time of nobody knows which machine, threads and batches; zeros that look like a plan."""
    path, card, workspace = project(tmp_path)
    lines, _ = plan_lines(workspace, [card], EngineSpec())
    (said,) = (line for line in lines if line.startswith("extrapolated from the first batches"))
    assert "15 images per batch, up to 1 batches at a time, cpu-" in said
    workspace.evidence(card, "normal")
    lines, wrong = plan_lines(helpers.open_workspace(path), [card], EngineSpec("ray", workers=4))
    assert not wrong
    assert "nothing to compute: all 2 sweeps are in the store" in lines


def test_what_is_not_trained_comes_first_and_is_not_trained_now(tmp_path, monkeypatch, capsys):
    """Catches: a plan that trains, or that says nothing of the training that it leaves out."""
    monkeypatch.chdir(tmp_path)
    helpers.project(tmp_path, TICKS)
    store = tmp_path / "store"
    assert main.main(["plan", "tiny", "--store", str(store)]) == 0
    printed = capsys.readouterr().out
    assert "not counted: tiny is not trained; its sweeps are timed with random weights; train it first:" in printed
    assert "2 sweeps to compute: 90 images forward, 0 backward" in printed
    assert not (store / "weights").exists()
    assert not (store / "evidence").exists()


def test_what_a_transfer_needs_of_its_source_is_planned_once(tmp_path):
    """Catches: the source's own sweeps left out, or counted again for a second card; its gradient in the target's."""
    path, card, workspace = project(tmp_path)
    other = path.with_name("other.toml")
    moved = path.read_text().replace("seed = 1", "seed = 2").replace('"tiny"', '"other"')
    transfer = '\n[sweeps.moved]\nkind = "fgsm"\nsource = "tiny.toml"\nstrengths = [0.1, 0.2, 0.3]\n'
    other.write_text(moved + transfer)
    both = Planner(workspace)
    whole = both.plan(card) + both.plan(cards.load(other))
    made = {cost.label: (cost.forward, cost.backward) for cost in whole.costs}
    assert len(made) == len(whole.costs) == 6
    assert made["tiny:moved"] == made["other:moved"] == (4, 1)  # of these one, with its gradient, on the source
    assert workspace.evidence(cards.load(other), "moved").status == ("ok",) * 3
    left = Planner(helpers.open_workspace(path)).plan(cards.load(other))
    assert [cost.label for cost in left.costs] == ["other:normal"]


@pytest.mark.parametrize(("kind", "product"), [("advgan", "generator"), ("patch", "square")])
def test_a_generator_is_said_to_come_first(tmp_path, kind, product):
    """Catches: a plan that fits a generator, or leaves out what it does in the sweep."""
    _, card, workspace = project(tmp_path, card=SEEDED + f'\n[sweeps.gan]\nkind = "{kind}"\nstrengths = [0.1]\n')
    assert Planner(workspace).plan(card).notes == (f"the {product} of {kind} is fitted to tiny first",)
    assert not (workspace.store.root / "generators").exists()


def test_engines_share_the_work():
    """Catches: threads counted for Ray's workers, a start for each chunk, or whole sweeps cut for the local engine."""
    costs = [Cost(f"m:{i}", 4000, 1, 1, 0, 10, batch_size=500, batches=8, start=1.0, batch=2.0) for i in range(3)]
    plan = Plan(tuple(costs))
    assert plan.seconds("local", 1, 2) == 3 * (1 + 4 * 2)
    assert plan.seconds("local", 2, 1) == 2 * (1 + 8 * 2)
    assert plan.seconds("ray", 1, 1) == 3 * 8 * 2
    assert plan.seconds("ray", 12, 1) == 4
    assert plan.seconds("ray", 12, 2) == 2
    assert plan.seconds("ray", 1000, 1) == 4, "no chunk is shared"
    assert Cost("m:x", 10, 1, 1, 0, 1, batch_size=3, batches=4, start=0.0, batch=1.0, parallel=False).seconds(2) == 4


def test_memory_is_the_peak_of_the_work():
    """Catches: memory read after the work, when it is free again."""
    without, used = costs.peak_memory(lambda: None, "cpu"), costs.peak_memory(lambda: np.ones(2**26), "cpu")
    assert 2**28 < used - without < 2**30


def test_what_cannot_be_planned_keeps_nothing_else_out(tmp_path):
    """
    Catches: an error that ends the plan, one of no model's name, or a sum that hides what is missing from it; a card
    without a plan since one of its sweeps will fail, or a time for that sweep.
    """
    source = helpers.MODULE.replace("nn.Flatten(),", "nn.Flatten(), Cut(),").replace("def factory", CUT + "def factory")
    _, card, workspace = project(tmp_path, source, SEEDED + ATTACKS)
    bad = [
        project(tmp_path / name, source, SEEDED.replace('"tiny"', f'"{name}"'))[1]
        for name, source in (("broken", RAISES), ("narrow", helpers.MODULE.replace("classes=10", "classes=7")))
    ]
    lines, errors = plan_lines(workspace, [*bad, card], EngineSpec())
    assert errors[0] == "broken: its forward pass raised KeyError: 3; run `robustness check` to inspect it"
    assert errors[1].startswith("narrow: the classifier must return logits of shape (images, outputs) = (2, 10)")
    assert len(errors) == 2
    due = ["NOT IN THIS PLAN: 2 of 3 cards", "3 sweeps to compute"]
    due += [f"not counted: tiny:{name} fails: raised GradientError" for name in ("fgsm", "pgd")]
    for start in due:
        assert any(line.startswith(start) for line in lines), start


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "no model is called nobody; known: tiny"),
        (["--card", "nowhere.toml"], "there is no such card"),
        (["--engine", "dask"], "`engine` must be local or ray[=ADDRESS], got 'dask'"),
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
