"""The benchmarks at a size that takes seconds: they run, and pytest-benchmark keeps their times; none is asserted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    architectures,
    folder,
    gate,
    peers,
    report,
    retrained_page,
    retrainings,
    startup,
    structure,
    training,
)
from benchmarks import sweep as noise
from models.mlp import mlp
from reports import writing
from robustness import cards
from robustness.data.images import from_arrays
from robustness.gate.baseline import AcceptedModel
from robustness.perturbations import FGSM, GaussianNoise
from robustness.sweep.runner import run_sweep
from robustness.workspace.context import data_root, store_root
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

COUNT = 2000


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 28, 28), dtype=np.uint8)
    return from_arrays(pixels, np.arange(COUNT) % 10)


@pytest.fixture(scope="module")
def module():
    return mlp().eval()


def test_noise_sweep(benchmark, module, images):
    """Eleven amplitudes, with all that evidence holds."""
    evidence = benchmark.pedantic(
        run_sweep, (module, images, GaussianNoise(bound=1.0), noise.AMPLITUDES), rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["images_per_second"] = COUNT * len(noise.AMPLITUDES) / benchmark.stats["mean"]
    assert set(evidence.status) == {"ok"}


def test_bare_loop(benchmark, module, images):
    """The same draws and forwards, and nothing else; it decides the same."""
    predictions = benchmark.pedantic(noise.bare_loop, (module, images, 500), rounds=3, warmup_rounds=1)
    evidence = run_sweep(module, images, GaussianNoise(bound=1.0), noise.AMPLITUDES)
    assert (predictions == evidence.predictions).mean() > 0.999  # threads may differ in a last bit


@pytest.mark.parametrize("what", ["noise", "fgsm", "pgd"])
def test_scripts_measure_what_they_print(what, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sweep", what, "--images", "500", "--repeats", "1"])
    assert noise.main() == 0
    assert noise.OURS in capsys.readouterr().out


def test_the_floor_decides_what_the_sweep_decides(module, images):
    """Catches: a benchmark that compares different work."""
    evidence = run_sweep(module, images, FGSM(), noise.EPSILONS)
    due = peers.floor(module, images, noise.EPSILONS, 500, "cpu")
    assert (due == evidence.predictions).mean() > 0.999


def test_gate():
    """Catches: a benchmark of the gate that measures no rule that ships, or that fails to run."""
    assert gate.took() < gate.SECONDS
    assert "0.05" in gate.exact()


@pytest.mark.parametrize(("took", "code"), [(0.9, 0), (1.1, 1)])
def test_slow_statistics_are_red_where_asked(monkeypatch, took, code):
    """Catches: a check that never fails."""
    monkeypatch.setattr(gate, "seconds", lambda: took)
    assert gate.main(["--check"]) == code


def test_simulated_outcomes_have_the_correlation_that_they_are_given():
    """Catches: a factor that is turned round; an estimate that is no correlation and gives other variances."""
    draws = np.random.default_rng(0)
    given = np.array([[1, 0.9, -0.2], [0.9, 1, 0.3], [-0.2, 0.3, 1]])
    for correlation, due in ((0.6, np.full((3, 3), 0.6)), (given, given), (0.0, np.eye(3))):
        found = np.corrcoef((draws.standard_normal((200_000, 3)) @ gate.together(correlation, 3)).T)
        assert found == pytest.approx(due + np.eye(3) * (1 - due), abs=0.06)
    impossible = np.array([[1, 0.9, 0.9], [0.9, 1, -0.9], [0.9, -0.9, 1]])
    assert (draws.standard_normal((100_000, 3)) @ gate.together(impossible, 3)).std(axis=0) == pytest.approx(
        1, abs=0.02
    )


def test_retrainings_of_one_rate_differ_by_chance_alone():
    """Catches: verdicts under the wrong heading, a candidate among those it is held to, damage that is not held."""
    workspace = Workspace(Store(store_root()), data_root())
    card = cards.load(Path(__file__).parents[1] / "models" / "digits-mlp.toml")
    told = {name: workspace.evidence(card, name) for name in retrainings.SWEEPS}

    def errs(share, seed):
        draws = np.random.default_rng(seed)
        missed = {name: draws.random(e.predictions.shape) < share for name, e in told.items()}
        return {
            name: replace(e, predictions=np.where(missed[name], (e.labels + 1) % 10, e.labels).astype(np.int32))
            for name, e in told.items()
        }

    models = [AcceptedModel({"weights": f"{seed}"}, errs(0.05, seed)) for seed in range(7)]
    broken = {"half": errs(0.5, 99)}
    paired, retraining = retrainings.judge_paired(models, broken), retrainings.judge_retraining(models, broken)
    table = {
        (row["candidate"], len(row["sweeps"]), row["margin"]): [row[v] for v in ("passed", "inconclusive", "failed")]
        for row in paired
    }
    assert table["half", 3, 0.02] == [0, 0, 1]
    assert table["the same weights", 3, 0.02] == [7, 0, 0]
    assert sum(table[retrainings.HEALTHY, 1, 0.02]) == 7 * 6
    assert table[retrainings.HEALTHY, 1, 0.02][2] == 0, "alike to a point, and two are accepted"
    assert table[retrainings.HEALTHY, 3, 0.05][0] >= table[retrainings.HEALTHY, 3, 0.02][0]
    healthy, half = retraining
    assert [half[key] for key in ("passed", "inconclusive", "failed")] == [0, 0, 1]
    assert half["t_bound_fails"] == half["rank_is_last"] == half["draws"] == 1000
    assert 120 < healthy["rank_is_last"] < 220, "one of six that may change places is last one time in six"

    told = {"seeds": [0, 6], "small": 5, "paired": paired, "retraining": retraining}
    errors = [[cell.strip() for cell in row.split("|")[1:-1]] for row in retrained_page.errors(told).split("\n")[2:]]
    assert errors[0][1:2] == ["0 of 42"]
    assert [row[3:] for row in errors[:4]] == [["1 of 1", "0", "0"]] * 4
    assert [row[3:] for row in errors[4:]] == [["1,000 of 1,000", "0", "0"]] * 2
    found = retrainings.correlations(models)
    assert len(found["discordance"]) == len(found["cells"]) == len(found["correlation"])
    assert found["discordance"][0] == pytest.approx(2 * 0.05 * 0.95, abs=0.03)


def test_the_page_of_retrainings_is_that_of_its_results():
    """Catches: a section that was edited by hand, or that a new result did not reach; fewer than the page speaks of."""
    found = json.loads(retrainings.RESULT.read_text(encoding="utf-8"))
    page = retrainings.PAGE.read_text(encoding="utf-8")
    assert writing.inserted(page, "benchmarks.retrainings", retrained_page.body(found)) == page
    healthy = found["paired"][0]
    assert healthy["passed"] + healthy["inconclusive"] + healthy["failed"] == 380
    assert len({row["candidate"] for row in found["retraining"]}) == 11


def test_latent_correlation():
    """Catches: a correlation of outcomes given for that of what lies behind them, which is larger."""
    draws = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 100_000) < -1.5
    assert retrainings.latent(*draws.T) == pytest.approx(0.6, abs=0.03)
    assert np.corrcoef(*draws.T)[0, 1] < 0.4


def test_report(tmp_path, monkeypatch):
    """Catches: a page without the pictures whose cost the benchmark is to show."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(report, "KINDS", {"gaussian": 0.08, "fgsm": 0.02})
    _, size, images = report.measure(1, tmp_path)
    assert images == 2 * 4 * 3
    assert size < report.BYTES


def test_startup(monkeypatch):
    monkeypatch.setattr(startup, "SUITES", ["suites/test_clean.py", "--robustness-model=digits-mlp"])
    assert all(value > 0 for value in startup.compare(repeats=1).values())


def test_training_costs(capsys):
    """Catches: a defence that the benchmark no longer trains."""
    found = training.compare(0.05, batches=1, repeats=1, device="cpu")
    assert [bound.most for bound in found] == [2.8, 1.8, 1.8]
    assert all(bound.ratio > 0 for bound in found)
    assert "images a second" in capsys.readouterr().out


@pytest.mark.parametrize(("most", "code"), [(1e9, 0), (1e-9, 1)])
def test_a_missed_bound_is_red_where_asked(monkeypatch, most, code):
    """Catches: a check that never fails, or that fails to run."""
    monkeypatch.setattr(training, "compare", lambda *_: [noise.Bound("a / b", 1.0, most)])
    assert training.main([]) == 0
    assert training.main(["--check"]) == code


def test_a_folder(capsys):
    """Catches: a benchmark that no longer runs, memory that is not the sweep's, threads whose time is not seen."""
    memory, time = folder.compare(20, "cpu")
    assert memory.held
    assert time.ratio > 1
    assert "20 JPEGs of 500 x 375, ResNet-50" in capsys.readouterr().out


def test_what_a_folder_costs(monkeypatch):
    """Catches: bytes for MiB, waiting that is forgotten, or that is shared among no threads."""
    costs = {
        "model": folder.Cost(1000.0, 10.0, 20.0, 0.0, 0.0, 2),
        "folder": folder.Cost(3000.0, 10.0, 20.0, 1.0, 1.0, 2),
    }
    monkeypatch.setattr(folder, "aside", lambda where, what, device: costs[what])
    monkeypatch.setattr(folder, "YOUNGEST", 0)
    memory, time = folder.compare(len(folder.CLASSES), "cpu")
    assert memory.ratio == pytest.approx(2.097152)
    assert time.ratio == pytest.approx(1 / 0.9)
    assert (memory.held, time.held, time.most) == (False, False, 1.10)


def test_an_architecture_and_one_without_classes(tmp_path, monkeypatch, capsys):
    """Catches: a table that no sweep stands behind, results made again, a reason that is none, a stale page."""
    names = ("timm:test_vit", "timm:eva02_tiny_patch14_224", "timm:no_such_net")
    monkeypatch.setattr(architectures, "ARCHITECTURES", names)
    monkeypatch.setattr(architectures, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(architectures, "PAGE", tmp_path / "page.md")
    assert architectures.main([]) == 0
    whole, features, unknown = json.loads(architectures.RESULTS.read_text())
    assert (whole["numbers"], whole["cells"], whole["said"], whole["shape"]) == (11, 11, [], [3, 160, 160])
    assert (features["cells"], unknown["cells"]) == (0, 0)
    assert "the model returns features and has no classes; write arguments" in features["said"][0]
    assert "timm has no classifier 'no_such_net'" in unknown["said"][0]
    page = architectures.PAGE.read_text()
    assert "All 3 on its list were measured: 1 give numbers in every cell, 0 in some, 2 in none." in page
    assert "2 of the 3 on its list were measured:" in architectures.page([whole, features])
    capsys.readouterr()
    monkeypatch.setattr(architectures, "measured", None)
    assert architectures.main([]) == 0  # all of it stands


def test_the_page_of_architectures_shows_what_is_kept():
    """Catches: a page of other results than those that lie beside the benchmark."""
    kept = architectures.read()
    assert architectures.PAGE.read_text() == architectures.page(
        [kept[n] for n in architectures.ARCHITECTURES if n in kept]
    )


def test_what_a_user_could_not_make_sense_of_is_red(tmp_path, monkeypatch):
    """Catches: a library's traceback counted as a clear reason."""
    monkeypatch.setattr(architectures, "_sweep", lambda *_: {}["no such key"])
    result = architectures.measured("timm:resnet18", tmp_path)
    assert (result["unclear"], result["said"]) == (True, ["KeyError: 'no such key'"])
    monkeypatch.setattr(architectures, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(architectures, "PAGE", tmp_path / "page.md")
    assert architectures.main(["timm:mixer_s32_224"]) == 1


def test_the_structure_is_counted():
    """Catches: a script that no run has noticed to be broken."""
    rows = dict(structure.static_rows())
    assert (rows["upward imports"], rows["circles of modules"]) == (0, 0)
    assert rows["modules at the root of robustness/"] <= 4
