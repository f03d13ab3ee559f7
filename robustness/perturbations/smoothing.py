"""Randomised smoothing: the radius in L2 within which a classifier under noise provably keeps its class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, PositiveInt, model_validator

from robustness.decisions import Argmax
from robustness.perturbations.base import Batch, Perturb, Perturbation, draw_seeds, seeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

ABSTAINED = "abstentions"
"""What is counted of smoothing: images whose most frequent class is not certain to be the most probable one."""
PASS = 100
"""Noisy copies of an image that a model gets at once; fixed, so that results do not depend on the batch size."""


class Certificates(NamedTuple):
    """The class that a smoothed classifier certifies for each image, (N,), −1 if it abstains, and its radius, (N,)."""

    predictions: Tensor
    radii: Tensor


def certified_radius(successes: ArrayLike, n: int, sigma: float, alpha: float = 0.001) -> NDArray[np.float64]:
    """
    Return the L2 radius within which a smoothed classifier provably keeps its class.

    σ·Φ⁻¹(p), where p is the one-sided lower bound of Clopper and Pearson (1934), of confidence 1 − α, for the
    probability that the classifier returns this class under noise (Cohen, Rosenfeld and Kolter 2019, theorem 1 and
    section 3.2.2).

    Args:
        successes: How many of the noisy copies were given the class, of any shape.
        n: The number of noisy copies.
        sigma: The standard deviation of the noise, as a fraction of the pixel range.
        alpha: The probability that a radius is too large.

    Returns:
        The radii, in units of the pixel range; −∞ where p does not exceed one half, so that nothing is certified.

    Raises:
        ValueError: If a number is out of range.

    >>> certified_radius([990, 1000, 500], 1000, sigma=0.5).round(3).tolist()
    [0.989, 1.232, -inf]
    """
    from scipy.stats import beta, norm

    k = np.asarray(successes)
    if n < 1 or not np.issubdtype(k.dtype, np.integer) or ((k < 0) | (k > n)).any():
        raise ValueError(f"`successes` must be whole numbers from 0 to n = {n}, got {k}; count both on the same copies")
    if not (0 < sigma < math.inf and 0 < alpha < 1):
        raise ValueError(
            f"`sigma` must be above 0 and `alpha` in (0, 1), got {sigma} and {alpha}; see Cohen et al. 2019"
        )
    bound = np.where(k > 0, beta.ppf(alpha, np.maximum(k, 1), n - k + 1), 0.0)
    return np.where(bound > 0.5, sigma * norm.ppf(np.maximum(bound, 0.5)), -np.inf)


def certify(
    classifier: nn.Module,
    inputs: Tensor,
    *,
    sigma: float = 0.25,
    selection_samples: int = 100,
    samples: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
) -> Certificates:
    """
    Certify each image's class by the smoothed classifier: `Smoothing`, Cohen et al.'s CERTIFY.

    Args:
        classifier: Maps images to logits (N, classes); put it in evaluation mode.
        inputs: Images (N, C, H, W) in [0, 1].
        sigma: The standard deviation of the noise.
        selection_samples: Noisy copies per image by which the class is chosen.
        samples: Noisy copies per image by which its probability is bounded.
        alpha: The probability that the radius of an image is too large.
        seed: The seed of the noise. That of an image depends on its position.

    Returns:
        The certified classes, −1 for an image on which it abstains, and the radii, −∞ for these.

    Raises:
        ValueError: If a logit of a noisy copy is not finite, or a parameter is out of range.

    >>> import torch
    >>> linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    >>> _ = linear[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> found = certify(linear, torch.tensor([[[[0.6, 0.4]]], [[[0.5, 0.5]]]]), sigma=0.1)
    >>> found.predictions.tolist(), bool(found.radii[0] < 0.2 / 2**0.5)  # the distance to the boundary
    ([0, -1], True)
    """
    import torch

    from robustness.util.rng import Purpose, generator

    smoothing = Smoothing(sigma=sigma, selection_samples=selection_samples, samples=samples, alpha=alpha)
    drawn = torch.from_numpy(smoothing.draw(generator(seed, Purpose.NOISE), tuple(inputs.shape)))
    with torch.no_grad():
        chosen, votes = smoothing.vote(Batch(classifier, inputs, inputs.new_zeros(len(inputs)).long(), drawn))
    if votes.isnan().any():
        raise ValueError(
            f"`classifier` must return finite logits under noise, got others for {_nan_rows(votes)} images"
        )
    radii = smoothing.radii(chosen, votes)
    return Certificates(chosen.masked_fill(radii == -torch.inf, -1), radii)


class Smoothing(Perturbation):
    """
    The smoothed classifier, certified: which images it provably classifies correctly within an L2 ball of radius r.

    The smoothed classifier returns the class that the model returns most often for x + N(0, σ²), unclipped. Cohen et
    al.'s CERTIFY chooses this class by ``selection_samples`` noisy copies, and bounds its probability by ``samples``
    others. An image counts as correct at strength r if its class is correct and its radius is at least r. Every other
    image counts as wrong, those on which it abstains too: its prediction is the most frequent wrong class. So the
    accuracy at r is the certified accuracy, a lower bound of the smoothed classifier's accuracy under every attack in
    the ball; the images are not changed, and nothing is said of the model without noise.

    >>> round(Smoothing(sigma=0.5).largest_radius, 3)  # if all 1,000 copies get the same class
    1.232
    """

    kind: Literal["smoothing"] = "smoothing"
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.25
    """The standard deviation of the noise, as a fraction of the pixel range; the model should be trained with it."""
    selection_samples: PositiveInt = 100
    """Noisy copies per image by which the class is chosen (n₀)."""
    samples: PositiveInt = 1000
    """Noisy copies per image by which its probability is bounded (n)."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.001
    """The probability that the radius of an image is too large."""
    family: ClassVar[str] = "attack"
    strength_name: ClassVar[str] = "r"
    meaning: ClassVar[str] = "is a radius in L2; more `samples` or a larger `sigma` certify larger ones"
    uses_model: ClassVar[bool] = False
    certifies: ClassVar[bool] = True

    @model_validator(mode="after")
    def _certifies_something(self) -> Self:
        if self.alpha ** (1 / self.samples) <= 0.5:
            raise ValueError(
                f"`samples` must be at least {math.floor(math.log2(1 / self.alpha)) + 1} for an alpha of "
                f"{self.alpha:g}, got {self.samples}; fewer certify nothing"
            )
        return self

    @property
    def largest_radius(self) -> float:
        """The radius of an image whose noisy copies all get the same class: there Clopper's bound is α^(1/n)."""
        return self.sigma * NormalDist().inv_cdf(self.alpha ** (1 / self.samples))

    @property
    def strength_range(self) -> tuple[float, float]:
        """No larger radius can be certified; rounded down to float32, in which strengths are drawn."""
        return 0.0, float(np.nextafter(np.float32(self.largest_radius), np.float32(0)))

    def draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draw a seed per image."""
        return draw_seeds(generator, shape[0])

    def forward_passes(self, strengths: Sequence[object]) -> int:
        """One per noisy copy; all strengths share them."""
        return self.selection_samples + self.samples

    def prepare(self, batch: Batch) -> Perturb:
        """Certify once; each strength compares with the radii."""
        import torch

        if not isinstance(batch.decision, Argmax):
            raise ValueError(
                f"`decision` must be argmax to be smoothed, got {batch.decision.kind}: a certificate says nothing of "
                "a detector; leave the sweep out"
            )
        with torch.no_grad():
            chosen, votes = self.vote(batch)
        radii = self.radii(chosen, votes)

        def perturb(strength: float | Tensor, out: Tensor) -> Tensor:
            smallest = torch.as_tensor(strength, dtype=radii.dtype, device=radii.device).flatten()
            batch.count(ABSTAINED, radii == -torch.inf)
            batch.logits = _logits(votes, batch.labels, certified=radii >= smallest)
            return out.copy_(batch.inputs)

        return perturb

    def vote(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """
        Return the chosen class of each image, (N,), and how often the model returns each class, (N, K).

        The votes of an image are NaN if a logit of one of its noisy copies is not finite. Padding has the votes of the
        first image.
        """
        import torch

        if batch.drawn is None:
            raise ValueError("`batch.drawn` must hold the seeds of the images, got None; sweep() draws them")
        rows = [
            self._vote(batch.classifier, batch.inputs[row], seed)
            for row, seed in enumerate(batch.drawn.long().tolist()[: batch.size])
        ]
        rows += rows[:1] * (len(batch.inputs) - len(rows))
        return torch.stack([row[0] for row in rows]).argmax(1), torch.stack([row[1] for row in rows])

    def _vote(self, classifier: nn.Module, image: Tensor, seed: list[int]) -> tuple[Tensor, Tensor]:
        """Return the votes of an image's two sets of noisy copies, (K,) each."""
        import torch

        from robustness.perturbations.attack import model_logits

        numbers, votes = seeded(*seed), []
        for count in (self.selection_samples, self.samples):
            total = torch.zeros((), device=image.device)
            for size in _parts(count):
                noise = torch.from_numpy(numbers.standard_normal((size, *image.shape), np.float32)).to(image)
                logits = model_logits(classifier, noise.mul_(self.sigma).add_(image))
                one_hot = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).double().sum(0)
                total = total + (one_hot if logits.isfinite().all() else one_hot.fill_(torch.nan))
            votes.append(total)
        return votes[0] + 0 * votes[1], votes[1] + 0 * votes[0]

    def radii(self, chosen: Tensor, votes: Tensor) -> Tensor:
        """Return the radius of each image's chosen class, (N,), −∞ if it abstains or its votes are NaN."""
        import torch

        counts = votes.gather(1, chosen[:, None]).squeeze(1).nan_to_num(0).long().cpu().numpy()
        return torch.from_numpy(certified_radius(counts, self.samples, self.sigma, self.alpha)).to(votes.device)


def _parts(count: int) -> Iterator[int]:
    yield from (min(PASS, count - start) for start in range(0, count, PASS))


def _logits(votes: Tensor, labels: Tensor, *, certified: Tensor) -> Tensor:
    """Return logits, (N, K), of the shares of votes; an image that is not certified gets its likeliest wrong class."""
    import torch

    if votes.shape[1] < 2:
        raise ValueError(f"`classes` must be at least 2 for a certificate, got {votes.shape[1]}")
    wrong = votes.scatter(1, labels[:, None], -1.0).argmax(1)
    raised = votes.scatter(1, wrong[:, None], votes.amax(1, keepdim=True) + 1)
    # One vote more for every class: no logarithm of 0.
    return torch.log(torch.where(certified[:, None], votes, raised) + 1).float()


def _nan_rows(votes: Tensor) -> int:
    return int(votes.isnan().any(1).sum())
