"""Examples made on one model and shown to another: against hand counts and a bare loop, through cards and the store."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import helpers
import numpy as np
import pytest
import torch
from helpers import open_workspace
from torch import nn
from transfer_pairs import STRENGTHS, decided, evidence, pair, text

from robustness import cards, claims
from robustness.cards import Claim
from robustness.decisions import Null
from robustness.errors import CardError, ModelError, RobustnessError
from robustness.metrics.attack_success import fooled
from robustness.metrics.detection import discarded
from robustness.metrics.evidence import OK
from robustness.metrics.registry import measure_cell
from robustness.perturbations import APGD, FGSM, IFGSM, PGD
from robustness.perturbations.fgsm import fgsm
from robustness.sweep.runner import directions as make_directions
from robustness.sweep.runner import run_sweep
from robustness.workspace.attack_inputs import directions

pytestmark = pytest.mark.usefixtures("own_path")


@pytest.fixture
def path(tmp_path) -> Path:
    return pair(tmp_path / "project")


def rewritten(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def examples(made, card, strength, on="source"):
    """The module of a card, and what FGSM makes of its images on its source, or on itself, in plain calls."""
    target, source = made.classifier(card).module, made.classifier(made.source(card, "far")).module
    inputs, labels = helpers.tensors(made.images(card))
    return target, fgsm(source if on == "source" else target, inputs, labels, epsilon=strength)


def test_evidence_is_the_target_s_on_examples_made_on_the_source(path):
    """Image by image. Catches: white-box examples, the source's decisions, the target's labels of the source."""
    made, card, other = open_workspace(path), cards.load(path), cards.load(path.with_name("other.toml"))
    evidence, source = made.evidence(card, "far"), made.classifier(other).module
    inputs, labels = helpers.tensors(made.images(card))
    assert evidence.status == (OK,) * 3
    for row, strength in enumerate(STRENGTHS):
        target, shown = examples(made, card, strength)
        assert np.array_equal(evidence.predictions[row], decided(target, shown))
        assert np.array_equal(evidence.source.predictions[row], decided(source, shown))
    clean = decided(target, inputs)
    assert (clean == labels.numpy()).mean() > 0.6
    white = decided(*examples(made, card, 0.1, on="target"))
    assert not np.array_equal(evidence.predictions[1], white), "else this shows nothing"
    assert np.array_equal(evidence.clean.predictions[0], clean)
    assert np.array_equal(evidence.source.clean.predictions[0], decided(source, inputs))


@pytest.mark.parametrize(
    "attack", [FGSM(norm="l2"), IFGSM(steps=3), PGD(steps=3, restarts=2), APGD(steps=3), FGSM()], ids=repr
)
def test_every_attack_can_be_made_on_another_model(attack):
    """At equal batches the target sees just what the source's own sweep made of the images."""
    images = helpers.images(50)
    target, source = helpers.linear(images), helpers.linear(images, seed=3)
    seen = {}

    class Looks(nn.Module):
        def __init__(self, inner, name):
            super().__init__()
            self.inner, self.name = inner, name

        def forward(self, inputs):
            if not inputs.requires_grad:
                seen.setdefault(self.name, []).append(inputs.clone())
            return self.inner(inputs)

        def __deepcopy__(self, memo):
            return self

    run_sweep(Looks(source, "alone"), images, attack, [0.1], batch_size=50, threads=1)
    evidence = run_sweep(Looks(target, "target"), images, attack, [0.1], batch_size=50, threads=1, source=source)
    assert torch.equal(seen["alone"][-1], seen["target"][-1])
    assert np.array_equal(evidence.predictions[0], decided(target, seen["alone"][-1]))


def test_directions_are_the_signs_of_the_source_s_gradient(path):
    """Catches: another order of images, signs of the target, an int8 that has lost its zeros."""
    made, card = open_workspace(path), cards.load(path)
    source = made.source(card, "far")
    kept = directions(made, made.resolve(source, "far"))
    images, module = made.images(card), made.classifier(source).module
    inputs, labels = helpers.tensors(images)
    leaf = inputs.clone().requires_grad_()
    nn.functional.cross_entropy(module(leaf), labels, reduction="sum").backward()
    assert kept.dtype == np.int8
    assert np.array_equal(kept, leaf.grad.sign().numpy())
    assert set(np.unique(kept)) == {-1, 0, 1}, "black corners have a gradient of zero"
    again = open_workspace(path)
    assert np.array_equal(directions(again, again.resolve(source, "far")), kept), "from the store"
    module.zero_grad()


def test_directions_of_other_code_are_made_again(path):
    """The same weights in another forward. Catches: fresh evidence from the signs of what the source once computed."""
    made, card = open_workspace(path), cards.load(path)
    before = made.evidence(card, "far")
    (module,) = path.parents[1].glob("tiny_*.py")
    sys.modules.pop(module.stem)
    module.write_text(module.read_text().replace("super().forward(inputs)", "super().forward(1 - inputs)"))
    again = open_workspace(path)
    evidence = again.evidence(card, "far")
    inputs, _ = helpers.tensors(again.images(card))
    outputs = again.classifier(card).module(inputs)
    assert torch.equal(outputs, made.classifier(card).module(1 - inputs)), "the code has changed, nothing else"
    for row, strength in enumerate(STRENGTHS):
        assert np.array_equal(evidence.predictions[row], decided(*examples(again, card, strength)))
    assert not np.array_equal(before.predictions, evidence.predictions)


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: content[:-9] + b"\x01" * 9])
def test_directions_that_are_torn_or_changed_are_made_again(path, damage):
    """As everything else in the store: not believed, and never the end of a run."""
    made, card = open_workspace(path), cards.load(path)
    source = made.source(card, "far")
    due = directions(made, made.resolve(source, "far")).copy()  # else it is mapped from what is torn now
    files = [f for f in (made.store.root / "directions").rglob("*") if f.is_file()]
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    assert len(files) >= 1
    again = open_workspace(path)
    assert np.array_equal(directions(again, again.resolve(source, "far")), due)


def test_directions_made_before_give_the_same_evidence():
    images = helpers.images(1100)
    target, source = helpers.linear(images), helpers.linear(images, seed=3)
    signs, counted = make_directions(source, images, FGSM(), threads=2)
    assert counted == {}
    due = run_sweep(target, images, FGSM(), [0.1, 0.4], source=source)
    assert run_sweep(target, images, FGSM(), [0.1, 0.4], source=source, directions=signs).digest == due.digest


def test_the_key_depends_on_what_the_source_is_and_not_on_its_name(path):
    """Catches: a path in the key (nothing is shared between machines), a source left out of it (stale evidence)."""
    card = cards.load(path)
    key = open_workspace(path).key(card, "far")
    other = path.with_name("other.toml")
    rewritten(other, 'name = "other"', 'name = "renamed"')
    other.rename(path.with_name("elsewhere.toml"))
    rewritten(path, "other.toml", "elsewhere.toml")
    rewritten(path, 'name = "tiny"', 'name = "small"')
    rewritten(path, "[sweeps.far]", "[sweeps.afar]")
    assert open_workspace(path).key(cards.load(path), "afar") == key
    rewritten(path.with_name("elsewhere.toml"), "power = 3.0", "power = 2.0")
    assert open_workspace(path).key(cards.load(path), "afar") != key
    rewritten(path.with_name("elsewhere.toml"), "power = 2.0", "power = 3.0")
    rewritten(path.with_name("elsewhere.toml"), ':factory"', ':factory"\narguments = { scale = 2.0 }')
    assert open_workspace(path).key(cards.load(path), "afar") != key
    rewritten(path.with_name("elsewhere.toml"), "\narguments = { scale = 2.0 }", "")
    assert open_workspace(path).key(cards.load(path), "afar") == key
    rewritten(path, 'source = "elsewhere.toml"\n', "")
    assert open_workspace(path).key(cards.load(path), "afar") != key, "the white-box attack"


def test_the_source_s_evidence_is_that_of_its_own_sweep(path):
    """Catches: the source attacked anew for each target: one entry serves its own card and all that name it."""
    made, card, other = open_workspace(path), cards.load(path), cards.load(path.with_name("other.toml"))
    beside = made.evidence(card, "far").source
    labels = sorted(e.provenance["label"] for _, e in made.store.entries())
    assert labels == ["other:clean", "other:far", "tiny:clean", "tiny:far"]
    own = made.evidence(other, "near")
    assert own.digest == beside.digest
    assert len(list(made.store.entries())) == 4
    assert made.notices == []


def test_a_source_of_another_project(tmp_path):
    """Its modules lie elsewhere: warm evidence must be believed, and no longer when its code has changed."""
    far = pair(tmp_path / "far", source=text("distant", power=3.0, sweep="near", source=None))
    path = pair(tmp_path / "project", target=text(source="../../far/models/other.toml"))
    first = open_workspace(path).evidence(cards.load(path), "far")
    assert first.status == (OK,) * 3
    again = open_workspace(path)
    assert again.evidence(cards.load(path), "far").digest == first.digest
    assert (again.notices, again._loaded) == ([], {})
    (module,) = far.parents[1].glob("tiny_*.py")
    module.write_text(module.read_text() + "\nCHANGED = True\n")
    with pytest.raises(ModelError, match="has changed since this run read it"):
        open_workspace(path).evidence(cards.load(path), "far")
    del sys.modules[module.stem]  # as a new process has it
    changed = open_workspace(path)
    changed.evidence(cards.load(path), "far")
    assert any("is older than" in notice or "changed" in notice for notice in changed.notices)


#        both  not  source  only    target  right  wrong  wrong
#        fall  b    wrong   target  wrong   both   clean  at 0
LABELS = [0, 0, 1, 1, 2, 2, 0, 1]
SOURCE_CLEAN = [0, 0, 2, 1, 2, 2, 0, 1]
SOURCE_UNDER = [1, 2, 0, 1, 0, 2, 1, 0]
TARGET_CLEAN = [0, 0, 1, 1, 1, 2, 0, 1]
TARGET_UNDER = [2, 0, 0, 0, 1, 2, 1, 2]
ATTACK = [0.9, 0.0, 0.9, 0.9, 0.0, 0.0, 0.5, 0.4999]


def counted(**more):
    source = evidence(LABELS, SOURCE_CLEAN, SOURCE_UNDER)
    return replace(evidence(LABELS, TARGET_CLEAN, TARGET_UNDER, **more), source=source)


def test_transferability_is_counted_as_the_paper_says():
    """Xa: images 0, 1, 4, 6, 7 mislead the source; of them 0, 6, 7 the target too (4 was wrong to begin with)."""
    both = counted(attack=ATTACK)
    assert np.flatnonzero(fooled(both.source, 0)).tolist() == [0, 1, 4, 6, 7]
    assert np.flatnonzero(fooled(both, 0)).tolist() == [0, 2, 3, 6, 7]
    found = measure_cell(both, 0, "transferability")
    assert (found.successes, found.n, found.value) == (3, 5, 0.6)
    assert np.flatnonzero(discarded(both, 0)).tolist() == [0, 2, 3], "above the threshold, not at it"
    filtered = measure_cell(both, 0, "selective_transferability")
    assert (filtered.successes, filtered.n, filtered.value) == (2, 5, 0.4)
    success = measure_cell(both, 0, "attack_success_rate")
    assert (success.successes, success.n) == (5, 7)
    filtered = measure_cell(counted(attack=ATTACK, threshold=0.45), 0, "selective_transferability")
    assert (filtered.successes, filtered.n) == (0, 5), "by the decision's own threshold"


def test_a_sweep_s_transferability_equals_a_hand_count(path):
    """From the models themselves, filtered and not, with a NULL decision on the target."""
    path = pair(path.parents[2] / "second", text(model='decision = { kind = "null" }\narguments = { outputs = 11 }'))
    made, card = open_workspace(path), cards.load(path)
    both = made.evidence(card, "far")
    target, source = made.classifier(card).module, made.classifier(made.source(card, "far")).module
    inputs, labels = helpers.tensors(made.images(card))
    truth = labels.numpy()
    shares = []
    for strength in STRENGTHS:
        examples = fgsm(source, inputs, labels, epsilon=strength)
        on_source = (decided(source, inputs) == truth) & (decided(source, examples) != truth)
        with torch.no_grad():
            f = target(examples).double().softmax(1).numpy()
            before = target(inputs).double().softmax(1).numpy()[:, :-1].argmax(1)
        on_target = (before == truth) & (f[:, :-1].argmax(1) != truth)
        for name, hit in (("", on_target), ("selective_", on_target & (f[:, -1] <= 0.5))):
            found = claims.measure(both, f"{strength:g}", f"{name}transferability")
            assert (found.successes, found.n) == ((hit & on_source).sum(), on_source.sum())
            shares.append(found.value)
    assert 0 < shares[2] < 1
    assert shares[3] < shares[2] or shares[5] < shares[4], "else the filter shows nothing"
    assert both.attack_probability.shape == (3, len(truth))
    assert both.source.attack_probability is None


def test_a_source_without_a_misleading_example_keeps_no_claim():
    """0/0 is not 0: an attack that fails on its own model says nothing of another."""
    source = evidence(LABELS, SOURCE_CLEAN, SOURCE_CLEAN)
    nothing = replace(evidence(LABELS, TARGET_CLEAN, TARGET_UNDER), source=source)
    verdict = claims.judge(claim(), nothing)
    assert verdict.outcome == "failed"
    assert "no example misleads the source" in verdict.message


def claim(metric="transferability", threshold=0.9, clean=0.5) -> Claim:
    return Claim("tiny", "far", "0.1", metric, threshold, "transfer", (("accuracy", clean),) if clean else ())


def test_an_upper_bound_holds_only_with_the_clean_accuracy_that_its_card_claims():
    """Target right on 7 of 8. Catches: a constant classifier that nothing transfers to."""
    assert claims.judge(claim(clean=0.875), counted()).passed
    verdict = claims.judge(claim(clean=0.9), counted())
    assert verdict.outcome == "failed"
    assert "counts only with a clean accuracy of at least 0.9, and it is 0.8750" in verdict.message
    assert claims.judge(claim(clean=None), counted()).outcome == "failed"
    assert claims.judge(claim(threshold=0.6), counted()).passed
    assert claims.judge(claim(threshold=0.59), counted()).outcome == "failed"
    assert claims.judge(claim(threshold=1.0), counted()).outcome == "vacuous"


def test_a_clean_accuracy_that_a_constant_classifier_has_does_not_count():
    """It is right on 3 of 8 and nothing misleads it there: claiming 0.3 of clean accuracy must not make that robust."""
    constant = replace(counted(), predictions=np.zeros((1, 8), np.int32))
    constant = replace(constant, clean=replace(constant.clean, predictions=np.zeros((1, 8), np.int32)))
    assert claims.measure(constant, "0.1", "transferability").value == 0
    assert not claims.judge(claim(clean=0.3), constant).passed


def test_a_source_whose_cell_has_no_numbers_is_an_error():
    """Catches: an attack that raised counted as one that misled nobody."""
    source = evidence(LABELS, SOURCE_CLEAN, [-1] * 8, status="raised RuntimeError: no memory")
    verdict = claims.judge(claim(), replace(counted(), source=source))
    assert verdict.outcome == "error"
    assert "the source has no numbers at 0.1: raised RuntimeError: no memory" in verdict.message


@pytest.mark.parametrize(
    ("metric", "lacking", "said"),
    [
        ("transferability", {"source": None}, "evidence of the source model"),
        ("transferability", {"clean": None}, "clean evidence"),
        ("selective_transferability", {}, "needs a decision with an attack probability"),
    ],
)
def test_what_is_missing_beside_is_an_error(metric, lacking, said):
    verdict = claims.judge(claim(metric), replace(counted(), **lacking))
    assert verdict.outcome == "error"
    assert said in verdict.message


CLEAN = "\n[claims.clean]\naccuracy = 0.5\n"
FAR = "\n[claims.far]\ntransferability = [0.5, 0.5, 0.5]\n"
TRANSFER, SUCCESS = "claims.far.transferability", "attack_success_rate"
SOURCELESS, ALONE = "needs examples from another model", "counts only together with a claim of clean accuracy"


@pytest.mark.parametrize("metric", ["transferability", "selective_transferability", "attack_success_rate"])
@pytest.mark.parametrize("threshold", ["0.0", "1.0", "1.5", "-0.1", "nan", "inf"])
def test_cards_refuse_bounds_that_cannot_fail_or_never_hold(tmp_path, metric, threshold):
    more = CLEAN + f"\n[claims.far]\n{metric} = [0.5, {threshold}, 0.5]\n"
    with pytest.raises(CardError, match=rf"thresholds of `{metric}` must lie in \(0, 1\), got"):
        cards.load(pair(tmp_path / "project", text(more=more)))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"source": None, "more": CLEAN + FAR}, f"{TRANSFER}: {SOURCELESS}; name its card in sweeps.far.source"),
        ({"more": FAR}, f"{TRANSFER}: {ALONE}"),
        ({"source": None, "more": FAR.replace("transferability", SUCCESS)}, f"claims.far.{SUCCESS}: {ALONE}"),
        ({"more": CLEAN.replace("0.5", '"no claim possible"') + FAR}, f"{TRANSFER}: {ALONE}"),
        ({"more": f"{CLEAN}transferability = 0.5\n"}, f"claims.clean.transferability: {SOURCELESS}"),
        ({"kind": "contrast"}, "unknown key 'source'"),
        ({"kind": "fgsm", "strengths": [0.1, 1.5]}, "`strengths` of fgsm must lie in [0, 1], got 1.5"),
    ],
)
def test_cards_say_what_a_transfer_lacks(tmp_path, made, said):
    with pytest.raises(CardError, match=re.escape(said)):
        cards.load(pair(tmp_path / "project", text(**made)))


def test_claims_of_a_transfer_have_a_family_of_their_own_and_the_clean_accuracy(tmp_path):
    more = CLEAN + "\n[claims.far]\ntransferability = [0.5, 0.6, 0.7]\n"
    card = cards.load(pair(tmp_path / "project", text(more=more)))
    found = [c for c in card.claims() if c.sweep == "far"]
    assert [(c.strength, c.threshold, c.family, dict(c.clean)) for c in found] == [
        ("0.02", 0.5, "transfer", {"accuracy": 0.5}), ("0.1", 0.6, "transfer", {"accuracy": 0.5}),
        ("0.3", 0.7, "transfer", {"accuracy": 0.5}),
    ]  # fmt: skip


@pytest.mark.parametrize("broken", ["missing", "unreadable", "folder", "wrong key"])
def test_a_source_card_that_cannot_be_read_is_said(path, broken):
    other = path.with_name("other.toml")
    other.unlink()
    if broken == "folder":
        other.mkdir()
    elif broken != "missing":
        other.write_text("name = [" if broken == "unreadable" else 'name = "other"\nweigths = 1\n')
    made = open_workspace(path)
    for _ in range(2):
        with pytest.raises(CardError, match=r"other\.toml: .*(not a readable TOML file|problem\(s\) in this card)"):
            made.evidence(cards.load(path), "far")
    assert made.evidence(cards.load(path)).status == (OK,), "the card's other evidence does not need it"


def test_a_source_with_other_classes_is_an_error(tmp_path):
    source = text("other", model="arguments = { outputs = 11 }", power=3.0, sweep="near", source=None)
    path = pair(tmp_path / "project", source=source)
    with pytest.raises(RobustnessError, match=r"\(images, outputs\) = .*10\) for the 10 classes .*got .*11\)"):
        open_workspace(path).evidence(cards.load(path), "far")


@pytest.mark.parametrize("kind", ["fgsm", "ifgsm"])
@pytest.mark.parametrize(("before", "said"), [("broken", "non-finite gradients"), ("flat", "no gradient")])
def test_a_source_without_gradients_that_are_numbers_is_an_error(tmp_path, kind, before, said):
    """In the run that makes it and in one that finds it. Catches: NaN made into int8 zeros, a clean image as attack."""
    source = text("other", model=f'arguments = {{ before = "{before}" }}', sweep="near", source=None)
    path = pair(tmp_path / "project", text(kind=kind), source)
    for _ in range(2):
        try:
            statuses = open_workspace(path).evidence(cards.load(path), "far").status
        except RobustnessError as error:
            statuses = (str(error),)
        assert all(said in status for status in statuses), statuses


def test_convolutions_may_differ_in_their_outputs_too():
    """Catches: the source held to the number of outputs that the target's decision needs."""
    images = helpers.images(20, shape=(6, 6))

    def net(outputs):
        torch.manual_seed(outputs)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, outputs))

    evidence = run_sweep(net(4), images, PGD(steps=2), [0.1], source=net(3), decision=Null())
    assert evidence.status == (OK,)
    assert run_sweep(net(3), images, FGSM(), [0.1], source=net(4), source_decision=Null()).status == (OK,)


def test_the_attack_is_on_the_source_s_own_decision():
    """Catches: a NULL source attacked through its outputs as if one were a class, or by the target's decision."""
    images = helpers.images(50)
    source, target = helpers.linear(helpers.images(1, classes=4)), helpers.linear(images)
    inputs, labels = helpers.tensors(images)
    leaf = inputs.clone().requires_grad_()
    nn.functional.cross_entropy(source(leaf)[:, :3], labels, reduction="sum").backward()
    due = decided(target, (inputs + 0.15 * leaf.grad.sign()).clamp(0, 1))
    other = decided(target, fgsm(source, inputs, labels, epsilon=0.15))
    assert not np.array_equal(due, other), "else this shows nothing"
    evidence = run_sweep(target, images, FGSM(), [0.15], source=source, source_decision=Null())
    assert np.array_equal(evidence.predictions[0], due)
    signs, _ = make_directions(source, images, FGSM(), decision=Null())
    assert np.array_equal(signs, leaf.grad.sign().numpy())


def test_directions_are_those_of_the_target_s_images(path):
    """Catches: signs for other images, because the source's card was tested on others."""
    made = open_workspace(path)
    made.evidence(cards.load(path), "far")
    rewritten(path, "per_class = 8", "per_class = 8, seed = 1")
    evidence = open_workspace(path).evidence(cards.load(path), "far")
    assert np.array_equal(evidence.predictions[1], decided(*examples(made, cards.load(path), 0.1)))


def test_a_source_that_has_a_length_of_zero_is_still_the_source():
    """Catches: `if source`, which asks a container how much it holds."""

    class Empty(nn.Sequential):
        def forward(self, inputs):
            return torch.stack([inputs.mean((1, 2, 3)), -inputs.mean((1, 2, 3)), inputs[:, 0, 0, 0] * 0], 1)

    images = helpers.images(30)
    model = helpers.linear(images)
    signs, _ = make_directions(Empty(), images, FGSM())
    due = run_sweep(model, images, FGSM(), [0.2], source=helpers.linear(images, seed=1), directions=signs)
    assert run_sweep(model, images, FGSM(), [0.2], source=Empty()).digest == due.digest
