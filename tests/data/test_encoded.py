"""Pictures that stay encoded until they are read: in threads, ahead of time, never others than were looked at."""

import sys
import time
import tracemalloc

import numpy as np
import pytest
from picture_files import encoded, folder, get, picture

from robustness.data import from_arrays, subsample
from robustness.data import lazy_images as encoded_
from robustness.data.decoding import Decoding, inspect_image
from robustness.data.image_source import images as images_of
from robustness.errors import DataError
from robustness.perturbations import GaussianNoise
from robustness.sweep import batching
from robustness.sweep.runner import run_sweep
from robustness.util import file_stat


class Counted:
    """A source in memory that counts what is read of it."""

    def __init__(self, count):
        self.content = [encoded(picture(i, (16, 16))) for i in range(count)]
        self.read_places = []

    def read(self, place):
        self.read_places.append(place)
        return self.content[place]

    def named(self, place):
        return f"picture {place}"


def counted(count=12):
    source = Counted(count)
    looks = [inspect_image(content) for content in source.content]
    return source, images_of("some", source, looks, np.arange(count) % 2, ("a", "b"), Decoding())


def in_memory(images):
    return from_arrays(images.stored(0, len(images)).transpose(0, 2, 3, 1), images.labels, images.classes)


def test_batches_and_selections_are_those_of_the_same_images_in_memory():
    """Catches: rows that are counted from the source, an order that threads decide."""
    _, images = counted()
    kept = in_memory(images)
    for rows in ([11, 0, 3], [5], list(range(12))):
        some, due = images.select(rows, "some").select([0], "one"), kept.select(rows, "some").select([0], "one")
        assert np.array_equal(some.batch(0, 1), due.batch(0, 1))
        assert np.array_equal(images.select(rows, "s").batch(0, 99), kept.select(rows, "s").batch(0, 99))
    assert images.shape == kept.shape == (3, 16, 16)
    assert images.batch(4, 4).shape == (0, 3, 16, 16)


def test_what_is_prefetched_is_decoded_once():
    """Catches: a prefetch under another key than the read's, which decodes everything twice."""
    source, images = counted()
    some = images.select([7, 2, 9], "some")
    some.prefetch(1, 3)
    some.prefetch(1, 3)
    due = in_memory(images).select([2, 9], "due").batch(0, 2)
    source.read_places.clear()
    assert np.array_equal(some.batch(1, 3), due)
    assert source.read_places == []
    some.batch(1, 3)
    assert sorted(source.read_places) == [2, 9]


def test_what_is_prefetched_and_never_read_is_dropped(monkeypatch):
    """Catches: batches that a failed sweep leaves behind, kept for ever."""
    _, images = counted()
    monkeypatch.setattr(encoded_, "AHEAD", 4 * 16 * 16 * 3)
    for i in range(12):
        images.prefetch(i, i + 1)
    assert len(images.pixels._begun) == 4
    images.prefetch(0, 12)
    assert len(images.pixels._begun) == 1, "one batch is begun, however large"


def test_a_sweep_is_that_of_the_same_images_in_memory_and_reads_each_once_a_sweep():
    """Catches: images and labels of different rows in a sweep, a prefetch of batches that are never read."""
    import torch
    from torch import nn

    source, images = counted()
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    order = images.select([3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 11], "order")
    kept = in_memory(order)
    source.read_places.clear()
    found = run_sweep(module, order, GaussianNoise(), [0.1, 0.2], batch_size=2, threads=2)
    due = run_sweep(module, kept, GaussianNoise(), [0.1, 0.2], batch_size=2, threads=2)
    assert found.status == ("ok", "ok")
    assert np.array_equal(found.predictions, due.predictions)
    assert np.array_equal(found.loss, due.loss)
    probed = 4 * 2  # the first images are looked at before a sweep, to see what the model does with them
    assert len(source.read_places) <= 11 + probed
    assert not images.pixels._begun


def test_the_next_batch_is_decoded_while_one_is_computed():
    """Catches: a sweep that begins to decode a batch when it needs it."""
    from torch import nn

    source, images = counted()
    source.read_places.clear()
    ahead = []

    def work(module, start, stop):
        images.batch(start, stop)
        deadline = time.monotonic() + 10
        while stop < 12 and stop not in source.read_places and time.monotonic() < deadline:
            time.sleep(0.01)
        ahead.append(stop == 12 or stop in source.read_places)

    batching.run_batches(work, [nn.Identity()], 12, 4, "cpu", None, images.prefetch)
    assert ahead == [True, True, True]
    assert sorted(source.read_places) == list(range(12))


def test_a_batch_that_another_thread_has_taken_is_not_begun_any_more():
    """Catches: threads that overtake each other, and what is decoded then for nobody and kept."""
    from torch import nn

    taken, late = set(), []

    def prefetch(start, stop):
        if start in taken:
            late.append(start)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads overtake each other often then: a dozen times without the lock
    try:
        batching.run_batches(
            lambda module, start, stop: taken.add(start), [nn.Identity()] * 2, 40_000, 4, "cpu", None, prefetch
        )
    finally:
        sys.setswitchinterval(before)
    assert len(taken) == 10_000
    assert not late


def test_memory_does_not_grow_with_the_number_of_images():
    """Catches: decoded pictures that are kept."""
    source, images = counted(4)
    many = images.select(np.arange(20_000) % 4, "many")  # 61 MB decoded
    tracemalloc.start()
    try:
        for start in range(0, 2000, 100):
            many.prefetch(start + 100, start + 200)
            many.batch(start, start + 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3e6
    assert source.read_places


@pytest.mark.parametrize("change", ["rewritten", "gone"])
def test_a_picture_that_changes_during_a_run_ends_it_by_name(tmp_path, change):
    """Catches: numbers of other pictures than those that the evidence is bound to."""
    top = folder(tmp_path / "pets")
    images = get(top)
    file = top / "dog" / "1.png"
    file.unlink() if change == "gone" else picture(77).save(file)
    reason = "can no longer be read" if change == "gone" else "changed during this run"
    with pytest.raises(DataError, match=rf"'dog/1\.png' {reason}"):
        images.batch(0, 5)
    assert images.batch(0, 3).shape == (3, 3, 24, 24)


def test_the_fingerprint_sees_content_order_labels_and_decoding_and_nothing_else(tmp_path):
    """Catches: paths or times in the fingerprint; a setting that changes pixels and is not in it."""
    first, second = folder(tmp_path / "first"), folder(tmp_path / "somewhere" / "else")
    (second / "cat" / "0.png").rename(second / "cat" / "00.png")
    images, same = get(first), get(second)
    assert images.fingerprint == same.fingerprint == get(first).fingerprint
    assert images.fingerprint == get(first, images={"size": [24, 24], "skip_unreadable": True}).fingerprint
    others = [
        images.select([1, 0, 2, 3, 4], "turned"),
        images.select([0, 1, 2, 3], "fewer"),
        *(
            get(first, images={"size": [24, 24], **table})
            for table in (
                {"resize": 25},
                {"crop": "none"},
                {"interpolation": "bicubic"},
                {"mode": "L"},
                {"exif": "apply"},
                {"size": [24, 23]},
            )
        ),
    ]
    (second / "dog").rename(second / "doe")
    others.append(get(second))
    picture(5).save(first / "cat" / "0.png")
    others.append(get(first))
    assert len({each.fingerprint for each in [images, *others]}) == 1 + len(others)


def test_a_warm_fingerprint_reads_no_picture(tmp_path, monkeypatch):
    """Catches: an index that is never believed."""
    from robustness.data import image_source

    monkeypatch.setattr(file_stat, "SLACK", -(10**18))  # as if all files were old
    top = folder(tmp_path / "pets")
    due = get(top).fingerprint
    monkeypatch.setattr(image_source, "inspect_image", lambda content: pytest.fail("read again"))
    assert get(top).fingerprint == due


def test_a_sample_has_every_class_by_its_share():
    _, images = counted()
    some = subsample(images, 6, seed=1)
    assert np.bincount(some.labels).tolist() == [3, 3]
    assert subsample(images, 6, seed=1).rows.tolist() == some.rows.tolist()
    assert subsample(images, 6, seed=2).rows.tolist() != some.rows.tolist()
    with pytest.raises(DataError, match=r"`num_test_images` must allow one image per class \(2\)"):
        subsample(images, 1)
