"""The training loop and the defences: against sums by hand, plain autograd, and a run that nothing interrupted."""

import csv
import itertools
from dataclasses import replace

import helpers
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.autoencoder import Autoencoder, Denoised
from models.defences import (
    adversarial,
    attacked,
    behind,
    denoising,
    detector,
    distillation,
    iterated,
    listed,
    null,
    null_sparse,
    plain,
    stored,
    twon,
)
from models.loop import Data, Plan, train
from models.objectives import Minibatch, Objective, Plain
from models.parseval import orthogonal_
from robustness.data.images import Images
from robustness.decisions import Argmax, Null, TwoN
from robustness.errors import TrainingError
from robustness.perturbations.base import Batch
from robustness.perturbations.stg import STG
from robustness.util.rng import Purpose, generator
from robustness.workspace.recipes import Job
from robustness.workspace.store import Store

IMAGES = helpers.images(60, (8, 8, 3), seed=4)
QUICK = {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "held_out": 0.2}


def network(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, outputs)
    )


def smooth(outputs=3, seed=0):
    """A network without batch norm: passes in training and in evaluation are the same."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Tanh(), nn.Linear(12, outputs)).double()


def minibatch(count=12, epoch=0, seed=0, dtype=torch.float32):
    draws = generator(seed, Purpose.TRAINING, 0)
    inputs = torch.from_numpy(IMAGES.batch(0, count)).to(dtype)
    return Minibatch(
        inputs, torch.from_numpy(IMAGES.labels[:count].astype(np.int64)), torch.arange(count), draws, epoch
    )


def job(folder, **settings):
    return Job(0, folder / "checkpoint.pt", store=Store(folder), log=folder / "log.csv", **settings)


def bits(module):
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


class Interrupts(Objective):
    """An objective that the user interrupts in an epoch."""

    def __init__(self, inner, epoch):
        self.inner, self.epoch = inner, epoch
        self.decision = inner.decision

    def loss(self, module, batch):
        if batch.epoch == self.epoch and module.training:
            raise KeyboardInterrupt
        return self.inner.loss(module, batch)

    def step(self, module, batch):
        if batch.epoch == self.epoch:
            raise KeyboardInterrupt
        return self.inner.step(module, batch)

    def settled(self, epoch):
        return self.inner.settled(epoch)


@pytest.mark.parametrize(
    ("make", "outputs"),
    [
        (lambda: Plain(), 3),
        (lambda: adversarial.Adversarial(0.5, 0.3), 3),
        (lambda: iterated.Iterated(0.5, 0.3, 2), 3),
        (lambda: twon.Labelled(0.8, 0.3), 6),
        (lambda: null.Nulled(0.8, 0.3, 2), 4),
    ],
    ids=["plain", "adv", "iterated", "2n", "null"],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_training_gives_the_same_weights(tmp_path, make, outputs, optimizer):
    """Catches: momentum, batch norm, the best epoch, the schedule, or draws that a resumed training has anew."""
    plan = Plan(**QUICK, optimizer=optimizer, flip=True, shift=1, patience=3)
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    whole = train(network(outputs), IMAGES, job(tmp_path / "whole"), make(), plan)
    module = network(outputs)
    with pytest.raises(KeyboardInterrupt):
        train(module, IMAGES, job(tmp_path / "torn"), Interrupts(make(), 2), plan)
    again = train(network(outputs, seed=9), IMAGES, job(tmp_path / "torn"), make(), plan)
    assert bits(again) == bits(whole)
    assert (tmp_path / "torn/log.csv").read_text() == (tmp_path / "whole/log.csv").read_text()


def test_the_best_epoch_is_kept_and_patience_ends_it(tmp_path):
    """Catches: the last weights for the best ones, a training that never ends early, a log that leaves epochs out."""

    class Worsens(Plain):
        def judge(self, module, batch):
            loss = {1: 3.0, 2: 1.0}.get(len(seen), 2.0 + len(seen))
            return torch.tensor(loss), torch.tensor(0.5)

    seen = []

    class Watched(nn.Sequential):
        def train(self, mode=True):
            if not mode and self.training:
                seen.append(bits(self))
            return super().train(mode)

    torch.manual_seed(0)
    module = Watched(nn.Flatten(), nn.Linear(192, 3))
    plan = Plan(epochs=9, batch_size=16, learning_rate=0.05, held_out=0.2, patience=2)
    train(module, IMAGES, job(tmp_path), Worsens(), plan)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"], (
        "the best, and two without a better one, and one"
    )
    assert [float(row["held_out_loss"]) for row in rows] == [3.0, 1.0, 5.0, 6.0, 7.0]
    assert bits(module) == seen[1]
    assert not module.training


def test_held_out_groups_are_whole_and_never_trained_on():
    """Catches: tracks that are torn apart, so that early stopping looks at images that it has trained on."""
    groups = np.repeat(np.arange(20), 3)
    images = Images(
        "grouped", IMAGES.pixels, np.repeat(np.arange(20) % 3, 3).astype(np.int64), ("a", "b", "c"), groups=groups
    )
    data = Data(images, Job(0), Plan(1, batch_size=7, held_out=0.25))
    trained = np.concatenate([batch.rows.numpy() for batch in data.training(0)])
    held = np.concatenate([batch.rows.numpy() for batch in data.validation()])
    assert sorted([*trained, *held]) == list(range(60))
    (batch,) = data.validation()
    assert np.array_equal(batch.inputs.numpy(), images.batch(0, 60)[batch.rows.numpy()])
    assert not set(groups[trained]) & set(groups[held])
    assert len(held) == 15


def test_an_epoch_s_order_depends_on_seed_and_epoch_alone():
    data, again, other = (Data(IMAGES, Job(seed), Plan(2, batch_size=16, held_out=0.0)) for seed in (1, 1, 2))

    def order(data, epoch):
        return [batch.rows.tolist() for batch in data.training(epoch)]

    assert order(data, 1) == order(again, 1)
    assert order(data, 0) != order(data, 1)
    assert order(data, 0) != order(other, 0)
    assert sorted(np.concatenate(order(data, 0))) == list(range(60))
    assert data.count == 4


@pytest.mark.parametrize("flip", [True, "both"])
def test_images_are_moved_and_mirrored(flip):
    """Against NumPy. Catches: rows for columns, one draw for both axes or all images, wrapping, labels that move."""
    data = Data(IMAGES, Job(3), Plan(1, batch_size=60, held_out=0.0, flip=flip, shift=2))
    (batch,) = data.training(0)
    clean = IMAGES.batch(0, 60)
    found = []
    for row, got in zip(batch.rows.tolist(), batch.inputs.numpy(), strict=True):
        ways = itertools.product((1, -1), (1, -1) if flip == "both" else (1,), range(5), range(5))
        padded = np.pad(clean[row], ((0, 0), (2, 2), (2, 2)), mode="edge")
        (how,) = [
            (across, down, y, x)
            for across, down, y, x in ways
            if np.array_equal(padded[:, ::down, ::across][:, y : y + 8, x : x + 8], got)
        ]
        found.append(how)
    turned = [how[:2] for how in found]
    assert {turned.count(way) > 5 for way in itertools.product((1, -1), (1, -1) if flip == "both" else (1,))} == {True}
    assert {how[2] for how in found} == {how[3] for how in found} == set(range(5))
    assert torch.equal(batch.labels, torch.from_numpy(IMAGES.labels[batch.rows.numpy()]))


def test_alpha_loss_is_that_of_plain_autograd():
    """Catches: δ of the wrong loss, α on the wrong side, a gradient that flows through δ, a second draw of ε."""
    objective, module = adversarial.Adversarial(0.3, 0.2), smooth()
    batch = minibatch(dtype=torch.float64)
    epsilon = torch.from_numpy(0.2 * generator(0, Purpose.TRAINING, 0).random(12, "f4")).double().view(-1, 1, 1, 1)
    leaf = batch.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(module(leaf), batch.labels), leaf)
    moved = (batch.inputs + epsilon * gradient.sign()).clamp(0, 1)
    due = 0.3 * F.cross_entropy(module(batch.inputs), batch.labels) + 0.7 * F.cross_entropy(module(moved), batch.labels)
    due_gradients = torch.autograd.grad(due, list(module.parameters()))
    assert objective.step(module, minibatch(dtype=torch.float64)).item() == pytest.approx(due.item(), rel=1e-12)
    for parameter, gradient in zip(module.parameters(), due_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)
    assert objective.loss(module, minibatch(dtype=torch.float64)).item() == pytest.approx(due.item(), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 7])
def test_iterated_alpha_loss_is_that_of_plain_autograd(steps):
    """Catches: a step of another length, no random start, examples outside the ball, a gradient through δ."""
    objective, module = iterated.Iterated(0.3, 0.2, steps), smooth()
    batch, draws = minibatch(dtype=torch.float64), generator(0, Purpose.TRAINING, 0)
    epsilon = torch.from_numpy(0.2 * draws.random(12, "f4")).double().view(-1, 1, 1, 1)
    start = torch.from_numpy(draws.random(tuple(batch.inputs.shape), "f4")).double()
    moved = (batch.inputs + epsilon * (2 * start - 1)).clamp(0, 1)
    for _ in range(steps):
        leaf = moved.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(module(leaf), batch.labels, reduction="sum"), leaf)
        moved = moved + epsilon / 4 * slope.sign()
        moved = torch.minimum(torch.maximum(moved, batch.inputs - epsilon), batch.inputs + epsilon).clamp(0, 1)
    due = 0.3 * F.cross_entropy(module(batch.inputs), batch.labels) + 0.7 * F.cross_entropy(module(moved), batch.labels)
    due_gradients = torch.autograd.grad(due, list(module.parameters()))
    assert objective.step(module, minibatch(dtype=torch.float64)).item() == pytest.approx(due.item(), rel=1e-9)
    for parameter, slope in zip(module.parameters(), due_gradients, strict=True):
        torch.testing.assert_close(parameter.grad, slope, rtol=1e-7, atol=1e-9)


def test_iterated_attacks_teach_batch_norm_nothing():
    """Catches: an attack in training mode, a mode that is not put back, after an error too."""
    module = network(3).train()
    before = bits(module)
    images = iterated.Iterated(0.5, 0.1, 3).attacked(module, batch := minibatch())
    assert bits(module) == before
    assert module.training
    assert images.min() >= 0
    assert images.max() <= 1
    moved = (images - batch.inputs).abs().amax((1, 2, 3))
    assert 0 < moved.max() <= 0.1
    with pytest.raises(ValueError, match="must be classes"):
        iterated.Iterated(0.5, 0.1, 3).attacked(module, replace(batch, labels=batch.labels - 5))
    assert module.training


def test_half_of_a_batch_is_attacked():
    """Catches: all or none attacked, ε beyond the bound, clean images that move, labels of the decision left out."""
    module = network(6)
    before = bits(module)
    inputs, epsilon = attacked.half(module, batch := minibatch(13), 0.3, TwoN())
    assert int((epsilon > 0).sum()) == 6
    assert 0 < epsilon.max() <= 0.3
    assert torch.equal(inputs[epsilon == 0], batch.inputs[epsilon == 0])
    for i in epsilon.nonzero().flatten().tolist():
        assert (inputs[i] - batch.inputs[i]).abs().max() == pytest.approx(epsilon[i].item(), rel=1e-4)
    assert bits(module) == before, "batch norm has learned from the attack"
    assert module.training
    assert all(p.grad is None for p in module.parameters())
    chosen = epsilon > 0
    leaf = batch.inputs.clone().requires_grad_()
    probabilities = module.eval()(leaf).softmax(1)
    loss = -(probabilities[:, :3] + probabilities[:, 3:]).gather(1, batch.labels[:, None]).log().sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    due = (batch.inputs + epsilon.view(-1, 1, 1, 1) * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(inputs[chosen], due[chosen])


def test_2n_labels():
    """The right one of 2N has q, each other (1 − q)/(2N − 1)."""
    objective, module, batch = twon.Labelled(0.8, 0.3), smooth(6).float(), minibatch()
    value = objective.loss(module, batch)
    inputs, epsilon = attacked.half(module, minibatch(), 0.3, TwoN())
    shares = torch.full((12, 6), 0.2 / 5)
    for i, (label, size) in enumerate(zip(batch.labels.tolist(), epsilon.tolist(), strict=True)):
        shares[i, label + (3 if size > 0 else 0)] = 0.8
    due = -(shares * module(inputs).log_softmax(1)).sum(1).mean()
    assert value.item() == pytest.approx(due.item(), rel=1e-5)


def test_null_labels():
    """p(NULL) = ε/ε_max; of the rest q on the original class; before attacks begin none."""
    module, batch = smooth(4).float(), minibatch(epoch=1)
    inputs, epsilon = attacked.half(module, minibatch(epoch=1), 0.3, Null())
    due = 0.0
    for i, label in enumerate(batch.labels.tolist()):
        f = epsilon[i].item() / 0.3
        shares = torch.full((4,), 0.1 * (1 - f))
        shares[label], shares[3] = 0.8 * (1 - f), f
        assert shares.sum() == pytest.approx(1)
        due -= (shares * module(inputs[i : i + 1]).log_softmax(1)[0]).sum().item() / 12
    assert null.Nulled(0.8, 0.3, 1).loss(module, minibatch(epoch=1)).item() == pytest.approx(due, rel=1e-5)
    clean = null.Nulled(0.8, 0.3, 2).loss(module, minibatch(epoch=1))
    shares = null.targets(batch.labels, torch.zeros(12), 0.8, 3)
    assert clean.item() == pytest.approx(-(shares * module(batch.inputs).log_softmax(1)).sum(1).mean().item(), rel=1e-5)


def test_sparse_null_labels():
    """Catches: a budget shared by the batch, sizes of the budget for those of the attack, its ECDF turned round."""
    module, batch = smooth(4).float(), minibatch(epoch=2)
    known = torch.tensor([5, 1, 3, 3])
    got = null_sparse.Sparse(known, 0.8, 6, 2).loss(module, batch)

    draws = minibatch().draws
    chosen = draws.permutation(12)[:6]
    budgets = draws.integers(1, 7, 6)
    inputs, f = batch.inputs.clone(), torch.zeros(12)
    for row, budget in zip(chosen.tolist(), budgets.tolist(), strict=True):
        one = slice(row, row + 1)
        path = STG().prepare(Batch(module.eval(), batch.inputs[one], batch.labels[one], decision=Null()))
        inputs[one] = path(float(budget), torch.empty_like(inputs[one]))
        size = int((inputs[one] != batch.inputs[one]).sum())
        assert size <= budget
        f[row] = sum(value <= size for value in known.tolist()) / 4 if size else 0.0
    assert 0 < f.sum() < 6
    due = null.targets(batch.labels, f, 0.8, 3)
    assert got.item() == pytest.approx(-(due * module(inputs).log_softmax(1)).sum(1).mean().item(), rel=1e-5)
    early = null_sparse.Sparse(known, 0.8, 6, 3).loss(module, minibatch(epoch=2))
    assert early.item() == pytest.approx(null.Nulled(0.8, 0.3, 3).loss(module, minibatch(epoch=2)).item())


def test_sparse_sizes_are_those_of_the_held_out_images(tmp_path):
    """Catches: sizes of images that are wrong already, training on all where some are asked for."""
    digits = helpers.digits(20)
    classifier = helpers.linear(digits).eval()
    needed = null_sparse.sizes(classifier, digits, 4)
    pixels = torch.from_numpy(digits.batch(0, len(digits)))
    right = classifier(pixels).argmax(1).numpy() == digits.labels
    assert 0 < len(needed) <= right.sum() < len(digits)
    assert needed.max() == 4  # what a linear model needs more for stops here
    assert needed.min() >= 1
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 11))
    made = job(tmp_path, needs={"attacked": classifier})
    null_sparse.fit(module, digits, made, features=3, count=60, clean_epochs=1, **QUICK)
    assert (tmp_path / "log.csv").read_text().count("\n") == 5
    blind = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    blind[1].weight.data.zero_()
    blind[1].bias.data.copy_(torch.eye(10)[3])
    with pytest.raises(TrainingError, match="got one where no attack changed any of 20 images"):
        null_sparse.sizes(blind, digits.select(np.flatnonzero(digits.labels != 3)[:20], "others"), 4)


def test_every_schedule_has_its_rate():
    """Steps divide it by ten, restarts begin anew. Catches: an epoch that begins the next period a batch late."""
    cosine, constant = Plan(10, learning_rate=0.4), Plan(10, learning_rate=0.4, schedule="constant")
    assert [round(cosine.rate(done), 6) for done in (0, 0.5, 1)] == [0.4, 0.2, 0.0]
    assert constant.rate(0.9) == 0.4
    steps, restarts = (Plan(50, schedule=s, learning_rate=1.0, period=10) for s in ("steps", "restarts"))
    for batches in (7, 391):
        for epoch in range(50):
            first, last = epoch / 50, (epoch + (batches - 1) / batches) / 50
            assert steps.rate(first) == steps.rate(last) == pytest.approx(0.1 ** (epoch // 10))
            assert restarts.rate(first) == pytest.approx(0.5 * (1 + np.cos(np.pi * (epoch % 10) / 10)))


def test_other_images_are_augmented_as_the_batch_s_own(tmp_path):
    """Catches: draws of their own, one axis left out, the shift forgotten."""
    plan = Plan(1, batch_size=len(IMAGES), flip="both", shift=2, held_out=0.0)
    (batch,) = Data(IMAGES, job(tmp_path), plan).training(0)
    clean = torch.from_numpy(IMAGES.batch(0, len(IMAGES)))[batch.rows]
    assert torch.equal(batch.alter(clean), batch.inputs)
    assert torch.equal(batch.alter(1 - clean), 1 - batch.inputs)
    assert not torch.equal(clean, batch.inputs)


def test_a_parseval_plan_keeps_weights_near_tight_frames(tmp_path):
    """Catches: a constraint that is forgotten by one optimizer, or after an interruption."""

    def far(beta, optimizer):
        (tmp_path / f"{beta}{optimizer}").mkdir()
        module = network()
        orthogonal_(module)
        plan = Plan(**QUICK | {"optimizer": optimizer, "beta": beta, "weight_decay": 0.0})
        train(module, IMAGES, job(tmp_path / f"{beta}{optimizer}"), Plain(), plan)
        values = torch.linalg.svdvals(module[0].weight.detach().flatten(1))
        return (values - 1).abs().max().item()

    for optimizer in ("sgd", "adam", "adamw"):
        assert far(0.3, optimizer) < 0.5 * far(0.0, optimizer)


def test_half_of_a_batch_is_attacked_with_sizes_of_a_list(tmp_path):
    """Catches: ε in pixels for ε in deviations, all images attacked, one ε for a batch, a label that moves."""
    module, batch, seen = smooth().float(), minibatch(count=40), []
    module.register_forward_hook(lambda module, args, found: seen.append(args[0].detach()))
    objective = listed.Listed((0.01, 0.1))
    loss = objective.loss(module, batch)
    shown = seen[-1]
    assert loss.item() == pytest.approx(F.cross_entropy(module(shown), batch.labels).item())
    moved = (shown - batch.inputs).abs().flatten(1).amax(1) / batch.inputs.flatten(1).std(1, correction=0)
    assert int((moved > 0).sum()) == 20
    sizes = moved[moved > 0].round(decimals=4).unique()
    assert sizes.tolist() == pytest.approx([0.01, 0.1], rel=1e-3)
    listed.fit(smooth().float(), IMAGES, job(tmp_path), **QUICK)


def test_stored_examples_are_augmented_as_their_images_are(tmp_path):
    """With ε near 0 an example is its image: clean and stored must have the same loss under flips and shifts."""
    rows = np.arange(0, len(IMAGES), 2)
    made = stored.examples("noise", IMAGES, rows, 1e-9, job(tmp_path))
    objective, module = stored.Stored(rows, made, len(IMAGES)), smooth().float()
    plan = Plan(1, batch_size=20, flip="both", shift=2, held_out=0.0)
    for batch in Data(IMAGES, job(tmp_path), plan).training(0):
        has = torch.isin(batch.rows, torch.from_numpy(rows))
        twice = torch.cat([batch.inputs, batch.inputs[has]]), torch.cat([batch.labels, batch.labels[has]])
        assert objective.loss(module, batch).item() == pytest.approx(F.cross_entropy(module(twice[0]), twice[1]).item())


def test_stored_examples_in_deviations_of_each_image(tmp_path):
    rows, given = np.arange(0, 60, 4), job(tmp_path, needs={"attacked": smooth(seed=1).float()})
    made = stored.examples("fgsm", IMAGES, rows, 0.05, given, unit="std", batch_size=4)
    clean = torch.from_numpy(IMAGES.batch(0, 60))[rows]
    moved = (made - clean).abs().flatten(1).amax(1)
    assert torch.allclose(moved, 0.05 * clean.flatten(1).std(1, correction=0), atol=1e-5)


@pytest.mark.parametrize("kind", ["fgsm", "noise"])
def test_stored_examples_are_trained_on_beside_the_images(tmp_path, kind):
    """Catches: an example beside another image's label, one made anew in each epoch, a share that is not kept."""
    classifier = smooth(seed=1).float()
    rows = np.arange(0, 60, 4)
    given = job(tmp_path, needs={"attacked": classifier})
    made = stored.examples(kind, IMAGES, rows, 0.1, given, batch_size=4)
    clean = torch.from_numpy(IMAGES.batch(0, 60))
    distance = (made - clean[rows]).abs().flatten(1).amax(1)
    assert bool((distance <= 0.1 + 1e-6).all())
    assert bool((distance > 0.05).all())
    if kind == "fgsm":
        labels = torch.from_numpy(IMAGES.labels[rows].astype(np.int64))
        leaf = clean[rows].requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(classifier(leaf), labels, reduction="sum"), leaf)
        torch.testing.assert_close(made, (clean[rows] + 0.1 * slope.sign()).clamp(0, 1))
    objective, module, batch = stored.Stored(rows, made, 60), smooth().float(), minibatch()
    both = torch.cat([batch.inputs, made[:3]])  # rows 0, 4 and 8 of the first twelve
    due = F.cross_entropy(module(both), torch.cat([batch.labels, batch.labels[[0, 4, 8]]]))
    assert objective.loss(module, batch).item() == pytest.approx(due.item(), rel=1e-6)
    stored.fit(smooth(seed=3).float(), IMAGES, given, kind=kind, share=0.25, **QUICK)


def test_smoothing_and_temperature():
    module, batch = smooth().float(), minibatch()
    logits = module(batch.inputs)
    shares = torch.full((12, 3), 0.1).scatter(1, batch.labels[:, None], 0.8)
    due = -(shares * logits.log_softmax(1)).sum(1).mean().item()
    assert Plain(right=0.8).loss(module, batch).item() == pytest.approx(due, rel=1e-5)
    hot = 20 * F.cross_entropy(logits / 20, batch.labels).item()
    assert Plain(temperature=20.0).loss(module, batch).item() == pytest.approx(hot, rel=1e-5)


def test_a_student_learns_its_teacher_s_probabilities(tmp_path):
    """Catches: hard labels, one of the two at another temperature, a teacher that is trained too."""
    teacher, student, batch = smooth(seed=1).float(), smooth(seed=2).float(), minibatch()
    soft = (teacher(batch.inputs) / 20).softmax(1)
    due = -20 * (soft * (student(batch.inputs) / 20).log_softmax(1)).sum(1).mean().item()
    before = bits(teacher)
    objective = distillation.Distilled(teacher, 20.0)
    assert objective.loss(student, batch).item() == pytest.approx(due, rel=1e-5)
    made = distillation.fit(student, IMAGES, job(tmp_path, needs={"teacher": teacher}), **QUICK)
    assert made is student
    assert bits(teacher) == before
    assert bits(student) != bits(smooth(seed=2).float())


def test_a_detector_learns_which_images_are_attacked(tmp_path):
    """Trained for long on a classifier that leaves strong signs. Catches: swapped outputs, class labels for its own."""
    classifier = smooth(seed=1).float()
    before = bits(classifier)
    torch.manual_seed(0)
    made = network(2)
    needs = {"attacked": classifier}
    quick = QUICK | {"epochs": 40, "learning_rate": 0.02}
    detector.fit(made, IMAGES, job(tmp_path, needs=needs), epsilon=0.6, **quick)
    inputs, epsilon = attacked.half(classifier, minibatch(60), 0.6, Argmax())
    strong, clean = epsilon > 0.2, epsilon == 0
    with torch.no_grad():
        attack = made(inputs).softmax(1)[:, 1]
    assert attack[strong].mean() > attack[clean].mean() + 0.3
    assert bits(classifier) == before


def test_an_autoencoder_learns_to_take_an_attack_away(tmp_path):
    """Catches: a classifier that is trained along, the attacked image as the aim."""
    digits = helpers.digits(20)
    classifier = helpers.linear(digits).eval()
    torch.manual_seed(0)
    module = Denoised(Autoencoder(1, 0.25), helpers.linear(digits, seed=5))
    plan = QUICK | {"epochs": 6, "optimizer": "adam", "learning_rate": 0.01, "weight_decay": 0.0}
    denoising.fit(module, digits, job(tmp_path, needs={"classifier": classifier}), **plan)
    assert bits(module.classifier) == bits(classifier) == bits(helpers.linear(digits))
    clean, labels = torch.from_numpy(digits.batch(0, 200)), torch.from_numpy(digits.labels.astype(np.int64))
    draws = [generator(0, Purpose.TRAINING, 0) for _ in range(2)]
    batches = [Minibatch(clean, labels, torch.arange(200), draw, 0) for draw in draws]
    inputs, _ = attacked.half(classifier, batches[0], 0.3, Argmax())
    with torch.no_grad():
        left = F.mse_loss(module.autoencoder(inputs), clean).item()
    assert left < 0.5 * F.mse_loss(inputs, clean).item()
    assert denoising.Denoising(classifier, 0.3).loss(module.autoencoder, batches[1]).item() == pytest.approx(left)


def test_a_classifier_learns_what_an_autoencoder_gives(tmp_path):
    """Catches: an autoencoder that is trained along, images that pass it by, an untrained one, clean images alone."""
    digits = helpers.digits(20)
    classifier, before = helpers.linear(digits).eval(), bits(helpers.linear(digits))
    torch.manual_seed(0)
    made = Denoised(Autoencoder(1, 0.25), helpers.linear(digits, seed=5)).eval()
    module = Denoised(Autoencoder(1, 0.25), helpers.linear(digits, seed=6))
    needs = {"denoised": made, "attacked": classifier}
    autoencoder, untrained = bits(made.autoencoder), bits(module.classifier)
    behind.fit(module, digits, job(tmp_path, needs=needs), **QUICK)
    assert bits(module.autoencoder) == autoencoder == bits(made.autoencoder)
    assert bits(module.classifier) != untrained
    assert bits(classifier) == before
    clean, labels = torch.from_numpy(digits.batch(0, 200)), torch.from_numpy(digits.labels.astype(np.int64))
    draws = [generator(0, Purpose.TRAINING, 0) for _ in range(2)]
    batches = [Minibatch(clean, labels, torch.arange(200), draw, 0) for draw in draws]
    inputs, epsilon = attacked.half(classifier, batches[0], 0.3, Argmax())
    assert int((epsilon > 0).sum()) == 100
    due = F.cross_entropy(module(inputs), labels).item()
    objective = behind.Behind(made.autoencoder, classifier, 0.3)
    assert objective.loss(module.classifier, batches[1]).item() == pytest.approx(due)
    right = (module(clean).argmax(1) == labels).float().mean().item()
    assert objective.judge(module.classifier, batches[1])[1].item() == pytest.approx(right)


def test_joined(tmp_path):
    """Catches: one of the two left untrained, the order of the outputs."""
    classifier, watcher = smooth(seed=1).float(), network(2, seed=2).eval()
    whole = detector.Filtered(smooth(seed=3).float(), network(2, seed=4))
    needs = {"classifier": classifier, "detector": watcher}
    detector.join(whole, IMAGES, job(tmp_path, needs=needs))
    inputs = minibatch().inputs
    assert torch.equal(whole(inputs), torch.cat([classifier(inputs), watcher(inputs)], 1))
    with pytest.raises(TrainingError, match=r"`needs` must name a classifier and a detector.* for a Sequential"):
        detector.join(smooth(), IMAGES, job(tmp_path))


TEACHER = {"needs": {"teacher": smooth(5).float()}}
REFUSED = {
    "no teacher": (distillation.fit, {}, {}, r"`needs` must name a teacher, got none"),
    "teacher of other classes": (
        distillation.fit, TEACHER, {}, r"`teacher` must have the student's 3 outputs, got one of 5",
    ),
    "detector": (detector.fit, {}, {}, r"`needs` must name the attacked classifier, got none"),
    "denoising": (denoising.fit, {}, {}, r"`needs` must name the classifier behind the autoencoder.* for a Sequential"),
    "behind": (behind.fit, {}, {}, r"`needs` must name the trained autoencoder .* got none for a Sequential"),
    "null_sparse": (null_sparse.fit, {}, {}, r"`needs` must name the attacked classifier, got none"),
    "stored": (stored.fit, {}, {}, r"`needs` must name the attacked classifier, got none"),
    "kind of stored": (stored.fit, {}, {"kind": "nosie"}, "`kind` must be one of fgsm, noise, got 'nosie'"),
    "listed": (listed.fit, {}, {"epsilons": [0.0]}, r"`epsilons` must name at least one size above 0, got \[0.0\]"),
    "alpha": (iterated.fit, {}, {"alpha": 1.0}, "`alpha` must be"),
    "alpha below 0": (iterated.fit, {}, {"alpha": -0.1}, "`alpha` must be"),
    "steps": (iterated.fit, {}, {"steps": 0}, "`steps` must be"),
    "schedule": (
        plain.fit, {}, {"schedule": "step"},
        "`schedule` must be one of cosine, constant, steps, restarts, got 'step'; did you mean",
    ),
    "flip": (
        plain.fit, {}, {"flip": "Both"}, "`flip` must be one of False, True, both, got 'Both'; did you mean 'both'",
    ),
    "optimizer": (plain.fit, {}, {"optimizer": "adamW"}, "`optimizer` must be one of sgd, adam, adamw, got 'adamW'"),
}  # fmt: skip


@pytest.mark.parametrize(("fit", "settings", "arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_what_a_recipe_cannot_train_with_is_refused(tmp_path, fit, settings, arguments, said):
    """Catches: a misspelt word that is another one's default (a card has no types), a traceback for what is missing."""
    with pytest.raises((TrainingError, ValueError), match=said) as caught:
        fit(smooth().float(), IMAGES, job(tmp_path, **settings), **{**QUICK, **arguments})
    assert isinstance(caught.value, TrainingError) == any(word in said for word in ("needs", "teacher", "nosie"))


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_loss_that_is_no_number_ends_the_training(tmp_path, epoch):
    """Catches: weights of NaN that are handed on, a good checkpoint that is overwritten by a bad one."""

    class Breaks(Plain):
        def loss(self, module, batch):
            value = super().loss(module, batch)
            return value * float("nan") if batch.epoch == epoch and module.training else value

    with pytest.raises(TrainingError, match=f"the loss became nan in epoch {epoch + 1}") as caught:
        train(network(), IMAGES, job(tmp_path), Breaks(), Plan(**QUICK))
    kept = tmp_path / "checkpoint.pt"
    assert ("no epoch was finished" in str(caught.value)) == (epoch == 0) == (not kept.exists())
    if epoch:
        assert f"epoch {epoch} was the last good one and is kept in {kept}" in str(caught.value)
        train(network(), IMAGES, job(tmp_path), Plain(), Plan(**QUICK))  # goes on from it


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(network(), IMAGES, job(tmp_path, key="a" * 64), Interrupts(Plain(), 2), Plan(**QUICK))
    other = job(tmp_path, key="b" * 64)
    train(network(), IMAGES, other, Plain(), Plan(**QUICK))
    assert not other.resumed
    (notice,) = other.notices
    assert "cannot be read (it is of another recipe, aaaaaaaaaaaa); trained from the start" in notice


def test_plain_training_learns(tmp_path):
    """Catches: a loop that does nothing, or climbs."""
    digits = helpers.digits(30)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    plain.fit(module, digits, job(tmp_path), epochs=8, batch_size=32, learning_rate=0.02, held_out=0.2, patience=5)
    inputs = torch.from_numpy(digits.batch(0, len(digits)))
    assert (module(inputs).argmax(1).numpy() == digits.labels).mean() > 0.9
