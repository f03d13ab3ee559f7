"""hybrid-gan: its criteria on made numbers, its streams against binomials, and its data."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from PIL import Image
from sklearn.metrics import roc_auc_score

from reports import writing
from reports.hybrid_gan import building, hybrid, protocol, sweeping
from reports.hybrid_gan.criteria import Numbers, criteria
from reports.hybrid_gan.hybrid import divide
from reports.hybrid_gan.paper import PAPER
from reports.hybrid_gan.protocol import CLASSIFIERS, SCALES, TARGETS
from reports.paper import MEASURED, RUNS
from reports.rows import packed, unpacked
from reports.running import Run, write_cards
from reports.verdicts import judge
from robustness import engines
from robustness.cards import load
from robustness.data.splits import held_out
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

PRINTED = writing.printed("hybrid_gan")
SWEEPS = ("own", "another", "fgsm", "anew")


def numbers(detect=None, target=None, best="resnet50", loses=None, clean=None, gap=None):
    """
    Numbers as the paper would like them: one network, sweep or stream is changed at a time.

    ``detect``, ``target`` and ``clean`` are accuracies by network, ``loses`` intervals, ``gap`` differences of streams.
    """

    def row(model, images, accuracy, sweep="clean", strength="0", kind="all"):
        return {
            "model": f"cifar10-{model}", "images": images, "sweep": sweep, "strength": strength, "kind": kind,
            "accuracy": accuracy,
        }  # fmt: skip

    rows = []
    for name in TARGETS:
        for strength, accuracy in (("0.05", 0.5), ("0.1", (target or {}).get(name, 0.1)), ("0.2", 0.0)):
            rows.append(row(f"target-{name}", "targets", accuracy, "own", strength))
    for name in CLASSIFIERS:
        rows.append(row(f"detect-{name}", "hybrid", (detect or {}).get(name, 0.97)))
        rows.append(row(f"classify-{name}", "hybrid", 0.95 if name == best else 0.9, kind="real"))
        rows += [row(f"classify-{name}", "real", (clean or {}).get(name, 0.9)), row(f"clean-{name}", "real", 0.92)]
    pairs = []
    for name, sweep in itertools.product(CLASSIFIERS, SWEEPS):
        low, difference, high = (loses or {}).get((name, sweep), (0.1, 0.2, 0.3))
        pairs.append({"network": name, "sweep": sweep, "difference": difference, "low": low, "high": high})
    streams = [
        {"model": f"cifar10-classify-{name}", "share": share, "mean_real": 0.95}
        | {"mean_adversarial": 0.95 - (gap or {}).get((name, share), 0.02)}
        for name in CLASSIFIERS
        for share in protocol.STREAMS
    ]
    return rows, streams, pairs


def outcomes(some=None, source="cifar10", scale="full", **changes):
    return [verdict.outcome for verdict in verdicts(Numbers(source, *(some or numbers(**changes))), scale=scale)]


def verdicts(numbers, absent=(), scale="full"):
    return [judge(criterion, scale) for criterion in criteria(numbers, absent)]


OWN, ANOTHER, ITSELF, ANEW = range(5, 9)


@pytest.mark.parametrize(
    "case",
    [
        ({},),
        ({"target": {"mobilenet": 0.25}}, 0),
        ({"detect": {"repvgg_a2": 0.94}}, 1),
        ({"gap": {("shufflenet", 0.05): 0.06}}, 3),
        ({"gap": {("vgg19_bn", 0.10): -0.06}}, 3),
        ({"best": "shufflenet"}, 4),
        ({"loses": {("vgg19_bn", "own"): (-0.01, 0.1, 0.2)}}, OWN),
        ({"loses": {("resnet50", "another"): (-0.01, 0.1, 0.2)}}, ANOTHER),
        ({"loses": {("shufflenet", "fgsm"): (-0.3, -0.2, -0.1)}}, ITSELF),
        ({"loses": {("repvgg_a2", "anew"): (0.0, 0.1, 0.2)}}, ANEW),
        ({"clean": {"vgg19_bn": 0.1}}, OWN, ANOTHER, ITSELF, ANEW),  # it knows nothing and loses nothing
    ],
)
def test_each_claim_depends_on_its_own_numbers(case):
    """One network each. Catches: any for all, a k beyond the bound that counts, one sweep's numbers for another's."""
    changes, *broken = case
    found = outcomes(**changes)
    assert found.pop(2) == "not testable here", "pre-trained weights are out of reach"
    places = [place + (place >= 2) for place, outcome in enumerate(found) if outcome != "reproduced"]
    assert places == broken


def test_what_was_not_measured_reproduces_nothing():
    rows, streams, pairs = numbers()
    assert "reproduced" not in outcomes(([{**row, "accuracy": None} for row in rows], [], []))
    assert "reproduced" not in outcomes(([], [], []))
    assert outcomes((rows, streams[1:], pairs))[3] == "not reproduced", "a stream that is missing is not one that holds"
    assert math.isnan(Numbers("cifar10", [], []).value("target-vgg19_bn", "targets"))


def test_a_claim_waits_for_its_own_parts_alone():
    """Catches: no verdict before the last part is there; one that stands on parts that are not."""
    found = Numbers("cifar10", *numbers())
    open_ones = {
        part: [place for place, of in enumerate(verdicts(found, [part])) if of.outcome == "not measured yet"]
        for part in protocol.parts("cifar10")
    }
    assert all(open_ones.values()), "a part that no claim needs"
    open_ones = {part: open_ones[part] for part in ("targets", "resnet50", "detect-resnet50")}
    assert open_ones == {"targets": [0], "resnet50": [3, 4, OWN, ANOTHER, ITSELF, ANEW], "detect-resnet50": [1]}
    short = verdicts(found, ["detect-resnet50"], "short")[1]
    assert (short.outcome, short.numbers) == ("not testable here", "detect-resnet50 not measured yet")


def test_reduced_runs_and_other_data_cannot_test_what_they_cannot():
    """At a part of the width no level can be compared; which network is best, and which twin loses less, can."""
    short = outcomes(scale="short")
    judged = [place for place, outcome in enumerate(short) if outcome != "not testable here"]
    assert judged == [4, OWN, ANOTHER, ITSELF, ANEW]
    assert set(outcomes(scale="smoke")) | set(outcomes(source="digits")) == {"not testable here"}


def test_random_numbers_reproduce_little():
    for seed in range(5):
        drawn_ = np.random.default_rng(seed)
        rows, streams, pairs = numbers()
        rows = [{**row, "accuracy": drawn_.uniform()} for row in rows]
        streams = [{**stream, "mean_adversarial": drawn_.uniform()} for stream in streams]
        pairs = [{**pair, "low": drawn_.uniform(-1, 1)} for pair in pairs]
        assert outcomes((rows, streams, pairs)).count("reproduced") <= 2


def test_twins_are_compared_image_by_image():
    """Against scipy's paired interval. Catches: means of two samples, a sweep's clean images that are another's."""
    drawn_ = np.random.default_rng(0)
    every = {
        (f"{kind}-{name}", "fgsm"): drawn_.choice([0.0, 0.5, 1.0], 400, p=p)
        for name in CLASSIFIERS
        for kind, p in (("classify", [0.6, 0.3, 0.1]), ("clean", [0.3, 0.3, 0.4]))
    }
    found = {pair["network"]: pair for pair in sweeping.pairs(every)}
    for name in CLASSIFIERS:
        less = every[f"clean-{name}", "fgsm"] - every[f"classify-{name}", "fgsm"]
        due = scipy.stats.norm.interval(0.95, less.mean(), less.std(ddof=1) / 20)
        assert found[name]["difference"] == pytest.approx(less.mean(), abs=1e-6)
        assert (found[name]["low"], found[name]["high"]) == pytest.approx(due, abs=2e-3)
    assert list(sweeping.pairs({("classify-resnet50", "own"): np.zeros(3)})) == [], "there is no twin to compare with"


def test_streams_have_the_share_and_the_interval_of_one_stream():
    """200 draws of 30 of 5,000 images: their spread is the binomial's. Catches: the same images in every stream."""
    random = np.random.default_rng(0)
    kinds = np.tile([0, 1], 5000)
    right = np.where(kinds == 1, random.random(10_000) < 0.9, random.random(10_000) < 0.95)
    found = list(sweeping.streams(right, kinds))
    assert [row["share"] for row in found] == [0.03, 0.05, 0.10]
    assert [row["n_adversarial"] for row in found] == [30, 50, 100]
    assert [row["n_real"] for row in found] == [970, 950, 900]
    for row in found:
        truth = right[kinds == 1].mean()
        assert row["mean_adversarial"] == pytest.approx(truth, abs=4 * math.sqrt(0.09 / row["n_adversarial"] / 200))
        assert row["low_adversarial"] < truth < row["high_adversarial"]
        assert row["least_adversarial"] < row["mean_adversarial"] < row["largest_adversarial"]
    assert list(sweeping.streams(right, kinds)) == found


def smoke_run(folder, **scale):
    changed = SimpleNamespace(**{**vars(SCALES["smoke"]), **scale})
    # Below the checkout, as a run's own folder: source files are hashed under their places in it.
    return Run("digits", changed, Workspace(Store(folder), folder), RUNS / "hybrid_gan-hashes")


def test_no_source_image_is_shared_by_targets_and_the_hybrid_set(tmp_path):
    division = divide(smoke_run(tmp_path))
    for part, (left, chosen) in division.rows.items():
        assert not set(left) & set(chosen)
        assert len(left) + len(chosen) == len(division.images[part])
    counts = np.bincount(division.images["train"].labels[division.rows["train"][1]])
    assert counts.tolist() == protocol.counts(SCALES["smoke"], protocol.VALIDATION)
    assert sum(protocol.counts(SCALES["full"])) == 20_756


def test_networks_train_for_the_published_epochs_and_clean_twins_for_as_many_updates():
    every = protocol.trained("cifar10", SCALES["full"])
    epochs = {name.removeprefix("cifar10-"): card["recipe"]["arguments"]["epochs"] for name, card in every.items()}
    assert {name: epochs[f"classify-{name}"] for name in protocol.CLASSIFIERS} == {
        name: PRINTED["trained"][name][0] for name in protocol.CLASSIFIERS
    }
    assert epochs["clean-vgg19_bn"] == 2 * 53
    assert epochs["clean-resnet50"] == 2 * 99


def test_every_card_is_valid(tmp_path):
    """Catches: a key that no card may hold, or two cards of one name, that only a run of days would show."""
    short = SCALES["short"]
    targets, trained = (make("cifar10", short) for make in (protocol.targets, protocol.trained))
    judged = protocol.attacked(SimpleNamespace(source="cifar10", scale=short), trained)
    tables = {**targets, **trained, **judged, **protocol.undefended(targets, short)}
    names = [load(path).name for path in write_cards(tables, tmp_path).values()]
    assert names == [name.replace("@", "-") for name in tables]
    assert len(trained) == 12


def test_targets_and_networks_are_the_paper_s():
    """ResNet-50 is trained on the set, with its own stem, and is no target. Catches: a width of another network."""
    full = SCALES["full"]
    targets = protocol.targets("cifar10", full)
    assert [name.removeprefix("cifar10-target-") for name in targets] == list(TARGETS)
    assert "resnet50" not in TARGETS
    networks = {"cifar_targets:resnet56", "vgg:vgg", "repvgg:repvgg"}
    networks |= {"cifar_targets:mobilenet_x1_4", "cifar_targets:shufflenet_x2"}
    assert {table["model"]["factory"] for table in targets.values()} == {f"models.{name}" for name in networks}
    trained = protocol.trained("cifar10", full)
    for table in (*targets.values(), *trained.values()):
        assert table["model"]["arguments"]["width"] == 1
    assert trained["cifar10-classify-resnet50"]["model"]["arguments"]["stem"] == "imagenet"
    judged = protocol.attacked(SimpleNamespace(source="cifar10", scale=full), trained)
    assert {"own", "fgsm", "noise", "anew"} == set(judged["cifar10-classify-vgg19_bn@real"]["sweeps"])
    sources = {name: judged[f"cifar10-classify-{name}@real"]["sweeps"]["own"]["source"] for name in CLASSIFIERS}
    assert sources["resnet50"] == "cifar10-target-resnet56.toml"
    assert sources["repvgg_a2"] == "cifar10-target-repvgg_a2.toml"


def test_the_medium_scale_has_the_paper_s_networks_and_narrow_targets():
    """Catches: targets that take hours, or networks that are narrow because their targets are."""
    medium = SCALES["medium"]
    for table in protocol.targets("cifar10", medium).values():
        assert table["model"]["arguments"]["width"] == 0.25
        assert table["recipe"]["arguments"]["epochs"] == 9
        assert table["scale"] == "medium"
    trained = protocol.trained("cifar10", medium)
    assert {table["model"]["arguments"]["width"] for table in trained.values()} == {1.0}
    assert trained["cifar10-classify-resnet50"]["recipe"]["arguments"]["epochs"] == 30
    (committed,) = PAPER.results(MEASURED)
    assert "targets at width" not in PAPER.page(committed)
    text = PAPER.page({**committed, "width": 1.0, "targets": {"width": 0.25, "epochs": 9}})
    assert "; targets at width 0.25, 9 epochs, trained from scratch" in text


def test_one_part_can_be_measured_alone(smoke, command, tmp_path, capsys):
    """With what the store holds. Catches: parts that were not asked for, or counted as missing results."""
    assert command(PAPER, tmp_path, "--parts", "detect-resnet50") == 0
    (file,) = tmp_path.glob("*.json")
    assert file.name == "hybrid_gan_digits_smoke_detect-resnet50.json"
    before = json.loads((smoke(PAPER) / file.name).read_text(encoding="utf-8"))
    assert json.loads(file.read_text(encoding="utf-8"))["rows"] == before["rows"]
    assert "parts not measured yet: targets, vgg19_bn" in capsys.readouterr().out
    text = (tmp_path / "hybrid-gan.md").read_text(encoding="utf-8")
    assert "- Targets: not measured yet." in text
    assert "nan" not in text


def test_the_text_s_contradictions_follow_from_its_numbers():
    """Counted here. Catches: a cell that fits its images called impossible, or the one that fits none missed."""
    (committed,) = PAPER.results(MEASURED)
    section = PAPER.page(committed).partition("where the text contradicts itself\n")[2].partition("\n## ")[0]
    said = section.strip().splitlines()
    for name, cells in PRINTED["streams"].items():
        for images, (_, adversarial) in zip((300, 500, 1000), cells, strict=True):
            possible = {f"{100 * count / images:.2f}" for count in range(images + 1)}
            assert (f"{adversarial:.2f}" in possible) == (not (name == "vgg19_bn" and images == 500))
    assert sum("no whole number of 500 images" in sentence for sentence in said) == 1
    words = ("79,249 real images", "67:16:16", "ShuffleNetV2 ×2.0 has 95.90", "96.4 in the text", "91.91 in the text")
    assert all(sum(word in sentence for sentence in said) == 1 for word in words)


def test_a_result_with_other_targets_says_so():
    (committed,) = PAPER.results(MEASURED)
    text = PAPER.page(committed)
    assert "**Measured with the targets of an earlier reading**: VGG19_bn, ShuffleNetV2 ×1.0" in text
    new = {**committed, "networks": protocol.TITLES, **packed([{"status": "ok", **row} for row in numbers()[0]])}
    assert "earlier reading" not in PAPER.page(new)


def test_streams_of_both_heads_stand_on_the_page():
    """Catches: detectors' streams measured and not shown; published numbers beside one head alone."""
    (committed,) = PAPER.results(MEASURED)
    section = PAPER.page(committed).partition("contaminated streams\n\n")[2].partition("\n## ")[0]
    for head, title in protocol.HEADS.items():
        streams = [stream for stream in committed["streams"] if stream["model"] == f"cifar10-{head}-repvgg_a2"]
        rows = [line for line in section.splitlines() if "RepVGG_a2" in line and title in line]
        for stream in streams:
            (row,) = (line for line in rows if f"| {stream['share']:.0%} " in line)
            assert f"{stream['mean_adversarial']:.4f} [" in row
            assert f"{stream['mean_real']:.4f} [" in row
    assert section.count("0.9509") == 4  # printed for 3 and for 5 %, beside two heads


@pytest.fixture(scope="module")
def result(smoke):
    (result,) = PAPER.results(smoke(PAPER))
    return result


WORK = RUNS / "hybrid_gan-digits-smoke"


def array_file(name):
    return np.load(WORK / "data" / name)


def test_no_image_of_the_hybrid_set_was_seen_by_targets_or_is_there_twice(store, result):
    """By content, in the files that are trained on. Catches: rows of one part taken in another, twins torn apart."""
    targets, hybrid = array_file(protocol.TARGET_DATA), array_file(protocol.HYBRID)
    seen = {part: {image.tobytes() for image in targets[f"{part}_x"]} for part in ("train", "test")}
    real = {part: [image.tobytes() for image in hybrid[f"{part}_x"][::2]] for part in ("train", "test")}
    everything = [seen["train"], seen["test"], set(real["train"]), set(real["test"])]
    for one, other in itertools.combinations(everything, 2):
        assert not one & other
    assert len(set(real["train"])) == len(real["train"])
    card = load(WORK / "digits-detect-resnet50.toml")
    images = Workspace(Store(store), WORK / "data").images(card, "train")
    assert images.groups is not None
    train, held = held_out(images.labels, images.groups, protocol.HELD_OUT, 0)
    assert not set(hybrid["train_source"][train]) & set(hybrid["train_source"][held])


def test_numbers_are_those_of_the_evidence_by_kind(result, evidence_of):
    """Catches: real and adversarial exchanged, rates of the whole set in every row, an area of ten classes for two."""
    kinds = array_file(protocol.HYBRID)["test_kind"]
    numbers = Numbers.of(result)
    for pair in result["pairs"]:
        assert pair["difference"] == pytest.approx(
            numbers.lost(f"clean-{pair['network']}", pair["sweep"])
            - numbers.lost(f"classify-{pair['network']}", pair["sweep"]),
            abs=1e-5,
        )
    assert len(result["pairs"]) == len(CLASSIFIERS) * 5
    for name in CLASSIFIERS:
        for head in protocol.HEADS:
            found = evidence_of(result, f"digits-{head}-{name}@hybrid:clean")
            right = found.predictions[0] == found.labels
            for kind, chosen in (("all", kinds >= 0), ("real", kinds == 0), ("adversarial", kinds == 1)):
                assert numbers.value(f"{head}-{name}", "hybrid", kind=kind) == pytest.approx(right[chosen].mean())
        area = roc_auc_score(np.eye(2)[kinds].ravel(), found.probabilities[0].ravel())
        assert numbers.value(f"detect-{name}", "hybrid", metric="roc_auc") == pytest.approx(area, abs=1e-5)
        assert found.labels.tolist() == kinds.tolist()
        probed = evidence_of(result, f"digits-detect-{name}@probes:clean")
        what = array_file(protocol.probes(name))["test_what"]
        for place, probe in enumerate(building.PROBES):
            share = (probed.predictions[0][what == place] == 1).mean()
            called = numbers.value(f"detect-{name}", "probes", metric="called_adversarial", kind=probe)
            assert called == pytest.approx(share, abs=1e-6)


def test_every_sweep_has_its_rows_and_the_generators_differ(result, evidence_of):
    cells = {(row["model"], row["images"], row["sweep"]) for row in unpacked(result)}
    for name in TARGETS:
        assert {(f"digits-target-{name}", "targets", sweep) for sweep in ("clean", "own", "another", "fgsm")} <= cells
    for name, kind, sweep in itertools.product(CLASSIFIERS, ("classify", "clean"), ("clean", "noise", *SWEEPS)):
        assert (f"digits-{kind}-{name}", "real", sweep) in cells
    same = [
        np.array_equal(
            *(evidence_of(result, f"digits-target-{name}@targets:{sweep}").snr for sweep in ("own", "another"))
        )
        for name in TARGETS
    ]
    assert not any(same)


def test_the_page_says_how_much_more_accurate_a_network_is_than_its_twin(result, evidence_of):
    """From the evidence. Catches: what is lost for what is left, which flatters who has little; twins exchanged."""
    lines = [line for line in PAPER.page(result).splitlines() if "| more accurate by" in line]
    for name, line in zip(CLASSIFIERS, lines, strict=True):
        every = [
            [evidence_of(result, f"digits-{kind}-{name}@real:{sweep}") for kind in ("classify", "clean")]
            for sweep in ("clean", *protocol.SWEEPS)
        ]
        due = [np.subtract(*((of.predictions == of.labels).mean() for of in pair)) for pair in every]
        assert [float(cell) for cell in line.split("|")[3:-1]] == pytest.approx(due, abs=1e-4)
        assert protocol.TITLES[name] in line


def test_the_set_is_written_as_pictures_too(smoke, command, tmp_path):
    assert command(PAPER, smoke(PAPER), "--pictures", str(tmp_path)) == 0
    with array_file(protocol.HYBRID) as held:
        first, source = held["train_x"][:2], held["train_source"][0]
        label, images = held["classes"][held["train_y"][0]], len(held["train_x"]) + len(held["test_x"])
    assert len(list(tmp_path.rglob("*.png"))) == images
    for kind in (0, 1):
        shown = np.asarray(Image.open(tmp_path / "train" / str(label) / str(kind) / f"{source}.png"))
        assert np.array_equal(shown, first[kind])


def test_a_run_that_was_cut_off_has_its_finished_parts(smoke, command, result, tmp_path, monkeypatch):
    """Cut off in the third. Catches: one file of all at the end; a part made twice, or of another network's numbers."""
    smoke(PAPER)
    made = []

    def stopping(run, part, *others):
        made.append(part)
        if len(made) == 3:
            raise KeyboardInterrupt
        return collect(run, part, *others)

    collect = PAPER.collect
    monkeypatch.setattr(PAPER, "collect", stopping)
    with pytest.raises(KeyboardInterrupt):
        command(PAPER, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "hybrid_gan_digits_smoke_targets.json", "hybrid_gan_digits_smoke_vgg19_bn.json"
    ]  # fmt: skip
    assert PAPER.main(["--render", "--output", str(tmp_path)]) == 0
    text = (tmp_path / "hybrid-gan.md").read_text(encoding="utf-8")
    assert "parts not measured yet: shufflenet, repvgg_a2, resnet50, detect-vgg19_bn, detect-shufflenet" in text
    assert "nan" not in text
    assert command(PAPER, tmp_path) == 0
    assert made == ["targets", "vgg19_bn", "shufflenet", *list(protocol.parts("digits"))[2:]]
    (whole,) = PAPER.results(tmp_path)
    same = ("columns", "rows", "streams", "pairs", "strips", "hybrid", "epochs")
    assert {name: whole[name] for name in same} == {name: result[name] for name in same}
    assert "hybrid sets" not in (tmp_path / "hybrid-gan.md").read_text(encoding="utf-8")
    other = json.loads((part := tmp_path / "hybrid_gan_digits_smoke_resnet50.json").read_text(encoding="utf-8"))
    other["provenance"]["data"]["set of resnet50"]["fingerprint"] = "of another machine's targets"
    part.write_text(json.dumps(other), encoding="utf-8")
    assert "The parts were measured on 2 hybrid sets." in PAPER.page(*PAPER.results(tmp_path))


def test_an_engine_is_asked_for_all_that_is_swept(command, result, tmp_path, monkeypatch):
    """Catches: sweeps that the driver of a cluster makes by itself, those with the generator of another seed first."""
    asked = []

    def fill(workspace, engine, wanted, device):
        asked.extend((engine.name, f"{card.name}:{'another' if workspace.seed else sweep}") for card, sweep in wanted)

    monkeypatch.setattr(engines, "fill", fill)
    assert command(PAPER, tmp_path, "--engine", "ray") == 0
    assert sorted(asked) == sorted(("ray", name.replace("@", "-")) for name in result["evidence"])


def test_the_hash_of_the_inputs_follows_recipes_images_and_builder(smoke, tmp_path, monkeypatch):
    """Catches: files that are believed after a recipe, the images, a sweep or the code that builds the set changed."""

    def made_of(**scale):
        return divide(smoke_run(tmp_path, **scale)).inputs_hash()

    now = made_of()
    (stored,) = smoke(PAPER).glob("*_resnet50.json")
    assert now == made_of() == json.loads(stored.read_text(encoding="utf-8"))["made_of"]
    hashes = {now, made_of(epochs=2), made_of(part=0.012)}
    hashes.add(made_of(generator={**SCALES["smoke"].generator, "steps": 11}))
    with monkeypatch.context() as patched:
        patched.setattr(protocol, "EPSILONS", [0.05])
        hashes.add(made_of())
    with monkeypatch.context() as patched:
        patched.setattr(hybrid, "content_hash", lambda _: "other text")
        hashes.add(made_of())
    assert len(hashes) == 6
