"""The benchmarks at a size that takes seconds: they run, and pytest-benchmark keeps their times; none is asserted."""

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import folder, gate, peers, report, retrainings, startup, training
from benchmarks import sweep as noise
from models.mlp import mlp
from robustness import cards
from robustness.datasets.images import from_arrays
from robustness.gate.baseline import Accepted
from robustness.harness import Harness, data_root, store_root
from robustness.perturbations import FGSM, Normal
from robustness.store import Store
from robustness.sweep import sweep

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
        sweep, (module, images, Normal(bound=1.0), noise.AMPLITUDES), rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["images_per_second"] = COUNT * len(noise.AMPLITUDES) / benchmark.stats["mean"]
    assert set(evidence.status) == {"ok"}


def test_bare_loop(benchmark, module, images):
    """The same draws and forwards, and nothing else; it decides the same."""
    predictions = benchmark.pedantic(noise.bare_loop, (module, images, 500), rounds=3, warmup_rounds=1)
    evidence = sweep(module, images, Normal(bound=1.0), noise.AMPLITUDES)
    assert (predictions == evidence.predictions).mean() > 0.999  # threads may differ in a last bit


@pytest.mark.parametrize("what", ["noise", "fgsm", "pgd"])
def test_scripts_measure_what_they_print(what, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sweep", what, "--images", "500", "--repeats", "1"])
    assert noise.main() == 0
    assert noise.OURS in capsys.readouterr().out


def test_the_floor_decides_what_the_sweep_decides(module, images):
    """Catches: a benchmark that compares different work."""
    evidence = sweep(module, images, FGSM(), noise.EPSILONS)
    due = peers.floor(module, images, noise.EPSILONS, 500, "cpu")
    assert (due == evidence.predictions).mean() > 0.999


def test_gate():
    """Catches: a benchmark of the gate that measures no rule that ships, or that fails to run."""
    assert gate.seconds(20, 500).startswith("20 cells of 500 images")
    assert "0.05" in gate.exact()


def test_retrainings_of_one_rate_differ_by_chance_alone():
    """Catches: verdicts under the wrong heading, a candidate among those it is held to, damage that is not held."""
    harness = Harness(Store(store_root()), data_root())
    card = cards.load(Path(__file__).parents[1] / "models" / "digits-mlp.toml")
    told = {name: harness.evidence(card, name) for name in retrainings.SWEEPS}

    def errs(share, seed):
        draws = np.random.default_rng(seed)
        missed = {name: draws.random(e.predictions.shape) < share for name, e in told.items()}
        return {
            name: replace(e, predictions=np.where(missed[name], (e.labels + 1) % 10, e.labels).astype(np.int32))
            for name, e in told.items()
        }

    models = [Accepted({"weights": f"{seed}"}, errs(0.05, seed)) for seed in range(7)]
    broken = {"half": errs(0.5, 99)}
    lines = [row.split("|")[1:-1] for row in retrainings.of_weights(models, broken).split("\n")[2:]]
    rows = [[cell.strip() for cell in line] for line in lines]
    table = {(row[0], row[1]): row[2:] for row in rows}
    assert table["half", "clean normal fgsm"] == ["1", "0", "0", "1"]
    assert table["the same weights", "clean normal fgsm"] == ["7", "7", "0", "0"]
    assert table["healthy, of another seed", "clean"][3] == "0", "alike to a point, and two are accepted"
    healthy, half = (row.split("|")[1:-1] for row in retrainings.of_recipe(models, broken).split("\n")[2:])
    assert [cell.strip() for cell in half[1:]] == ["1", "0", "0", "1", "100.0% of 1,000", "100.0% of 1,000"]
    last = float(healthy[-1].split("%")[0])
    assert 12 < last < 22, "one of six that may change places is last one time in six"


def test_latent_correlation():
    """Catches: a correlation of outcomes given for that of what lies behind them, which is larger."""
    draws = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 100_000) < -1.5
    assert retrainings.latent(*draws.T) == pytest.approx(0.6, abs=0.03)
    assert np.corrcoef(*draws.T)[0, 1] < 0.4


def test_report(tmp_path, monkeypatch):
    """Catches: a page without the pictures whose cost the benchmark is to show."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(report, "KINDS", {"normal": 0.08, "fgsm": 0.02})
    _, size, images = report.measure(1, tmp_path)
    assert images == 2 * 4 * 3
    assert size < report.BYTES


def test_startup():
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


def test_a_folder_beside_memory(capsys, monkeypatch):
    """Catches: a benchmark that sweeps other images than it says, or that no longer runs."""
    small = functools.partial(folder.resnet50, width=0.05)
    monkeypatch.setattr(folder, "resnet50", small)
    monkeypatch.setattr(folder, "peak", lambda where, what, device: {"folder": 3000.0, "model": 1000.0}[what])
    monkeypatch.setattr(folder.time, "sleep", lambda seconds: None)
    memory, time = folder.compare(folder.CLASSES, 1, "cpu")
    assert memory.ratio == pytest.approx(2.097152)
    assert (memory.held, time.most) == (False, 1.10)
    assert folder.FOLDER in capsys.readouterr().out
