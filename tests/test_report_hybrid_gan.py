"""hybrid-gan: its criteria on made numbers, its streams against binomials, and its data."""

import itertools
import math

import numpy as np
import pytest

from reports.hybrid_gan import data, page, protocol
from reports.hybrid_gan.criteria import CLAIMS, Found
from reports.hybrid_gan.protocol import CLASSIFIERS, NETWORKS, SCALES
from reports.hybrid_gan.streams import drawn
from robustness.cards import load

SWEEPS = ("own", "another", "fgsm", "anew")


def rows(better=0.3, detect=0.97, target=0.1, best="resnet50"):
    """Numbers as the paper would like them: hybrid training loses ``better`` less, the best network is named."""

    def row(model, images, accuracy, sweep="clean", strength="0", kind="all"):
        return {
            "model": f"cifar10-{model}", "images": images, "sweep": sweep, "strength": strength, "kind": kind,
            "accuracy": accuracy,
        }  # fmt: skip

    for name in NETWORKS:
        for strength, accuracy in (("0.05", 0.5), ("0.1", target), ("0.2", 0.0)):
            yield row(f"target-{name}", "targets", accuracy, "own", strength)
    for name in CLASSIFIERS:
        yield row(f"detect-{name}", "hybrid", detect)
        yield row(f"classify-{name}", "hybrid", 0.95 if name == best else 0.9, kind="real")
        for kind, lost in (("classify", 0.1), ("clean", 0.1 + better)):
            yield row(f"{kind}-{name}", "real", 0.9)
            for sweep, strength in itertools.product(SWEEPS, ("0.05", "0.1")):
                yield row(f"{kind}-{name}", "real", 0.9 - lost * (2 if strength == "0.1" else 1), sweep, strength)


def streams(gap=0.02):
    return [
        {"model": f"cifar10-classify-{name}", "share": share, "mean_real": 0.95, "mean_adversarial": 0.95 - gap}
        for name in CLASSIFIERS
        for share in protocol.STREAMS
    ]


def outcomes(some=None, gap=0.02, **changes):
    found = Found("cifar10", list(rows(**changes)) if some is None else some, streams(gap))
    return [decide(found).outcome == "reproduced" for decide in CLAIMS]


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, []),
        ({"target": 0.25}, [0]),
        ({"detect": 0.94}, [1]),
        ({"gap": 0.1}, [2]),
        ({"best": "shufflenet"}, [3]),
        ({"better": -0.01}, [4, 5, 6, 7]),
    ],
)
def test_each_claim_depends_on_its_own_numbers(changes, broken):
    """Catches: a k beyond the bound that counts, one network for all, the two trainings exchanged."""
    assert [place for place, held in enumerate(outcomes(**changes)) if not held] == broken


def test_what_was_not_measured_reproduces_nothing():
    assert not any(outcomes([{**row, "accuracy": None} for row in rows()])[:2])
    assert not any(outcomes([])[:2] + outcomes([])[3:])
    assert math.isnan(Found("cifar10", [], []).value("target-vgg19_bn", "targets"))


def test_random_numbers_reproduce_little():
    for seed in range(5):
        drawn_ = np.random.default_rng(seed)
        assert sum(outcomes([{**row, "accuracy": drawn_.uniform()} for row in rows()], gap=0.3)) <= 2


def test_streams_have_the_share_and_the_interval_of_one_stream():
    """200 draws of 30 of 5,000 images: their spread is the binomial's. Catches: the same images in every stream."""
    random = np.random.default_rng(0)
    kinds = np.tile([0, 1], 5000)
    right = np.where(kinds == 1, random.random(10_000) < 0.9, random.random(10_000) < 0.95)
    found = list(drawn(right, kinds))
    assert [row["share"] for row in found] == [0.03, 0.05, 0.10]
    assert [row["n_adversarial"] for row in found] == [30, 50, 100]
    assert [row["n_real"] for row in found] == [970, 950, 900]
    for row in found:
        truth = right[kinds == 1].mean()
        assert row["mean_adversarial"] == pytest.approx(truth, abs=4 * math.sqrt(0.09 / row["n_adversarial"] / 200))
        assert row["low_adversarial"] < truth < row["high_adversarial"]
        assert row["least_adversarial"] < row["mean_adversarial"] < row["largest_adversarial"]
    assert list(drawn(right, kinds)) == found


def test_no_source_image_is_shared_by_targets_and_the_hybrid_set(tmp_path):
    scale = SCALES["smoke"]
    images = data.images("digits", tmp_path, tmp_path)
    divided = data.sources(images, scale)
    for part, (left, chosen) in divided.items():
        assert not set(left) & set(chosen)
        assert len(left) + len(chosen) == len(images[part])
    assert np.bincount(images["train"].labels[divided["train"][1]]).tolist() == scale.counts(protocol.VALIDATION)


def test_the_counts_are_those_of_table_1():
    assert sum(protocol.COUNTS.values()) == 20_756
    assert SCALES["full"].counts() == list(protocol.COUNTS.values())


def test_every_card_can_be_read(tmp_path):
    import tomlkit

    targets = protocol.targets("cifar10", SCALES["short"], data.TARGETS)
    trained = protocol.trained("cifar10", SCALES["short"], data.HYBRID, data.REAL)
    judged = dict(protocol.attacked(trained, "cifar10", data.HYBRID, data.REAL, SCALES["short"]))
    every = {**targets, **trained, **judged, **protocol.undefended(targets, SCALES["short"])}
    for name, table in every.items():
        (tmp_path / f"{name}.toml").write_text(tomlkit.dumps(table), encoding="utf-8")
        assert load(tmp_path / f"{name}.toml").name == name
    assert len(trained) == 12
    assert {"own", "fgsm", "noise", "anew"} == set(judged["cifar10-classify-vgg19_bn@real"]["sweeps"])


def test_a_page_without_results_says_so():
    assert page.body([]) == "Nothing has been measured yet.\n"
