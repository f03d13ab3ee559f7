"""Read pickled checkpoints without executing code: objects other than tensors become placeholders."""

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
# Callables that checkpoints commonly name for values other than weights. They are not called here.
ALLOWED_NAMES = (
    "argparse.Namespace", "types.SimpleNamespace", "functools.partial", "copyreg._reconstructor", "uuid.UUID",
    "decimal.Decimal", "collections.defaultdict", "numpy.dtype", "numpy.ndarray",
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in BUILTINS),
    *(f"datetime.{name}" for name in DATES),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)  # fmt: skip
# torch's message if a pickle fills an object of a custom class like a dictionary or a list.
COLLECTION_ERROR = re.compile(r"Can only (SETITEM|APPEND|append|extend).* but got <class '[\w.]*\.pickles\.([^']+)'>")


class Placeholder:
    """Replaces an object of a pickle: it has the state that the file stores for it, and executes nothing."""

    class_name = "an object"
    state: Any = None

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Accept and ignore any arguments."""
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def is_module(self) -> bool:
        """Whether it replaces a whole `torch.nn.Module`."""
        return isinstance(self.state, dict) and "_modules" in self.state


class _NotCallable(type):
    """Metaclass of placeholders that a pickle may name and instantiate, but not call."""

    class_name: str

    def __call__(cls, *args: Any, **options: Any) -> Any:
        raise pickle.UnpicklingError(f"GLOBAL {cls.class_name}")


def _placeholder(name: str, collection: type | None) -> Any:
    body: dict[str, Any] = {"class_name": name}
    if collection is not None:
        body["__new__"] = lambda cls, *args, **options: collection()
    return (type if name in ALLOWED_NAMES else _NotCallable)(name, (Placeholder,), body)


def load(path: Path) -> Any:
    """
    Read what ``torch.save`` wrote: tensors, numbers, strings and collections of them.

    Nothing that the file names is imported or called: `torch.load` reads it with ``weights_only``, and every other
    name resolves to a `Placeholder`. A file that calls anything but ``ALLOWED_NAMES`` is rejected.
    """
    import torch

    names, collections = set(ALLOWED_NAMES), dict[str, type]({"collections.defaultdict": OrderedDict})
    with suppress(Exception):  # a truncated file, or one of torch before 1.6: ALLOWED_NAMES must do
        names |= set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    while True:
        allowed: list[Any] = [(_placeholder(name, collections.get(name)), name) for name in sorted(names)]
        try:
            with torch.serialization.safe_globals(allowed):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            filled = COLLECTION_ERROR.search(str(error))
            if filled is None or filled[2] in collections:
                raise
            collections[filled[2]] = OrderedDict if filled[1] == "SETITEM" else list
