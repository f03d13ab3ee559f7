"""Hybrid sets: which images they are made of, what is recorded of each, and what an interruption leaves."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from reports.hybrid_gan import building
from reports.hybrid_gan.building import Target, divided, forged, write
from robustness.data.images import from_arrays
from robustness.errors import DataError


def images(count=30, seed=0, name="some"):
    drawn = np.random.default_rng(seed)
    return from_arrays(drawn.integers(60, 196, (count, 6, 6, 3), dtype=np.uint8), np.arange(count) % 3, name=name)


class Towards(nn.Module):
    """A generator that knows a linear classifier: a step to the class it is told, as large as it may be."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, inputs, targets):
        return self.weight[targets].view_as(inputs).sign()


def target(seed=0, name="linear"):
    torch.manual_seed(seed)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(108, 3)).eval()
    return Target(name, classifier, Towards(classifier[1].weight.detach()), key=f"{name}{seed}")


@given(st.lists(st.integers(1, 6), min_size=3, max_size=3), st.integers(0, 2**16))
def test_no_image_is_on_both_sides(counts, seed):
    """Nor twice on one: the paper has more real images than CIFAR-10 holds."""
    labels = np.repeat([0, 1, 2], 8)
    rest, chosen = divided(labels, counts, seed)
    assert not set(rest) & set(chosen)
    assert sorted([*rest, *chosen]) == list(range(24))
    assert np.bincount(labels[chosen]).tolist() == counts


@pytest.mark.parametrize("counts", [[8, 1, 1], [0, 1, 1]])
def test_counts_that_leave_a_side_without_a_class_are_refused(counts):
    with pytest.raises(DataError, match="`counts` must leave images of every class on both sides, got"):
        divided(np.repeat([0, 1, 2], 8), counts, 0)


def test_every_image_has_the_smallest_k_that_misleads_its_target_as_bytes():
    """Against trying every k. Catches: fooled before rounding and not after, k of another image, the largest k."""
    some, attacked = images(), target()
    found = forged(attacked, some, (0.02, 0.01, 0.05), batch_size=7)
    inputs, labels = torch.from_numpy(some.batch(0, 30)), torch.from_numpy(some.labels.copy())
    with torch.no_grad():
        logits = attacked.classifier(inputs)
        aims = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
        step = attacked.classifier[1].weight[aims].view_as(inputs).sign()
        for i in range(30):
            tries = [((inputs[i] + k * step[i]).clamp(0, 1) * 255).round() / 255 for k in (0.01, 0.02, 0.05)]
            wrong = [bool(attacked.classifier(image[None]).argmax() != labels[i]) for image in tries]
            place = wrong.index(True) if any(wrong) else 2
            assert bool(found.fooled[i]) == any(wrong)
            assert found.strengths[i] == pytest.approx((0.01, 0.02, 0.05)[place])
            assert np.array_equal(found.pixels[i], (tries[place] * 255).round().byte().numpy().transpose(1, 2, 0))
    assert 0 < found.fooled.sum() < 30, "else this shows less"


def built(folder, targets, **settings):
    parts = {"train": images(30), "test": images(12, seed=1, name="others")}
    sources = {"train": np.arange(100, 130), "test": np.arange(12)}
    file = folder / "hybrid.npz"
    return file, write(parts, sources, targets, file, strengths=(0.02, 0.1), **settings), parts


def test_a_set_holds_each_image_and_its_twin_with_what_was_done(tmp_path):
    targets = [target(0, "a"), target(1, "b")]
    file, counts, parts = built(tmp_path, targets)
    held = np.load(file)
    assert held["train_x"].shape == (60, 6, 6, 3)
    assert held["train_kind"].tolist() == [0, 1] * 30
    assert held["train_source"].tolist() == [100 + i // 2 for i in range(60)]
    assert np.array_equal(held["train_x"][::2], parts["train"].pixels), "real images are what they were"
    assert held["train_target"][::2].tolist() == [-1] * 30
    assert sorted(np.bincount(held["train_target"][1::2]).tolist()) == [15, 15]
    assert not held["train_fooled"][::2].any()
    inputs = torch.from_numpy(held["train_x"][1::2].transpose(0, 3, 1, 2) / np.float32(255))
    for number, attacked in enumerate(targets):
        rows = held["train_target"][1::2] == number
        with torch.no_grad():
            wrong = attacked.classifier(inputs[rows]).argmax(1).numpy() != held["train_y"][1::2][rows]
        assert np.array_equal(wrong, held["train_fooled"][1::2][rows])
    assert counts["train fooled"] == held["train_fooled"].sum()
    assert held["kind_classes"].tolist() == ["real", "adversarial"]
    assert held["targets"].tolist() == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["hybrid.npz"]


def test_real_images_go_through_the_same_rounding(tmp_path):
    """Else a detector learns how images are stored. Floats that lie between two bytes are where it shows."""
    drawn = np.random.default_rng(0)
    floats = from_arrays(drawn.uniform(0.2, 0.8, (6, 6, 6, 3)).astype(np.float32), np.arange(6) % 3, name="floats")
    file = tmp_path / "hybrid.npz"
    rows = np.arange(6)
    write({"train": floats, "test": floats}, {"train": rows, "test": rows}, [target()], file)
    held = np.load(file)
    assert held["train_x"].dtype == np.uint8
    assert np.array_equal(held["train_x"][::2], np.rint(floats.pixels * 255).astype(np.uint8))


def test_an_interrupted_build_goes_on_and_leaves_no_half_written_set(tmp_path, monkeypatch):
    """Catches: a set with the first target's images alone, work done twice, another target's pieces taken."""
    targets, calls = [target(0, "a"), target(1, "b")], []
    real = building.forged

    def stopping(attacked, *arguments):
        calls.append(attacked.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(attacked, *arguments)

    monkeypatch.setattr(building, "forged", stopping)
    with pytest.raises(KeyboardInterrupt):
        built(tmp_path, targets)
    assert not (tmp_path / "hybrid.npz").exists()
    file, _, _ = built(tmp_path, targets)
    assert calls == ["a", "b", "b", "a", "b"]
    (tmp_path / "whole").mkdir()
    whole, _, _ = built(tmp_path / "whole", targets)
    assert {name: np.load(file)[name].tolist() for name in np.load(file).files} == {
        name: np.load(whole)[name].tolist() for name in np.load(whole).files
    }


def test_a_set_stays_while_its_targets_do_and_is_made_anew_for_others(tmp_path, monkeypatch):
    """Catches: a set that is believed because it is there, after a target was trained again."""
    file, counts, _ = built(tmp_path, [target(0, "a")])
    before = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(building, "forged", None)  # must not be needed
        assert built(tmp_path, [target(0, "a")])[1] == counts
    assert file.read_bytes() == before
    built(tmp_path, [target(1, "a")])
    assert not np.array_equal(np.load(file)["train_x"], np.load(io.BytesIO(before))["train_x"])


def test_probes_are_what_they_are_called(tmp_path):
    """Catches: noise of another size than the forged images', another ε, probes out of order, one that is not bytes."""
    some, own, another = images(), target(0, "own"), target(1, "another")
    building.write_probes(some, own, another, 0.05, tmp_path / "probes.npz")
    held = np.load(tmp_path / "probes.npz")
    assert held["test_x"].dtype == np.uint8
    assert held["test_kind"].reshape(5, 30).tolist() == [[kind] * 30 for kind in (0, 1, 1, 1, 0)]
    assert held["test_y"].tolist() == some.labels.tolist() * 5
    real, made, other, attacked, noisy = held["test_x"].reshape(5, 30, -1).astype(float)
    assert np.array_equal(real, some.pixels.reshape(30, -1))
    assert np.array_equal(made, forged(own, some).pixels.reshape(30, -1))
    assert np.array_equal(other, forged(another, some).pixels.reshape(30, -1))
    assert np.abs(np.abs(attacked - real) - 255 * 0.05).max() <= 0.5, "no pixel is near black or white"
    sizes = [np.linalg.norm(images_ - real, axis=1) for images_ in (made, noisy)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
    assert abs(np.corrcoef((made - real).ravel(), (noisy - real).ravel())[0, 1]) < 0.1


def test_k_of_zero_is_refused():
    with pytest.raises(DataError, match=r"`strengths` must be above 0, got \[0.0, 0.1\]: at 0 an adversarial image is"):
        forged(target(), images(), (0.0, 0.1))


def test_a_generator_that_gives_no_numbers_is_named():
    class Broken(nn.Module):
        def forward(self, inputs, targets):
            return inputs.clone().index_fill_(0, torch.tensor([1]), torch.nan)

    with pytest.raises(DataError, match="the generator of linear gave no numbers for 1 of 30 images; fit it again"):
        forged(Target("linear", target().classifier, Broken(), "x"), images())


def test_pictures_are_in_folders_of_class_and_kind(tmp_path):
    file, _, parts = built(tmp_path, [target()])
    assert building.pictures(file, tmp_path / "pictures") == 84
    shown = np.asarray(Image.open(tmp_path / "pictures" / "train" / "1" / "0" / "101.png"))
    assert np.array_equal(shown, parts["train"].pixels[1])
    assert len(list((tmp_path / "pictures" / "test").rglob("1/*.png"))) >= 12
