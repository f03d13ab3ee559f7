"""Our attacks against four other libraries, bit for bit; run by `tox -e oracles`, which installs them."""

import importlib.util
import warnings

import helpers
import numpy as np
import pytest
import torch
from torch import nn

import robustness.util.torchvision_compat
from robustness.data.images import from_arrays
from robustness.metrics.evidence import OK
from robustness.perturbations import FGSM, PGD
from robustness.perturbations.external import External
from robustness.perturbations.fgsm import fgsm
from robustness.perturbations.pgd import pgd
from robustness.sweep.runner import run_sweep

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
