"""From a card to a module: import the factory, call it, put the weights in, and note what was loaded."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustness.classifiers import adapt, call_factory, checkpoints, libraries, process_state, weights
from robustness.classifiers import file_reads as reads
from robustness.classifiers.adapter import AdaptedModel, check_single_input, logits_hook
from robustness.classifiers.file_reads import Reads, module_file
from robustness.classifiers.spec import ModelCard
from robustness.errors import AGAIN, ModelError
from robustness.util import source_files as sources
from robustness.util import syntax


@dataclass(frozen=True)
class LoadedModel:
    """
    A module with the files (path → hash) and distributions (name → version) that loading it used.

    ``reads`` hears what else its code reads, whenever it runs; ``notes`` say what was done to the model or its
    weights, for whoever reads the run.
    """

    module: nn.Module
    sources: dict[str, str]
    distributions: dict[str, str]
    notes: tuple[str, ...] = ()
    """What stands around the model, and what was seen through in its checkpoint: kept with its evidence."""
    notices: tuple[str, ...] = ()
    """What a reader of the run must know of how it was loaded."""
    reads: Reads = field(default_factory=Reads)

    @property
    def behind(self) -> dict[str, str]:
        """The hash of every file that is known to stand behind the module now: sources, and what these have read."""
        return {**self.reads.digests(), **self.sources}


@contextmanager
def on_path(project: Path) -> Iterator[None]:
    """Have a card's project folder first on ``sys.path``; it stays there, for imports that come later."""
    sys.path[:] = [str(project), *(entry for entry in sys.path if entry != str(project))]
    importlib.invalidate_caches()
    yield


def import_callable(card: ModelCard, name: str) -> Callable[..., Any]:
    """Import ``module:callable``; ModelError if it cannot be, or if another project's module of that name is loaded."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the project's own code
        _refuse_strangers(card, name)
        raise ModelError(f"{card.path}: {name}: importing raised {type(error).__name__}: {error}") from error
    _refuse_strangers(card, name)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ModelError(f"{card.path}: {name}: {module_name} has no callable {attribute!r}")
    return found  # type: ignore[no-any-return]


def _refuse_strangers(card: ModelCard, name: str) -> None:
    """Raise ModelError where a module that a callable imports is loaded, but from another project."""
    closure = sources.ImportClosure([name.partition(":")[0]], [str(card.project), *sys.path])
    for module, due in closure.files.items():
        got = _file(module)
        if got is not None and due.resolve() != got:
            raise ModelError(
                f"{card.path}: {name}: {module} is loaded from {got}, but this card's is {due}; "
                "two projects in one run need different module names"
            )


def build_module(card: ModelCard, notices: list[str] | None = None) -> nn.Module:
    """
    Call a card's factory; its weights are random, unless it is an exported file.

    What the factory prints is noted in ``notices``.
    """
    if card.file.model.by_name is not None:
        with _named(card):
            return adapt.build_library_model(card)
    name, arguments = card.file.model.factory, card.file.model.arguments
    what = f"{card.path}: {name}"

    def make() -> Any:
        reads.announce()
        factory = import_callable(card, name)
        call_factory.check_arguments(what, factory, arguments)
        try:
            with reads.calling():
                return factory(**arguments)
        except Exception as error:  # the factory is the user's code
            raise ModelError(f"{what} raised {type(error).__name__}: {error}") from error

    threads = process_state.threads()
    with on_path(card.project), process_state.set_back() as changed:
        module, printed = call_factory.call_with_timeout(what, make)
    if notices is not None:
        if printed:
            notices.append(f"{name} printed {len(printed.splitlines())} line(s) while it was called: {printed[:200]}")
        if said := [each for each in changed if each != process_state.ENVIRONMENT]:  # many libraries set variables
            notices.append(f"{name} changed {', '.join(said)} of the whole process; that was set back after it")
        if left := process_state.left_behind(threads):
            notices.append(f"{name} {left}")
    if not isinstance(module, nn.Module):
        raise ModelError(f"{card.path}: {name} must return a torch.nn.Module, got {type(module).__name__}")
    return module


def build_untrained(card: ModelCard, classes: Sequence[str]) -> nn.Module:
    """Build what a recipe trains: the factory's module, behind its normalisation where the card has any."""
    module = build_module(card)
    if not adapt.needs_adapter(card, module):
        return module
    with _named(card):
        return adapt.adapt_model(card, module, classes)[0]


def give_shapes(module: nn.Module, shape: Callable[[], tuple[int, int, int]]) -> None:
    """
    Give lazy layers their shapes by a pass of two images of a shape, (C, H, W), that is asked for where there are any.

    Raise ModelError where that pass does not get to them.
    """
    lazy = nn.modules.lazy.LazyModuleMixin
    if not any(isinstance(each, lazy) for each in module.modules()):
        return
    was = {each: each.training for each in module.modules()}
    with torch.no_grad():
        try:
            module.eval()(torch.zeros(2, *shape()))
        except Exception as error:  # the model's own code
            raise ModelError(
                f"its lazy layers get their shapes from a forward pass, which raised {type(error).__name__} for images "
                f"of shape (N, {', '.join(map(str, shape()))}): {error}"
            ) from error
    for each, training in was.items():
        each.training = training
    if left := [name for name, each in module.named_modules() if isinstance(each, lazy)]:
        raise ModelError(
            f"a forward pass must reach all lazy layers, to give them shapes, but not {weights.abbreviate(left)}"
        )


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module whose weights are read and written: the one that was adapted, where it was."""
    return module.model if isinstance(module, AdaptedModel) else module


def load_model(
    card: ModelCard,
    weights_file: Path,
    classes: Sequence[str] = (),
    shape: tuple[int, int, int] | None = None,
    without: Sequence[Path] = (),
) -> LoadedModel:
    """
    Build a card's module, in evaluation mode on the CPU, with the weights of a file in it.

    ``classes`` and ``shape`` are the data's, for a model that may have its own; files in ``without`` are known
    otherwise, and not listed where the factory reads them.
    """
    of, before = card.file.model.by_name, set(sys.modules)
    notices: list[str] = []
    heard = Reads(card.project, [*without, *weights.all_files(weights_file)])
    with _named(card, weights_file), torch.random.fork_rng(devices=[]), heard.listening():
        module, notes = adapt.with_weights(card, weights_file) if of else (build_module(card, notices), [])
        if of is None and card.weights is None and card.file.recipe is None:  # what the factory itself has made
            weights.load_into(module, weights.read(weights_file), weights_file)
        elif of is None:
            notes = checkpoints.load_checkpoint(module, weights_file, card.file.model.entry)
        check_single_input(module, card.file.model.factory)
        if adapt.needs_adapter(card, module):
            module, more = adapt.adapt_model(card, module, classes, shape)
            notes += more
        else:
            module.register_forward_hook(logits_hook)
    if of is not None:  # of a library all that counts is its version
        return LoadedModel(module.eval(), {}, sources.distribution_versions({libraries.PACKAGES[of]}), tuple(notes))
    closure = _closure(card, sorted(set(sys.modules) - before))
    heard.add_imports_of(list(closure.files.values()))
    listed = reads.as_imported(sources.hash_files(closure.files.values(), card.project), card.project)
    listed = {**heard.digests(), **listed}
    refuse_changed(listed, card.project)
    return LoadedModel(
        module.eval(), listed, sources.distribution_versions(closure.packages), tuple(notes), tuple(notices), heard
    )  # fmt: skip


def refuse_changed(listed: Mapping[str, str], project: Path) -> None:
    """Raise ModelError where files are others than they were when they were read: nobody knows what a number is of."""
    if other := sources.changed_files(listed, project):
        raise ModelError(
            f"{', '.join(other)} {'has' if len(other) == 1 else 'have'} changed since this run read "
            f"{'it' if len(other) == 1 else 'them'}; {AGAIN}"
        )


@contextmanager
def _named(card: ModelCard, *files: Path) -> Iterator[None]:
    """Have errors name the card that they are of, unless they name it or one of its files."""
    try:
        yield
    except ModelError as error:
        if any(str(path) in str(error) for path in (card.path, *files)):
            raise
        raise ModelError(f"{card.path}: {error}") from error


def _closure(card: ModelCard, new: list[str]) -> sources.ImportClosure:
    """
    Find what a factory uses: what its text imports, and what loading it brought in beyond that.

    A module that is imported by name may have been in before, for another card. So where the text shows that
    names are computed, every module of the project that is loaded counts: rather too many than one too few.
    """
    factory, path = card.file.model.factory.partition(":")[0], [str(card.project), *sys.path]
    names = {factory, *new}
    closure = sources.ImportClosure(sorted(names), path)
    if closure.by_name:
        below = f"{card.project}{os.sep}"
        names |= {name for name in list(sys.modules) if name != "__main__" and module_file(name).startswith(below)}
        closure = sources.ImportClosure(sorted(names), path)
    for name in sorted(names - set(closure.files)):  # loaded from a file that is not found by its name
        if (file := _file(name)) and name.partition(".")[0] != syntax.OWN and not sources.is_installed(file):
            closure.files[name] = file
    return closure


def _file(module: str) -> Path | None:
    """Return the file that a module was loaded from, if it is loaded and there is one."""
    file = Path(module_file(module))
    return file.resolve() if file.is_file() else None
