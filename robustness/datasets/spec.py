"""The ``[data]`` table of a model card: which images, and how they are split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from robustness.datasets import arrays, digits, mnist, splits
from robustness.datasets.images import Images
from robustness.errors import nearest


@dataclass(frozen=True)
class DataSet:
    """Where images come from: ``parts(spec=, root=, cache=, progress=)`` gives "train" and "test", or "all"."""

    parts: Callable[..., Mapping[str, Images]]
    embedded: bool = False  # comes with the installation: no data root, no download
    from_file: bool = False  # the card names a file


DATASETS = {
    "digits": DataSet(digits.parts, embedded=True),
    "mnist": DataSet(mnist.parts),
    "array": DataSet(arrays.parts, from_file=True),
}
"""To add a data set: its file, and a line here."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Given(_Table):
    """The data set's own train and test part."""

    kind: Literal["given"] = "given"


class Balanced(_Table):
    """``per_class`` test images of every class."""

    kind: Literal["balanced"] = "balanced"
    per_class: Annotated[int, Field(ge=1)]
    seed: Seed = 0

    def rows(self, images: Images) -> splits.Split:
        """Give the rows to train and to test on."""
        return splits.balanced(images.labels, self.per_class, self.seed)


class Stratified(_Table):
    """A share of the images for testing, of every class alike."""

    kind: Literal["stratified"] = "stratified"
    share: Share
    seed: Seed = 0

    def rows(self, images: Images) -> splits.Split:
        """Give the rows to train and to test on."""
        return splits.stratified(images.labels, self.share, self.seed)


class Grouped(_Table):
    """A share of the groups for testing."""

    kind: Literal["grouped"] = "grouped"
    share: Share
    seed: Seed = 0

    def rows(self, images: Images) -> splits.Split:
        """Give the rows to train and to test on."""
        return splits.grouped(images.labels, images.groups, self.share, self.seed)


class Folds(_Table):
    """Fold ``fold`` of ``k``, counted from 0, for testing; where there are groups, they stay whole."""

    kind: Literal["folds"] = "folds"
    k: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    seed: Seed = 0

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.k:
            raise ValueError(
                f"`fold` must lie in 0..{self.k - 1} for `k`={self.k}, got {self.fold}; folds count from 0"
            )
        return self

    def rows(self, images: Images) -> splits.Split:
        """Give the rows to train and to test on."""
        return splits.folds(images.labels, self.k, self.seed, images.groups)[self.fold]


class DataSpec(_Table):
    """
    Images by name, and what of them is for training and for testing.

    ``labels`` names other labels of an array file than its own: "kind" are ``train_kind`` and ``test_kind``, or
    ``kind``, with ``kind_classes``. With ``test`` = "given" the data set's own test part is tested on, instead of the
    side that the split leaves for that; ``of`` = "all" without a split tests on all of a file that is not split;
    ``tested`` takes so many of the test images, of every class alike.

    >>> DataSpec(name="digits", split=Balanced(per_class=30)).embedded
    True
    """

    name: str
    file: str | None = None
    groups: str | None = None
    labels: str | None = None
    of: Literal["train", "test", "all"] = "train"
    test: Literal["split", "given"] = "split"
    tested: Annotated[int, Field(ge=1)] | None = None
    split: Annotated[Given | Balanced | Stratified | Grouped | Folds, Field(discriminator="kind")] = Given()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in DATASETS:
            raise ValueError(f"`name` must be one of {', '.join(DATASETS)}, got {name!r}{nearest(name, DATASETS)}")
        return name

    @field_validator("file")
    @classmethod
    def _below_the_root(cls, file: str | None) -> str | None:
        if file is None:
            return None
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file or not file.endswith((".npz", ".npz.xz")):
            raise ValueError(f"`file` must be an .npz or .npz.xz file, relative to the data root, got {file!r}")
        return file

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        from_file, kind = DATASETS[self.name].from_file, self.split.kind
        if from_file and self.file is None:
            raise ValueError(f"`file` must be given for {self.name!r}, relative to the data root")
        if not from_file and (self.file or self.groups or self.labels):
            raise ValueError(f"`file`, `groups` and `labels` must be left out for {self.name!r}, whose files are known")
        if kind == "given" and self.of != "train" and not (self.of == "all" and from_file):
            raise ValueError(f"`of` must be left out where the split is 'given' and divides nothing, got {self.of!r}")
        if self.test == "given" and (kind == "given" or self.of != "train"):
            raise ValueError(
                "`test` = 'given' needs a split of the training part, whose other side is then left out, "
                f"got the split {kind!r} of {self.of!r}"
            )
        if kind == "grouped" and self.groups is None:
            raise ValueError("`groups` must name the array that the split 'grouped' goes by")
        if kind in ("balanced", "stratified") and self.groups is not None:
            raise ValueError(
                f"`groups` must be left out for the split {kind!r}, which tears them apart; take 'grouped'"
            )
        return self

    @property
    def embedded(self) -> bool:
        """Whether the images come with the installation, so that a run needs no data root."""
        return DATASETS[self.name].embedded
