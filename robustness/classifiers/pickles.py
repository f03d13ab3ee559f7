"""Pickled checkpoints, read without running code: what lies beside the tensors becomes a placeholder."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

BUILTINS = ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range", "slice", "str", "tuple")
DATES = ("date", "datetime", "time", "timedelta", "timezone")
PATHS = ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
HARMLESS = (
    "argparse.Namespace", "types.SimpleNamespace", "functools.partial", "copyreg._reconstructor", "uuid.UUID",
    "decimal.Decimal", "collections.defaultdict", "numpy.dtype", "numpy.ndarray",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in BUILTINS),
    *(f"datetime.{name}" for name in DATES),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)  # fmt: skip
"""What trainings keep beside the weights and a pickle makes by a call. Not even these are called here."""
COLLECTION = re.compile(r"Can only (SETITEM|APPEND|append|extend).* but got <class '[\w.]*\.pickles\.([^']+)'>")
"""What torch says where a pickle fills an object of a class of its own like a dictionary or a list."""


class Placeholder:
    """What a pickle would have made an object of: it has the state that the file gives it, and runs nothing."""

    stands_for = "an object"
    state: Any = None

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Take any arguments, and forget them."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def is_module(self) -> bool:
        """Whether it stands for a whole `torch.nn.Module`."""
        return isinstance(self.state, dict) and "_modules" in self.state


class _Uncalled(type):
    """The class of placeholders' classes that a pickle may name, and make instances of, but not call."""

    stands_for: str

    def __call__(cls, *args: Any, **options: Any) -> Any:
        raise pickle.UnpicklingError(f"GLOBAL {cls.stands_for}")


def _placeholder(name: str, collection: type | None) -> Any:
    body: dict[str, Any] = {"stands_for": name}
    if collection is not None:
        body["__new__"] = lambda cls, *args, **options: collection()
    return (type if name in HARMLESS else _Uncalled)(name, (Placeholder,), body)


def load(path: Path) -> Any:
    """
    Return what ``torch.save`` wrote: tensors, numbers, texts and collections of them.

    Nothing that the file names is imported or called: `torch.load` reads it with ``weights_only``, and finds a
    `Placeholder` under every other name. A file that would call anything but a class of ``HARMLESS`` is refused.
    """
    import torch

    names, collections = set(HARMLESS), dict[str, type]({"collections.defaultdict": OrderedDict})
    with suppress(Exception):  # a file as torch before 1.6 wrote it, or a torn one: then these names are all
        names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    while True:
        allowed: list[Any] = [(_placeholder(name, collections.get(name)), name) for name in sorted(names)]
        try:
            with torch.serialization.safe_globals(allowed):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            filled = COLLECTION.search(str(error))
            if filled is None or filled[2] in collections:
                raise
            collections[filled[2]] = OrderedDict if filled[1] == "SETITEM" else list
