"""``split`` in the ``[data]`` table: which images are for training and which for testing."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from robustness.data import splits
from robustness.data.images import Images


class Table(BaseModel):
    """A table of a card: values are validated, unknown keys are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class PredefinedSplit(Table):
    """The data set's own train and test part."""

    kind: Literal["predefined"] = "predefined"


class BalancedSplit(Table):
    """``per_class`` test images of every class."""

    kind: Literal["balanced"] = "balanced"
    per_class: Annotated[int, Field(ge=1)]
    """Test images of every class."""
    seed: Seed = 0
    """Of the draw."""

    def rows(self, images: Images) -> splits.Split:
        """Return the rows to train and to test on."""
        return splits.balanced(images.labels, self.per_class, self.seed)


class StratifiedSplit(Table):
    """A fraction of the images for testing, stratified by class."""

    kind: Literal["stratified"] = "stratified"
    fraction: Fraction
    """The fraction of the images that are tested on."""
    seed: Seed = 0
    """Of the draw."""

    def rows(self, images: Images) -> splits.Split:
        """Return the rows to train and to test on."""
        return splits.stratified(images.labels, self.fraction, self.seed)


class GroupSplit(Table):
    """A fraction of the groups for testing."""

    kind: Literal["group"] = "group"
    fraction: Fraction
    """The fraction of the groups that are tested on."""
    seed: Seed = 0
    """Of the draw."""

    def rows(self, images: Images) -> splits.Split:
        """Return the rows to train and to test on."""
        return splits.grouped(images.labels, images.groups, self.fraction, self.seed)


class KFoldSplit(Table):
    """Fold ``fold`` of ``k``, counted from 0, for testing; if there are groups, they stay whole."""

    kind: Literal["kfold"] = "kfold"
    k: Annotated[int, Field(ge=2)]
    """How many folds."""
    fold: Annotated[int, Field(ge=0)]
    """Which of them is tested on, from 0."""
    seed: Seed = 0
    """Of the draw."""

    @model_validator(mode="after")
    def _fold_exists(self) -> Self:
        if self.fold >= self.k:
            raise ValueError(
                f"`fold` must lie in 0..{self.k - 1} for `k`={self.k}, got {self.fold}; folds count from 0"
            )
        return self

    def rows(self, images: Images) -> splits.Split:
        """Return the rows to train and to test on."""
        return splits.folds(images.labels, self.k, self.seed, images.groups)[self.fold]
