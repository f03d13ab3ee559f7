"""Build a card's module: import the factory, call it, load the weights, and record the files that were used."""

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

from robustness.classifiers import adapt, call_factory, checkpoints, file_reads, libraries, process_state, weights
from robustness.classifiers.adapter import AdaptedModel, check_single_input, logits_hook
from robustness.classifiers.file_reads import FileReads, module_file
from robustness.classifiers.spec import ModelCard
from robustness.errors import AGAIN, ModelError
from robustness.util import source_files, syntax


@dataclass(frozen=True)
class LoadedModel:
    """
    A module with the files (path → hash) and distributions (name → version) that loading it used.

    ``file_reads`` records the files that its code reads later, whenever it runs.
    """

    module: nn.Module
    sources: dict[str, str]
    distributions: dict[str, str]
    notes: tuple[str, ...] = ()
    """How the model was adapted and its checkpoint read; stored with its evidence."""
    notices: tuple[str, ...] = ()
    """Warnings about loading, for the reader of the run."""
    reads: FileReads = field(default_factory=FileReads)

    @property
    def dependencies(self) -> dict[str, str]:
        """The hash of every file that the module depends on, as known now: sources, and the files they read."""
        return {**self.reads.digests(), **self.sources}


@contextmanager
def on_path(project: Path) -> Iterator[None]:
    """Put a card's project folder first on ``sys.path``; it stays there for later imports."""
    sys.path[:] = [str(project), *(entry for entry in sys.path if entry != str(project))]
    importlib.invalidate_caches()
    yield


def import_callable(card: ModelCard, name: str) -> Callable[..., Any]:
    """Import ``module:callable``; ModelError if that fails or another project's module of that name is loaded."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the project's own code
        _check_module_origins(card, name)
        raise ModelError(f"{card.path}: {name}: importing raised {type(error).__name__}: {error}") from error
    _check_module_origins(card, name)
    imported = getattr(module, attribute, None)
    if not callable(imported):
        raise ModelError(f"{card.path}: {name}: {module_name} has no callable {attribute!r}")
    return imported  # type: ignore[no-any-return]


def _check_module_origins(card: ModelCard, name: str) -> None:
    """Raise ModelError if a module that a callable imports was loaded from another project."""
    closure = source_files.ImportClosure([name.partition(":")[0]], [str(card.project), *sys.path])
    for module, expected in closure.files.items():
        actual = _loaded_file(module)
        if actual is not None and expected.resolve() != actual:
            raise ModelError(
                f"{card.path}: {name}: {module} is loaded from {actual}, but this card's is {expected}; "
                "give the modules of two projects in one run different names"
            )


def build_module(card: ModelCard, notices: list[str] | None = None) -> nn.Module:
    """
    Call a card's factory; the weights are random, unless it is an exported file.

    What the factory prints or changes in the process is appended to ``notices``.
    """
    if card.file.model.factory_library is not None:
        with _name_card_in_errors(card):
            return adapt.build_library_model(card)
    name, arguments = card.file.model.factory, card.file.model.arguments
    what = f"{card.path}: {name}"

    def make() -> Any:
        file_reads.audit_native_readers()
        factory = import_callable(card, name)
        call_factory.check_arguments(what, factory, arguments)
        try:
            with file_reads.attribute_library_reads():
                return factory(**arguments)
        except Exception as error:  # the factory is the user's code
            raise ModelError(f"{what} raised {type(error).__name__}: {error}") from error

    threads = process_state.foreign_threads()
    with on_path(card.project), process_state.restore_state() as changed:
        module, printed = call_factory.call_with_timeout(what, make)
    if notices is not None:
        if printed:
            notices.append(f"{name} printed {len(printed.splitlines())} line(s) while it was called: {printed[:200]}")
        if reported := [item for item in changed if item != process_state.ENVIRONMENT]:  # many libraries set variables
            notices.append(f"{name} changed {', '.join(reported)} of the whole process; that was restored afterwards")
        if running := process_state.describe_running_threads(threads):
            notices.append(f"{name} {running}")
    if not isinstance(module, nn.Module):
        raise ModelError(f"{card.path}: {name} must return a torch.nn.Module, got {type(module).__name__}")
    return module


def build_untrained(card: ModelCard, classes: Sequence[str]) -> nn.Module:
    """Build the module that a recipe trains: the factory's, in its adapter if the card needs one."""
    module = build_module(card)
    if not adapt.needs_adapter(card, module):
        return module
    with _name_card_in_errors(card):
        return adapt.adapt_model(card, module, classes)[0]


def initialize_lazy_layers(module: nn.Module, shape: Callable[[], tuple[int, int, int]]) -> None:
    """
    Initialise lazy layers by a forward pass of two images; ``shape`` returns (C, H, W) and is called only if needed.

    Raise ModelError if the pass does not reach them.
    """
    lazy = nn.modules.lazy.LazyModuleMixin
    if not any(isinstance(layer, lazy) for layer in module.modules()):
        return
    modes = {layer: layer.training for layer in module.modules()}
    with torch.no_grad():
        try:
            module.eval()(torch.zeros(2, *shape()))
        except Exception as error:  # the model's own code
            raise ModelError(
                f"its lazy layers get their shapes from a forward pass, which raised {type(error).__name__} for images "
                f"of shape (N, {', '.join(map(str, shape()))}): {error}"
            ) from error
    for layer, training in modes.items():
        layer.training = training
    if uninitialized := [name for name, layer in module.named_modules() if isinstance(layer, lazy)]:
        raise ModelError(
            "a forward pass must reach all lazy layers, which get their shapes from it; it does not reach "
            + weights.abbreviate(uninitialized)
        )


def unwrap(module: nn.Module) -> nn.Module:
    """Return the module whose weights are read and written: the one inside the adapter, if there is one."""
    return module.model if isinstance(module, AdaptedModel) else module


def load_model(
    card: ModelCard,
    weights_file: Path,
    classes: Sequence[str] = (),
    shape: tuple[int, int, int] | None = None,
    excluded: Sequence[Path] = (),
) -> LoadedModel:
    """
    Build a card's module in evaluation mode on the CPU and load the weights of a file into it.

    ``classes`` and ``shape`` are the data's, for a model that may have its own. Files in ``excluded`` are tracked
    elsewhere and not listed if the factory reads them.
    """
    library, earlier = card.file.model.factory_library, set(sys.modules)
    notices: list[str] = []
    recorded = FileReads(card.project, [*excluded, *weights.all_files(weights_file)])
    with _name_card_in_errors(card, weights_file), torch.random.fork_rng(devices=[]), recorded.recording():
        module, notes = adapt.load_library_model(card, weights_file) if library else (build_module(card, notices), [])
        if library is None and card.weights is None and card.file.recipe is None:  # the factory's own weights
            weights.load_into(module, weights.read(weights_file), weights_file)
        elif library is None:
            notes = checkpoints.load_checkpoint(module, weights_file, card.file.model.checkpoint_key)
        check_single_input(module, card.file.model.factory)
        if adapt.needs_adapter(card, module):
            module, adapter_notes = adapt.adapt_model(card, module, classes, shape)
            notes += adapter_notes
        else:
            module.register_forward_hook(logits_hook)
    if library is not None:  # a library is identified by its version alone
        return LoadedModel(
            module.eval(), {}, source_files.distribution_versions({libraries.PACKAGES[library]}), tuple(notes)
        )
    closure = _factory_closure(card, sorted(set(sys.modules) - earlier))
    recorded.add_imports(list(closure.files.values()))
    hashes = file_reads.import_time_hashes(source_files.hash_files(closure.files.values(), card.project), card.project)
    hashes = {**recorded.digests(), **hashes}
    check_unchanged(hashes, card.project)
    distributions = source_files.distribution_versions(closure.packages)
    return LoadedModel(module.eval(), hashes, distributions, tuple(notes), tuple(notices), recorded)


def check_unchanged(hashes: Mapping[str, str], project: Path) -> None:
    """Raise ModelError if files have changed since they were read: no number could be attributed to a version."""
    if changed := source_files.changed_files(hashes, project):
        raise ModelError(
            f"{', '.join(changed)} {'has' if len(changed) == 1 else 'have'} changed since this run read "
            f"{'it' if len(changed) == 1 else 'them'}; {AGAIN}"
        )


@contextmanager
def _name_card_in_errors(card: ModelCard, *files: Path) -> Iterator[None]:
    """Prefix errors with the card's path, unless they name it or one of its files."""
    try:
        yield
    except ModelError as error:
        if any(str(path) in str(error) for path in (card.path, *files)):
            raise
        raise ModelError(f"{card.path}: {error}") from error


def _factory_closure(card: ModelCard, new: list[str]) -> source_files.ImportClosure:
    """
    Return the modules that a factory uses: those that its text imports, and those that loading it imported.

    A module that is imported under a computed name may have been loaded before, for another card. So if the text
    computes names, every loaded module of the project counts: one too many is better than one too few.
    """
    factory, path = card.file.model.factory.partition(":")[0], [str(card.project), *sys.path]
    names = {factory, *new}
    closure = source_files.ImportClosure(sorted(names), path)
    if closure.by_name:
        below = f"{card.project}{os.sep}"
        names |= {name for name in list(sys.modules) if name != "__main__" and module_file(name).startswith(below)}
        closure = source_files.ImportClosure(sorted(names), path)
    for name in sorted(names - set(closure.files)):  # loaded from a file that its name does not lead to
        if (
            (file := _loaded_file(name))
            and name.partition(".")[0] != syntax.OWN
            and not source_files.is_installed(file)
        ):
            closure.files[name] = file
    return closure


def _loaded_file(module: str) -> Path | None:
    """Return the file that a module was loaded from, or None."""
    file = Path(module_file(module))
    return file.resolve() if file.is_file() else None
