"""Reports of runs that never took place: a card, evidence that is written down by hand, and what is judged of it."""

import numpy as np

from robustness import cards, claims
from robustness.metrics.evidence import Evidence
from robustness.reporting.build import build
from robustness.reporting.results import ClaimOutcome, ModelResult
from robustness.reporting.run_info import RunInfo

CLASSES = ("cat", "dog", "eel")
STRENGTHS = ("0.1", "0.2", "0.3", "0.4")
CARD = """
name = '{name}'
description = '''{description}'''
scale = "smoke"
model = {{ factory = "net:net", weights = "net.safetensors" }}
data = {{ name = "digits", split = {{ kind = "balanced", per_class = 10 }} }}

[sweeps.'{sweep}']
kind = "gaussian"
bound = 1.0
strengths = [0.1, 0.2, 0.3, 0.4]

[sweeps.uniform]
kind = "uniform"
strengths = [0.5]
{claims}
"""
CLAIMS = """
[claims.clean]
accuracy = 0.9
loss = 0.5

[claims.normal]
accuracy = [0.85, 0.8, 0.6, "no claim possible"]
precision = [0.85, 0.8, 0.6, "no claim possible"]
"""
RUN = {
    "started": "2024-05-01T12:00:00+00:00",
    "seconds": 2.5,
    "versions": {"torch": "2.11.0", "numpy": "2.0.0"},
    "device": "cpu",
    "seed": 0,
    "workers": 2,
    "complete": True,
    "problems": [],
    "causes": [],
}


def load_card_of(folder, claimed=CLAIMS, *, name="mlp", sweep="normal", description="a net"):
    (folder / "pyproject.toml").touch()
    (folder / "net.py").write_text("def net(): ...\n")
    path = folder / "card.toml"
    path.write_text(CARD.format(name=name, sweep=sweep, claims=claimed, description=description), encoding="utf-8")
    return cards.load(path)


def evidence(strengths, rights, *, status=None, classes=CLASSES, n=100, seed=1, **provenance):
    """Decide on n images, of which a given share is right at each strength; the others get the next class."""
    labels = np.arange(n, dtype=np.int32) % len(classes)
    order = np.random.default_rng(seed).permutation(n)
    rows = np.stack([np.where(order < round(right * n), labels, (labels + 1) % len(classes)) for right in rights])
    status = status or ("ok",) * len(strengths)
    bad = np.array([s != "ok" for s in status])
    values = np.linspace(0.01, 1, rows.size).reshape(rows.shape).astype(np.float32)
    values[bad] = np.nan
    rows[bad] = -1
    about = {
        "key": "k" * 64,
        "images": {"name": "ten digits", "n": n, "fingerprint": "f" * 64},
        "subject": {"weights": "a" * 64},
        "seed": 3,
        "device": "cpu-avx2",
        "seconds": 0.5,
        "images_per_second": 800.0,
        "started": "2024-05-01T12:00:00+00:00",
        "doubts": [],
        "notes": {},
    }
    snr = np.full(rows.shape, np.inf if strengths == ("0",) else 9.5, np.float32)
    return Evidence(
        labels, classes, tuple(strengths), rows.astype(np.int32), values, values, values, snr, tuple(status),
        about | provenance,
    )  # fmt: skip


CLEAN = evidence(("0",), (0.97,))
NORMAL = evidence(STRENGTHS, (0.9, 0.82, 0.55, 0.4))


def outcome(card, number=0, fate="passed", message="", **numbers):
    claim = list(card.claims())[number]
    return ClaimOutcome(claim, fate, message, numbers, f"suites/test_noise.py::test_noise[{claim.id}]")


def judged(card, found):
    """Judge every claim of a card as the suites do."""
    outcomes = []
    for claim in card.claims():
        at = found[claim.sweep]
        said = claims.judge(claim, at)
        nodeid = f"suites/test_noise.py::test_noise[{claim.id}]"
        outcomes.append(ClaimOutcome(claim, said.outcome, said.message, claims.properties(said, at), nodeid))
    return outcomes


def report(card, found=None, outcomes=None, *, run=RUN, notices=()):
    found = {"clean": CLEAN, "normal": NORMAL} if found is None else found
    return built([ModelResult(card, found, judged(card, found) if outcomes is None else outcomes)], run, notices)


def built(results, run=RUN, notices=()):
    return build(results, RunInfo(**run), notices)
