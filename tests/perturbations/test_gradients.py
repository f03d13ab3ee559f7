"""The attacker's objective and its gradient: against finite differences of formulas written out in float64."""

import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness.decisions import Argmax, Bin, Null, TwoN
from robustness.errors import GradientError
from robustness.perturbations import FGSM, PGD, STG, AdaptivePGD, Batch
from robustness.perturbations.attack import DETECTOR_LOSSES, attack_loss
from robustness.perturbations.gradients import MARGIN, NON_FINITE, STUCK, ZERO, gradient, sweep_gradient
from robustness.sweep.runner import run_sweep

FEATURES, CLASSES = 8, 3
DECISIONS = {"argmax": Argmax(), "null": Null(), "2n": TwoN()}


def network(decision, seed=0, scale=1.0):
    """A small smooth network with the outputs that a decision needs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = nn.Linear(16, decision.outputs(CLASSES))
        with torch.no_grad():
            last.weight.mul_(scale)
        return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 16), nn.Tanh(), last).eval()


def some(count=6, seed=1):
    random = np.random.default_rng(seed)
    inputs = torch.from_numpy(random.uniform(0.2, 0.8, (count, 1, 2, 4)).astype(np.float32))
    return inputs, torch.from_numpy(random.integers(0, CLASSES, count))


def forward(module, flat):
    """The network again, in NumPy and float64."""
    first, last = module[1], module[3]
    hidden = np.tanh(flat @ first.weight.detach().double().numpy().T + first.bias.detach().double().numpy())
    return hidden @ last.weight.detach().double().numpy().T + last.bias.detach().double().numpy()


def probabilities(logits, kind):
    """Class probabilities and the attack probability, from the papers' formulas."""
    f = np.exp(logits - logits.max(axis=1, keepdims=True))
    f /= f.sum(axis=1, keepdims=True)
    if kind == "null":
        return f[:, :-1] / (1 - f[:, -1:]), f[:, -1]
    if kind == "2n":
        return f[:, :CLASSES] + f[:, CLASSES:], f[:, CLASSES:].sum(axis=1)
    return f, None


def value(logits, labels, loss, kind, targets):
    """What an attacker raises, (N,), naively."""
    classes, attacked = probabilities(logits, kind)
    chosen, sign = (labels, 1) if targets is None else (targets, -1)
    every = np.arange(len(logits))
    own = np.log(classes[every, chosen])
    if loss in ("margin", "selective"):
        others = np.log(classes)
        others[every, chosen] = -np.inf
        margin = sign * (others.max(axis=1) - own)
        if loss == "margin":
            return margin
        each = zip(margin, np.log(1 - attacked), attacked <= 0.5, strict=True)
        return np.array([m + p if (m > 0) == kept else p if m > 0 else m for m, p, kept in each])
    return -sign * own + (np.log(1 - attacked) if loss == "adaptive" else 0)


def differences(module, inputs, labels, loss, kind, targets, step=1e-5):
    """Central finite differences of the sum, shaped as the inputs."""
    flat = inputs.flatten(1).double().numpy()
    found = np.empty_like(flat)
    for i in range(flat.shape[1]):
        moved = np.zeros(flat.shape[1])
        moved[i] = step
        up, down = (value(forward(module, flat + sign * moved), labels, loss, kind, targets) for sign in (1, -1))
        found[:, i] = (up - down) / (2 * step)
    return found.reshape(inputs.shape)


CASES = [
    (loss, kind)
    for loss in ("cross_entropy", "margin", "adaptive", "selective")
    for kind in DECISIONS
    if not (loss in DETECTOR_LOSSES and kind == "argmax")
]


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize(("loss", "kind"), CASES)
def test_gradients_are_those_of_the_formulas(loss, kind, targeted):
    """Catches: a sign, a mean for a sum, the outputs' cross-entropy for the decision's, log p for log(1 − p)."""
    module, (inputs, labels) = network(DECISIONS[kind], scale=3), some()
    targets = (labels + 1) % CLASSES if targeted else None
    found, logits = gradient(module, inputs, labels, loss=loss, targets=targets, decision=DECISIONS[kind])
    assert np.allclose(logits, forward(module, inputs.flatten(1).double().numpy()), atol=1e-5)
    numbers = None if targets is None else targets.numpy()
    due = differences(module, inputs, labels.numpy(), loss, kind, numbers)
    assert np.abs(due).max() > 0.1
    assert np.allclose(found, due, atol=1e-5 + 1e-4 * np.abs(due).max())
    raised = attack_loss(logits, labels, loss, targets, DECISIONS[kind])
    assert np.allclose(raised, value(logits.double().numpy(), labels.numpy(), loss, kind, numbers), atol=1e-4)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_an_image_s_gradient_does_not_depend_on_how_many_there_are(loss):
    """Catches: a mean over the batch: other gradients, and where they are small other zeros."""
    module, (inputs, labels) = network(Argmax()), some()
    together, _ = gradient(module, inputs, labels, loss=loss)
    for i in range(len(inputs)):
        alone, _ = gradient(module, inputs[i : i + 1], labels[i : i + 1], loss=loss)
        assert torch.allclose(alone[0], together[i], atol=1e-7)


def test_nothing_but_the_images_has_a_gradient_and_nothing_is_left_on_them():
    """Catches: backward(), which adds to what an optimizer is about to use."""
    module, (inputs, labels) = network(Argmax()), some()
    module[1].weight.requires_grad_(False)
    module[3].bias.grad = kept = torch.ones(CLASSES)
    before = inputs.clone()
    with torch.no_grad():
        found, logits = gradient(module, inputs, labels)
    assert torch.equal(inputs, before)
    assert not inputs.requires_grad
    assert inputs.grad is None
    assert not found.requires_grad
    assert not logits.requires_grad
    assert module[3].bias.grad is kept
    assert torch.equal(kept, torch.ones(CLASSES))
    assert [p.requires_grad for p in module.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in module.parameters() if p is not module[3].bias)


class Planted(nn.Module):
    """Two classes, w·x; the first pixel says what goes wrong: 1 saturates, 2 is flat, 3 is NaN, 4 infinite."""

    weight = torch.tensor([0.0, 1.0, -2.0, 0.5])

    def forward(self, inputs):
        scores = torch.stack([self.score(flat @ self.weight, round(flat[0].item() * 10)) for flat in inputs.flatten(1)])
        return torch.stack([-scores / 2, scores / 2], 1)

    def score(self, score, kind):
        if kind == 4:
            return (score - score.detach()).sqrt()
        return {0: score, 1: (score - 10) * 1e3, 2: score * 0, 3: score * torch.nan}[kind]


def planted(kinds):
    inputs = torch.full((len(kinds), 1, 2, 2), 0.5)
    inputs[:, 0, 0, 0] = torch.tensor(kinds) / 10
    return inputs, torch.zeros(len(kinds), dtype=torch.long)


def counts(batch):
    return {what: int(marked.sum()) for what, marked in batch.take_marks().items()}


@pytest.mark.parametrize("at_once", [1, 3, 4, 11, 50])
@pytest.mark.parametrize("target", [False, True])
def test_a_batch_in_parts_is_the_same(at_once, target):
    """Catches: targets or labels of another part, marks of one part on the rows of the next, a part left out."""
    inputs, labels = planted([0, 1, 1, 2, 3, 4, 4, 0, 1, 2, 3])
    labels[1::2] = 1
    given = {"targets": 1 - labels} if target else {}
    whole, parts = Batch(Planted(), inputs, labels, size=10), Batch(Planted(), inputs, labels, size=10, at_once=at_once)
    due, found = sweep_gradient(whole, **given), sweep_gradient(parts, **given)
    assert torch.equal(found[0], due[0])
    assert torch.equal(found[1].nan_to_num(7.0), due[1].nan_to_num(7.0))
    marks, expected = parts.take_marks(), whole.take_marks()
    assert marks.keys() == expected.keys() == {MARGIN, ZERO, NON_FINITE}
    assert all(torch.equal(marks[what], expected[what]) for what in marks)


def test_what_a_sweep_must_not_pass_over_in_silence_is_counted():
    """Catches: a margin gradient for the wrong rows, a NaN that stays or is not counted, padding that counts."""
    inputs, labels = planted([0, 1, 1, 2, 3, 4, 4, 0, 1, 2, 3])
    batch = Batch(Planted(), inputs, labels, size=8)
    found, logits = sweep_gradient(batch)
    direction = found.flatten(1).sign()
    assert counts(batch) == {MARGIN: 2, ZERO: 1, STUCK: 1, NON_FINITE: 3}
    sweep_gradient(batch)
    sweep_gradient(batch)
    assert counts(batch) == {MARGIN: 2, ZERO: 1, STUCK: 1, NON_FINITE: 3}, "each image once, however many steps"
    assert counts(batch) == {}
    along = Planted.weight.sign()
    due = torch.stack([along, along, along, *[torch.zeros(4)] * 4, along, along, *[torch.zeros(4)] * 2])
    assert torch.equal(direction, due)
    assert torch.allclose(found[0].flatten(), Planted.weight * logits[0].softmax(0)[1], atol=1e-6)
    assert torch.allclose(found[1].flatten(), Planted.weight * 1e3), "the margin's, of the same forward"
    assert found.isfinite().all()


def test_the_function_does_just_what_the_libraries_do():
    """The margin is a sweep's: `gradient` gives the zero and the NaN of the loss that was asked for."""
    inputs, labels = planted([0, 1, 2, 3])
    found = gradient(Planted(), inputs, labels)[0].flatten(1)
    assert (found[1:3] == 0).all()
    assert found[3].isnan().any()
    assert (gradient(Planted(), inputs, labels, loss="margin")[0].flatten(1)[1] != 0).any()


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_where_nothing_is_wrong_a_sweep_has_the_same_gradient(loss):
    module, (inputs, labels) = network(Argmax()), some()
    batch = Batch(module, inputs, labels)
    assert torch.equal(sweep_gradient(batch, loss=loss)[0], gradient(module, inputs, labels, loss=loss)[0])
    assert counts(batch) == {}


def test_examples_for_a_transfer_are_those_of_the_source():
    module, source, (inputs, labels) = network(Argmax()), network(Argmax(), seed=5), some()
    assert torch.equal(
        sweep_gradient(Batch(module, inputs, labels, source=source))[0], gradient(source, inputs, labels)[0]
    )


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        (lambda inputs: inputs.sum((1, 2, 3)), r"\(6,\)"),
        (lambda inputs: inputs, r"\(6, 1, 2, 4\)"),
        (lambda inputs: inputs.flatten(1)[:1], r"\(1, 8\)"),
        (lambda inputs: (inputs.flatten(1),), "tuple"),
    ],
)
def test_outputs_that_are_no_logits_are_said(outputs, got):
    class Wrong(nn.Module):
        def forward(self, inputs):
            return outputs(inputs)

    with pytest.raises(GradientError, match=rf"must return logits of shape \(images, outputs\), got {got}"):
        gradient(Wrong(), *some())


@pytest.mark.parametrize("attack", [AdaptivePGD(), FGSM(loss="adaptive"), PGD(loss="adaptive")], ids=repr)
def test_the_adaptive_loss_of_a_decision_without_an_attack_probability_is_said(attack):
    """In the cell. Catches: plain PGD under the name of the adaptive one."""
    images = helpers.images(20)
    (status,) = run_sweep(helpers.linear(images), images, attack, [0.1]).status
    assert 'loss = "adaptive" needs a decision with an attack probability, got argmax' in status


@pytest.mark.parametrize("kind", ["null", "2n"])
def test_the_adaptive_attack_looks_less_like_one_than_plain_pgd(kind):
    """Catches: the attack probability pushed up, or left out of the loss."""
    decision, (inputs, labels) = DECISIONS[kind], some(40)
    module = network(decision, scale=6)
    seen = {}
    for attack in (PGD(random_start=False), AdaptivePGD(random_start=False, detector_weights=(10.0,))):
        batch = Batch(module, inputs, labels, decision=decision)
        with torch.no_grad():
            perturbed = attack.prepare(batch)(0.2, torch.empty_like(inputs))
            seen[attack.kind] = odds(module, perturbed, kind)
    assert seen["adaptive-pgd"] < 0.8 * seen["pgd"]
    assert seen["adaptive-pgd"] < odds(module, inputs, kind)


def undetected(module, inputs, labels, decision, attack, epsilon):
    """Which images an attack takes to another class past the detector."""
    batch = Batch(module, inputs, labels, decision=decision)
    with torch.no_grad():
        perturbed = attack.prepare(batch)(epsilon, torch.empty_like(inputs))
        assert (perturbed - inputs).abs().max() <= epsilon + 1e-6
        logits = module(perturbed)
        accepted = decision.log_passed(logits).exp() >= 1 - decision.threshold
        return accepted & (decision.predictions(logits) != labels)


@pytest.mark.parametrize("kind", ["null", "2n"])
@pytest.mark.parametrize("steps", [1, 10])
def test_an_adaptive_attack_of_several_weights_is_never_worse_than_plain_pgd(kind, steps):
    """Undetected and wrong, image by image. Catches: the last run kept, a last iterate worse than one before."""
    weights, settings = (0.0, 0.1, 1.0, 10.0), {"steps": steps, "random_start": False}
    adaptive = [AdaptivePGD(detector_weights=chosen, **settings) for chosen in (weights, *((one,) for one in weights))]
    model = (network(DECISIONS[kind], scale=6), *some(60), DECISIONS[kind])
    plain, several, *each = (undetected(*model, attack, 0.02) for attack in (PGD(**settings), *adaptive))
    assert not (plain & ~each[0]).any()
    assert torch.equal(several, torch.stack(each).any(0))
    assert (kind, steps) != ("null", 10) or several.sum() > plain.sum(), "else this shows nothing"


def test_with_smaller_radii_a_larger_ball_holds_what_a_smaller_one_did():
    """Image by image. Catches: a radius that scales the ball and not the steps, one radius instead of all."""
    model = (network(DECISIONS["null"], scale=6), *some(80), DECISIONS["null"])
    one, both = (
        AdaptivePGD(detector_weights=(0.0, 1.0), steps=4, random_start=False, radius_fractions=radii)
        for radii in ((1.0,), (1.0, 0.5))
    )
    for epsilon in (0.02, 0.05, 0.1, 0.3):
        small = undetected(*model, one, epsilon / 2)
        assert torch.equal(undetected(*model, both, epsilon), undetected(*model, one, epsilon) | small)
    assert small.any()


class Pocket(nn.Module):
    """Wrong where the first pixel is 0.05 to 0.1 above one half, and nowhere else; the detector is always silent."""

    def forward(self, inputs):
        wrong = 100 * (0.025 - (inputs.flatten(1)[:, :1] - 0.575).abs())
        return torch.cat([torch.zeros_like(wrong), wrong, torch.ones_like(wrong), -torch.ones_like(wrong)], 1)


def test_smaller_radii_find_what_long_steps_pass_by():
    inputs = torch.full((2, 1, 1, 2), 0.5)

    def found(radii):
        batch = Batch(Pocket(), inputs, torch.zeros(2, dtype=torch.long), decision=Bin())
        attack = AdaptivePGD(steps=1, relative_step_size=1.0, random_start=False, radius_fractions=radii)
        with torch.no_grad():
            return Pocket()(attack.prepare(batch)(0.3, torch.empty_like(inputs)))[:, 1] > 0

    assert not found((1.0,)).any()
    assert found((1.0, 0.25)).all()


def test_the_adaptive_attack_finds_what_no_step_along_the_sum_finds():
    """
    The class turns where δ0 + δ1 > 0.1, the detector fires where δ0 > 0.05: in a ball of 0.2 there is room for both.

    The classifier's slope is 100 times the detector's, so that the sum sees one of them alone. Catches: an attack that
    is too weak, and calls robust what it cannot find.
    """
    module = nn.Sequential(nn.Flatten(), nn.Linear(2, 4))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[0.0, 0.0], [100.0, 100.0], [0.0, 0.0], [1.0, 0.0]]))
        module[1].bias.copy_(torch.tensor([0.0, -110.0, 0.0, -0.55]))
    inputs, decision = torch.full((3, 1, 1, 2), 0.5), Bin()
    settings = {"steps": 20, "relative_step_size": 0.1, "random_start": False}

    def found(attack):
        batch = Batch(module, inputs, torch.zeros(3, dtype=torch.long), decision=decision)
        with torch.no_grad():
            return attack.prepare(batch)(0.2, torch.empty_like(inputs)).sub(inputs).flatten(1)

    weak = found(PGD(loss="adaptive", stop_when_fooled=True, **settings))
    assert not ((weak.sum(1) > 0.1) & (weak[:, 0] <= 0.05)).any()
    strong = found(AdaptivePGD(detector_weights=(1.0,), **settings))
    assert (strong.sum(1) > 0.1).all()
    assert (strong[:, 0] <= 0.05 + 1e-6).all()
    assert strong.abs().max() <= 0.2 + 1e-6


def odds(module, inputs, kind):
    """The mean odds of having been attacked."""
    attacked = probabilities(forward(module, inputs.flatten(1).double().numpy()), kind)[1]
    return (attacked / (1 - attacked)).mean()


class Brightness(nn.Module):
    """Two logits of the images' sum: autograd returns one number an image, expanded to all pixels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([[-1.0, 1.0]]))

    def forward(self, inputs):
        return self.scale * (inputs - 0.5).flatten(1).sum(1, keepdim=True)


class Keeping(torch.autograd.Function):
    """The sum, whose derivative is a tensor that is kept."""

    ONES = torch.ones(40, 1, 4, 4)

    @staticmethod
    def forward(ctx, inputs):
        return inputs.flatten(1).sum(1, keepdim=True)

    @staticmethod
    def backward(ctx, gradient):
        Keeping.ONES = Keeping.ONES * 0 + gradient.view(-1, 1, 1, 1)
        return Keeping.ONES


class Aliased(Brightness):
    def forward(self, inputs):
        return self.scale * (Keeping.apply(inputs) - 8)


@pytest.mark.parametrize("make", [Brightness, Aliased])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_gradient_that_is_not_the_attackers_own_is_not_written_into(make, norm):
    """Catches: a sign written into an expanded gradient, which torch refuses, or into a tensor of the model's own."""
    images = helpers.images(40, classes=2)
    labels, inputs = images.labels, images.batch(0, 40)
    pixels, step = 16, 0.1
    slope = step if norm == "linf" else step / 4  # of a gradient of equal entries: each 1/sqrt(16) of its length
    sums = (inputs + np.where(labels == 1, -slope, slope)[:, None, None, None]).clip(0, 1).reshape(40, pixels).sum(1)
    due = (sums > pixels / 2).astype(int)
    for attack in (FGSM(norm=norm), PGD(norm=norm, steps=5, random_start=False), PGD(norm=norm, steps=5)):
        evidence = run_sweep(make(), images, attack, [step], batch_size=40)
        assert evidence.status == ("ok",), attack
        apart = abs(sums - pixels / 2) > 1e-3
        if norm == "linf" or isinstance(attack, FGSM):
            assert np.array_equal(evidence.predictions[0][apart], due[apart]), attack
    if make is Aliased:
        kept = Keeping.ONES
        gradient(make(), *helpers.tensors(images))[0].fill_(9)
        assert not (kept == 9).any()
        assert not (Keeping.ONES == 9).any()


class Editing(nn.Module):
    """A linear model that edits its images in place, or hands them back."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, inputs):
        return self.module(inputs.mul_(2).sub_(1))


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(),
        FGSM(target="runner_up"),
        FGSM(target="least_likely"),
        PGD(steps=3, restarts=2),
        PGD(steps=3, stop_when_fooled=True, random_start=False),
        STG(),
    ],
    ids=["fgsm", "runner-up", "least likely", "restarts", "worst case", "stg"],
)
def test_a_model_that_edits_its_images_gets_the_numbers_of_one_that_does_not(attack):
    """Catches: edited images in an attack's memory, or in the batch that the next strength begins with."""

    class Sound(Editing):
        def forward(self, inputs):
            return self.module(inputs * 2 - 1)

    images = helpers.images(60)
    linear = helpers.linear(images)
    strengths = [2, 4] if isinstance(attack, STG) else [0.05, 0.2]
    edited, sound = (run_sweep(make(linear), images, attack, strengths, batch_size=30) for make in (Editing, Sound))
    assert set(sound.status) == set(edited.status) == {"ok"}
    for name in ("predictions", "loss", "snr"):
        assert np.array_equal(getattr(edited, name), getattr(sound, name)), name


def test_a_model_that_returns_its_images_keeps_them():
    """Catches: logits that are a view of the buffer which the next strength writes to."""
    images = helpers.images(20, shape=(3, 1))
    evidence = run_sweep(nn.Flatten(), images, FGSM(), [0.0, 0.3], batch_size=10)
    inputs = images.batch(0, 20).reshape(20, 3)
    assert np.array_equal(evidence.predictions[0], inputs.argmax(1))
    assert set(evidence.status) == {"ok"}
    assert (evidence.loss[1] >= evidence.loss[0] - 1e-6).all()
