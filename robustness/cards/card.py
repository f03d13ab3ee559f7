"""The model card: a model, its training data, its sweeps and its claims."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from robustness.cards import profiles, renames
from robustness.cards.gate import WaiverTable
from robustness.cards.schema import CardFile, SweepTable
from robustness.classifiers import libraries
from robustness.data.spec import DataSpec
from robustness.errors import CardError, shown
from robustness.metrics import registry
from robustness.perturbations import Clean, Perturbation
from robustness.perturbations import strength as strengths
from robustness.util import paths, project, source_files
from robustness.util.validation_messages import format_problem

if TYPE_CHECKING:
    from robustness.mutations.kinds import Mutation

PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "pytest.ini", ".git")


@dataclass(frozen=True)
class Claim:
    """One claim of a card: a threshold for a metric at one strength of a sweep."""

    model: str
    sweep: str
    strength: str
    metric: str
    threshold: float
    family: str
    clean: tuple[tuple[str, float], ...] = ()
    """What the card claims of the clean images, metric and least value: some claims count only together with it."""

    @property
    def id(self) -> str:
        """The name in test ids and reports."""
        return f"{self.model}:{self.sweep}:{self.strength}:{self.metric}"


@dataclass(frozen=True)
class Overrides:
    """
    What a run changes about a card.

    Attributes:
        seed: The seed that the model is retrained from, with the models that its recipe needs.
        weights: The file of other weights than the card's, as ``--robustness-weights`` names it.
        data: Other test images than the card's, and the folder that their paths are relative to.
        data_folder: The folder of the card's data, if an option named one that is not the card's folder.
        project: The project, if it is not the one that the card's file lies in.
        mutation: The mutation of the model, for mutation testing.
        claimless: Whether only the sweeps are used, without claims.
    """

    seed: int | None = None
    weights: Path | None = None
    data: tuple[DataSpec, Path] | None = None
    data_folder: Path | None = None
    project: Path | None = None
    mutation: Mutation | None = None
    claimless: bool = False


@dataclass(frozen=True)
class Card:
    """A card, its path, and what the run overrides; paths in it are relative to its folder."""

    file: CardFile
    path: Path
    overrides: Overrides = Overrides()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.file.name

    @cached_property
    def project(self) -> Path:
        """The folder from which the card's modules are imported: the nearest that looks like a project's root."""
        return self.overrides.project or _project(self.path)

    def data(self, part: Literal["train", "test"]) -> tuple[DataSpec, Path]:
        """Return the images that the model is trained or tested on, and the folder that their paths are relative to."""
        if part == "test" and self.overrides.data is not None:
            return self.overrides.data
        return self.file.data, self.overrides.data_folder or self.path.parent

    def override(self, **changes: Any) -> Card:
        """Return the same card with other overrides; the arguments are fields of `Overrides`."""
        return replace(self, overrides=replace(self.overrides, **changes))

    @property
    def weights(self) -> Path | None:
        """The file of the weights that the card names, or that its factory includes."""
        model = self.file.model
        if model.weights is not None:
            return self.path.parent / model.weights
        return libraries.bundled_weights(model.factory, self.path.parent) if model.seed is None else None

    @property
    def described(self) -> dict[str, Any]:
        """The card's model without its weights, by content; a factory by name, without the path of its file."""
        model = self.file.model
        beside = libraries.config_files(model.factory, self.path.parent)
        read = {file.name: source_files.sha256_file(file) for file in beside}
        return {
            "factory": model.factory_library if model.factory_library in libraries.WITH_WEIGHTS else model.factory,
            "arguments": model.arguments,
            # What cards without it always had as a key stays their key.
            **({"adaptation": model.adaptation} if model.adaptation else {}),
            **({"files": read} if read else {}),
            **(self.overrides.mutation.key_fields if self.overrides.mutation else {}),
        }

    @property
    def baseline(self) -> Path:
        """The file of the card's baseline: as its [gate] names it, else in baselines/ beside the card."""
        named = self.file.gate.baseline if self.file.gate else None
        return self.path.parent / named if named else paths.place(self.path.parent / "baselines", self.name, ".json")

    def check_written(self, path: Path) -> None:
        """Raise CardError if a file in the card that a command will write is outside of its project."""
        if not path.resolve().is_relative_to(self.project.resolve()):
            raise CardError(
                f"{self.path}: names {path}, which is outside of its project {self.project}; name a file in the project"
            )

    @property
    def gated_sweeps(self) -> tuple[str, ...]:
        """The sweeps that the card's gate reads: those that it names, else all."""
        named = self.file.gate.sweeps if self.file.gate else None
        return ("clean", *self.file.sweeps) if named is None else named

    def waiver(self, claim: Claim) -> WaiverTable | None:
        """Return the waiver of a claim, if one is in force."""
        named = f"{claim.sweep}:{claim.strength}:{claim.metric}"
        return next((w for w in self.file.waivers if w.claim == named and not w.expired), None)

    def reseeded(self, seed: int, **arguments: Any) -> Card:
        """
        Return the same card with weights retrained from another seed (and with other recipe arguments).

        The models that its recipe needs are retrained from that seed too, except those with their own weights.
        """
        assert self.file.recipe is not None
        recipe = self.file.recipe.model_copy(
            update={"seed": seed, "arguments": {**self.file.recipe.arguments, **arguments}}
        )
        model = self.file.model.model_copy(update={"weights": None})
        return replace(self, file=self.file.model_copy(update={"recipe": recipe, "model": model})).override(seed=seed)

    def mutated(self, mutation: Mutation) -> Card:
        """Return the same card with a mutated model, retrained from its own seed if its training data are mutated."""
        recipe = self.file.recipe if mutation.operator.target == "training" else None
        return (self.reseeded(recipe.seed) if recipe else self).override(mutation=mutation)

    def perturbation(self, sweep: str) -> Perturbation:
        """Return a sweep's perturbation by the sweep's name."""
        return Clean() if sweep == "clean" else self.file.sweeps[sweep].perturbation

    def with_sweep(self, name: str, table: Mapping[str, Any]) -> Card:
        """Return the same card with another sweep, given as a card's table; CardError if it is invalid."""
        try:
            sweep = SweepTable.model_validate(table)
        except ValidationError as error:
            raise _refused("in this sweep", error, table, SweepTable) from error
        return replace(self, file=self.file.model_copy(update={"sweeps": {**self.file.sweeps, name: sweep}}))

    def family(self, sweep: str) -> str:
        """Return the family of a sweep's perturbation; of examples that are made on another model it is transfer."""
        perturbation = self.perturbation(sweep)
        own = perturbation.source_card is None or not perturbation.uses_model
        return perturbation.family if own else "transfer"

    def source(self, sweep: str) -> Path | None:
        """Return the card file of a sweep's source model; None if that is the swept model."""
        source_card = self.perturbation(sweep).source_card
        return None if source_card is None else self.path.parent / source_card

    def attacked_for(self, other: Card, sweep: str) -> Card:
        """Return this card as the source of another's sweep: attacked itself, at the same strengths, on its images."""
        table = other.file.sweeps[sweep]
        own = table.perturbation.model_copy(update={"source": None})
        sweeps = {sweep: table.model_copy(update={"perturbation": own})}
        file = self.file.model_copy(update={"sweeps": sweeps, "claims": {}})
        return replace(self, file=file).override(data=other.data("test"))

    def claims(self) -> Iterator[Claim]:
        """Return every claim in the order of the file."""
        for sweep, table in self.file.claims.items():
            chosen = table.strengths if table.strengths is not None else self.file.strengths_of(sweep)
            family = self.family(sweep)
            clean = tuple(self.file.clean.items())
            for i, strength in enumerate(chosen):
                for metric, row in table.thresholds.items():
                    if not isinstance(threshold := row[i], str):
                        held_by = registry.get(metric).family or family
                        yield Claim(self.name, sweep, strengths.name(strength), metric, threshold, held_by, clean)


def _refused(
    where: str, error: ValidationError, table: Mapping[str, Any], root: type[BaseModel], before: str = ""
) -> CardError:
    """Return the error for a table, one line per problem."""
    problems = [format_problem(dict(e), table, root) for e in error.errors()]
    return CardError("\n  ".join([f"{before}{len(problems)} problem(s) {where}", *problems]))


def _project(path: Path) -> Path:
    """Return the nearest folder above a file that looks like a project's root, or the file's folder."""
    for folder in path.resolve().parents:
        if any((folder / name).exists() for name in PROJECT_FILES):
            return folder
    return path.resolve().parent


def require_file(path: Path, problem: str, what: str) -> None:
    """Raise CardError if a path from the command line is no file."""
    if why := paths.missing(path):
        raise CardError(f"{what} must be a file, got {problem!r}: {path} {why}")


def load(path: Path) -> Card:
    """
    Read and check a model card; nothing that it names is imported.

    Args:
        path: The card's TOML file.

    Returns:
        The card.

    Raises:
        CardError: If the file cannot be read or a key is invalid; the message names file, key, value and repair.
    """
    try:
        table = paths.parse_toml(paths.read_bytes(path))
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: not a readable TOML file: {error}") from error
    return parse_card(table, path)


def parse_card(table: Mapping[str, Any], path: Path, root: Path | None = None) -> Card:
    """
    Validate a card's content; ``path`` is its actual or future path, ``root`` its project if known.

    CardError as of `load`.
    """
    whole = expand_profile(table, path, root)
    try:
        card = Card(CardFile.model_validate(whole), path, Overrides(project=root))
    except ValidationError as error:
        if changes := renames.renamed(table)[1]:
            raise CardError(renames.advice(path, changes)) from error
        raise _refused("in this card", error, whole, CardFile, f"{path}: ") from error
    _check_paths(card)
    _check_importable(card)
    return card


def _check_paths(card: Card) -> None:
    """Raise CardError if a path in a card is longer than file systems allow."""
    file = card.file
    named = {"model.factory": file.model.factory, "model.weights": file.model.weights}
    named |= {"data.file": file.data.file, "data.folder": file.data.folder}
    named["gate.baseline"] = file.gate.baseline if file.gate else None
    named |= {f"recipe.needs.{name}": path for name, path in (file.recipe.needs if file.recipe else {}).items()}
    named |= {f"sweeps.{name}.source": table.perturbation.source_card for name, table in file.sweeps.items()}
    for key, path in named.items():
        if path is not None and (why := paths.too_long(path)):
            raise CardError(f"{card.path}: {key} = {shown(path)}: {why}")


def expand_profile(table: Mapping[str, Any], path: Path, root: Path | None = None) -> dict[str, Any]:
    """Return a card's table with the sweeps of its profile added; the card's own sweeps take precedence."""
    name, own = table.get("profile"), table.get("sweeps", {})
    if not isinstance(name, str) or not isinstance(own, Mapping):
        return dict(table)  # nothing to do, or for the schema to refuse
    data = table.get("data", {}).get("name") if isinstance(table.get("data"), Mapping) else None
    shape = table.get("shape") or profiles.SHAPES.get(str(data))
    if not (isinstance(shape, list | tuple) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)):
        raise CardError(
            f"{path}: profile = {name!r}: its strengths depend on the image size; add shape = [channels, height, "
            f"width], got {shape!r}"
        )
    try:
        sweeps = profiles.sweeps(name, tuple(shape), project.profiles(root or _project(path)))
    except CardError as error:
        raise CardError(f"{path}: {error}") from None
    return {**table, "sweeps": {**sweeps, **own}}


def _check_importable(card: Card) -> None:
    model = card.file.model
    named = {"model.factory": model.factory} if model.factory_library is None else {}
    if model.factory_library is not None:
        package = libraries.PACKAGES[model.factory_library]
        reason = libraries.factory_error(model.factory, model.arguments, card.path.parent)
        if not reason and source_files.find_module_file(package, sys.path) is None:
            reason = f"needs {package}, which is not installed; {libraries.install_command(package)}"
        if reason:
            raise CardError(f"{card.path}: model.factory = {model.factory!r}: {reason}")
    if card.file.recipe:
        named["recipe.callable"] = card.file.recipe.callable
    for key, value in named.items():
        module, _, attribute = value.partition(":")
        file = source_files.find_module_file(module, [str(card.project), *sys.path])
        if file is None:
            raise CardError(
                f"{card.path}: {key} = {value!r}: there is no module {module!r} below {card.project} "
                "or among the installed ones; write 'module:callable'"
            )
        if not source_files.is_installed(file) and file.suffix == ".py":
            try:
                known = source_files.defines_name(file, attribute)
            except SyntaxError as error:
                raise CardError(f"{card.path}: {key} = {value!r}: {file} cannot be read: {error}") from error
            if not known:
                raise CardError(f"{card.path}: {key} = {value!r}: {file} defines no {attribute!r} at its top level")
