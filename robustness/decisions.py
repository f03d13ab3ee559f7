"""What a system says after its logits: a class per image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from torch import Tensor


class Argmax(BaseModel):
    """The class of the largest logit; the logits are one a class."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["argmax"] = "argmax"

    def outputs(self, classes: int) -> int:
        """Give the number of outputs that a model for ``classes`` classes must have."""
        return classes

    def predictions(self, logits: Tensor) -> Tensor:
        """Give the class of each image, (N,): from the logits, of which the logarithms may round to a tie."""
        return logits.argmax(1)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Give the logarithm of each class's probability, (N, classes)."""
        return logits.log_softmax(1)
