"""The images of cards, each set read once per run."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from robustness import data
from robustness.cards import Card
from robustness.data.images import Images
from robustness.errors import AGAIN, DataError
from robustness.util.file_stat import file_stat, is_settled
from robustness.workspace.context import Context


@dataclass
class ImageSets(Context):
    """A context that returns the images of cards."""

    _images: dict[tuple[str, str, Path | None], Images] = field(default_factory=dict)
    _mapped: dict[str, tuple[list[int], int]] = field(default_factory=dict)

    def images(self, card: Card, part: Literal["train", "test"] = "test") -> Images:
        """Return the images that a card is tested or trained on; DataMissing if they are not on this machine."""
        spec, folder = card.data(part)
        key = (spec.model_dump_json(), part, folder if spec.beside_card else None)
        if key not in self._images:
            self._images[key] = data.load(
                spec, part, root=self.data_root, cache=self.store.root, beside=folder, progress=self.store.say
            )
            if file := self._images[key].mapped_from:
                self._mapped.setdefault(file, (file_stat(file), time.time_ns()))
            for note in self._images[key].notes:
                self.notice(note)
        images = self._images[key]
        if card.file.shape is not None and images.shape != card.file.shape:
            raise DataError(
                f"{card.path}: shape = {list(card.file.shape)}: must be that of {images.name}, {list(images.shape)} "
                "(channels, height, width); a profile's strengths depend on it"
            )
        return images

    def classes(self, card: Card) -> tuple[str, ...]:
        """Return the data's classes if the card's model can have its own; else none, without reading an image."""
        model = card.file.model
        return self.images(card).classes if model.classes is not None or model.factory_library is not None else ()

    def shape(self, card: Card) -> tuple[int, int, int] | None:
        """Return the shape of the data's images if the card's model can have a size of its own; else None."""
        return self.images(card).shape if card.file.model.factory_library is not None else None

    def paths_in_keys(self, card: Card) -> list[Path]:
        """Return the paths whose content is in keys anyway, so that a factory may read them: the data and the store."""
        known = [self.store.root]
        for spec, folder in (card.data("train"), card.data("test")):
            path = spec.file or spec.folder
            known.append((folder if spec.beside_card else self.data_root) / path if path else self.data_root)
        project = card.project.resolve()
        return [path for path in known if not project.is_relative_to(path.resolve())]

    def check_unchanged_images(self, card: Card) -> None:
        """Raise DataError if the file that images are mapped from has changed since it was opened."""
        images = self.images(card)
        file = images.mapped_from
        if file not in self._mapped:  # in memory, or encoded pictures, whose checksums are verified when they are read
            return
        signature, taken = self._mapped[file]
        same = file_stat(file) == signature and is_settled(signature, taken)
        if not same and replace(images).fingerprint != images.fingerprint:
            raise DataError(f"{images.name}: {file} changed while this run read it; {AGAIN}")
