"""
The speed of each model's sweeps: noise, FGSM, PGD-10 and a GAN, timed by pytest-benchmark (docs/timing.md).

Runs only on request, `pytest suites/ -m timing -n 0`; otherwise the module is skipped and imports no torch.
"""

import re

import pytest

from robustness.errors import DataMissing
from robustness.perturbations import FGSM, PGD, AdvGAN, GaussianNoise
from robustness.plugin.config import is_worker, run_state
from robustness.util import hardware
from robustness.workspace import attack_inputs

IMAGES = 1000
SWEEPS = {
    "noise": (GaussianNoise(), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "fgsm": (FGSM(), (0.02, 0.05, 0.1, 0.2, 0.3)),
    "pgd-10": (PGD(steps=10), (0.1,)),
    "gan": (AdvGAN(), (0.05, 0.1, 0.15, 0.2, 0.3)),
}


def pytest_generate_tests(metafunc):
    """Skip the module unless it was requested; time on the CPU and, if there is one, on the GPU."""
    config = metafunc.config
    if not re.search(r"(?<!not )\btiming\b", config.getoption("markexpr")):
        pytest.skip("timing runs only on request: add -m timing -n 0", allow_module_level=True)
    if is_worker(config):
        pytest.skip("timing needs a single process: add -n 0", allow_module_level=True)
    asked = run_state(config).options.device
    devices = sorted({hardware.worker_device(asked, 0)} | ({"cpu"} if asked == "auto" else set()))
    metafunc.parametrize("device", devices, ids=[device.partition(":")[0] for device in devices])


@pytest.mark.timing
@pytest.mark.parametrize("kind", SWEEPS)
def test_timing(card, kind, device, classifier, benchmark, request):
    """Time one sweep after a warm-up; it must succeed, however long it takes."""
    import torch

    from robustness.planning.costs import passes_per_image
    from robustness.sweep.runner import run_sweep

    session = run_state(request.config)
    perturbation, strengths = SWEEPS[kind]
    if kind == "gan":  # the card's own, where it has one: its generator is in the store
        own = [table.perturbation for table in card.file.sweeps.values()]
        perturbation = next((p for p in own if isinstance(p, AdvGAN) and p.source_card is None), perturbation)
    try:
        images = session.workspace.images(card)
        generator = attack_inputs.generator(session.workspace, card, perturbation) if kind == "gan" else None
    except DataMissing as error:
        if session.options.strict:
            raise
        pytest.skip(str(error))
    given = {"seed": session.workspace.seed, "device": device, "threads": session.workspace.threads}
    given |= {"decision": card.file.model.decision, "generator": generator}

    def swept(count, **other):
        some = images.select(range(count), images.name)
        evidence = run_sweep(classifier, some, perturbation, strengths, **{**given, **other})
        if device != "cpu":
            torch.cuda.synchronize(device)
        return evidence

    where, count = device.partition(":")[0], min(IMAGES, len(images))
    passes = passes_per_image({"forward": classifier, "generator": generator}, swept)
    benchmark.group = f"{kind} on {where}"
    # Runs are compared by this name: a node id changes with the place that the suites are installed at.
    benchmark.name = benchmark.fullname = f"{card.name}:{kind}:{where}"
    benchmark.params = {"model": card.name, "perturbation": kind, "device": where}
    rounds = request.config.getoption("benchmark_min_rounds")
    evidence = benchmark.pedantic(swept, args=(count,), rounds=rounds, warmup_rounds=1)
    assert set(evidence.status) == {"ok"}, f"{card.name}: what was timed has failed: {evidence.status}"
    benchmark.extra_info |= {
        "model": card.name,
        "data": images.name,
        "images": count,
        "perturbation": perturbation.model_dump(),
        "strengths": strengths,
        "passes_per_image": {name: calls / len(strengths) for name, calls in passes.items()},
        "device": hardware.device_fingerprint(device),
        "threads": given["threads"] if device == "cpu" else 1,
        "batch_size": evidence.provenance["batch_size"],
        "torch": torch.__version__,
    }
    if benchmark.enabled:  # an image is one image at one strength, as in evidence
        benchmark.extra_info["images_per_second"] = round(count * len(strengths) / benchmark.stats["median"], 1)
