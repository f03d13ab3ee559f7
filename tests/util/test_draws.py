"""Draws: the same numbers whatever the batch, the thread, the order of asking and the number of images."""

import hashlib
import itertools
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustness.perturbations import PERTURBATIONS, PGD, GaussianNoise, UniformNoise
from robustness.perturbations.strength import StrengthDistribution
from robustness.util.rng import CHUNK, ChunkedDraws, Purpose, generator


def rows(chunk, size):
    """What a chunk of noise is."""
    return GaussianNoise().draw(generator(3, Purpose.NOISE, chunk), (size, 2, 1, 3))


def test_the_first_draws_are_these():
    """Evidence in stores and baselines rests on them: if this fails, raise SEMANTICS and say so in the changelog."""
    digest = hashlib.sha256()
    for purpose, chunk in itertools.product(list(Purpose)[:4], (0, 1)):
        digest.update(generator(0, purpose, chunk).bit_generator.random_raw(64).tobytes())
    digest.update(GaussianNoise(bound=1.0).draw(generator(0, Purpose.NOISE), (2, 1, 3, 3)).tobytes())
    digest.update(UniformNoise().draw(generator(0, Purpose.NOISE), (2, 1, 3, 3)).tobytes())
    digest.update(
        StrengthDistribution(uniform=(0, 0.5), clean_fraction=0.5).draw(generator(0, Purpose.STRENGTH), 10).tobytes()
    )
    assert digest.hexdigest() == "75935863bfa5938ef5048365d1e0192280203d6dc55cc9f3c3884bff6e3e70d1"


@pytest.mark.parametrize("purpose", Purpose)
def test_a_generator_is_philox_of_seed_purpose_and_chunk(purpose):
    due = np.random.Philox(np.random.SeedSequence([7, int(purpose), 2])).random_raw(8)
    assert np.array_equal(generator(7, purpose, 2).bit_generator.random_raw(8), due)


def test_seeds_purposes_and_chunks_share_no_numbers():
    keys = itertools.product((0, 1, 2, 2**32 - 1), Purpose, (0, 1, 2, 9999))
    first = [int(generator(*key).bit_generator.random_raw()) for key in keys]
    assert len(set(first)) == len(first) == 4 * len(Purpose) * 4


def test_purposes_are_numbered_once_and_for_all():
    numbers = {"NOISE": 1, "STRENGTH": 2, "SPLIT": 3, "ORDER": 4, "DESCRIBED": 5, "DOUBTED": 6}
    numbers |= {"TRAINING": 7, "VALIDATION": 8, "EXAMPLES": 9, "DAMAGE": 10, "SEARCH": 11}
    assert {purpose.name: purpose.value for purpose in Purpose} == numbers


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 5])
def test_a_seed_that_would_run_into_the_purpose_is_refused(seed):
    """SeedSequence reads 2**32 + 5 as the words 5, 1: with purpose 1 that is seed 5, purpose 1, chunk 1."""
    with pytest.raises(ValueError, match=rf"`seed` must lie in \[0, 2\*\*32\), got {seed}"):
        generator(seed, Purpose.NOISE)


@pytest.mark.parametrize(
    "perturbation",
    [
        GaussianNoise(),
        GaussianNoise(bound=1.0),
        UniformNoise(),
        PGD(restarts=2),
        PGD(norm="l2", restarts=3),
        PERTURBATIONS["adaptive-pgd"](),
        PERTURBATIONS["apgd"](restarts=3),
        PERTURBATIONS["apgd-t"](norm="l2"),
        PERTURBATIONS["fab"](restarts=2),
        PERTURBATIONS["smoothing"](),
        PERTURBATIONS["square"](),
        PERTURBATIONS["patch"](),
        PERTURBATIONS["corruption"](name="fog"),
        PERTURBATIONS["external"](library="foolbox", attack="LinfPGD"),
    ],
    ids=str,
)
def test_a_chunk_drawn_in_parts_is_the_chunk_drawn_at_once(perturbation):
    """Catches: numbers that a generator keeps back at the end of a part (two 32-bit ones share a word)."""
    whole = perturbation.draw(generator(0, Purpose.NOISE, 4), (200, 1, 5, 5))
    numbers = generator(0, Purpose.NOISE, 4)
    parts = [perturbation.draw(numbers, (size, 1, 5, 5)) for size in (1, 3, 7, 89, 100)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_rows_that_were_given_are_not_kept():
    """Catches: a chunk held as a whole, 0.6 GB for colour images of 224 × 224."""
    draws = ChunkedDraws(lambda chunk: lambda size: np.zeros((size, 10_000), np.float32), 1000)
    tracemalloc.start()
    try:
        for start in (0, 50, 150, 100, *range(200, 1000, 50)):
            draws.rows(start, start + 50)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 50 * 10_000 * 4


@settings(deadline=None, max_examples=30)
@given(
    total=st.integers(1, 2 * CHUNK + 50),
    batch_size=st.sampled_from([1, 7, 130, 500, CHUNK]),
    threads=st.integers(1, 3),
    shuffle=st.randoms(use_true_random=False),
)
def test_rows_are_the_same_whoever_asks_in_whatever_order(total, batch_size, threads, shuffle):
    if batch_size == 1:
        total = min(total, 60)
    starts = [s for c in range(0, total, CHUNK) for s in range(c, min(c + CHUNK, total), batch_size)]
    batches = [(s, min(s + batch_size, s // CHUNK * CHUNK + CHUNK, total)) for s in starts]
    shuffle.shuffle(batches)
    drawn = []

    def begin(chunk):
        drawn.append(chunk)
        numbers = generator(3, Purpose.NOISE, chunk)
        return lambda size: GaussianNoise().draw(numbers, (size, 2, 1, 3))

    draws = ChunkedDraws(begin, total)

    with ThreadPoolExecutor(threads) as pool:
        got = list(pool.map(lambda batch: draws.rows(*batch), batches))

    due = np.concatenate([rows(c, min(CHUNK, total - c * CHUNK)) for c in range(-(-total // CHUNK))])
    for (start, stop), values in zip(batches, got, strict=True):
        assert np.array_equal(values, due[start:stop])
    assert sorted(drawn) == list(range(-(-total // CHUNK))), "each chunk is drawn once"
    assert not draws._chunks, "a chunk is dropped after its last row"


def test_normal_noise_is_normal():
    drawn = np.concatenate(
        [GaussianNoise().draw(generator(0, Purpose.NOISE, c), (50, 1, 28, 28)) for c in range(4)]
    ).ravel()
    assert drawn.dtype == np.float32
    assert stats.kstest(drawn, "norm").pvalue > 1e-4
    assert np.isclose(stats.skew(drawn), 0, atol=0.03)
    assert np.isclose(stats.kurtosis(drawn), 0, atol=0.06)


@pytest.mark.parametrize("bound", [0.5, 1.0, 2.0])
def test_a_bound_clamps_instead_of_drawing_again(bound):
    """The mass beyond the bound lies on it; a truncated normal would have none there."""
    drawn = GaussianNoise(bound=bound).draw(generator(0, Purpose.NOISE), (100, 1, 28, 28)).ravel()
    tail = stats.norm.sf(bound)
    for edge in (-bound, bound):
        assert np.isclose((drawn == edge).mean(), tail, atol=5 * np.sqrt(tail / drawn.size))
    inside = drawn[np.abs(drawn) < bound]
    assert inside.size + (np.abs(drawn) == bound).sum() == drawn.size
    assert stats.kstest(inside, stats.truncnorm(-bound, bound).cdf).pvalue > 1e-4


def test_uniform_noise_is_uniform_on_minus_one_to_one():
    drawn = UniformNoise().draw(generator(0, Purpose.NOISE), (100, 1, 28, 28)).ravel()
    assert stats.kstest(drawn, stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert drawn.min() < -0.999
    assert drawn.max() > 0.999
