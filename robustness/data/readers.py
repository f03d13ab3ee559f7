"""Every data set: its file, and one line here; other distributions add entry points of `robustness.datasets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from robustness.data.images import Images
from robustness.util.registry import Registry


@dataclass(frozen=True)
class DatasetReader:
    """
    How the parts of a data set are read, and which keys of ``[data]`` it takes.

    Attributes:
        parts: Called with `spec` (the `DataSpec`), `root` (the folder of the data sets), `cache` (a folder for what is
            unpacked) and `progress` (called with a text, or None). Returns images by part: "train" and "test", or
            "all".
        embedded: Whether the images come with an installation and need no data root.
        needs: Keys of ``[data]`` of which a card must have exactly one: "file", "folder".
        takes: Keys of ``[data]`` that a card may have too.
        suffixes: Suffixes of its file.
    """

    parts: Callable[..., Mapping[str, Images]]
    embedded: bool = False
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()


TABLE = ("labels", "groups", "images", "part")
"""The keys of a table of pictures, besides its path."""


def _problem(name: str, candidate: Any) -> str:
    """Return why an entry point is no data set, or ""."""
    if not isinstance(candidate, DatasetReader):
        return f"must be a robustness.data.DatasetReader, got {candidate!r}; name an instance"
    return ""


DATASETS: Registry[DatasetReader] = Registry(
    "robustness.datasets",
    {
        "digits": "robustness.data.digits:READER",
        "mnist": "robustness.data.mnist:READER",
        "array": "robustness.data.arrays:READER",
        "folder": "robustness.data.folder:READER",
        "parquet": "robustness.data.parquet:READER",
        "huggingface": "robustness.data.huggingface:READER",
        "cifar10-c": "robustness.data.cifar10_c:READER",
        "torchvision:SET": "robustness.data.torchvision_sets:READER",
    },
    _problem,
)
