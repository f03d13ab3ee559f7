"""From a card to a module: import the factory, call it, put the weights in, and note what was loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustness import sources, weights
from robustness.cards import Card
from robustness.errors import ModelError


@dataclass(frozen=True)
class Loaded:
    """A module with the source files (path → hash) and distributions (name → version) that loading it used."""

    module: nn.Module
    sources: dict[str, str]
    distributions: dict[str, str]


@contextmanager
def on_path(project: Path) -> Iterator[None]:
    """Have a card's project folder on ``sys.path``; it stays there, for imports that come later."""
    if str(project) not in sys.path:
        sys.path.insert(0, str(project))
    importlib.invalidate_caches()
    yield


def import_callable(card: Card, name: str) -> Callable[..., Any]:
    """Import ``module:callable``; ModelError if it cannot be, or if another project's module of that name is loaded."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the project's own code
        raise ModelError(f"{card.path}: {name}: importing raised {type(error).__name__}: {error}") from error
    due = sources.find(module_name, [str(card.project), *sys.path])
    got = getattr(module, "__file__", None)
    if due and got and due.resolve() != Path(got).resolve():
        raise ModelError(
            f"{card.path}: {name}: {module_name} is loaded from {got}, but this card's is {due}; "
            "two projects in one run need different module names"
        )
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ModelError(f"{card.path}: {name}: {module_name} has no callable {attribute!r}")
    return found  # type: ignore[no-any-return]


def load(card: Card, weights_file: Path) -> Loaded:
    """Build a card's module, in evaluation mode on the CPU, with the weights of a file in it."""
    before = set(sys.modules)
    factory_name = card.file.model.factory
    with on_path(card.project):
        factory = import_callable(card, factory_name)
        try:
            with torch.random.fork_rng(devices=[]):
                module = factory(**card.file.model.arguments)
        except Exception as error:  # the factory is the user's code
            raise ModelError(f"{card.path}: {factory_name} raised {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{card.path}: {factory_name} must return a torch.nn.Module, got {type(module).__name__}")
    weights.put(module, weights.read(weights_file), weights_file)
    # What importing could not have told from the text shows in what is loaded now and was not before.
    names = [factory_name.partition(":")[0], *sorted(set(sys.modules) - before)]
    closure = sources.Closure(names, [str(card.project), *sys.path])
    return Loaded(
        module.eval(),
        sources.hashes(closure.files.values(), card.project),
        sources.versions(closure.packages),
    )
