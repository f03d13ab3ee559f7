"""Common corruptions against closed forms, SciPy, Pillow, colorsys and the authors' loops."""

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage, stats
from torch import nn

from robustness.data.images import from_arrays
from robustness.metrics.evidence import OK
from robustness.perturbations import Batch, CommonCorruption
from robustness.perturbations.base import draw_seeds
from robustness.perturbations.common_corruptions import blur, digital, linear_maps, spatter, weather
from robustness.perturbations.common_corruptions.corruption import corrupt
from robustness.perturbations.common_corruptions.draws import Draws
from robustness.perturbations.common_corruptions.functions import FUNCTIONS
from robustness.perturbations.common_corruptions.severities import EXTRA, NAMES, SEVERITIES, parameters
from robustness.perturbations.strength import StrengthDistribution, check
from robustness.sweep.runner import run_sweep
from robustness.util.rng import Purpose, generator

EVERY = pytest.mark.parametrize("name", NAMES)
SEVERITY = pytest.mark.parametrize("severity", range(1, 6))
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


@pytest.fixture(autouse=True)
def one_thread():
    """As in a sweep; several threads wait for each other longer than these small images take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Fixed:
    """Random numbers that a test chose: arrays (N, …), in the order in which they are drawn."""

    device = torch.device("cpu")

    def __init__(self, *arrays):
        self.arrays = [torch.from_numpy(np.asarray(array, np.float32)) for array in arrays]

    def uniform(self, *shape):
        drawn = self.arrays.pop(0)
        assert drawn.shape[1:] == shape
        return drawn

    normal = uniform


def images(count=3, channels=3, height=32, width=32, seed=0):
    """Smooth images of bytes, with black and white areas."""
    noise = np.random.default_rng(seed).normal(size=(count, channels, height, width))
    smooth = ndimage.gaussian_filter(noise, (0, 0.3, 1.5, 1.5))
    return torch.from_numpy((np.clip(0.5 + 0.35 * smooth / smooth.std(), 0, 1) * 255).round() / 255).float()


def test_the_names_are_those_of_the_benchmark():
    """Catches: a corruption without a function, a table with fewer than five severities."""
    assert set(NAMES) == set(FUNCTIONS)
    assert (len(NAMES), len(EXTRA)) == (19, 4)
    assert NAMES[15:] == EXTRA
    assert all(len(row) == 5 for rows in SEVERITIES.values() for row in rows)


@pytest.mark.parametrize(("side", "noise"), [(28, 0.1), (63, 0.1), (64, 0.38), (224, 0.38)])
def test_the_size_selects_the_parameters(side, noise):
    """Catches: the shorter side taken for the longer one, a limit that is off by one."""
    assert parameters("gaussian-noise", 5, side, 300) == parameters("gaussian-noise", 5, 300, side) == (noise,)


@EVERY
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 80)])
def test_an_image_does_not_depend_on_its_neighbours(name, shape):
    """Catches: random numbers of the batch; a maximum or mean over the batch; a severity used for all."""
    inputs = images(4, *shape)
    drawn = torch.from_numpy(CommonCorruption(name=name).draw(np.random.default_rng(0), tuple(inputs.shape)))

    def corrupted(rows, strength):
        batch = Batch(nn.Identity(), inputs[rows], torch.zeros(len(inputs[rows])), drawn[rows])
        return CommonCorruption(name=name).prepare(batch)(strength, torch.empty_like(inputs[rows]))

    together = corrupted(slice(None), torch.tensor([0.0, 2.0, 5.0, 2.0]).view(4, 1, 1, 1))
    assert torch.equal(together[0], inputs[0])
    for row, severity in enumerate([0, 2, 5, 2]):
        assert torch.allclose(corrupted(slice(row, row + 1), float(severity))[0], together[row], atol=2e-5)
    assert (together.isfinite() & (together >= 0) & (together <= 1)).all()
    assert severity == 0 or (together[2] != inputs[2]).any() or (name == "saturate" and shape[0] == 1)


@pytest.mark.parametrize(
    "name", ["shot-noise", "impulse-noise", "fog", "snow", "frost", "elastic-transform", "spatter"]
)
def test_the_seed_decides(name):
    """Catches: random numbers that nothing seeds."""
    inputs = images()
    assert torch.equal(corrupt(inputs, name, 5, seed=1), corrupt(inputs, name, 5, seed=1))
    assert not torch.equal(corrupt(inputs, name, 5, seed=1), corrupt(inputs, name, 5, seed=2))
    same = inputs[:1].expand(2, -1, -1, -1).contiguous()
    assert not torch.equal(*corrupt(same, name, 5)), "two images of a batch have different numbers"


@EVERY
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_plain_images_stay_finite(name, level):
    """Catches: 0/0 in a black image, an image of one grey, an image of one pixel."""
    for shape in ((1, 3, 32, 32), (1, 1, 1, 1), (1, 3, 2, 70), (1, 2, 3, 4)):
        for severity in (1, 3, 5):
            corrupted = corrupt(torch.full(shape, level), name, severity)
            assert (corrupted.isfinite() & (corrupted >= 0) & (corrupted <= 1)).all()


@SEVERITY
def test_noise_has_the_moments_of_its_distribution(severity):
    """Catches: a variance for a deviation, photons that are not divided out, salt alone."""
    grey = torch.full((20, 3, 64, 64), 0.5)
    count = grey.numel()

    def moments(name):
        change = FUNCTIONS[name](grey, draws(20), *parameters(name, severity, 64, 64)) - 0.5
        return change.double().mean().item(), change.double().var().item(), change

    def draws(number):
        return Draws([[n, 7] for n in range(number)], torch.device("cpu"))

    for name, variance in (
        ("gaussian-noise", parameters("gaussian-noise", severity, 64, 64)[0] ** 2),
        ("speckle-noise", (0.5 * parameters("speckle-noise", severity, 64, 64)[0]) ** 2),
        ("shot-noise", 0.5 / parameters("shot-noise", severity, 64, 64)[0]),
    ):
        mean, measured, _ = moments(name)
        assert abs(mean) < 4 * np.sqrt(variance / count)
        # Of a Poisson number the fourth moment is larger: 3 σ⁴ + σ² / photons².
        assert measured == pytest.approx(variance, rel=4 * np.sqrt(3 / count))
    fraction = parameters("impulse-noise", severity, 64, 64)[0]
    change = moments("impulse-noise")[2]
    for value in (-0.5, 0.5):
        assert stats.binomtest(int((change == value).sum()), count, fraction / 2).pvalue > 1e-4
    assert set(change.unique().tolist()) == {-0.5, 0.0, 0.5}


@pytest.mark.parametrize("sigma", [0.4, 1.0, 6.0])
def test_gaussian_blur_is_scipys(sigma):
    """Catches: another border or cut of the kernel than scikit-image's, whose filter is SciPy's."""
    inputs = images(2, 3, 20, 30)
    for border, mode, truncate in (("edge", "nearest", 4), ("symmetric", "reflect", 3), ("reflect", "mirror", 2)):
        due = ndimage.gaussian_filter(inputs.numpy(), (0, 0, sigma, sigma), mode=mode, truncate=truncate)
        assert np.abs(linear_maps.gaussian_blur(inputs, sigma, border, truncate).numpy() - due).max() < 1e-5


@SEVERITY
def test_defocus_averages_over_a_disk(severity):
    """Catches: a kernel that is not normalised, a border that is repeated or black."""
    inputs = images(2, 3, 70, 66)
    radius, smoothing = parameters("defocus-blur", severity, 70, 66)
    due = [[ndimage.correlate(each, blur.disk(radius, smoothing), mode="mirror") for each in image] for image in inputs]
    corrupted = corrupt(inputs, "defocus-blur", severity)
    assert np.abs(corrupted.numpy() - np.array(due)).max() < 1e-5
    reach = len(blur.disk(radius, smoothing)) // 2
    assert radius <= reach <= radius + 2
    assert 1 - 1e-9 < blur.disk(radius, smoothing).sum() < 1.014


@pytest.mark.parametrize(("distance", "rounds"), [(1, 1), (2, 1), (4, 2)])
def test_glass_is_the_authors_loop(distance, rounds):
    """Catches: swaps for copies, another order of the pixels, paths that are not followed to their end."""
    inputs = images(2, 3, 20, 26)
    drawn = [np.random.default_rng(n).random((2, 2, 20, 26), np.float32) for n in range(rounds)]
    due = inputs.numpy().transpose(0, 2, 3, 1).copy()
    for image, number in zip(due, (0, 1), strict=True):
        for each in drawn:
            steps = (each[number] * (2 * distance)).astype(int) - distance
            for h in range(20 - distance, distance, -1):
                for w in range(26 - distance, distance, -1):
                    dy, dx = steps[:, h, w]
                    image[h, w], image[h + dy, w + dx] = image[h + dy, w + dx], image[h, w]
    ours = blur.glass_blur(inputs, Fixed(*drawn), 0.05, distance, rounds)
    assert np.abs(ours.numpy().transpose(0, 2, 3, 1) - due).max() < 1e-6


def test_a_level_movement_averages_to_one_side():
    """Catches: both halves of the Gaussian, the other side, a black border."""
    inputs = images(2, 3, 9, 14)
    weights = np.exp(-(np.arange(7) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    padded = np.pad(inputs.numpy(), ((0, 0), (0, 0), (0, 0), (0, 6)), mode="edge")
    due = sum(weight * padded[..., step : step + 14] for step, weight in enumerate(weights))
    assert np.abs(blur.moved(inputs, torch.zeros(2), 3, 1.5).numpy() - due).max() < 1e-6
    upright = blur.moved(inputs.mT.contiguous(), torch.full((2,), 90.0), 3, 1.5).mT
    assert np.abs(upright.numpy() - due).max() < 1e-6


@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (70, 90)])
def test_zooms_are_scipys(height, width):
    """Catches: a middle that is off by a pixel, an enlargement by the wrong factor."""
    image = np.random.default_rng(0).random((height, width))

    def zoomed(factor):
        rows, columns = (int(np.ceil(side / factor)) for side in image.shape)
        top, left = (height - rows) // 2, (width - columns) // 2
        large = ndimage.zoom(image[top : top + rows, left : left + columns], factor, order=1)
        top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
        return large[top : top + height, left : left + width]

    for factor in (1.0, 1.01, 1.13, 1.25, 1.75, 2.25, 4.5):
        ours = linear_maps.zoom_matrix(height, factor) @ image @ linear_maps.zoom_matrix(width, factor).T
        assert np.abs(ours - zoomed(factor)).max() < 1e-9, factor
    inputs = torch.from_numpy(image)[None, None].float()
    due = (image + sum(zoomed(factor) for factor in np.arange(1, 1.11, 0.02))) / 7
    assert np.abs(blur.zoom_blur(inputs, Draws([], torch.device("cpu")), 1.11, 0.02).numpy() - due).max() < 1e-5


def authors_plasma(random, decay):
    """The authors' diamond-square algorithm, with the random number of each place of the map."""
    size = len(random)
    surface, step, wibble = np.zeros((size, size)), size, 100.0

    def wobbled(sums, rows, columns):
        return sums / 4 + wibble * wibble * random[rows, columns]

    while step >= 2:
        half = slice(step // 2, size, step)
        whole = slice(0, size, step)
        corner = surface[whole, whole]
        square = corner + np.roll(corner, -1, axis=0)
        square = square + np.roll(square, -1, axis=1)
        surface[half, half] = wobbled(square, half, half)
        centre, corner = surface[half, half], surface[whole, whole]
        left = centre + np.roll(centre, 1, axis=0) + corner + np.roll(corner, -1, axis=1)
        surface[whole, half] = wobbled(left, whole, half)
        top = centre + np.roll(centre, 1, axis=1) + corner + np.roll(corner, -1, axis=0)
        surface[half, whole] = wobbled(top, half, whole)
        step, wibble = step // 2, wibble / decay
    surface -= surface.min()
    return surface / surface.max()


@pytest.mark.parametrize("decay", [3, 1.4])
def test_fog_is_the_authors_fractal(decay):
    """Catches: neighbours of the wrong side, a range that does not shrink by the decay's square."""
    drawn = np.random.default_rng(0).random((2, 32, 32), np.float32)
    due = np.stack([authors_plasma(2.0 * each - 1, decay) for each in drawn])
    assert np.abs(weather.plasma(Fixed(drawn), 28, decay).numpy() - due).max() < 1e-5
    inputs = images(2, 3, 28, 20) * 0.8
    largest = inputs.numpy().max((1, 2, 3), keepdims=True)
    foggy = (inputs.numpy() + 1.5 * due[:, None, :28, :20]) * largest / (largest + 1.5)
    assert np.abs(weather.fog(inputs, Fixed(drawn), 1.5, decay).numpy() - foggy).max() < 1e-5


def test_colours_change_as_in_hsv():
    """Catches: a hue that moves, a grey pixel that does not turn red as in the authors' code."""
    inputs = images(1, 3, 12, 12)
    inputs[0, :, 0, 0], inputs[0, :, 0, 1] = 0.0, 0.4

    def due(change):
        pixels = inputs[0].permute(1, 2, 0).reshape(-1, 3).double().tolist()
        changed = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in pixels]
        return np.array(changed).T.reshape(3, 12, 12)

    ours = corrupt(inputs, "brightness", 5)[0].numpy()
    assert np.abs(ours - due(lambda h, s, v: (h, s, min(1, v + 0.3)))).max() < 1e-5
    for severity, (factor, amount) in enumerate([(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)], 1):
        ours = corrupt(inputs, "saturate", severity)[0].numpy()
        expected = due(lambda h, s, v, f=factor, a=amount: (h, min(1, s * f + a), v))
        assert np.abs(ours - expected).max() < 1e-5


def test_grey_images_have_no_colour():
    """Catches: saturation that changes a grey image, brightness that is not added."""
    inputs = images(2, 1, 28, 28)
    assert torch.equal(corrupt(inputs, "saturate", 5), inputs)
    assert torch.allclose(corrupt(inputs, "brightness", 5), (inputs + 0.3).clamp(0, 1))


@CHANNELS
@SEVERITY
def test_contrast_is_about_each_channels_mean(channels, severity):
    """Catches: one mean for all channels or images."""
    inputs = images(2, channels)
    mean, factor = inputs.numpy().mean((2, 3), keepdims=True), (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    assert np.allclose(corrupt(inputs, "contrast", severity), mean + factor * (inputs.numpy() - mean), atol=1e-6)


@CHANNELS
@SEVERITY
def test_pixels_and_jpeg_are_pillows(channels, severity):
    """Catches: another filter, a rounded size, a quality of another severity; Pillow rounds to bytes in between."""
    inputs = images(2, channels, 70, 66)
    for image, pixels, jpeg in zip(
        inputs, corrupt(inputs, "pixelate", severity), corrupt(inputs, "jpeg-compression", severity), strict=True
    ):
        picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8).squeeze())
        fraction = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
        small = picture.resize((int(66 * fraction), int(70 * fraction)), Image.Resampling.BOX)
        due = np.asarray(small.resize((66, 70), Image.Resampling.BOX)).reshape(70, 66, channels)
        assert np.abs(pixels.permute(1, 2, 0).numpy() - due / 255.0).max() < 2 / 255
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
        due = np.asarray(Image.open(file)).reshape(70, 66, channels)
        assert np.abs(jpeg.permute(1, 2, 0).numpy() - due / 255.0).max() < 1e-6


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 24)])
def test_elastic_is_scipys_interpolation(height, width):
    """Catches: rows for columns, an affine map that is not inverted, another border."""
    inputs = images(1, 2, height, width)
    side, random = min(height, width), np.random.default_rng(3)
    corners, field = random.random((1, 3, 2)), random.random((1, 2, height, width))
    ours = digital.elastic_transform(inputs, Fixed(corners, field), 0.1, 0.04, 0.05)[0].numpy()

    middle, arm = np.array([height // 2, width // 2]), side // 3
    before = np.array([middle + arm, [middle[0] + arm, middle[1] - arm], middle - arm])
    after = before + 0.05 * side * (2 * corners[0].astype(np.float32) - 1)
    matrix = np.linalg.solve(np.c_[after, np.ones(3)], before)  # (x, y, 1) of the result to (x, y) of the image
    y, x = np.mgrid[:height, :width]
    sources = np.stack([x, y, np.ones_like(x)], -1) @ matrix
    smooth = ndimage.gaussian_filter(2 * field[0] - 1, (0, 0.04 * side, 0.04 * side), truncate=3) * 0.1 * side
    for channel, image in enumerate(inputs[0].numpy()):
        sheared = ndimage.map_coordinates(image, (sources[..., 1], sources[..., 0]), order=1, mode="mirror")
        due = ndimage.map_coordinates(sheared, (y + smooth[1], x + smooth[0]), order=1, mode="reflect")
        assert np.abs(ours[channel] - due).max() < 1e-4


def test_distances_are_scipys():
    """Catches: city blocks for straight lines, rows that are not seen from other columns."""
    marked = torch.from_numpy(np.random.default_rng(0).random((3, 1, 30, 40)) < 0.01)
    marked[2] = False
    ours = spatter.distances(marked).clamp(max=20)[:, 0].numpy()
    for mine, each in zip(ours[:2], marked[:2, 0].numpy(), strict=True):
        assert np.abs(mine - np.minimum(ndimage.distance_transform_edt(~each), 20)).max() < 1e-5
    assert (ours[2] == 20).all(), "no edge anywhere"


def test_a_step_is_one_edge_and_weak_edges_need_a_strong_one():
    """Catches: edges that are two pixels wide, a weak edge that stands alone."""
    step = torch.zeros(1, 1, 12, 12)
    step[..., 6:] = 200
    assert (spatter.edges(step).sum(-1) == 1).all()
    step[..., 6:] = 20  # |gx| = 80, between the thresholds
    assert not spatter.edges(step).any()
    step[..., 10:, 6:] = 200
    assert spatter.edges(step)[0, 0, :9].any(), "connected to the strong edge below"


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ([1, 2.5], r"`strengths` of corruption must be whole numbers, got 2\.5; severity is 1 to 5"),
        ([StrengthDistribution(uniform=(0.0, 5.0))], r"must be whole numbers, got U\(0,5\)"),
        ([6], r"must lie in \[0, 5\], got 6"),
        ([-1], r"must lie in \[0, 5\], got -1"),
    ],
)
def test_severities_are_whole_numbers_from_0_to_5(strengths, message):
    """Catches: a severity that is rounded in silence."""
    with pytest.raises(ValueError, match=message):
        check(strengths, CommonCorruption(name="fog"))


def test_wrong_names_and_severities_are_explained():
    """Catches: KeyError for a name with an underscore, a severity beyond the table."""
    with pytest.raises(ValidationError, match=r"`name` must be one of gaussian-noise, .*'jpeg_compression'.*jpeg-comp"):
        CommonCorruption(name="jpeg_compression")
    with pytest.raises(ValueError, match="`name` must be one of"):
        corrupt(torch.zeros(1, 1, 4, 4), "smoke", 1)
    for severity in (6, 1.5, -1):
        with pytest.raises(ValueError, match=r"`strengths` of corruption must be whole numbers from 0 to 5, got"):
            corrupt(torch.zeros(1, 1, 4, 4), "fog", severity)
    with pytest.raises(ValueError, match=r"`batch\.drawn` must hold the seeds of the images, got None"):
        CommonCorruption(name="fog").prepare(Batch(nn.Identity(), torch.zeros(1, 1, 4, 4), torch.zeros(1)))


def test_a_sweep_does_not_depend_on_the_batch_size():
    """Catches: seeds by the position in the batch, padding that reaches the images."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    of = from_arrays(pixels, np.arange(30) % 10)
    runs = [run_sweep(model, of, CommonCorruption(name="shot-noise"), [1, 5], batch_size=size) for size in (7, 30)]
    assert set(runs[0].status) == {OK}
    assert np.array_equal(runs[0].predictions, runs[1].predictions)
    assert np.allclose(runs[0].snr, runs[1].snr)


@pytest.mark.parametrize("name", NAMES)
def test_a_severity_does_not_depend_on_those_before_it(name):
    """Catches: numbers that are drawn anew, or changed in place, at the next severity; those of other rows."""
    inputs = torch.from_numpy(np.random.default_rng(1).random((3, 3, 8, 8), dtype=np.float32))
    drawn = torch.from_numpy(draw_seeds(generator(0, Purpose.NOISE), 3))
    perturb = CommonCorruption(name=name).prepare(Batch(nn.Identity(), inputs, torch.zeros(3), drawn))
    alone = {severity: corrupt(inputs, name, severity) for severity in (1, 3, 5)}
    for severity in (5, 1, 3):
        assert torch.equal(perturb(severity, torch.empty_like(inputs)), alone[severity])
    mixed = perturb(torch.tensor([3.0, 1.0, 3.0]).view(-1, 1, 1, 1), torch.empty_like(inputs))
    assert torch.allclose(mixed, torch.stack([alone[s][i] for i, s in enumerate((3, 1, 3))]), atol=1e-6)
