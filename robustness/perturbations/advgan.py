"""AdvGAN (Xiao et al. 2018): a generator, fitted once per target model, computes the perturbation in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from robustness.errors import ModelError
from robustness.perturbations.attack import Attack, most_likely_wrong_class
from robustness.perturbations.base import Batch, Step

if TYPE_CHECKING:
    from torch import Tensor

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AdvGAN(Attack, Step):
    """
    x + k·G(x), clipped to [0, 1]; |G(x)| ≤ 1, so k is the largest change of a pixel.

    G is fitted at k = ``bound`` with Adam in ``steps`` steps of ``batch_size`` images. Its loss (eq. 4 there) is the
    target model's margin, plus ``discriminator_weight`` times the discriminator's loss, plus ``hinge_weight`` times
    the relative amount by which the root mean square of G(x) exceeds ``hinge_threshold``.

    >>> AdvGAN().strength_range
    (0.0, 1.0)
    """

    kind: Literal["advgan"] = "advgan"
    bound: Annotated[float, Field(gt=0, le=1)] = 0.3
    """The k that the generator is fitted at."""
    steps: PositiveInt = 200
    """Of its fitting."""
    batch_size: PositiveInt = 64
    """Images in each of them."""
    learning_rate: Positive = 2e-3
    """Of generator and discriminator."""
    width: PositiveInt = 8
    """Channels of the generator's first layer."""
    discriminator_weight: Weight = 0.05
    """The weight of the discriminator's loss."""
    hinge_weight: Weight = 0.05
    """The weight of the loss on size."""
    hinge_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The root mean square of G(x) above which size costs."""
    conditional: ClassVar[bool] = False
    """Whether G is given the class that each image is to be taken for."""
    family: ClassVar[str] = "gan"
    needs_fitting: ClassVar[bool] = True
    strength_name: ClassVar[str] = "k"
    meaning: ClassVar[str] = "is the largest change of a pixel, as a fraction of the pixel range"

    @property
    def ball(self) -> Literal["linf"]:
        """L∞: no pixel changes by more than k."""
        return "linf"

    def direction(self, batch: Batch) -> Tensor:
        """Return G(x)."""
        import torch

        if batch.generator is None:
            raise ModelError(
                "advgan needs a generator fitted to the model, got None; a card's sweep fits one, otherwise call "
                "sweep() with generator=robustness.workspace.generators.fit(...)"
            )
        aims = (
            [most_likely_wrong_class(batch.attacked, batch.inputs, batch.labels, batch.decision)]
            if self.conditional
            else []
        )
        with torch.no_grad():
            direction: Tensor = batch.generator(batch.inputs, *aims)
        if direction.shape != batch.inputs.shape:
            raise ModelError(
                f"the generator must return perturbations of shape {tuple(batch.inputs.shape)}, got "
                f"{tuple(direction.shape)}; fit it to these images"
            )
        batch.count("non-finite perturbations", ~direction.flatten(1).isfinite().all(1))
        return direction.nan_to_num(0.0)


class ConditionalAdvGAN(AdvGAN):
    """
    x + k·G(x, t), t being the likeliest wrong class of each image by the attacked model (hybrid-gan).

    >>> ConditionalAdvGAN().kind
    'conditional-advgan'
    """

    kind: Literal["conditional-advgan"] = "conditional-advgan"  # type: ignore[assignment]
    conditional: ClassVar[bool] = True
