"""What the label-2n paper does, as cards: a substitute; for every fold each defence, alone and beside a detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from reports import running

_PROTOCOL = running.protocol("label_2n")
SOURCES, SCALES, NAMES, TITLES, VARIANTS = (
    getattr(_PROTOCOL, name) for name in ("sources", "scales", "names", "titles", "variants")
)
CURVE, FALSE_ALARMS = _PROTOCOL.curve, _PROTOCOL.false_alarms
MIXED = {"uniform": [0.0, 0.5], "clean_fraction": 0.5}
# Systems that cannot detect an attack, and get the detector BIN beside them.
FILTERED = ("plain", "adv", "cdaec", "distill")
# Systems whose detector can also be trained on examples of themselves; the others' is that of the undefended network.
BESIDE = ("adv", "cdaec", "distill")
# `+own`: the detector was trained on examples of the model that it stands beside.
SYSTEMS = (*NAMES, *(f"{kind}+own" for kind in BESIDE))


def systems(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the systems that were measured, in the order of the tables."""
    measured = {row["system"] for row in rows}
    return [system for system in NAMES if system in measured]


def scale(name: str, source: str) -> Any:
    """Return a scale as it is for a data set."""
    return SimpleNamespace(**{**vars(SCALES[name]), **_PROTOCOL.varied.get(source, {}).get(name, {})})


def runs(scale: Any) -> list[tuple[int, int]]:
    """Return the trainings of every system, in their order: (fold, seed) each."""
    return [(fold, seed) for fold in scale.only or range(scale.folds) for seed in range(scale.seeds)]


def cards(source: str, scale: Any, number: int) -> dict[str, dict[str, Any]]:
    """
    Return every card of a run as a table, by name: first what others need.

    ``number`` is an index of `runs` and the second part of the cards' names.
    """
    data, fold, seed = SOURCES[source], *runs(scale)[number]
    whole = {"kind": "predefined"} if data.official else {"kind": "stratified", "fraction": 0.2}
    tables = {f"{source}-substitute": _card(data, scale, f"{source}-substitute", "plain", whole)}
    kinds = ["plain", "adv", "null", "null-stg", "2n", "teacher", "bin", "denoiser", "cdaec", "distill"]
    omitted = {*([] if scale.behind else ["denoiser"]), *([] if scale.sparse else ["null-stg"])}
    with_detector = BESIDE if scale.beside else ()
    kinds += (
        [f"bin-{kind}" for kind in with_detector]
        + [f"{kind}+bin" for kind in FILTERED]
        + [f"{k}+own" for k in with_detector]
    )
    for kind in kinds:
        if kind not in omitted:
            name, split = f"{source}-{number}", {"kind": "kfold", "k": scale.folds, "fold": fold}
            tables[f"{name}-{kind}"] = card = _card(data, scale, f"{name}-{kind}", kind, split, name)
            card["recipe"] |= {"seed": seed} if seed else {}
    return tables


def _card(source: Any, scale: Any, name: str, kind: str, split: Mapping[str, Any], fold: str = "") -> dict[str, Any]:
    alone, _, filtered = kind.partition("+")
    detects = kind.partition("-")[0] == "bin"
    factor, extra = _PROTOCOL.outputs.get("bin" if detects else kind, (1, 0))
    arguments: dict[str, Any] = {"width": scale.width, "mean": source.mean, "std": source.std}
    arguments |= {"outputs": factor * source.classes + extra, **(source.detector if detects else {})}
    if filtered:
        factory = f"{source.systems}:{'denoised_and_filtered' if alone == 'cdaec' else 'filtered'}"
        recipe: dict[str, Any] = {"callable": "models.defences.detector:join"}
        needs = {"classifier": alone, "detector": "bin" if filtered == "bin" else f"bin-{alone}"}
    else:
        factory = f"{source.systems}:denoised" if kind in ("cdaec", "denoiser") else source.network
        recipe, needs = _recipe(source, scale, kind, detects)
    decision = _PROTOCOL.decisions.get(kind, "bin" if filtered else "argmax")
    if needs:
        recipe["needs"] = {role: f"{fold}-{other}.toml" for role, other in needs.items()}
    return {
        "name": name,
        "scale": scale.name if scale.name in ("full", "smoke") else "short",
        "paper": "label-2n",
        "model": {"factory": factory, "arguments": arguments, "decision": {"kind": decision}},
        "recipe": recipe,
        "data": _data(source, split),
    }


def _data(source: Any, split: Mapping[str, Any]) -> dict[str, Any]:
    groups = {"groups": source.groups} if source.groups else {}
    return {**({"name": "array", "file": source.file} if source.file else {"name": "digits"}), **groups, "split": split}


def _recipe(source: Any, scale: Any, kind: str, detects: bool) -> tuple[dict[str, Any], dict[str, str]]:
    # At the short scale CDAEC is the autoencoder before the undefended network.
    alike = "bin" if detects else "denoiser" if kind == "cdaec" and not scale.behind else kind
    recipe = _PROTOCOL.recipes[alike]
    needs = {"attacked": kind.removeprefix("bin-")} if detects and kind != "bin" else recipe.get("needs", {})
    plan: dict[str, Any] = {**scale.plan, **({"flip": True} if source.flip else {}), **recipe.get("arguments", {})}
    if scale.shifts and source.shift:
        plan["shift"] = source.shift
    if kind == "null":
        plan["clean_epochs"] = round(scale.clean_share * scale.plan["epochs"])
    if kind == "null-stg":
        plan |= scale.sparse
    return {"callable": f"models.defences.{recipe['module']}:fit", "arguments": plan, "start": "manual"}, needs


def evaluated(trained: Mapping[str, Mapping[str, Any]], source: str, scale: Any) -> dict[str, dict[str, Any]]:
    """
    Return the systems of some runs with the sweeps that they are judged by, three cards each.

    On the fold's own held-out images (``@fold``) what the paper does: examples made on the substitute, as a curve and
    mixed. Mixed on the official test set too (``@official``). On a few of the fold's images attacks on the system
    itself (``@few``).
    """
    tables = {}
    for name, table in trained.items():
        system = name.split("-", 2)[-1]
        if system not in SYSTEMS:
            continue
        black_box = {"kind": "fgsm", "source": f"{source}-substitute.toml"}
        mixed = {"mixed": {**black_box, "strengths": [MIXED]}}
        curve = {"curve": {**black_box, "strengths": CURVE}, **mixed}
        suffixes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "@fold": ({} if not scale.tested else {"num_test_images": scale.tested}, curve)
        }
        if SOURCES[source].official:
            suffixes["@official"] = ({"test": "official"}, mixed)
        if not system.endswith("+own"):
            suffixes["@few"] = ({"num_test_images": scale.few}, _white(scale.steps, sparse=system.startswith("null")))
        for suffix, (data, sweeps) in suffixes.items():
            tables[name + suffix] = {
                **table, "name": name + suffix, "data": {**table["data"], **data}, "sweeps": sweeps
            }  # fmt: skip
    return tables


def _white(count: int, *, sparse: bool) -> dict[str, Any]:
    """Return the attacks on the system itself, of one step and of many, that do and do not evade the detector."""
    tables = {name: dict(table) for name, table in _PROTOCOL.white.items() if sparse or name != "stg"}
    for name, steps in (("pgd", count), ("adaptive-1", 1), ("adaptive", count)):
        tables[name] |= {"steps": steps, "relative_step_size": 2 / steps if steps > 1 else 1.0, "random_start": False}
    return tables
