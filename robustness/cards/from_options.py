"""A card that is made of options: for a run without any file, and for `robustness init`, which writes it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustness import cards
from robustness.cards.card import Card
from robustness.classifiers import libraries
from robustness.data import DATASETS
from robustness.errors import CardError, nearest
from robustness.util import paths

FORMS = {".npz": "array", ".npz.xz": "array", ".parquet": "parquet"}
"""What a file of images is, by how its name ends."""

SAVED = ("dataset_info.json", "dataset_dict.json")
"""What Hugging Face's ``save_to_disk`` leaves in a folder."""

SPLITS = {"digits": {"split": {"kind": "balanced", "per_class": 60}}}
"""Of data sets that have no test part of their own."""


@dataclass(frozen=True)
class CardOptions:
    """A model described by options; paths are relative to ``folder``, the card's actual or future folder."""

    folder: Path
    factory: str | None = None
    arguments: tuple[str, ...] = ()
    weights: str | None = None
    dataset: str | None = None
    profile: str = "default"
    name: str | None = None
    data: Path | None = None
    """The data root, another possible folder of the data set."""

    def table(self, *, anywhere: bool = False) -> dict[str, Any]:
        """
        Return the card's table, without sweeps; CardError names the option that is missing or wrong.

        A card can name data below its folder or the data root alone. If data may lie ``anywhere``, as for a run whose
        option names them, the table names those elsewhere as if they lay beside the card: see `card`.

        >>> CardOptions(Path("."), "nets:Net", ("classes=3",), dataset="digits").table()["model"]
        {'factory': 'nets:Net', 'arguments': {'classes': 3}}
        """
        for name, value, as_ in (("factory", self.factory, "nets:Net"), ("dataset", self.dataset, "test.npz")):
            if not value:
                raise CardError(f"`{name}` must be given for a model without a card, as --robustness-{name} {as_}")
        model: dict[str, Any] = {"factory": self.factory}
        if self.arguments:
            model["arguments"] = arguments(self.arguments)
        if self.weights:
            file = self.folder / paths.expanded(self.weights)
            cards.require_file(file, self.weights, "`weights`")
            model["weights"] = _relative(file, self.folder)
        return {"name": self.name or self._name(), "model": model, "data": self._data(anywhere=anywhere)}

    def _name(self) -> str:
        """Name the model by its weights file, else by its factory."""
        module, _, called = str(self.factory).rpartition(":")
        named = Path(self.weights).stem if self.weights else Path(called).name or module
        return paths.as_name(named)

    def _data(self, *, anywhere: bool = False) -> dict[str, Any]:
        """Name a data set that is known, or a file or folder: beside the card where it lies below it."""
        dataset = str(self.dataset)
        known = [name for name, each in DATASETS.items() if not each.needs]
        if dataset in known or dataset.startswith("torchvision:"):
            return {"name": dataset, **SPLITS.get(dataset, {})}
        path = self._path()
        if not path.exists():
            raise CardError(
                f"`dataset` must be a file or a folder, or one of {', '.join(known)}, got {dataset!r}: {path} does not "
                f"exist{nearest(dataset, known)}"
            )
        form = _form(path)
        images = self._images() if "images" in DATASETS[form].takes else {}
        place = self._place(path)
        if place is None and not anywhere:
            raise CardError(
                f"`dataset` must lie below {self.folder} or below the data root for a card, got {path}; use its folder "
                f"as the data root (robustness --data {path.parent} init ..., and --robustness-data {path.parent} for "
                "runs)"
            )
        return {"name": form, "folder" if path.is_dir() else "file": place or f"./{path.name}", **images}

    def _images(self) -> dict[str, Any]:
        """Return how pictures are resized as the model's library does it, if the library says how."""
        from robustness.classifiers import preprocessing

        if libraries.factory_library(str(self.factory)) is None:
            return {}
        expected = preprocessing.expected_preprocessing(
            str(self.factory), arguments(self.arguments), folder=self.folder
        )
        table = preprocessing.images_table(expected) if expected else {}
        return {"images": table} if table else {}

    def _path(self) -> Path:
        """Return the file or folder of images that is named: from the folder on, else from the data root on."""
        place = paths.expanded(str(self.dataset))
        path = self.folder / place
        if not path.exists() and self.data is not None and (self.data / place).exists():
            path = self.data / place
        return path.absolute()

    def _place(self, path: Path) -> str | None:
        """Return the path of data relative to the card's folder or the data root; None if elsewhere."""
        for folder, mark in ((self.folder, "./"), (self.data, "")):
            if folder is not None:
                # As it is named first: a link in the folder may lead elsewhere.
                named = path if ".." not in path.parts else path.parent.resolve() / path.name
                for place in (named, path.resolve()):
                    for top in (folder.absolute(), folder.resolve()):
                        if place.is_relative_to(top):
                            return mark + place.relative_to(top).as_posix()
        return None

    @property
    def path(self) -> Path:
        """Where the card would lie."""
        return self.folder / f"{paths.as_name(self.name or self._name())}.toml"

    def card(self) -> Card:
        """Return the card itself, without sweeps or claims; its modules are imported from its folder."""
        table = self.table(anywhere=True)
        if not self.weights and libraries.factory_library(str(self.factory)) not in (None, *libraries.WITH_WEIGHTS):
            bringing = " and ".join(f"{kind}:" for kind in libraries.WITH_WEIGHTS)
            raise CardError(
                f"`weights` must be given for {self.factory}, as --robustness-weights net.safetensors; {bringing} have "
                "theirs, and a card can request random ones with model.seed"
            )
        # Errors name the card, and nobody should look for a file that is not there.
        called = self.path.with_name(f"{self.path.stem} (of options)")
        card = cards.parse_card(table, called, self.folder.resolve())
        path = self._path()
        return card.override(data_folder=path.parent) if path.exists() and self._place(path) is None else card


def arguments(options: Sequence[str]) -> dict[str, Any]:
    """
    Read keyword arguments, KEY=VALUE each; a value is TOML's, else text.

    >>> arguments(["width=16", "norm=batch", "sizes=[1, 2]"])
    {'width': 16, 'norm': 'batch', 'sizes': [1, 2]}
    """
    values = {}
    for each in options:
        key, sign, value = each.partition("=")
        if not sign or not key.strip().isidentifier():
            raise CardError(f"`argument` must be KEY=VALUE, as classes=10, got {each!r}")
        try:
            values[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value.strip()
    return values


def _form(path: Path) -> str:
    """Return the format of a file or folder of images, by its name or contents; CardError if it has none."""
    if path.is_dir():
        if any((path / name).exists() for name in SAVED):
            return "huggingface"
        return "parquet" if any(path.glob("*.parquet")) else "folder"
    form = next((form for end, form in FORMS.items() if path.name.endswith(end)), None)
    if form is None:
        raise CardError(
            f"`dataset` must be a folder or a file of {', '.join(FORMS)}, got {path}; save arrays with np.savez"
            '("images.npz", test_x=images, test_y=labels), images as bytes or floats in [0, 1], (N, H, W, C)'
        )
    return form


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, if it lies below it."""
    absolute, base = path.resolve(), folder.resolve()
    return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()
