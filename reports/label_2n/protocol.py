"""What the label-2n paper does, as cards: a substitute; for every fold each defence, alone and beside a detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

CURVE = [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]
"""ε of the curves; 0 is the clean pass that every card has."""
MIXED = {"uniform": [0.0, 0.5], "clean_fraction": 0.5}
SMALL = [round(size / 255, 4) for size in (2, 4, 8)]
"""ε of the attacks of many steps: where they are mostly not caught."""
FEATURES = [1, 5, 20]
"""Of the attack that changes few features, on the systems trained with such or their like."""
WEIGHTS = [0.0, 1.0, 10.0]
"""Of the attack probability in the adaptive attack: the best is kept for each image."""
RADII = [1.0, 0.5, 0.25]
"""Of its balls, in ε: the strengths double each time, so that what is found at one is looked for at the next."""
FILTERED = ("plain", "adv", "cdaec", "distill")
"""Those that cannot tell an attack, and get the detector BIN beside them."""
BESIDE = ("adv", "cdaec", "distill")
"""Those whose detector can also be trained on examples of themselves; the others' is that of the undefended network."""
SYSTEMS = (
    *("plain+bin", "adv+bin", "null", "null-stg", "2n", "cdaec+bin", "distill+bin"),
    *(f"{kind}+own" for kind in BESIDE),
)
"""
What is evaluated: each gives its accuracy without the filter and with it.

``+bin``: the detector was trained on examples of the undefended network of the fold, the twin of the substitute;
``+own``: on examples of the model that it stands beside.
"""
FALSE_ALARMS = 0.01
"""Share of clean validation images that the second threshold discards; the first one is 0.5."""

VARIANTS = {
    "2n": "2N, as measured",
    "2n-long": "2N, three times the epochs",
    "2n-sharp": "2N without smoothing",
    "2n-elsewhere": "2N, trained on examples of the undefended network",
    "plain+bin": "BIN, as measured: trained on examples of the undefended network",
    "plain+bin-on-2n": "BIN, trained on examples of 2N",
}
"""Systems of the first fold by which the causes of 2N's sensitivity are looked for."""


@dataclass(frozen=True)
class Source:
    """
    A data set: its file, the array of its groups, the network's shape, and how its images may be augmented.

    ``network`` is the factory of all classifiers, ``detector`` what it is called with for BIN, ``systems`` the module
    of the factories of what is made of several. A set without an official test set is evaluated on its folds alone.
    """

    file: str | None
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    groups: str | None = None
    flip: bool = False
    shift: int = 0
    network: str = "models.vgg:vgg"
    detector: Mapping[str, Any] = field(default_factory=lambda: {"depth": 16})
    systems: str = "models.systems"
    official: bool = True

    def data(self, split: Mapping[str, Any]) -> dict[str, Any]:
        """Return a card's ``[data]``."""
        if self.file is None:
            return {"name": "digits", "split": dict(split)}
        groups = {} if self.groups is None else {"groups": self.groups}
        return {"name": "array", "file": self.file, **groups, "split": dict(split)}


SOURCES = {
    "cifar10": Source("cifar10.npz.xz", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), flip=True, shift=4),
    # A mirrored sign may be another sign.
    "gtsrb": Source("gtsrb32.npz.xz", 43, (0.290, 0.264, 0.274), (0.260, 0.251, 0.257), "train_track", shift=2),
    "digits": Source(
        None, 10, (0.3,), (0.35,), network="models.small:small", detector={}, systems="models.small", official=False
    ),
}


@dataclass(frozen=True)
class Scale:
    """How much of the paper's protocol a run does."""

    name: str
    width: float
    folds: int
    plan: Mapping[str, Any]
    sparse: Mapping[str, Any] | None
    """How NULL's original form differs, whose every attack costs as many passes as features; None leaves it out."""
    few: int = 1000
    """Test images of a fold for the attacks of many steps."""
    steps: int = 20
    """Of those."""
    shifts: bool = True
    """Whether images move by some pixels in training, which few epochs of a narrow network do not make up for."""
    clean_share: float = 0.25
    """Of NULL's epochs, those on clean images alone."""
    only: tuple[int, ...] = ()
    """The folds that are measured, if not all."""
    seeds: int = 1
    """Trainings of each fold, from the seeds 0, 1, …"""
    beside: bool = True
    """Whether a second detector is trained on examples of the model that it stands beside."""
    tested: int | None = None
    """Held-out images of a fold that systems are tested on; None: all of them."""
    behind: bool = True
    """Whether CDAEC's classifier is trained on the autoencoder's output; if not, it is the undefended network's."""

    @property
    def held_out(self) -> dict[str, Any]:
        """What a card's ``[data]`` says of the held-out images, beside the split."""
        return {} if self.tested is None else {"num_test_images": self.tested}

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The trainings of every system, in their order: (fold, seed) each."""
        return [(fold, seed) for fold in self.only or range(self.folds) for seed in range(self.seeds)]


SCALES = {
    "smoke": Scale(
        "smoke", 0.5, 2, {"epochs": 3, "learning_rate": 0.02, "batch_size": 32},
        sparse={"count": 200, "features": 3, "epochs": 3, "clean_epochs": 2}, few=20, steps=3, tested=300,
    ),
    "short": Scale(
        "short", 0.125, 3, {"epochs": 8, "learning_rate": 0.02, "warmup": 0.25}, shifts=False,
        sparse={"count": 5000, "features": 20, "epochs": 40, "clean_epochs": 30}, beside=False, behind=False,
    ),
    "medium": Scale(
        "medium", 0.125, 3, {"epochs": 24, "learning_rate": 0.02, "warmup": 0.25}, shifts=False,
        sparse={"features": 20, "clean_epochs": 18},
    ),
    "full": Scale(
        "full", 1.0, 5, {"epochs": 200, "learning_rate": 0.1, "warmup": 0.05, "patience": 30},
        sparse={"features": 100, "clean_epochs": 150},
    ),
}  # fmt: skip
WORST = 1
"""The fold of CIFAR-10 on which 2N has the lowest mean accuracy with its filter at the short scale."""
VARIED: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("cifar10", "medium"): {
        "width": 0.25, "only": (WORST,), "seeds": 2, "sparse": None, "shifts": True,
        "plan": {"epochs": 20, "learning_rate": 0.02, "warmup": 0.25},
    },
}  # fmt: skip
"""What a scale has otherwise for a data set."""


def scale(name: str, source: str) -> Scale:
    """Return a scale as it is for a data set."""
    return replace(SCALES[name], **VARIED.get((source, name), {}))


def cards(source: str, scale: Scale, runs: range | None = None) -> dict[str, dict[str, Any]]:
    """
    Return every card of a data set as a table, by name: first what others need.

    ``runs`` chooses among `Scale.runs` by number; a run's number is the second part of its cards' names.
    """
    about = SOURCES[source]
    whole = {"kind": "predefined"} if about.official else {"kind": "stratified", "fraction": 0.2}
    made = {f"{source}-substitute": _card(about, scale, f"{source}-substitute", "plain", whole)}
    for number in runs or range(len(scale.runs)):
        fold, seed = scale.runs[number]
        split = {"kind": "kfold", "k": scale.folds, "fold": fold}
        made |= _run(about, scale, f"{source}-{number}", split, seed)
    return made


def _run(
    about: Source, scale: Scale, name: str, split: Mapping[str, Any], seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    kinds = ["plain", "adv", "null", "null-stg", "2n", "teacher", "bin", "denoiser", "cdaec", "distill"]
    left_out = {*([] if scale.behind else ["denoiser"]), *([] if scale.sparse else ["null-stg"])}
    kinds += [f"bin-{kind}" for kind in BESIDE if scale.beside] + [f"{kind}+bin" for kind in FILTERED]
    kinds += [f"{kind}+own" for kind in BESIDE if scale.beside]
    for kind in kinds:
        if kind not in left_out:
            card = _card(about, scale, f"{name}-{kind}", kind, split, name)
            if seed:
                card["recipe"]["seed"] = seed
            yield f"{name}-{kind}", card


OUTPUTS: dict[str, Callable[[int], int]] = {
    "null": lambda classes: classes + 1,
    "null-stg": lambda classes: classes + 1,
    "2n": lambda classes: 2 * classes,
    "bin": lambda classes: 2,
}
DECISIONS = {"null": "null", "null-stg": "null", "2n": "2n"}
FACTORIES = {"cdaec": "denoised", "denoiser": "denoised"}
DENOISING: dict[str, Any] = {"optimizer": "adam", "learning_rate": 0.002, "weight_decay": 0.0}
"""A squared error's gradient is far smaller than a cross-entropy's; Adam does not mind."""
RECIPES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "plain": ("models.defences.plain:fit", {}, {}),
    "adv": ("models.defences.adversarial:fit", {}, {}),
    "null": ("models.defences.null:fit", {}, {}),
    "null-stg": ("models.defences.null_sparse:fit", {}, {"attacked": "plain"}),
    "2n": ("models.defences.twon:fit", {}, {}),
    "teacher": ("models.defences.plain:fit", {"temperature": 20.0}, {}),
    "distill": ("models.defences.distillation:fit", {"temperature": 20.0}, {"teacher": "teacher"}),
    "bin": ("models.defences.detector:fit", {}, {"attacked": "plain"}),
    "cdaec": ("models.defences.behind:fit", {}, {"denoised": "denoiser", "attacked": "plain"}),
    "denoiser": ("models.defences.denoising:fit", DENOISING, {"classifier": "plain"}),
}


def _card(
    about: Source, scale: Scale, name: str, kind: str, split: Mapping[str, Any], fold: str = ""
) -> dict[str, Any]:
    alone, _, filtered = kind.partition("+")
    arguments: dict[str, Any] = {"width": scale.width, "mean": list(about.mean), "std": list(about.std)}
    arguments["outputs"] = OUTPUTS[kind](about.classes) if kind in OUTPUTS else about.classes
    detects = kind.partition("-")[0] == "bin"
    if detects:
        arguments |= {**about.detector, "outputs": 2}
    if filtered:
        factory = f"{about.systems}:{'denoised_and_filtered' if alone == 'cdaec' else 'filtered'}"
        recipe: dict[str, Any] = {"callable": "models.defences.detector:join"}
        needs = {"classifier": alone, "detector": "bin" if filtered == "bin" else f"bin-{alone}"}
    else:
        factory = f"{about.systems}:{FACTORIES[kind]}" if kind in FACTORIES else about.network
        callable_, own, needs = RECIPES["bin" if detects else "denoiser" if _old(kind, scale) else kind]
        if detects and kind != "bin":
            needs = {"attacked": kind.removeprefix("bin-")}
        plan: dict[str, Any] = {**scale.plan, **({"flip": True} if about.flip else {}), **own}
        if scale.shifts and about.shift:
            plan["shift"] = about.shift
        if kind == "null":
            plan["clean_epochs"] = round(scale.clean_share * scale.plan["epochs"])
        if kind == "null-stg":
            plan |= scale.sparse or {}
        recipe = {"callable": callable_, "arguments": plan, "start": "manual"}
    decision = DECISIONS.get(kind, "bin" if filtered else "argmax")
    found: dict[str, Any] = {
        "name": name,
        "scale": "full" if scale.name == "full" else "smoke" if scale.name == "smoke" else "short",
        "paper": "label-2n",
        "model": {"factory": factory, "arguments": arguments, "decision": {"kind": decision}},
        "recipe": recipe,
        "data": about.data(split),
    }
    if needs:
        found["recipe"]["needs"] = {role: f"{fold}-{other}.toml" for role, other in needs.items()}
    return found


def _old(kind: str, scale: Scale) -> bool:
    """Whether CDAEC is the autoencoder before the undefended network, as at the short scale."""
    return kind == "cdaec" and not scale.behind


def evaluated(trained: Mapping[str, Mapping[str, Any]], source: str, scale: Scale) -> dict[str, dict[str, Any]]:
    """
    Return the systems of some runs with the sweeps that they are judged by, three cards each.

    On the fold's own held-out images (``@fold``) what the paper does: examples made on the substitute, as a curve and
    mixed. Mixed on the official test set too (``@official``). On a few of the fold's images attacks on the system
    itself (``@few``).
    """
    made = {}
    for name, table in trained.items():
        system = name.partition("-")[2].partition("-")[2]
        if system not in SYSTEMS:
            continue
        box = {"kind": "fgsm", "source": f"{source}-substitute.toml"}
        mixed = {"mixed": {**box, "strengths": [MIXED]}}
        for suffix, data, sweeps in (
            ("@fold", scale.held_out, {"curve": {**box, "strengths": CURVE}, **mixed}),
            ("@official", {"test": "official"}, mixed),
            ("@few", {"num_test_images": scale.few}, _white(scale.steps, sparse=system.startswith("null"))),
        ):
            if suffix == "@official" and not SOURCES[source].official:
                continue
            if suffix == "@few" and system.endswith("+own"):
                continue
            made[name + suffix] = {
                **table, "name": name + suffix, "data": {**table["data"], **data}, "sweeps": sweeps
            }  # fmt: skip
    return made


def _white(count: int, *, sparse: bool) -> dict[str, Any]:
    """Return the attacks on the system itself, of one step and of many, that do and do not care about the detector."""
    few = {"stg": {"kind": "stg", "strengths": FEATURES}} if sparse else {}
    steps = {"steps": count, "relative_step_size": 2 / count, "random_start": False, "strengths": SMALL}
    one = {**steps, "steps": 1, "relative_step_size": 1.0}
    return {
        "fgsm": {"kind": "fgsm", "strengths": [*SMALL, 0.1, 0.3]},
        "pgd": {"kind": "pgd", **steps},
        "adaptive-1": {"kind": "adaptive-pgd", **one, "detector_weights": WEIGHTS},
        "adaptive": {"kind": "adaptive-pgd", **steps, "detector_weights": WEIGHTS, "radius_fractions": RADII},
        **few,
    }
