"""What attacks meet in the wild: a clear error or the right answer, and never "not fooled" for want of an attack."""

import re

import helpers
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from robustness.classifiers.modules import state_hash
from robustness.data import from_arrays
from robustness.decisions import Argmax, Null
from robustness.errors import GradientError, ModelError
from robustness.metrics.evidence import OK
from robustness.perturbations import APGD, FGSM, IFGSM, PGD, Clean, GaussianNoise, TargetedAPGD
from robustness.perturbations.fgsm import fgsm
from robustness.perturbations.pgd import pgd
from robustness.sweep.runner import run_sweep

ATTACKS = [FGSM(), FGSM(norm="l2"), FGSM(loss="margin"), IFGSM(steps=3), PGD(steps=3), PGD(steps=3, restarts=2)]
ATTACKS += [PGD(steps=3, stop_when_fooled=True), PGD(steps=3, norm="l2")]
ATTACKS += [TargetedAPGD(steps=3, loss="margin"), APGD(steps=3)]
IDS = ["fgsm", "fgsm-l2", "fgsm-margin", "ifgsm", "pgd", "pgd-restarts", "pgd-worst", "pgd-l2", "apgd-t", "apgd"]
EVERY = pytest.mark.parametrize("attack", ATTACKS, ids=IDS)
FEW = pytest.mark.parametrize("attack", ATTACKS[::3], ids=IDS[::3])


class Marked(nn.Module):
    """Linear; ``how`` decides what becomes of the logits of an image whose top left pixel is marked, i.e. light."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.linear = nn.Linear(15, 3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.linspace(-1, 1, 45).sin().view(3, 15))

    def forward(self, inputs):
        flat = inputs.flatten(1)
        logits = self.linear(flat[:, 1:])
        changed = [self.how(row) if first > 0.5 else row for row, first in zip(logits, flat[:, 0], strict=True)]
        return torch.stack(changed)


def some(count=100, marked=0):
    """Images whose top left pixel is black, but white in the first ``marked``; the model's own classes as labels."""
    pixels = helpers.images(count).pixels.copy()
    pixels[:, 0, 0] = 0
    pixels[:marked, 0, 0] = 255
    with torch.no_grad():
        inputs = torch.from_numpy(pixels[:, None].astype(np.float32) / 255)
        labels = Marked(lambda row: row)(inputs).argmax(1).numpy()
    return from_arrays(pixels, labels, ("a", "b", "c"))


NO_NUMBERS = {  # the same logits, whose gradient is 0·inf
    "nan": lambda row: row + (row - row.detach()).sqrt(),
    "infinite": lambda row: row + (row - row.detach()).abs().pow(0.5),
}


@FEW
@pytest.mark.parametrize("how", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_one_gradient_that_is_no_number_fails_the_cell(attack, how):
    """One image of 400. Catches: a sign of NaN, a step of zero: an image that nothing seems to change."""
    images = some(400, marked=1)
    evidence = run_sweep(Marked(how), images, attack, [0.05, 0.1], batch_size=150)
    for status in evidence.status:
        assert re.fullmatch(r"non-finite gradients for \d+ of 400 images \(.*\)", status)
        assert int(re.search(r"for (\d+) of", status).group(1)) == 1, "images, not steps"
    assert run_sweep(Marked(how), images, GaussianNoise(), [0.05]).status == (OK,)


def zero_gradient(row):
    return row.detach() + 0 * row


class Even(nn.Module):
    """Two classes, signs times pixels; without a gradient for images whose top left pixel is light, if ``flat``."""

    def __init__(self, flat=True):
        super().__init__()
        self.flat, self.signs = flat, torch.tensor([1.0, -1.0] * 8)[1:]

    def forward(self, inputs):
        pixels = inputs.flatten(1)
        score = (pixels[:, 1:].double() @ self.signs.double() + 0.5).float()  # exact, in batches of any size
        if self.flat:
            score = torch.where(pixels[:, 0] > 0.5, score.detach() + 0 * score, score)
        return torch.stack([-score, score], 1)


def even(count, marked):
    """Images of which the first are marked, and the model's own classes."""
    pixels = some(count, marked).pixels
    with torch.no_grad():
        labels = Even()(torch.from_numpy(pixels[:, None].astype(np.float32) / 255)).argmax(1).numpy()
    return from_arrays(pixels, labels, ("a", "b"))


@FEW
@pytest.mark.parametrize("marked", [4, 20])
def test_images_without_any_gradient_are_searched_without_one_and_counted(attack, marked):
    """Catches: an image counted once a step, or once a strength; one that stands still taken for one that resists."""
    images, strengths = even(400, marked), [0.02, 0.1, 0.4]
    evidence, plain = (run_sweep(Even(flat), images, attack, strengths, batch_size=150) for flat in (True, False))
    assert evidence.status == (OK,) * 3
    right, due = ((each.predictions == each.labels)[:, :marked] for each in (evidence, plain))
    for row, strength in enumerate(evidence.strengths):
        said = f"no gradient (neither cross-entropy's nor the margin's) for {marked} of 400 images ({marked / 400:.1%})"
        if left := int(right[row].sum()):
            said += f"; a search without gradients found nothing for {left} of 400 images ({left / 400:.1%})"
        assert evidence.provenance["notes"][strength] == said
    assert np.array_equal(evidence.predictions[:, marked:], plain.predictions[:, marked:])
    assert (right >= due)[0].all(), "on a linear model nothing misleads more than the gradient"
    assert right[0].any()
    assert not right[2].any()
    if isinstance(attack, FGSM):
        assert np.isinf(evidence.snr[:, :marked][right]).all()
    assert np.isfinite(evidence.snr[:, :marked][~right]).all()
    assert np.isfinite(evidence.snr[:, marked:]).all()


@FEW
@pytest.mark.parametrize(("marked", "due"), [(100, "nothing"), (201, "no gradient"), (400, "no gradient")])
def test_where_many_images_have_no_gradient_the_cell_errors(attack, marked, due):
    """
    More than 5 % that a search leaves, or more than half without a gradient, whatever it finds of them.

    Catches: masked gradients that look like robustness at a small budget.
    """
    (status,) = run_sweep(Marked(zero_gradient), some(400, marked), attack, [0.01], batch_size=150).status
    if due == "nothing":
        count = re.fullmatch(r"a search without gradients found nothing for (\d+) of 400 images \(.*\)", status)
        assert 20 < int(count.group(1)) <= 100
    else:
        said = f"no gradient (neither cross-entropy's nor the margin's) for {marked} of 400 images"
        assert status == f"{said} ({marked / 400:.1%})"


@FEW
def test_images_that_are_wrong_need_no_gradient(attack):
    """A fifth of the images, all of them wrong. Catches: a certified network that errors for what it gets wrong."""
    images = some(400, 80)
    labels = images.labels.copy()
    labels[:80] = (labels[:80] + 1) % 3
    evidence = run_sweep(Marked(zero_gradient), from_arrays(images.pixels, labels, images.classes), attack, [0.05])
    assert evidence.status == (OK,)
    if isinstance(attack, APGD):  # what is wrong is not attacked
        assert not evidence.provenance["notes"]
        return
    assert "80 of 400" in evidence.provenance["notes"]["0.05"]
    assert "search" not in evidence.provenance["notes"]["0.05"]


@FEW
def test_the_search_does_not_depend_on_the_batch(attack):
    images = even(300, 14)
    one, other = (run_sweep(Even(), images, attack, [0.05, 0.1], batch_size=size) for size in (300, 7))
    assert np.array_equal(one.predictions, other.predictions)
    assert 0 < (one.predictions != one.labels)[:, :14].sum() < 28, "else this shows nothing"
    assert one.provenance["notes"] == other.provenance["notes"]


@pytest.mark.parametrize("attack", ATTACKS[:5], ids=IDS[:5])
def test_logits_times_ten_thousand_are_attacked_just_as_well(attack):
    """Two classes: both losses point the same way. Catches: cross-entropy's underflow taken for robustness."""
    pixels = helpers.images(300).pixels
    random = np.random.default_rng(0)
    weight = random.normal(size=16)
    scores = pixels.reshape(300, 16) / 255 @ weight
    weight, scores = torch.from_numpy(weight).float(), scores - np.median(scores)
    images = from_arrays(pixels, (scores > 0).astype(int), ("a", "b"))
    bias = float(np.median(pixels.reshape(300, 16) / 255 @ weight.double().numpy()))

    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, inputs):
            score = inputs.flatten(1) @ weight - bias
            return torch.stack([-score, score], 1) * self.scale

    due = run_sweep(Scaled(1.0), images, attack, [0.02, 0.05, 0.1, 0.3])
    evidence = run_sweep(Scaled(1e4), images, attack, [0.02, 0.05, 0.1, 0.3])
    assert evidence.status == due.status == (OK,) * 4
    assert (due.predictions != evidence.predictions).mean() < 0.002
    assert 0.02 < (due.predictions[0] != images.labels).mean() < (due.predictions[2] != images.labels).mean()
    assert np.isfinite(evidence.loss).all()
    if attack.loss == "cross_entropy":
        note = evidence.provenance["notes"]["0.02"]
        count = int(re.search(r"replaced a zero gradient of cross-entropy for (\d+) of 300", note).group(1))
        assert 100 < count <= 300


def mixed(dropout=0.5):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(36, 3),
    )  # fmt: skip
    model(torch.rand(64, 1, 4, 4))
    return model


@EVERY
@pytest.mark.parametrize("role", ["attacked", "source"])
def test_a_model_in_training_is_attacked_as_it_will_be_used_and_given_back_as_it_was(attack, role):
    """Batch norm by its running statistics, dropout off; a frozen layer, parameter and gradient stay as they were."""
    images, model = helpers.images(60), mixed()
    model[4].eval()
    model[0].weight.requires_grad_(False)
    model[6].bias.grad = kept = torch.ones(3)
    state = state_hash(model)

    def swept():
        if role == "attacked":
            return run_sweep(model, images, attack, [0.1], batch_size=25)
        return run_sweep(helpers.linear(images), images, attack, [0.1], source=model, batch_size=25)

    evidence = swept()
    assert [m.training for m in model] == [True, True, True, True, False, True, True]
    assert state_hash(model) == state
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len(list(model.parameters())) - 1)
    assert model[6].bias.grad is kept
    assert torch.equal(kept, torch.ones(3))
    assert all(p.grad is None for p in model.parameters() if p is not model[6].bias)
    assert model[0].weight.is_contiguous()
    model.eval()
    assert swept().digest == evidence.digest
    assert not any(m.training for m in model.modules())


class Half(nn.Module):
    """Takes float32 and computes in half, as a served model does."""

    def __init__(self, inner, dtype):
        super().__init__()
        self.inner, self.dtype = inner.to(dtype), dtype

    def forward(self, inputs):
        return self.inner(inputs.to(self.dtype))


@FEW
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inside_works_and_bare_it_is_said(attack, dtype):
    """Catches: a type error as the status of a cell, or as an image that is not fooled; losses rounded to half."""
    images = helpers.images(40)
    full = helpers.linear(images)
    due = run_sweep(full, images, attack, [0.1], batch_size=20)
    evidence = run_sweep(Half(helpers.linear(images), dtype), images, attack, [0.1], batch_size=20)
    assert evidence.status == (OK,)
    assert (evidence.predictions == due.predictions).mean() > 0.9
    assert np.allclose(evidence.loss, due.loss, atol=0.1)
    for model, source in ((helpers.linear(images).to(dtype), None), (full, helpers.linear(images).to(dtype))):
        with pytest.raises(ModelError, match=rf"has parameters of {dtype} but images are float32.*float\(\)"):
            run_sweep(model, images, attack, [0.1], source=source, batch_size=20)


@EVERY
@pytest.mark.parametrize("classes", [2, 1000])
def test_two_classes_and_a_thousand(attack, classes):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 4, 4), dtype=np.uint8)
    images = from_arrays(pixels, random.integers(0, classes, 40), tuple(str(i) for i in range(classes)))
    evidence = run_sweep(helpers.linear(images), images, attack, [0.0, 0.3], batch_size=16)
    assert evidence.status == (OK, OK)
    assert (evidence.loss[1] >= evidence.loss[0] - 1e-5).all() or attack.kind == "pgd", (
        "random starts may lose a little"
    )
    attacked = (evidence.predictions[0] == images.labels).any() or not isinstance(attack, APGD)
    assert evidence.loss[1].mean() > evidence.loss[0].mean() + 0.01 * attacked - 1e-5


@EVERY
def test_black_and_white_images_stay_in_the_box(attack):
    """Pixels of exactly 0 and 1 can only be changed inwards."""
    random = np.random.default_rng(0)
    images = from_arrays(255 * random.integers(0, 2, (30, 4, 4), dtype=np.uint8), np.arange(30) % 3, ("a", "b", "c"))
    seen = []

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = helpers.linear(images)

        def forward(self, inputs):
            seen.append(inputs.detach().clone())
            return self.inner(inputs)

        def __deepcopy__(self, memo):
            return self

    evidence = run_sweep(Looks(), images, attack, [0.25, 1.0], batch_size=30, threads=1)
    assert evidence.status == (OK, OK)
    assert all(((each >= 0) & (each <= 1)).all() for each in seen)
    if attack.kind == "fgsm" and attack.norm == "linf":
        inputs = torch.from_numpy(images.batch(0, 30))
        assert set((seen[-2] - inputs).abs().unique().tolist()) == {0.0, 0.25}
        assert set(seen[-1].unique().tolist()) == {0.0, 1.0}


@EVERY
def test_a_batch_of_one(attack):
    """Alone, in batches of one, and among others: the same decision."""
    images = helpers.images(8)
    model = helpers.linear(images)
    together = run_sweep(model, images, attack, [0.1])
    ones = run_sweep(model, images, attack, [0.1], batch_size=1)
    alone = run_sweep(model, images.select(np.arange(1), "first"), attack, [0.1])
    assert np.array_equal(ones.predictions, together.predictions)
    assert np.allclose(ones.loss, together.loss, atol=1e-5)
    assert alone.status == ones.status == (OK,)
    assert np.allclose(alone.loss[0, 0], together.loss[0, 0], atol=1e-5)


@EVERY
def test_strengths_in_any_order_and_none_twice(attack):
    images = helpers.images(30)
    model = helpers.linear(images)
    due = run_sweep(model, images, attack, [0.0, 0.1, 0.3])
    mixed = run_sweep(model, images, attack, [0.3, 0.0, 0.1])
    assert mixed.strengths == ("0.3", "0", "0.1")
    for row, name in enumerate(mixed.strengths):
        assert np.array_equal(mixed.predictions[row], due.predictions[due.index(name)])
        assert np.array_equal(mixed.loss[row], due.loss[due.index(name)])
    for repeated in ([0.1, 0.3, 0.1], [0.0, -0.0], [0.1, 0.1 + 1e-9]):
        with pytest.raises(ValueError, match="`strengths` must differ from each other, got"):
            run_sweep(model, images, attack, repeated)


@EVERY
@pytest.mark.parametrize("strength", [1.0000001, 8.0, -0.1, float("nan"), float("inf")])
def test_an_epsilon_that_cannot_be_is_said(attack, strength):
    """Above 1 only an L2 length can be; 8 is what somebody writes who means 8/255."""
    images = helpers.images(10)
    if attack.norm == "l2" and strength > 1 and np.isfinite(strength):
        assert run_sweep(helpers.linear(images), images, attack, [strength]).status == (OK,)
        return
    with pytest.raises(ValueError, match=rf"`strengths` of {attack.kind} must lie in \[0, (1|inf)\], got"):
        run_sweep(helpers.linear(images), images, attack, [0.1, strength])


def test_the_functions_take_an_epsilon_above_one_for_the_whole_box():
    images = helpers.images(10)
    model = helpers.linear(images)
    inputs, labels = helpers.tensors(images)
    due = fgsm(model, inputs, labels, epsilon=1.0)
    assert set(due.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(fgsm(model, inputs, labels, epsilon=5.0), due)
    assert torch.equal(pgd(model, inputs, labels, epsilon=5.0, step_size=5.0, steps=1), due)


@pytest.mark.parametrize("attack", [FGSM(target=3), IFGSM(target=99, steps=2), PGD(target=3, steps=2)], ids=repr)
@pytest.mark.parametrize("decision", [Argmax(), Null()], ids=repr)
def test_a_target_that_is_no_class_is_an_error_of_the_cell(attack, decision):
    """A NULL model has an output more, and no class more. Catches: the class for attacked images as a target."""
    images, model = helpers.images(30), helpers.linear(helpers.images(1, classes=decision.outputs(3)))
    evidence = run_sweep(model, images, attack, [0.1, 0.2], decision=decision)
    said = f"`target` must be one of the classes 0 to 2, got {attack.target}; use the index of a class"
    assert all(said in status for status in evidence.status)
    assert (evidence.predictions == -1).all()
    last = attack.model_copy(update={"target": 2})
    assert run_sweep(model, images, last, [0.1], decision=decision).status == (OK,)


@pytest.mark.parametrize("target", [-1, 1.5, True, "last", "3"])
def test_a_target_that_is_no_index_is_refused(target):
    with pytest.raises(ValidationError, match="target"):
        FGSM(target=target)


@pytest.mark.parametrize("which", [3, -1])
def test_labels_and_targets_out_of_range_raise_in_the_functions(which):
    images = helpers.images(5)
    model, inputs = helpers.linear(images), torch.from_numpy(images.batch(0, 5))
    good, bad = torch.zeros(5, dtype=torch.long), torch.full((5,), which)
    for loss in ("cross_entropy", "margin"):
        for labels, targets in ((good, bad), (bad, None)):
            with pytest.raises((IndexError, RuntimeError, ValueError)):
                fgsm(model, inputs, labels, epsilon=0.1, targets=targets, loss=loss)


class Steps(nn.Module):
    """A decision tree of sorts: nothing to differentiate."""

    def forward(self, inputs):
        flat = inputs.flatten(1)
        return nn.functional.one_hot((flat[:, 0] > 0.5).long() + (flat[:, 5] > 0.7).long(), 3).float()


class Cut(nn.Module):
    """Cuts the images off from a part that has parameters, and so a gradient of its own."""

    def __init__(self, how):
        super().__init__()
        self.how, self.linear = how, nn.Linear(16, 3)

    def forward(self, inputs):
        return self.linear(self.how(inputs.flatten(1)))


def without_gradients(flat):
    with torch.no_grad():
        return flat * 2


UNDIFFERENTIABLE = {
    "steps": Steps(),
    "detach": Cut(torch.Tensor.detach),
    "detach, frozen": Cut(torch.Tensor.detach).requires_grad_(False),
    "no_grad": Cut(without_gradients),
    "NumPy": Cut(lambda flat: torch.from_numpy(np.sqrt(flat.detach().numpy()))),
}


@pytest.mark.parametrize("model", UNDIFFERENTIABLE.values(), ids=UNDIFFERENTIABLE)
@FEW
def test_a_model_without_derivatives_says_so_under_attacks_by_gradient(model, attack):
    """Catches: a gradient of zeros: images that nothing seems to change."""
    images = helpers.images(60)
    evidence = run_sweep(model, images, attack, [0.1, 0.2], batch_size=25)
    assert all("do not depend on the images differentiably" in status for status in evidence.status)
    assert "use noise, natural changes or examples computed on another model" in evidence.status[0]
    assert (evidence.predictions == -1).all()
    with pytest.raises(GradientError, match="do not depend on the images differentiably"):
        fgsm(model, *helpers.tensors(images), epsilon=0.1)


@pytest.mark.parametrize("model", UNDIFFERENTIABLE.values(), ids=UNDIFFERENTIABLE)
def test_noise_and_transfer_work_on_a_model_without_derivatives(model):
    images = helpers.images(60)
    source = helpers.linear(images)
    assert run_sweep(model, images, Clean(), [0]).status == (OK,)
    assert run_sweep(model, images, GaussianNoise(), [0.1, 0.3]).status == (OK, OK)
    assert run_sweep(model, images, PGD(steps=2), [0.1], source=source).status == (OK,)
    evidence = run_sweep(model, images, FGSM(), [0.2], source=source)
    with torch.no_grad():
        due = model(fgsm(source, *helpers.tensors(images), epsilon=0.2)).argmax(1)
    assert evidence.status == (OK,)
    assert np.array_equal(evidence.predictions[0], due)


@FEW
def test_rounding_has_a_derivative_of_zero_and_that_is_said_too(attack):
    class Rounds(nn.Module):
        def forward(self, inputs):
            return (inputs.flatten(1)[:, :3] * 4).round()

    images = helpers.images(60)
    with torch.no_grad():
        labels = Rounds()(torch.from_numpy(images.batch(0, 60))).argmax(1).numpy()
    status = run_sweep(Rounds(), from_arrays(images.pixels, labels, ("a", "b", "c")), attack, [0.1]).status[0]
    assert status == "no gradient (neither cross-entropy's nor the margin's) for 60 of 60 images (100.0%)"


@EVERY
def test_a_model_that_raises_under_attack_is_an_error_of_the_cell(attack):
    """Catches: an exception taken for an image that could not be fooled."""

    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 3)

        def forward(self, inputs):
            if inputs.requires_grad:
                raise MemoryError("no room for a graph")
            return self.linear(inputs.flatten(1))

    images = helpers.images(60)
    evidence = run_sweep(Raises(), images, attack, [0.1, 0.2], batch_size=25)
    assert evidence.status == ("raised MemoryError: no room for a graph",) * 2
    assert (evidence.predictions == -1).all()
    assert evidence.failed


ONE_STEP = [
    PGD(steps=1, relative_step_size=2.0, restarts=restarts, stop_when_fooled=worst)
    for restarts in (1, 2)
    for worst in (False, True)
]


@pytest.mark.parametrize("attack", [FGSM(), IFGSM(steps=3), *ONE_STEP], ids=repr)
def test_logits_that_are_no_numbers_only_under_attack_fail_their_cell(attack):
    """NaN where all pixels have moved by ε. Catches: of several iterates the one kept that the model could decide."""

    class Far(nn.Module):
        def __init__(self, images):
            super().__init__()
            self.linear = nn.Linear(16, 3)
            self.linear.bias.data[0] = 9.0
            self.register_buffer("clean", torch.from_numpy(images.batch(0, len(images))).flatten(1))

        def forward(self, inputs):
            flat = inputs.flatten(1)
            far = torch.cdist(flat, self.clean).amin(1) > 0.18
            return self.linear(flat).masked_fill(far[:, None], torch.nan)

    images = from_arrays(helpers.images(20).pixels // 2 + 64, np.zeros(20, int), ("a", "b", "c"))
    status = run_sweep(Far(images), images, attack, [0.05]).status[0]
    assert status.startswith(("non-finite logits for 20 of 20", "non-finite gradients for 20 of 20")), status


def test_an_attack_inside_inference_mode_is_the_same():
    """A caller's mode must not decide: the user's own evaluation often runs in it."""
    images = helpers.images(20)
    model = helpers.linear(images)
    due = [run_sweep(model, images, attack, [0.1]).digest for attack in ATTACKS]
    inputs, labels = helpers.tensors(images)
    alone = fgsm(model, inputs, labels, epsilon=0.1)
    with torch.inference_mode():
        assert [run_sweep(model, images, attack, [0.1]).digest for attack in ATTACKS] == due
        assert torch.equal(fgsm(model, inputs, labels, epsilon=0.1), alone)


def test_labels_that_the_images_cannot_mislead_stay_wrong():
    """All images of one class, and a model that never says it: attacked, and as wrong as before."""
    images = from_arrays(helpers.images(20).pixels, np.full(20, 2), ("a", "b", "c"))

    class Never(nn.Module):
        def forward(self, inputs):
            flat = inputs.flatten(1)
            return torch.stack([flat[:, 0], flat[:, 1], flat[:, 2] - 9], 1)

    for attack in ATTACKS:
        evidence = run_sweep(Never(), images, attack, [0.1])
        assert evidence.status == (OK,)
        assert (evidence.predictions != 2).all()
