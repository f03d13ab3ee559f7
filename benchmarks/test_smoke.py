"""The benchmarks at a size that takes seconds: they run, and pytest-benchmark keeps their times; none is asserted."""

import functools

import numpy as np
import pytest

from benchmarks import folder, gate, peers, report, startup, training
from benchmarks import sweep as noise
from models.mlp import mlp
from robustness.datasets.images import from_arrays
from robustness.perturbations import FGSM, Normal
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
