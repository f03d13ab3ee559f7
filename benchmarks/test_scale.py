"""What the docs say of costs at scale is what code computes; the benchmarks of plan and GPU run, at a tiny size."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu, peers, plan, rates
from benchmarks.imagenet import SWEEPS, Rates, whole
from models.vgg import vgg

PAGE = Path(__file__).parents[1] / "docs" / "plan.md"


def test_the_sum_of_the_docs_is_computed():
    """Catches: numbers on the page that no longer follow from what was measured, or from what evidence holds."""
    page, found = PAGE.read_text(encoding="utf-8"), json.loads(rates.RESULT.read_text(encoding="utf-8"))
    assert rates.sentence(found) in page
    assert rates.table(found) in page
    for name, digits in (("forward", 1), ("gradient", 1), ("decoded", 0), ("drawn", 0)):
        assert f"{found['rates'][name]:.{digits}f}" in page


def test_the_sum_by_hand():
    """Catches: a pass left out, clean evidence forgotten, bytes for bits."""
    total = whole(Rates(forward=100.0, gradient=50.0, decoded=10.0, drawn=1000.0, network=1e9))
    swept = 50_000 * 100
    assert sum(forward for forward, _ in SWEEPS.values()) == 10 + 10 + 10 + 11 + 110
    assert (total.forward, total.backward) == (152 * swept, 101 * swept)
    assert total.device_hours == pytest.approx(swept * (51 / 100 + 101 / 50) / 3600)
    assert total.decoding_hours == pytest.approx(50_000 / 10 / 3600)
    assert total.drawing_hours == pytest.approx(3 * swept / 1000 / 3600)
    numbers = 5 * 4 * 50_000 * 51 + 6 * 4 * 50_000
    assert total.evidence == pytest.approx(100 * numbers, rel=1e-3)
    assert total.network_hours(1) == pytest.approx(total.evidence / 1e9 / 3600)
    assert total.network_hours(3) == pytest.approx((2 * (total.pixels + total.weights) + total.evidence) / 1e9 / 3600)
    assert (total.first(1), total.first(10**6)) == ("device", "network")


CARD = """
name = "tiny"
model = { factory = "models.mlp:mlp", seed = 0 }
data = { name = "digits", split = { kind = "balanced", per_class = 3 } }
sweeps.normal = { kind = "gaussian", strengths = [0.1, 0.2] }
"""


def test_a_plan_beside_what_is_taken(capsys, monkeypatch, tmp_path):
    """Catches: a benchmark that no longer runs, or that passes a plan that is off."""
    (tmp_path / "tiny.toml").write_text(CARD)
    monkeypatch.setattr(plan, "MODELS", tmp_path)
    assert plan.compare(["tiny"], 2)["tiny"] > 0
    assert "planned / taken" in capsys.readouterr().out
    monkeypatch.setattr(plan, "compare", lambda models, repeats: {"a": 1.6, "b": 0.9})
    assert (plan.main([]), plan.main(["--check"])) == (0, 1)
    monkeypatch.setattr(plan, "compare", lambda models, repeats: {"a": 1.4, "b": 0.6})
    assert plan.main(["--check"]) == 0


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """Run the GPU's benchmark on a CPU, with one library that is made up; give how often that attacked."""
    attacked = []

    def library(module, images, strengths, size, device):
        attacked.append(size)

    monkeypatch.setattr(peers, "installed", lambda steps: {"foolbox": library})
    monkeypatch.setattr(gpu, "vgg", lambda depth, width: vgg(depth, width=0.02))

    def run(*more):
        words = ["--device", "cpu", "--images", "12", "--sizes", "6,12", "--rounds", "2"]
        return gpu.main([*words, "--output", str(tmp_path / "gpu.json"), *more])

    return run, attacked, tmp_path / "gpu.json"


def test_the_gpu_s_benchmark_runs_and_goes_on(smoke, capsys):
    """Catches: times taken again after an interruption, no provenance, a smoke test that looks like more."""
    run, attacked, path = smoke
    assert run() == 0
    assert len(attacked) == 2 * 2 + 2
    assert "A SMOKE TEST ON A CPU: these speeds say nothing" in capsys.readouterr().out
    content = json.loads(path.read_text())
    assert content["about"]["smoke"] is True
    assert content["about"]["versions"]["torch"]
    assert any(name.startswith("fgsm, bf16 against fgsm, foolbox, float32") for name in content["result"]["ratios"])
    del content["result"], content["rounds"]["fgsm, foolbox, float32, round 1"]
    path.write_text(json.dumps(content))
    assert run() == 0
    assert len(attacked) == 2 * 2 + 2 + 1
    with pytest.raises(SystemExit, match="other settings"):
        run("--width", "0.5")


def test_the_gpu_s_bounds(capsys):
    """Catches: a bound that cannot be missed, a ratio upside down, green without another library."""
    times = {"fgsm, sweep, float32": [1.0, 1.0], "fgsm, sweep, bf16": [0.4, 0.4], "fgsm, foolbox, float32": [3.0, 3.0],
             "fgsm, art, float32": [2.5, 2.5], "noise, sweep, float32": [2.0, 2.0],
             "noise, bare forwards, float32": [1.8, 1.8]}  # fmt: skip
    found = gpu.ratios(times, ["float32", "bf16"])
    assert found == {
        "noise, sweep / bare forwards, throughput": pytest.approx(0.9),
        "fgsm, float32 against fgsm, art, float32": pytest.approx(2.5),
        "fgsm, bf16 against fgsm, art, float32": pytest.approx(6.25),
    }
    assert gpu.held(found) == []
    assert len(gpu.held({name: ratio / 1.5 for name, ratio in found.items()})) == 3
    alone = {name: ratio for name, ratio in found.items() if name.startswith("noise")}
    assert len(gpu.held(alone)) == 2
    for words in (["--device", "cpu", "--check"], ["--device", "cuda"]):
        with pytest.raises(SystemExit):
            gpu.main(words)
    assert "say nothing of a GPU's" in capsys.readouterr().err
