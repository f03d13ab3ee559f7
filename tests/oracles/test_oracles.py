"""Our attacks against four other libraries, bit for bit; run by `tox -e oracles`, which installs them."""

import importlib.util
import warnings
from unittest.mock import patch

import helpers
import numpy as np
import pytest
import torch
from torch import nn

import robustness.util.torchvision_compat
from robustness.data.images import from_arrays
from robustness.metrics.evidence import OK
from robustness.perturbations import APGD, FGSM, PGD, Batch, Square, TargetedAPGD
from robustness.perturbations.apgd import apgd
from robustness.perturbations.base import seeded
from robustness.perturbations.external import External
from robustness.perturbations.fab import fab
from robustness.perturbations.fgsm import fgsm
from robustness.perturbations.pgd import pgd
from robustness.sweep.runner import run_sweep
from robustness.util.rng import Purpose, generator

LIBRARIES = ("foolbox", "torchattacks", "art", "cleverhans")
MISSING = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed; `tox -e oracles` installs them"),
    pytest.mark.filterwarnings("ignore"),  # theirs
]
EPSILONS = (0.1, 8 / 255, 0.3)
STEPS, COUNT = 10, 64


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 14 * 14, 10),
        )  # fmt: skip
        module[1].running_mean.normal_()
        module[1].running_var.uniform_(0.5, 2)
        _ = robustness.util.torchvision_compat.torchvision
    return module.eval()


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    pixels = np.clip(random.integers(-120, 376, (COUNT, 28, 28)), 0, 255).astype(np.uint8)  # many exact 0 and 1
    return from_arrays(pixels, random.permutation(np.arange(COUNT) % 10))


@pytest.fixture(scope="module")
def batch(images):
    return helpers.tensors(images)


def foolbox_made(model, x, y, epsilon, steps):
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attacks = foolbox.attacks
    attack = (
        attacks.LinfFastGradientAttack()
        if steps == 1
        else attacks.LinfProjectedGradientDescentAttack(abs_stepsize=epsilon / 4, steps=steps, random_start=False)
    )
    return attack(wrapped, x, y, epsilons=epsilon)[0]


def torchattacks_made(model, x, y, epsilon, steps):
    import torchattacks

    if steps == 1:
        return torchattacks.FGSM(model, eps=epsilon)(x, y)
    return torchattacks.PGD(model, eps=epsilon, alpha=epsilon / 4, steps=steps, random_start=False)(x, y)


def art_made(model, x, y, epsilon, steps):
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model=model, loss=nn.CrossEntropyLoss(), input_shape=tuple(x.shape[1:]), nb_classes=10, clip_values=(0, 1),
        device_type="cpu",
    )  # fmt: skip
    if steps == 1:
        attack = FastGradientMethod(wrapped, eps=epsilon, eps_step=epsilon, batch_size=len(x))
    else:
        attack = ProjectedGradientDescent(
            wrapped, eps=epsilon, eps_step=epsilon / 4, max_iter=steps, num_random_init=0, batch_size=len(x),
            verbose=False,
        )  # fmt: skip
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def cleverhans_made(model, x, y, epsilon, steps):
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    kept = {"clip_min": 0, "clip_max": 1, "y": y}
    if steps == 1:
        return fast_gradient_method(model, x, epsilon, np.inf, **kept).detach()
    made = projected_gradient_descent(model, x, epsilon, epsilon / 4, steps, np.inf, rand_init=False, **kept)
    return made.detach()


MAKERS = {"foolbox": foolbox_made, "torchattacks": torchattacks_made, "art": art_made, "cleverhans": cleverhans_made}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_fgsm_is_theirs_bit_for_bit(model, batch, library, epsilon):
    x, y = batch
    theirs = MAKERS[library](model, x.clone(), y, epsilon, 1)
    assert torch.equal(fgsm(model, x, y, epsilon=epsilon), theirs)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_pgd_without_random_start_is_theirs_bit_for_bit(model, batch, library, epsilon):
    x, y = batch
    theirs = MAKERS[library](model, x.clone(), y, epsilon, STEPS)
    assert torch.equal(pgd(model, x, y, epsilon=epsilon, step_size=epsilon / 4, steps=STEPS), theirs)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("perturbation", "steps"), [(FGSM(), 1), (PGD(steps=STEPS, relative_step_size=0.25, random_start=False), STEPS)],
    ids=["fgsm", "pgd"],
)  # fmt: skip
def test_the_sweep_decides_what_the_model_says_of_their_images(model, images, batch, library, perturbation, steps):
    """Image by image: what comes out of a sweep, threads, padding and memory format included, is not another attack."""
    x, y = batch
    evidence = run_sweep(model, images, perturbation, EPSILONS, batch_size=COUNT)
    assert evidence.status == (OK,) * len(EPSILONS)
    for row, epsilon in enumerate(EPSILONS):
        theirs = MAKERS[library](model, x.clone(), y, epsilon, steps)
        with torch.inference_mode():
            logits = model(theirs)
        two = logits.topk(2).values
        clear = (two[:, 0] - two[:, 1] > 1e-4).numpy()  # a tie may fall either way in another memory format
        assert clear.sum() > 0.9 * COUNT
        assert np.array_equal(evidence.predictions[row][clear], logits.argmax(1).numpy()[clear])


def test_l2_attacks_are_foolboxs(model, batch):
    import foolbox

    x, y = batch
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.L2FastGradientAttack()(wrapped, x, y, epsilons=1.5)[0]
    assert torch.allclose(fgsm(model, x, y, epsilon=1.5, norm="l2"), theirs, atol=1e-5)
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.5, steps=5, random_start=False)
    theirs = attack(wrapped, x, y, epsilons=1.5)[0]
    ours = pgd(model, x, y, epsilon=1.5, step_size=0.5, steps=5, norm="l2")
    assert (ours - theirs).abs().max() < 1e-3
    assert torch.equal(model(ours).argmax(1), model(theirs).argmax(1))


def test_targeted_fgsm_is_torchattacks(model, batch):
    import torchattacks

    x, y = batch
    targets = (y + 3) % 10
    attack = torchattacks.PGD(model, eps=0.1, alpha=0.1, steps=1, random_start=False)
    attack.set_mode_targeted_by_label(quiet=True)
    assert torch.equal(fgsm(model, x, y, epsilon=0.1, targets=targets), attack(x, targets))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_closest_examples_of_fab_are_those_of_torchattacks(model, batch, norm):
    """Of each class alone, the closest of all. Catches: another projection, other weights, another order of classes."""
    import torchattacks

    x = batch[0][:8]
    y = model(x).argmax(1)
    attack = torchattacks.FAB(model, norm={"linf": "Linf", "l2": "L2"}[norm], steps=10, multi_targeted=True)
    closest = torch.full((8,), torch.inf)
    for target in range(2, 11):
        attack.target_class = target
        theirs = attack.attack_single_run_targeted(x, y)
        change = (theirs - x).flatten(1)
        distances = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        closest = torch.where(model(theirs).argmax(1) != y, torch.minimum(closest, distances), closest)
    examples, distances = fab(model, x, y, norm=norm, steps=10)
    assert (model(examples).argmax(1) != y).all()
    assert torch.allclose(distances, closest, rtol=1e-3)


@pytest.mark.parametrize(
    ("norm", "loss", "epsilon", "queries"),
    [("linf", "margin", 0.03, 150), ("linf", "cross_entropy", 0.03, 150), ("l2", "margin", 0.8, 30)],
    ids=["linf", "linf-ce", "l2"],
)
def test_square_is_torchattacks_image_by_image(model, batch, monkeypatch, norm, loss, epsilon, queries):
    """With our random numbers, which theirs draws for one image at a time: the same places, signs and decisions."""
    import torchattacks

    x = batch[0][:8]
    y = model(x).argmax(1)
    attack = Square(norm=norm, loss=loss, queries=queries)
    drawn = torch.from_numpy(attack.draw(generator(0, Purpose.NOISE), tuple(x.shape)))
    with torch.no_grad():
        ours = attack.prepare(Batch(model, x, y, drawn))(epsilon, torch.empty_like(x))
    for row in range(8):
        theirs = torchattacks.Square(
            model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, n_queries=queries,
            loss={"margin": "margin", "cross_entropy": "ce"}[loss],
        )  # fmt: skip
        numbers = seeded(*drawn[row].long().tolist(), 0)
        with monkeypatch.context() as patch:
            patch.setattr(
                torch, "rand", lambda size, numbers=numbers: torch.from_numpy(numbers.random(size, np.float32))
            )
            theirs.init_hyperparam(x)
            _, perturbed = theirs.attack_single_run(x[row : row + 1].clone(), y[row : row + 1])
        assert torch.allclose(ours[row], perturbed[0], atol=1e-6 if norm == "linf" else 1e-3)
    assert not torch.equal(ours, x)


def torchattacks_apgd(model, loss, norm, epsilon, starts):
    """Return torchattacks' APGD, or APGDT for "targeted", with run r of an image from its own ``starts[image][r]``."""
    import torchattacks

    given = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": epsilon, "steps": 100}
    targeted = loss == "targeted"
    attack = torchattacks.APGDT(model, **given) if targeted else torchattacks.APGD(model, loss=loss, **given)
    run = attack.attack_single_run

    def from_starts(images, labels):
        number = attack.target_class - 2 if targeted else 0
        drawn = torch.stack([starts[image.numpy().tobytes()][number] for image in images])
        with (
            patch("torch.rand", lambda *_: (drawn + 1) / 2),
            patch("torch.randn", lambda *_: drawn),
        ):
            return run(images, labels)

    attack.attack_single_run = from_starts
    return attack


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.02), ("l2", 0.3)])
def test_apgd_is_torchattacks_from_the_same_starts(model, batch, loss, norm, epsilon):
    """
    Bit for bit in L∞, but that their targeted ratio is rounded in another order; L2 has other roundings.

    Image by image in L2: torchattacks' APGDT takes the first image's step size for all.
    """
    x = batch[0][: 24 if norm == "linf" else 6]
    y = model(x).argmax(1)
    drawn = torch.from_numpy(APGD(norm=norm).draw(generator(1, Purpose.NOISE), tuple(x.shape)))
    drawn = (drawn + 1) / 2 * 2 - 1 if norm == "linf" else drawn  # as it comes out of their uniform numbers
    starts = {image.numpy().tobytes(): points for image, points in zip(x, drawn, strict=True)}
    attack = torchattacks_apgd(model, loss, norm, epsilon, starts)
    targets = None
    if loss == "targeted":
        attack.target_class, targets = 2, model(x).argsort(dim=1)[:, -2]
    parts = [slice(None)] if norm == "linf" else [slice(i, i + 1) for i in range(len(x))]
    theirs = torch.cat([attack.attack_single_run(x[rows], y[rows])[0] for rows in parts])
    ours = apgd(
        model, x, y, epsilon=epsilon, norm=norm, start=epsilon * drawn[:, 0],
        loss="cross_entropy" if loss == "ce" else "dlr", targets=targets,
    )  # fmt: skip
    if norm == "linf":
        differ = (ours != theirs).flatten(1).any(1).float().mean()
        assert differ <= (0.1 if loss == "targeted" else 0)
    else:
        assert ((ours - theirs).flatten(1).abs().amax(1) < 1e-2).float().mean() > 0.8
        assert (ours - theirs).abs().median() < 1e-4


@pytest.mark.parametrize(
    ("perturbation", "loss"), [(APGD(), "ce"), (APGD(loss="dlr"), "dlr"), (TargetedAPGD(), "targeted")],
    ids=["ce", "dlr", "targeted"],
)  # fmt: skip
def test_the_images_that_apgd_misleads_are_torchattacks(model, images, perturbation, loss):
    """Catches: targets in another order, an image that is left too early, restarts that share a start."""
    x = torch.from_numpy(images.batch(0, 24))
    y = model(x).argmax(1)
    own = from_arrays(images.pixels[:24], y.numpy(), tuple("abcdefghij"))
    drawn = torch.from_numpy(perturbation.draw(generator(0, Purpose.NOISE), tuple(x.shape)))
    starts = {image.numpy().tobytes(): points for image, points in zip(x, drawn, strict=True)}
    epsilon = 0.012
    evidence = run_sweep(model, own, perturbation, [epsilon], batch_size=24, threads=1)
    theirs = torchattacks_apgd(model, loss, "linf", epsilon, starts)(x, y)
    misled = (model(theirs).argmax(1) != y).numpy()
    assert 5 < misled.sum() < 19, "else this shows nothing"
    assert (misled != (evidence.predictions[0] != y.numpy())).sum() <= 1, "a tie may fall either way"


EXTERNAL = {
    "foolbox": External(library="foolbox", attack="LinfFastGradientAttack"),
    "torchattacks": External(library="torchattacks", attack="FGSM"),
    "art": External(library="art", attack="FastGradientMethod", arguments={"batch_size": COUNT}),
}


@pytest.mark.parametrize("library", EXTERNAL)
def test_their_fgsm_in_our_sweep_is_our_fgsm(model, images, library):
    ours = run_sweep(model, images, FGSM(), EPSILONS, batch_size=COUNT, threads=1)
    theirs = run_sweep(model, images, EXTERNAL[library], EPSILONS, batch_size=COUNT)
    assert theirs.status == (OK,) * len(EPSILONS)
    assert np.array_equal(ours.predictions, theirs.predictions)


def test_a_random_attack_of_theirs_depends_on_the_seed_alone(model, images):
    perturbation = External(library="torchattacks", attack="PGD", arguments={"steps": 2, "random_start": True})
    torch.manual_seed(5)
    first = run_sweep(model, images, perturbation, [0.1], batch_size=16)
    torch.manual_seed(6)
    assert run_sweep(model, images, perturbation, [0.1], batch_size=16).digest == first.digest
    assert run_sweep(model, images, perturbation, [0.1], batch_size=16, seed=1).digest != first.digest


def test_their_crash_is_an_error_of_the_cell(model, images):
    perturbation = External(library="torchattacks", attack="PGD", arguments={"steps": "many"})
    evidence = run_sweep(model, images, perturbation, [0.1], batch_size=COUNT)
    assert evidence.status[0].startswith("raised ")
    assert (evidence.predictions == -1).all()


def test_a_name_that_is_nearly_one_of_theirs_is_said(model, images):
    perturbation = External(library="torchattacks", attack="FSGM")
    assert "did you mean 'FGSM'" in run_sweep(model, images, perturbation, [0.1]).status[0]
