"""The timing suite: out of the way unless it is asked for, and what it says of a sweep then."""

import json
import time

import pytest
import torch
from plugin_project import IDS

from robustness.util import hardware

TIMING = ("-m", "timing")
GAN = '[sweeps.gan]\nkind = "advgan"\nsteps = 2\nstrengths = [0.1]\n'
KINDS = ("noise", "fgsm", "pgd-10", "gan")


@pytest.fixture(autouse=True)
def not_a_worker(monkeypatch):
    """These tests may run under xdist, whose variable pytest-benchmark reads; the runs inside them do not."""
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def timed(project, monkeypatch):
    """The tiny project with weights of its own, and a GAN whose generator is fitted in a moment."""
    monkeypatch.setattr("cpuinfo.get_cpu_info", dict)  # pytest-benchmark asks for it with each file, for a second
    (weights,) = project.fill().entries("weights").values()
    (project.root / "models" / "tiny.safetensors").write_bytes(weights)
    own = ("[recipe]", 'weights = "tiny.safetensors"\n\n[recipe]')
    return project.edit(project.card, own, ("[claims.clean]", f"{GAN}\n[claims.clean]"))


def benchmarks(project) -> dict[str, dict]:
    """Return what pytest-benchmark wrote of every benchmark, by its name."""
    return {each["fullname"]: each for each in json.loads((project.root / "times.json").read_text())["benchmarks"]}


@pytest.mark.parametrize("arguments", [(), ("-m", "not timing")], ids=["plain", "not timing"])
def test_beside_claims(project, arguments):
    """Catches: a warm run that times something, a skip a model and attack, one without its reason, or a red run."""
    suites = (f"suites/test_{name}.py" for name in ("clean", "noise", "timing"))
    run = project.fill().run(*suites, "-rs", *arguments)
    assert run.ret == 0
    assert [claim["nodeid"] for claim in run.claims] == IDS
    assert f"{len(IDS)} passed, 1 skipped" in run.out
    assert "timing runs only on request: add -m timing -n 0" in run.out.replace("\n", " ")
    assert project.logged("modules") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("suites/test_timing.py",), "timing runs only on request: add -m timing -n 0"),
        (("suites/test_timing.py", *TIMING, "-n1"), "timing needs a single process: add -n 0"),
    ],
    ids=["not asked", "workers"],
)
def test_nothing_timed(project, arguments, said):
    """Catches: a gate that is green because nothing was timed."""
    run = project.fill().plain(*arguments, "-rs", apart="-n1" in arguments)
    assert run.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert said in run.out.replace("\n", " ")


def test_timed(timed):
    """
    Catches: a run of timings red for want of claims; a direction made for every strength, passes that a sweep makes
    once counted for each batch, a rate of something else than images at a strength, one by the mean.
    """
    run = timed.plain("suites", *TIMING, "-n0", "--benchmark-json=times.json", "--benchmark-min-rounds=3")
    assert (run.ret, "4 passed" in run.out) == (0, True)
    found = benchmarks(timed)
    assert set(found) == {f"tiny:{kind}:cpu" for kind in KINDS}
    passes = {}
    for kind in KINDS:
        stats, about = found[f"tiny:{kind}:cpu"]["stats"], found[f"tiny:{kind}:cpu"]["extra_info"]
        images = about["images"] * len(about["strengths"])
        assert about["images_per_second"] == pytest.approx(images / sorted(stats["data"])[1], abs=0.1)
        assert (about["model"], about["data"], about["images"], stats["rounds"]) == ("tiny", "digits test", 200, 3)
        assert about["device"] == hardware.device_fingerprint("cpu")
        passes[kind] = about["passes_per_image"]
    strengths = {kind: len(found[f"tiny:{kind}:cpu"]["extra_info"]["strengths"]) for kind in KINDS}
    s = strengths["fgsm"]
    assert s > 1
    assert passes == {
        "noise": {"forward": 1},
        "fgsm": {"forward": (s + 1) / s, "backward": 1 / s},
        "pgd-10": {"forward": 11, "backward": 10},
        "gan": {"forward": 1, "generator": 1 / strengths["gan"]},
    }
    assert len(timed.entries("generators")) == 1
    assert found["tiny:gan:cpu"]["extra_info"]["perturbation"]["steps"] == 2
    assert timed.entries("evidence").keys() == timed.entries("evidence", of=timed.warm).keys()


def test_passes_of_a_whole_sweep(timed):
    """Catches: passes told of a sweep that makes others: here the model counts those of the timed images itself."""
    timed.on_forward('log(f"passes-{len(inputs)}-{int(torch.is_grad_enabled())}")')
    assert timed.plain("suites", *TIMING, "-n0", "-k", "fgsm", "--benchmark-disable").ret == 0
    without, differentiated = (len(timed.logged(f"passes-100-{gradient}")) for gradient in (0, 1))
    # Two batches. A sweep's trials, whether the model is deterministic and can be copied, are on fewer images.
    assert (differentiated, without) == (2 * 1, 2 * 5)


def test_gpu(timed, monkeypatch):
    """Catches: no timing of the GPU that there is, or one that ends before the GPU does."""
    from robustness.sweep import runner

    def synchronize(device):
        assert device == "cuda:0"
        time.sleep(0.3)

    def on_cpu(*given, device, real=runner.run_sweep, **more):
        return real(*given, device="cpu", **more)

    monkeypatch.setattr(hardware, "gpu_count", lambda *_: 1)
    monkeypatch.setattr(hardware, "device_fingerprint", lambda device: f"kind of {device}")
    monkeypatch.setattr(runner, "run_sweep", on_cpu)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    often = ("-k", "noise", "--benchmark-min-rounds=1", "--benchmark-json=times.json")
    run = timed.plain("suites", *TIMING, "-n0", *often)
    assert run.ret == 0, run.out
    found = benchmarks(timed)
    assert found.keys() == {"tiny:noise:cpu", "tiny:noise:cuda"}
    assert found["tiny:noise:cpu"]["stats"]["min"] < 0.3 <= found["tiny:noise:cuda"]["stats"]["min"]
    assert found["tiny:noise:cuda"]["extra_info"]["device"] == "kind of cuda:0"
    listed = timed.plain("suites", *TIMING, "--collect-only", "-q", "--robustness-device=cpu")
    assert "[cpu-" in listed.out
    assert "[cuda-" not in listed.out


def test_gate(timed):
    """Catches: a slower model passed because the suites lie elsewhere than when the accepted times were saved."""
    storage, one = f"--benchmark-storage={timed.root / 'times'}", ("-k", "fgsm", "--benchmark-min-rounds=1")
    assert timed.plain("suites", *TIMING, "-n0", storage, *one, "--benchmark-save=accepted").ret == 0
    (saved,) = (timed.root / "times").glob("*/0001_accepted.json")
    (timed.root / "suites").rename(timed.root / "elsewhere")
    gate = ("elsewhere", *TIMING, "-n0", storage, *one, "--benchmark-compare=0001")
    assert timed.plain(*gate, "--benchmark-compare-fail=median:100000%").ret == 0
    saved.write_text(json.dumps(faster(json.loads(saved.read_text()))))
    run = timed.plain(*gate, "--benchmark-compare-fail=median:20%")
    assert run.ret != 0
    assert "tiny:fgsm:cpu" in run.err.partition("Performance has regressed")[2]


def faster(times: dict) -> dict:
    """Return accepted times with medians that no machine reaches."""
    times["benchmarks"] = [{**each, "stats": {**each["stats"], "median": 1e-9}} for each in times["benchmarks"]]
    return times


def test_a_failing_sweep(timed):
    """Catches: the time of a sweep that has failed; it may be short."""
    timed.on_forward("logits = logits * (float('nan') if noisy else 1)")
    run = timed.plain("suites", *TIMING, "-n0", "-k", "noise", "--benchmark-min-rounds=1")
    assert run.ret == 1
    assert "tiny: what was timed has failed: " in run.out


@pytest.mark.parametrize(("strict", "said"), [((), "1 skipped"), (("--robustness-strict",), "1 failed")])
def test_missing_data(timed, strict, said):
    """Catches: an error where data are missing on this machine, or a skip where they may not be."""
    far = ('name = "digits"\nsplit = { kind = "balanced", per_class = 20 }', 'name = "array"\nfile = "far.npz"')
    timed.edit(timed.card, far)
    run = timed.plain("suites", *TIMING, "-n0", "-k", "noise", "-rs", "--robustness-model=tiny", *strict)
    assert (said in run.out, "no far.npz" in run.out.replace("\n", " ")) == (True, True)
