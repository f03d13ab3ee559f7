"""The numbers of a sweep: against closed forms, bare loops and scikit-learn, whatever the batch and the threads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import helpers
import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn
from torch.nn import functional as F

from robustness.classifiers.modules import state_hash
from robustness.data import from_arrays
from robustness.metrics.evidence import OK, SEMANTICS
from robustness.perturbations import FGSM, Clean, GaussianNoise, UniformNoise
from robustness.sweep.batching import batch_ranges, single_threaded
from robustness.sweep.runner import run_sweep
from robustness.util import hardware
from robustness.util.rng import CHUNK, Purpose, generator


@pytest.fixture(scope="module")
def digits():
    return helpers.digits(30)


@pytest.fixture(scope="module")
def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))


def bare_loop(module, images, perturbation, strengths, *, seed, batch_size):
    """The sweep in a dozen lines, without anything that makes it honest."""
    shapes = [(min(CHUNK, len(images) - start), *images.shape) for start in range(0, len(images), CHUNK)]
    noise = [perturbation.draw(generator(seed, Purpose.NOISE, i), shape) for i, shape in enumerate(shapes)]
    inputs, noise = torch.from_numpy(images.batch(0, len(images))), torch.from_numpy(np.concatenate(noise))
    with torch.inference_mode(), single_threaded():
        moved = [torch.add(inputs, noise, alpha=strength).clamp(0, 1) for strength in strengths]
        return torch.stack([torch.cat([module(part) for part in each.split(batch_size)]) for each in moved])


def test_a_linear_model_in_closed_form():
    """Two classes, one difference of weights: every image changes sides where the margin says."""
    images = helpers.images(500, shape=(3, 3), classes=2)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    strengths = [0.0, 0.1, 0.5, 1.0]

    evidence = run_sweep(model, images, GaussianNoise(), strengths, seed=11)

    pixels = images.pixels.reshape(500, 9) / 255
    noise = np.random.Generator(np.random.Philox(np.random.SeedSequence([11, 1, 0])))
    noise = noise.standard_normal((500, 9), dtype=np.float32).astype(float)
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    for row, strength in enumerate(strengths):
        perturbed = np.clip(pixels + strength * noise, 0, 1)
        margin = perturbed @ (weight[1] - weight[0]) + bias[1] - bias[0]
        clear = np.abs(margin) > 1e-5
        assert clear.mean() > 0.99
        assert np.array_equal(evidence.predictions[row][clear], (margin > 0)[clear])
        second = 1 / (1 + np.exp(-margin))
        assert np.allclose(evidence.confidence[row], np.maximum(second, 1 - second), atol=1e-5)
        true = np.where(images.labels == 1, second, 1 - second)
        assert np.allclose(evidence.true_probability[row], true, atol=1e-5)
        assert np.allclose(evidence.loss[row], -np.log(true), atol=1e-4)
        with np.errstate(divide="ignore"):
            snr = 20 * np.log10(np.linalg.norm(pixels, axis=1) / np.linalg.norm(perturbed - pixels, axis=1))
        assert np.allclose(evidence.snr[row], snr, atol=1e-3)


@pytest.mark.parametrize("perturbation", [GaussianNoise(bound=1.0), GaussianNoise(), UniformNoise()], ids=repr)
def test_equals_a_bare_loop(digits, perceptron, perturbation):
    """In every decision at any batch size; at the same one the softmax's last bits are all that may differ."""
    strengths = [0.0, 0.3, 0.9]
    logits = bare_loop(perceptron, digits, perturbation, strengths, seed=2, batch_size=100)
    same = run_sweep(perceptron, digits, perturbation, strengths, seed=2, batch_size=100, threads=1, probabilities=True)
    other = run_sweep(perceptron, digits, perturbation, strengths, seed=2, batch_size=7, threads=1)

    with single_threaded():  # and softmax in the same batches
        softmax = torch.stack([torch.cat([part.log_softmax(1) for part in row.split(100)]) for row in logits])
    true = softmax.gather(2, torch.from_numpy(digits.labels.copy()).expand(3, -1)[..., None]).squeeze(2)
    assert np.array_equal(same.predictions, logits.argmax(2))
    assert np.array_equal(other.predictions, logits.argmax(2))
    close = {"rtol": 1e-6, "atol": 0}
    assert np.allclose(same.loss, -true, **close)
    assert np.allclose(same.true_probability, true.exp(), **close)
    assert np.allclose(same.probabilities, softmax.exp(), **close)
    assert np.allclose(same.confidence, softmax.exp().amax(2), **close)
    assert np.allclose(other.loss, -true, atol=1e-5)


def test_probabilities_and_losses_against_scikit_learn(digits, perceptron):
    evidence = run_sweep(perceptron, digits, GaussianNoise(), [0.4], probabilities=True)
    (probabilities,) = evidence.probabilities.astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # scikit-learn wants sums of one in float64
    assert np.isclose(evidence.loss.mean(), log_loss(digits.labels, probabilities, labels=range(10)), atol=1e-5)
    assert np.allclose(evidence.probabilities.sum(axis=2), 1, atol=1e-5)
    assert np.array_equal(evidence.probabilities.argmax(axis=2), evidence.predictions)
    assert np.allclose(evidence.probabilities.max(axis=2), evidence.confidence)
    every = np.arange(len(digits))
    assert np.array_equal(evidence.probabilities[0, every, digits.labels], evidence.true_probability[0])
    assert np.array_equal(evidence.labels, digits.labels)
    assert run_sweep(perceptron, digits, GaussianNoise(), [0.4]).probabilities is None


def test_a_decision_is_that_of_the_logits_though_probabilities_tie():
    class Near(nn.Module):
        def forward(self, inputs):
            return torch.tensor([0.0, 1e-9, -1.0]).expand(len(inputs), 3)

    evidence = run_sweep(Near(), helpers.images(5), Clean(), [0])
    assert (evidence.predictions == 1).all()
    assert torch.tensor([0.0, 1e-9, -1.0]).log_softmax(0).argmax() == 0, "else this shows nothing"


def test_a_convolution_with_batch_norm_and_dropout_in_training():
    """The statistics are those of training, dropout is off, whatever the threads; frozen layers stay frozen."""
    images = helpers.images(1100, shape=(4, 4, 4))
    torch.manual_seed(0)
    norms, head = (nn.BatchNorm2d(6), nn.BatchNorm2d(6)), (nn.Flatten(), nn.Linear(54, 3))
    model = nn.Sequential(nn.Conv2d(4, 6, 2), norms[0], nn.ReLU(), nn.Dropout(0.5), norms[1], *head)
    model(torch.rand(64, 4, 4, 4))
    model[4].eval()
    before = state_hash(model)

    digests = {run_sweep(model, images, UniformNoise(), [0.2], batch_size=300, threads=t).digest for t in (1, 2)}

    assert [m.training for m in model] == [True, True, True, True, False, True, True]
    assert state_hash(model) == before
    model.eval()
    assert {run_sweep(model, images, UniformNoise(), [0.2], batch_size=300).digest} == digests
    logits = bare_loop(model, images, UniformNoise(), [0.2], seed=0, batch_size=100)
    evidence = run_sweep(model, images, UniformNoise(), [0.2])
    assert np.array_equal(evidence.predictions, logits.argmax(2))


def test_one_image():
    images = helpers.images(1)
    model = helpers.linear(images)
    evidence = run_sweep(model, images, GaussianNoise(), [0.0, 0.5], threads=3)
    assert evidence.status == (OK, OK)
    assert evidence.loss.shape == (2, 1)
    expected = F.cross_entropy(model(torch.from_numpy(images.batch(0, 1))), torch.from_numpy(images.labels.copy()))
    assert np.isclose(evidence.loss[0, 0], expected.item(), atol=1e-6)


def test_an_image_is_decided_alike_when_others_follow():
    images = helpers.images(1700)
    model = helpers.linear(images)
    few = run_sweep(model, images.select(np.arange(1234), "few"), GaussianNoise(), [0.3], batch_size=200)
    many = run_sweep(model, images, GaussianNoise(), [0.3], batch_size=200)
    assert np.array_equal(few.predictions[0], many.predictions[0, :1234])
    assert np.array_equal(few.loss[0, :1200], many.loss[0, :1200])


def test_seeds_differ_and_strengths_do_not_depend_on_each_other():
    """Catches: draws anew for each strength, or one that begins at the one before; clean unlike a strength of zero."""
    images = helpers.images(50)
    model = helpers.linear(images)
    clean, none = run_sweep(model, images, Clean(), [0]), run_sweep(model, images, GaussianNoise(), [0])
    assert clean.digest == none.digest
    assert np.isinf(clean.snr).all()
    one = run_sweep(model, images, GaussianNoise(), [0.3, 0.9])
    assert run_sweep(model, images, GaussianNoise(), [0.3, 0.9]).digest == one.digest
    assert run_sweep(model, images, GaussianNoise(), [0.3, 0.9], seed=1).digest != one.digest
    assert np.array_equal(run_sweep(model, images, GaussianNoise(), [0.9]).loss[0], one.loss[1])


def test_colour_comes_channels_first():
    """A model that looks at one pixel of one channel."""
    pixels = np.zeros((3, 2, 4, 3), np.uint8)
    pixels[1, 1, 2, 0] = pixels[2, 0, 3, 2] = 255

    class Looks(nn.Module):
        def forward(self, inputs):
            assert inputs.shape[1:] == (3, 2, 4)
            return torch.stack([torch.full((len(inputs),), 0.5), inputs[:, 0, 1, 2], inputs[:, 2, 0, 3]], 1)

    assert run_sweep(Looks(), from_arrays(pixels, [0, 1, 2]), Clean(), [0]).predictions.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    "first", [nn.ReLU(inplace=True), nn.Hardtanh(0.2, 0.7, inplace=True), nn.Threshold(0.5, 0, True)]
)
def test_a_model_may_edit_its_input(first):
    """Catches: a strength that begins with what the model has left of the one before."""
    images = helpers.images(600)
    before = images.pixels.copy()
    model = nn.Sequential(first, *helpers.linear(images))
    for perturbation, strengths in ((Clean(), [0]), (GaussianNoise(), [0.1, 0.4, 0.9])):
        digests = set()
        for first.inplace in (True, False):
            digests.add(run_sweep(model, images, perturbation, strengths, batch_size=250).digest)
        assert len(digests) == 1
    assert np.array_equal(images.pixels, before)


def test_labels_are_out_of_reach():
    """A perturbation that edits what it is given must not change the data."""

    class Careless(GaussianNoise):
        def direction(self, batch):
            batch.labels.zero_()
            return batch.drawn

    images = helpers.images(20)
    before = images.labels.copy()
    run_sweep(helpers.linear(images), images, Careless(), [0.1], batch_size=10)
    assert np.array_equal(images.labels, before)


def test_progress_is_told_from_here_up_to_the_last_image():
    images, told = helpers.images(1234), []
    run_sweep(
        helpers.linear(images), images, GaussianNoise(), [0.1, 0.2], batch_size=100, threads=2,
        progress=lambda *numbers: told.append((*numbers, threading.current_thread())),
    )  # fmt: skip
    done, totals, threads = zip(*told, strict=True)
    assert set(totals) == {1234}
    assert set(threads) == {threading.current_thread()}
    assert list(done) == sorted(set(done))
    assert done[-1] == 1234
    assert len(done) == 13


@pytest.mark.parametrize("number", [1, 3])
def test_the_number_of_torch_threads_stays(number):
    images, before = helpers.images(10), torch.get_num_threads()

    counted = []

    class Reports(nn.Linear):
        def forward(self, inputs):
            counted.append(torch.get_num_threads())
            return super().forward(inputs.flatten(1))

    torch.set_num_threads(number)
    try:
        run_sweep(Reports(16, 3), images, Clean(), [0])
        assert torch.get_num_threads() == number
        with ThreadPoolExecutor(1) as pool:  # and of threads that begin later
            assert pool.submit(torch.get_num_threads).result() == number
        assert set(counted) == {1}
        with pytest.raises(ValueError, match="strengths"):
            run_sweep(Reports(16, 3), images, Clean(), [1])
        assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)


def test_what_the_caller_set_for_speed_does_not_reach_the_numbers():
    """Weights below 1e-38 count, also after a training that flushed them to zero in this thread."""
    images = helpers.images(10)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
    with torch.no_grad():
        model[1].weight.mul_(1e-39)
    due = run_sweep(model, images, Clean(), [0])
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    try:
        with torch.inference_mode():
            assert run_sweep(model, images, Clean(), [0]).digest == due.digest
    finally:
        torch.set_flush_denormal(False)
    assert len(np.unique(due.predictions)) > 1


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": -5}, {"threads": 0}])
def test_sizes_that_would_sweep_nothing_are_refused(wrong):
    images, ((name, value),) = helpers.images(5), wrong.items()
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got {value}"):
        run_sweep(helpers.linear(images), images, Clean(), [0], **wrong)


def test_how_it_came_about_is_written_down():
    images = helpers.images(30)
    model = helpers.linear(images)
    told = run_sweep(model, images, GaussianNoise(bound=1.0), [0.5], seed=3, batch_size=10).provenance
    assert told["perturbation"] == {"kind": "gaussian", "bound": 1.0}
    assert (told["seed"], told["batch_size"], told["unit"], told["dtype"]) == (3, 10, "default", "float32")
    assert told["images"] == {"name": "images", "n": 30, "fingerprint": images.fingerprint}
    assert told["state"] == state_hash(model)
    assert told["semantics"] == SEMANTICS
    assert told["device"].startswith("cpu-")
    assert told["versions"]["torch"] == torch.__version__
    assert told["doubts"] == []
    assert told["seconds"] > 0


@pytest.mark.parametrize("total", [1, 999, 1000, 2345])
@pytest.mark.parametrize("batch_size", [7, 500, 1000, 1500])
@pytest.mark.parametrize("abreast", [1, 3])
def test_batches_cover_every_image_once_and_no_two_chunks(total, batch_size, abreast):
    batches = list(batch_ranges(total, batch_size, abreast))
    assert sorted(i for batch in batches for i in range(*batch)) == list(range(total))
    assert all(start // CHUNK == (stop - 1) // CHUNK and stop - start <= batch_size for start, stop in batches)
    assert len({(start // CHUNK) for start, _ in batches[:abreast]}) == min(abreast, -(-total // CHUNK))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_two_threads_share_the_batches_of_any_number_of_images(shape):
    """Catches: three batches of 50 for 128 images, where the second thread computes one, and 22 images are padding."""
    for count in [*range(32, 1500), 2001, 2999, 5000, 20_999]:
        size = hardware.batch_size(shape, "cpu", count, 2**20)
        assert 4 * size * np.prod(shape) <= 2**20
        rounds = -(-len(list(batch_ranges(count, size))) // 2)
        assert 2 * rounds * size <= 1.1 * count + 4, (count, size)


def test_batches_without_a_given_size_do_not_depend_on_threads(perceptron):
    """Catches: batches that are cut evenly over the threads there are, so that another machine has other evidence."""
    images = helpers.digits(13)
    swept = [run_sweep(perceptron, images, FGSM(), [0.1], threads=threads) for threads in (1, 2, 3)]
    assert {evidence.provenance["batch_size"] for evidence in swept} == {65}
    assert len({evidence.digest for evidence in swept}) == 1


@pytest.mark.parametrize(("count", "size"), [(32, 16), (128, 32)])
def test_only_large_batches_are_differentiated_in_halves(count, size):
    """Catches: twice as many small passes as needed, or the feature maps of a large batch in memory at once."""
    images, seen = helpers.images(count, (32, 32, 3)), []

    class Net(nn.Sequential):
        def forward(self, inputs):
            if inputs.requires_grad:
                seen.append(len(inputs))
            return super().forward(inputs)

    model = Net(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    run_sweep(model, images, FGSM(), [0.1], threads=1)
    assert seen[-count // size :] == [size] * (count // size)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory from /proc")
def test_memory_is_that_of_the_evidence():
    """20,000 images are 63 MB as floats, and their noise as much; neither is ever held."""
    count = 20_000
    images = from_arrays(np.zeros((count, 28, 28), np.uint8), np.arange(count) % 10)
    model = helpers.linear(images)
    run_sweep(model, images.select(np.arange(2000), "first"), GaussianNoise(), [0.1])  # what every sweep needs once

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    before, seen = resident(), []
    evidence = run_sweep(
        model, images, GaussianNoise(), [0.1, 0.2], threads=2, progress=lambda *_: seen.append(resident())
    )
    arrays = sum(array.nbytes for array in evidence._arrays().values()) / 2**20
    assert max(seen) - before < arrays + 25
