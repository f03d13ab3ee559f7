"""What signs-adversarial trains and sweeps, as cards: per seed one network without a defence and two with."""

from __future__ import annotations

from typing import Any

from reports import running

_PROTOCOL = running.protocol("signs_adversarial")
SOURCES, SCALES, SYSTEMS, ATTACKS = _PROTOCOL.sources, _PROTOCOL.scales, _PROTOCOL.systems, _PROTOCOL.attacks
USUAL, BUDGET, SEEDS = _PROTOCOL.usual, _PROTOCOL.budget, _PROTOCOL.seeds
DEFENDED = [system for system in SYSTEMS if system != "plain"]
STEPS = _PROTOCOL.sweeps["pgd"]["steps"]


def cards(source: str, scale: Any, seed: int) -> dict[str, dict[str, Any]]:
    """Return every card of a seed as a table, by name."""
    return {f"{source}-{seed}-{system}": _card(SOURCES[source], source, scale, seed, system) for system in SYSTEMS}


def _card(source: Any, name: str, scale: Any, seed: int, system: str) -> dict[str, Any]:
    return {
        # The number of images is an input of the result, and no key of a card states it for one sweep alone.
        "description": f"{SYSTEMS[system]}, seed {seed}; {scale.few:,} test images under PGD",
        "paper": "signs-adversarial",
        "scale": scale.name,
        "model": {"factory": "models.signs:signs", "arguments": {**source.model, "width": scale.width}},
        "recipe": {**recipe(system, scale), "seed": seed, "start": "manual"},
        "data": dict(source.data),
        "sweeps": _sweeps(f"{name}-{seed}-plain.toml", system),
    }


def recipe(system: str, scale: Any) -> dict[str, Any]:
    """Return callable and arguments of a training; both defences have one objective and differ in its attack alone."""
    module, arguments = (_PROTOCOL.trainings[system][key] for key in ("module", "arguments"))
    return {
        "callable": f"models.defences.{module}:fit",
        "arguments": {**_PROTOCOL.plan, "epochs": scale.epochs, **scale.plan, **arguments},
    }


def _sweeps(twin: str, system: str) -> dict[str, dict[str, Any]]:
    """Return both attacks on the network itself and, for a defended one, those made on its undefended twin."""
    attacks = {name: {**table, "strengths": _PROTOCOL.epsilons} for name, table in _PROTOCOL.sweeps.items()}
    twins = {f"twin-{name}": {**table, "source": twin} for name, table in attacks.items()}
    return attacks if system == "plain" else attacks | twins
