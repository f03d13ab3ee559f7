"""Objects that cards name: the package's own, imported when first used, and those of other distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from robustness.errors import EntryPointError

T = TypeVar("T")


def import_object(target: str) -> Any:
    """Import the object that "module:attribute" names."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


class Registry(Mapping[str, T]):
    """
    A mapping from names to objects that imports each object when it is first looked up.

    Args:
        group: Group of the entry points by which other distributions add objects.
        built_in: The package's own objects by name, as "module:attribute", or themselves if they cost no import.
        problem: Takes a name and the object of an entry point and returns what is wrong with it, or "".

    >>> names = Registry("robustness.example", {"join": "os.path:join"}, lambda name, thing: "")
    >>> "join" in names, names["join"]("a", "b"), list(names)
    (True, 'a/b', ['join'])
    """

    def __init__(self, group: str, built_in: Mapping[str, T | str], problem: Callable[[str, Any], str]) -> None:
        self.group = group
        self.built_in = built_in
        self._problem = problem
        self._loaded: dict[str, T] = {}

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        """Entry points by name; EntryPointError if two have one name, or one has a built-in name."""
        points: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in self.built_in:
                raise EntryPointError(f"{self._origin(point)}: {point.name!r} is built in; rename the entry point")
            if points.setdefault(point.name, point).value != point.value:
                raise EntryPointError(
                    f"{self._origin(point)}: {self._origin(points[point.name])} also has the name {point.name!r}; "
                    "uninstall one of them"
                )
        return points

    def _origin(self, point: EntryPoint) -> str:
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "a distribution"
        return f"entry point `{point.name} = {point.value}` of {distribution} in the group {self.group}"

    def __getitem__(self, name: str) -> T:
        """Return an object; KeyError if the name is unknown, EntryPointError if its entry point is broken."""
        target = self.built_in.get(name, "")
        if not isinstance(target, str):
            return target
        if name not in self._loaded:
            self._loaded[name] = import_object(target) if target else self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Any:
        """Load the object of an entry point."""
        point = self._entry_points[name]
        try:
            loaded = point.load()
        except Exception as error:  # whatever another distribution's import raises
            raise EntryPointError(
                f"{self._origin(point)} cannot be imported ({type(error).__name__}: {error}); fix or uninstall it"
            ) from error
        if problem := self._problem(name, loaded):
            raise EntryPointError(f"{self._origin(point)}: {problem}")
        return loaded

    def __contains__(self, name: object) -> bool:
        """Return whether the name is known; imports nothing."""
        return isinstance(name, str) and (name in self.built_in or name in self._entry_points)

    def __iter__(self) -> Iterator[str]:
        """Iterate over all names, built-in ones first; imports nothing."""
        yield from self.built_in
        yield from self._entry_points

    def __len__(self) -> int:
        return len(self.built_in) + len(self._entry_points)
