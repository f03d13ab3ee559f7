"""What digits-noise trains and sweeps, as cards: per seed two kinds of initial weights at several epochs."""

from __future__ import annotations

from typing import Any

from reports import running, writing
from robustness.util import paths

INITIAL_WEIGHTS = {
    "keras": "Glorot's uniform distribution, biases 0: the default of the paper's library",
    "torch": "torch's default of `nn.Linear`: this project's",
}
# The paper names no initial weights. The first are most likely its own.
NAMES = {"keras": "Keras'", "torch": "torch's"}
# Readings of the paper's `NI = I + V·R`. The first is the paper's; the second was taken for it before.
PAPER_READING = "accumulated"
READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "accumulated": (
        "x_k = x_(k−1) + V_k·R_k, R_k ~ N(0, 1) drawn for each V, not clipped",
        {"kind": "gaussian", "clip": False, "accumulate": True},
    ),
    "bounded": (
        "x + V·R, R ~ N(0, 1) clamped to [−1, 1], clipped to [0, 1]", {"kind": "gaussian", "bound": 1.0}
    ),
    "unbounded": ("x + V·R, R ~ N(0, 1), clipped to [0, 1]", {"kind": "gaussian"}),
    "uniform": ("x + V·R, R ~ U(−1, 1), clipped to [0, 1]", {"kind": "uniform"}),
}  # fmt: skip
_PROTOCOL = running.protocol("digits_noise")
SOURCES, SCALES = _PROTOCOL.sources, _PROTOCOL.scales


def cards(source: str, scale: Any, seed: int) -> dict[str, dict[str, Any]]:
    """
    Return every card of a seed as a table, by name.

    The other readings of the noise are measured on the networks that they were measured on when one of them was taken
    for the paper's: those with torch's initial weights and the last number of epochs.
    """
    shipped = paths.parse_toml((writing.ROOT / "models" / SOURCES[source].card).read_bytes())
    amplitudes = [v for v in writing.printed("digits_noise")["accuracy"]["V"] if v]
    sweeps = {name: {**noise, "strengths": amplitudes} for name, (_, noise) in READINGS.items()}
    recipe, tables = shipped["recipe"], {}
    # The longest first: a short training that starts last leaves the other cores idle for less.
    for epochs in sorted(scale.epochs, reverse=True):
        for initial in INITIAL_WEIGHTS:
            every = initial == "torch" and epochs == max(scale.epochs)
            tables[f"{source}-{seed}-{initial}-{epochs}"] = {
                "paper": "digits-noise",
                "scale": scale.name,
                "model": {
                    "factory": shipped["model"]["factory"],
                    "arguments": {} if initial == "torch" else {"initial_weights": initial},
                },
                "recipe": {
                    **recipe, "arguments": {**recipe["arguments"], "epochs": epochs}, "seed": seed,
                    "start": "manual",
                },
                "data": shipped["data"],
                "sweeps": sweeps if every else {PAPER_READING: sweeps[PAPER_READING]},
            }  # fmt: skip
    return tables
