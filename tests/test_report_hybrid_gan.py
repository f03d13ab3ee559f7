"""hybrid-gan: its criteria on made numbers, its streams against binomials, and its data."""

import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from reports.hybrid_gan import data, page, protocol
from reports.hybrid_gan.__main__ import main
from reports.hybrid_gan.criteria import CLAIMS, Found
from reports.hybrid_gan.protocol import CLASSIFIERS, NETWORKS, SCALES
from reports.hybrid_gan.streams import drawn
from reports.rows import unpacked
from robustness.cards import load
from robustness.evidence import Evidence
from robustness.store import Store

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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The whole command on embedded digits, all networks tiny; its folder, arguments and result."""
    root = tmp_path_factory.mktemp("hybrid")
    arguments = [
        "--data-set",
        "digits",
        "--scale",
        "smoke",
        "--output",
        str(root / "out"),
        "--work",
        str(root / "work"),
    ]
    arguments += ["--store", str(root / "store"), "--workers", "1"]
    assert main([*arguments, "--pictures", str(root / "pictures")]) == 0
    result = json.loads((root / "out" / "hybrid_gan_digits_smoke.json").read_text(encoding="utf-8"))
    return root, arguments, result


def evidence(run, name):
    path = Store(run[0] / "store").path("evidence", run[2]["evidence"][name]["key"])
    return Evidence.from_bytes(path.read_bytes())


def array_file(run, name):
    return np.load(run[0] / "work" / "hybrid_gan-digits-smoke" / "data" / name)


def test_numbers_are_those_of_the_evidence_by_kind(run):
    """Catches: real and adversarial exchanged, rates of the whole set in every row, an area of ten classes for two."""
    kinds = array_file(run, data.HYBRID)["test_kind"]
    numbers = Found("digits", unpacked(run[2]), run[2]["streams"])
    for name in CLASSIFIERS:
        for head in protocol.HEADS:
            found = evidence(run, f"digits-{head}-{name}@hybrid:clean")
            right = found.predictions[0] == found.labels
            for kind, chosen in (("all", kinds >= 0), ("real", kinds == 0), ("adversarial", kinds == 1)):
                assert numbers.value(f"{head}-{name}", "hybrid", kind=kind) == pytest.approx(right[chosen].mean())
        area = roc_auc_score(np.eye(2)[kinds].ravel(), found.probabilities[0].ravel())
        assert numbers.value(f"detect-{name}", "hybrid", metric="roc_auc") == pytest.approx(area, abs=1e-5)
        assert found.labels.tolist() == kinds.tolist()
        probed = evidence(run, f"digits-detect-{name}@probes:clean")
        what = array_file(run, protocol.probes(name))["test_what"]
        for place, probe in enumerate(data.PROBES):
            share = (probed.predictions[0][what == place] == 1).mean()
            called = numbers.value(f"detect-{name}", "probes", metric="called_adversarial", kind=probe)
            assert called == pytest.approx(share, abs=1e-6)


def test_every_sweep_has_its_rows_and_the_generators_differ(run):
    cells = {(row["model"], row["images"], row["sweep"]) for row in unpacked(run[2])}
    for name in NETWORKS:
        assert {(f"digits-target-{name}", "targets", sweep) for sweep in ("clean", "own", "another", "fgsm")} <= cells
    for name, kind, sweep in itertools.product(CLASSIFIERS, ("classify", "clean"), ("clean", "noise", *SWEEPS)):
        assert (f"digits-{kind}-{name}", "real", sweep) in cells
    same = [
        np.array_equal(*(evidence(run, f"digits-target-{name}@targets:{sweep}").snr for sweep in ("own", "another")))
        for name in NETWORKS
    ]
    assert not any(same)


def test_the_set_is_written_as_pictures_too(run):
    with array_file(run, data.HYBRID) as held:
        first, source = held["train_x"][:2], held["train_source"][0]
        label, images = held["classes"][held["train_y"][0]], len(held["train_x"]) + len(held["test_x"])
    folder = run[0] / "pictures"
    assert len(list(folder.rglob("*.png"))) == images
    for kind in (0, 1):
        shown = np.asarray(Image.open(folder / "train" / str(label) / str(kind) / f"{source}.png"))
        assert np.array_equal(shown, first[kind])


def test_a_second_run_makes_nothing_anew_and_gives_the_same_page(run):
    root, arguments, _ = run
    files = list((root / "store").rglob("*.safetensors"))
    files += list((root / "work").rglob("hybrid.npz"))
    before = {path: path.stat().st_mtime_ns for path in files}
    page_before = (root / "out" / "hybrid-gan.md").read_text(encoding="utf-8").splitlines()
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert len(list((root / "store").rglob("*.safetensors"))) + 1 == len(files)
    assert main(["--render", "--output", str(root / "out")]) == 0
    after = (root / "out" / "hybrid-gan.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in after if not line.startswith("Made ")] == [
        line for line in page_before if not line.startswith("Made ")
    ]
