"""What signs-adversarial trains and sweeps, as cards: per seed one network without a defence and two with."""

from __future__ import annotations

from typing import Any

from reports import running

# By the attack of their training, as the page names them.
SYSTEMS = {"plain": "undefended", "fgsm": "FGSM training", "pgd": "PGD-7 training"}
DEFENDED = [system for system in SYSTEMS if system != "plain"]
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD"}
# 1/255 to 32/255, in units of the pixel range.
EPSILONS = [0.0039, 0.0078, 0.0157, 0.0314, 0.0627, 0.1255]
# The usual budget in L∞, by which the criteria judge.
USUAL, BUDGET = "0.0314", "8/255"
SEEDS = (0, 1, 2)
# Of PGD, by which the trained networks are attacked.
STEPS = 20


_PROTOCOL = running.protocol("signs_adversarial")
SOURCES, SCALES = _PROTOCOL.sources, _PROTOCOL.scales


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
    """
    Return callable and arguments of a training; both defences have one objective and differ in its attack alone.

    >>> recipe("pgd", SCALES["full"])["callable"]
    'models.defences.iterated:fit'
    """
    plan = {
        "epochs": scale.epochs, "optimizer": "adamw", "learning_rate": 0.003, "weight_decay": 0.01, "warmup": 0.2,
        "shift": 3, **scale.plan,
    }  # fmt: skip
    attack = {"epsilon": 0.0627}
    module, arguments = {
        "plain": ("plain", {}), "fgsm": ("adversarial", attack), "pgd": ("iterated", {**attack, "steps": 7}),
    }[system]  # fmt: skip
    return {"callable": f"models.defences.{module}:fit", "arguments": {**plan, **arguments}}


def _sweeps(twin: str, system: str) -> dict[str, dict[str, Any]]:
    """Return both attacks on the network itself and, for a defended one, those made on its undefended twin."""
    attacks: dict[str, dict[str, Any]] = {
        "fgsm": {"kind": "fgsm", "strengths": EPSILONS},
        "pgd": {"kind": "pgd", "steps": STEPS, "relative_step_size": 0.1, "strengths": EPSILONS},
    }
    twins = {f"twin-{name}": {**table, "source": twin} for name, table in attacks.items()}
    return attacks if system == "plain" else attacks | twins
