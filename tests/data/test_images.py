"""Labelled images: what a batch is, what the fingerprint binds, what is refused."""

import hashlib
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustness.data import Images, from_arrays
from robustness.errors import DataError

SHAPES = st.one_of(
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5),
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
)


@st.composite
def image_sets(draw):
    shape = draw(SHAPES)
    size = math.prod(shape)
    pixels = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8).reshape(shape)
    labels = draw(st.lists(st.integers(0, 2), min_size=shape[0], max_size=shape[0]))
    return from_arrays(pixels, labels, ("a", "b", "c"))


def test_batch_is_what_torch_makes_of_the_bytes():
    """Every byte, in colour: channels in front, divided by 255, the same bits as torch."""
    torch = pytest.importorskip("torch")
    pixels = np.arange(256 * 3, dtype=np.uint16).astype(np.uint8).reshape(2, 8, 16, 3)
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous().numpy()

    batch = from_arrays(pixels, [0, 1]).batch(0, 2)

    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert np.array_equal(batch, expected)


@given(image_sets(), st.data())
def test_a_batch_is_a_slice_of_the_selected_images(images, data):
    rows = data.draw(st.lists(st.integers(0, len(images) - 1), min_size=1, max_size=6))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 7), st.integers(0, 7))))
    pixels = images.pixels if images.pixels.ndim == 4 else images.pixels[..., None]

    chosen = images.select(rows, "chosen")

    assert chosen.batch(start, stop).shape[1:] == images.shape == chosen.shape
    assert np.array_equal(np.rint(chosen.batch(start, stop) * 255), pixels[rows][start:stop].transpose(0, 3, 1, 2))
    assert np.array_equal(chosen.labels, images.labels[rows])
    assert len(chosen) == len(rows)


@given(image_sets(), st.data())
def test_selecting_twice_counts_from_the_first_selection(images, data):
    first = data.draw(st.lists(st.integers(0, len(images) - 1), min_size=1, max_size=6))
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1, max_size=6))

    twice = images.select(first, "first").select(second, "second")

    assert twice.rows.tolist() == [first[row] for row in second]
    assert twice.fingerprint == images.select(twice.rows, "at once").fingerprint


def test_groups_follow_a_selection():
    images = from_arrays(np.zeros((3, 2, 2)), [0, 1, 1], groups=["x", "y", "z"])
    assert images.select([2, 0], "two").groups.tolist() == ["z", "x"]


def test_floats_are_batched_as_they_are():
    pixels = np.random.default_rng(0).random((3, 4, 5))
    batch = from_arrays(pixels, [0, 0, 1]).batch(1, 3)
    assert batch.dtype == np.float32
    assert np.array_equal(batch[:, 0], pixels[1:].astype(np.float32))


def test_a_batch_of_a_big_map_reads_that_batch_alone(tmp_path):
    """3 GB on disk (sparse); the whole set as floats would be 12 GB."""
    file, count = tmp_path / "big", 1_000_000
    with file.open("wb") as stream:
        stream.truncate(count * 32 * 32 * 3)
    pixels = np.memmap(file, np.uint8, mode="r", shape=(count, 32, 32, 3))
    images = Images("big", pixels, np.arange(count) % 2, ("a", "b")).select(np.arange(0, count, 2), "even")

    tracemalloc.start()
    try:
        batch = images.batch(400_000, 400_064)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert batch.shape == (64, 3, 32, 32)
    assert peak < 3 * batch.nbytes


def test_a_set_of_floats_is_checked_and_hashed_in_blocks():
    pixels = np.zeros((4000, 32, 32), np.float32)  # 16 MB
    labels = np.zeros(4000, np.int64)

    tracemalloc.start()
    try:
        assert Images("floats", pixels, labels, ("a",)).fingerprint
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < pixels.nbytes / 4


def test_the_fingerprint_is_this_hash():
    """Written out: who changes it makes all stored evidence foreign."""
    pixels, labels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.array([1, 0], np.uint8)
    header = b'["images 1", 2, 1, 2, 3, "|u1", ["cat", "dog"]]\n'
    expected = hashlib.sha256(header + bytes(range(12)) + bytes([1, *7 * [0], *8 * [0]])).hexdigest()

    assert Images("pets", pixels, labels, ("cat", "dog")).fingerprint == expected


@given(image_sets(), st.data())
def test_the_fingerprint_depends_on_content_alone(images, data):
    """Other rows of another source, another name, groups, a spare channel axis: the same images."""
    order = data.draw(st.permutations(range(len(images))))
    shuffled = Images(
        "other", images.pixels[order], images.labels[order], images.classes, groups=np.arange(len(images))
    )
    restored = shuffled.select(np.argsort(order), "restored")
    fortran = Images("fortran", np.asfortranarray(images.pixels), images.labels.astype(">i2"), images.classes)

    assert restored.fingerprint == images.fingerprint
    assert fortran.fingerprint == images.fingerprint
    if images.pixels.ndim == 3:
        assert Images("c", images.pixels[..., None], images.labels, images.classes).fingerprint == images.fingerprint


@given(image_sets(), st.data())
def test_the_fingerprint_sees_any_change(images, data):
    index = tuple(data.draw(st.integers(0, side - 1)) for side in images.pixels.shape)
    pixels, labels = images.pixels.copy(), images.labels.copy()
    pixels[index] ^= data.draw(st.integers(1, 255))
    labels[index[0]] = (labels[index[0]] + 1) % 3
    renamed = (*images.classes[:2], "d")

    others = [
        from_arrays(pixels, images.labels, images.classes),
        from_arrays(images.pixels, labels, images.classes),
        from_arrays(images.pixels, images.labels, renamed),
        from_arrays(images.pixels, images.labels, (*images.classes, "d")),
    ]
    if len(images) > 1:
        others.append(images.select(np.arange(len(images) - 1), "without the last"))
    assert images.fingerprint not in {other.fingerprint for other in others}


def test_the_fingerprint_sees_order_shape_and_type():
    pixels = np.arange(16, dtype=np.uint8).reshape(2, 2, 4)
    images = from_arrays(pixels, [0, 0])
    others = [
        images.select([1, 0], "turned"),
        from_arrays(pixels.reshape(2, 4, 2), [0, 0]),
        from_arrays(pixels.reshape(2, 2, 2, 2), [0, 0]),
        from_arrays(pixels / 255, [0, 0]),
        from_arrays((pixels / 255).astype(np.float32), [0, 0]),
    ]
    assert len({image_set.fingerprint for image_set in [images, *others]}) == 6


def test_a_change_of_the_callers_array_changes_nothing():
    pixels, labels = np.zeros((2, 2, 2), np.uint8), np.array([0, 1])
    images = from_arrays(pixels, labels)
    pixels[:], labels[:] = 255, 1

    assert images.batch(0, 2).max() == 0
    assert images.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        images.pixels[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        images.labels[0] = 1


GOOD = np.zeros((2, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("pixels", "labels", "classes", "message"),
    [
        (GOOD.astype(np.int64), [0, 1], None, "`pixels` must be uint8, float32 or float64, got int64"),
        (GOOD[0], [0, 1], None, r"`pixels` must have the shape .* got \(4, 4\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), [0, 1], None, r"channels first use pixels.transpose\(0, 2, 3, 1\)"),
        (GOOD[:0], np.array([], int), None, r"at least one image .* got the shape \(0, 4, 4\)"),
        (GOOD[:, :0], [0, 1], None, "at least one image of one pixel"),
        (GOOD, [0], None, r"`labels` must have one entry per image \(2\), got 1"),
        (GOOD, [0.0, 1.0], None, "`labels` must be integers .* got float64"),
        (GOOD, ["cat", "dog"], None, "got <U3, which is text; number the classes: classes, labels = np.unique"),
        (GOOD, [True, False], None, "`labels` must be integers .* got bool"),
        (GOOD, [[0, 1], [1, 0]], None, r"`labels` must be integers .* shape \(2, 2\); they are one-hot rows"),
        (GOOD, [0, 2], ("a", "b"), "must lie in 0..1 for 2 classes, got 2 at index 1"),
        (GOOD, [-1, 0], None, "1 of 2 are negative, the first -1 at index 0"),
        (GOOD, [0, 1], ("a", "a"), "`classes` must be different names"),
        (GOOD, [0, 1], "ab", "`classes` must be different names"),
        (GOOD + 255.0, [0, 1], None, r"must lie in \[0, 1\], got 255 in image 0; divide"),
        (np.array([[[0.0]], [[np.nan]]]), [0, 1], None, r"must lie in \[0, 1\], got nan in image 1"),
        (np.array([[[0.0]], [[-1e-9]]]), [0, 1], None, r"got -1e-09 in image 1"),
    ],
)
def test_what_cannot_be_images_is_refused(pixels, labels, classes, message):
    with pytest.raises(DataError, match=message) as error:
        from_arrays(pixels, labels, classes, name="holiday")
    assert str(error.value).startswith("holiday: ")


def test_a_nan_far_inside_a_large_set_is_found():
    pixels = np.zeros((5000, 16, 16))
    pixels[4321, 15, 15] = np.nan
    with pytest.raises(DataError, match="got nan in image 4321"):
        from_arrays(pixels, np.zeros(5000, int))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 2], r"`rows` must lie in 0..1, got 2"),
        ([-1], r"`rows` must lie in 0..1, got -1"),
        ([], "got float64"),
        (np.array([], int), "at least one image, got none"),
        ([True, False], r"for a mask use np.flatnonzero"),
    ],
)
def test_rows_that_are_not_there_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        from_arrays(GOOD, [0, 1]).select(rows, "some")


def test_wrong_groups_and_slices_are_refused():
    with pytest.raises(DataError, match=r"`groups` must have one number or name per image \(2\)"):
        from_arrays(GOOD, [0, 1], groups=[1, 2, 3])
    with pytest.raises(DataError, match="0 <= start <= stop, got -1 and 1"):
        from_arrays(GOOD, [0, 1]).batch(-1, 1)
