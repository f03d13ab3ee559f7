"""What digits-noise trains and sweeps, as cards: per seed two kinds of initial weights at several epochs."""

from __future__ import annotations

from typing import Any

from reports import running, writing
from reports.digits_noise import published
from robustness.util import paths

_PROTOCOL = running.protocol("digits_noise")
SOURCES, SCALES = _PROTOCOL.sources, _PROTOCOL.scales
INITIAL_WEIGHTS, NAMES, READINGS = _PROTOCOL.initial_weights, _PROTOCOL.names, _PROTOCOL.readings
METRICS, FIGURES = _PROTOCOL.metrics, _PROTOCOL.figures
PAPER_READING = next(iter(READINGS))


def cards(source: str, scale: Any, seed: int) -> dict[str, dict[str, Any]]:
    """
    Return every card of a seed as a table, by name.

    The other readings of the noise are measured on the networks that they were measured on when one of them was taken
    for the paper's: those with torch's initial weights and the last number of epochs.
    """
    shipped = paths.parse_toml((writing.ROOT / "models" / SOURCES[source].card).read_bytes())
    amplitudes = [v for v in published.AMPLITUDES if v]
    sweeps = {name: {**reading["noise"], "strengths": amplitudes} for name, reading in READINGS.items()}
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
