"""The ``[data]`` table of a model card: which images, and how they are split."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from robustness.data.decoding import Decoding
from robustness.data.readers import DATASETS, DatasetReader
from robustness.data.splitting import BalancedSplit, GroupSplit, KFoldSplit, PredefinedSplit, StratifiedSplit, Table
from robustness.errors import nearest

KEYS = ("file", "folder", "groups", "images", "labels", "part")


class DataSpec(Table):
    """
    Images by name, and which of them are for training and testing.

    ``labels`` selects other labels of an array file: "kind" reads ``train_kind`` and ``test_kind``, or ``kind``, and
    ``kind_classes``. ``test`` = "official" tests on the data set's own test part instead of the split's test side;
    ``part`` names another part than ``test`` for it; ``num_test_images`` limits the test images, stratified by class.
    ``file`` and ``folder`` lie below the data root, or beside the card if they begin with ``./``.

    >>> DataSpec(name="digits", split=BalancedSplit(per_class=30)).embedded
    True
    """

    name: str
    """Which set."""
    file: str | None = None
    """Below the data root, or beside the card if it starts with ``./``."""
    folder: str | None = None
    """The same, of a folder."""
    groups: str | None = None
    """The array or column that says which images belong together."""
    labels: str | None = None
    """Other labels of an array file or table than its own, by name."""
    part: str | None = None
    """The part for testing, if there are several: ``validation``; default: test, or its substitute."""
    pool: Literal["train", "test", "all"] = "train"
    """What the split divides."""
    test: Literal["split", "official"] = "split"
    """``official``: test on the data set's own test part, and train on the split's training side."""
    num_test_images: Annotated[int, Field(ge=1)] | None = None
    """Test on this many of the test images, stratified by class."""
    split: Annotated[
        PredefinedSplit | BalancedSplit | StratifiedSplit | GroupSplit | KFoldSplit, Field(discriminator="kind")
    ] = PredefinedSplit()
    """How images are split into training and test images."""

    images: Decoding | None = None
    """How pictures are decoded, and which are taken."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if _source(name) not in DATASETS or name == "torchvision:SET":
            raise ValueError(f"`name` must be one of {', '.join(DATASETS)}, got {name!r}{nearest(name, DATASETS)}")
        return name

    @field_validator("file", "folder")
    @classmethod
    def _below_the_root(cls, value: str | None) -> str | None:
        if value is None:
            return None
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or "\\" in value or "\0" in value or not value:
            raise ValueError(
                "`file` and `folder` must be relative to the data root, or to the card if they start with ./ , got "
                f"{value!r}"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        source, kind = self.source, self.split.kind
        present = [key for key in KEYS if getattr(self, key) is not None]
        if other := [f"`{key}`" for key in present if key not in source.needs + source.takes]:
            raise ValueError(f"{' and '.join(other)} must be left out for {self.name!r}")
        if source.needs and len(set(source.needs) & set(present)) != 1:
            raise ValueError(
                f"{' or '.join(f'`{key}`' for key in source.needs)} must be given for {self.name!r}, relative to the "
                "data root, or to the card if it starts with ./"
            )
        if self.file is not None and not self.file.endswith(source.suffixes):
            kinds = " or ".join(source.suffixes)
            raise ValueError(f"`file` must be an {kinds} file for {self.name!r}, got {self.file!r}")
        if kind == "predefined" and self.pool != "train":
            raise ValueError(
                f"`pool` must be left out if the split is 'predefined', which divides nothing, got {self.pool!r}"
            )
        if self.test == "official" and (kind == "predefined" or self.pool != "train"):
            raise ValueError(
                "`test` = 'official' needs a split of the training part (its test side is then unused), got the split "
                f"{kind!r} of {self.pool!r}"
            )
        if kind == "group" and self.groups is None:
            raise ValueError("`groups` must name the array of groups for the split 'group'")
        if kind in ("balanced", "stratified") and self.groups is not None:
            raise ValueError(f"`groups` must be left out for the split {kind!r}, which separates them; use 'group'")
        return self

    @property
    def source(self) -> DatasetReader:
        """Where the images come from."""
        return DATASETS[_source(self.name)]

    @property
    def embedded(self) -> bool:
        """Whether the images come with the installation, so that a run needs no data root."""
        return self.source.embedded

    @property
    def beside_card(self) -> bool:
        """Whether the file or folder lies beside the card, not below the data root."""
        return str(self.file or self.folder).startswith("./")

    @property
    def decoding(self) -> Decoding:
        """How pictures are decoded."""
        return self.images or Decoding()

    @model_serializer(mode="wrap")
    def _as_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out unset newer keys, so that the hash of a card without them stays the same."""
        table: dict[str, Any] = written(self)
        return {
            key: value for key, value in table.items() if value is not None or key not in ("folder", "images", "part")
        }


def _source(name: str) -> str:
    return "torchvision:SET" if name.startswith("torchvision:") else name
