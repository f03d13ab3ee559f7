"""A classifier made of a model as it is found: channels, normalisation, layout before it; outputs, classes after it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robustness.classifiers.class_mapping import Groups
from robustness.classifiers.preprocessing import Normalisation
from robustness.classifiers.weights import abbreviate
from robustness.errors import ModelError

LUMINANCE = (0.299, 0.587, 0.114)
"""Red, green and blue in grey (ITU-R 601), as Pillow and torchvision weigh them."""


class AdaptedModel(nn.Module):
    """
    A model between what it needs before it and what is made of its outputs; images in [0, 1] to logits.

    >>> model = AdaptedModel(nn.Flatten(), normalisation=Normalisation(mean=(0.5,), std=(0.5,)))
    >>> model(torch.tensor([[[[1.0, 0.0]]]]))
    tensor([[ 1., -1.]])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        channels: int | None = None,
        normalisation: Normalisation | None = None,
        layout: str = "NCHW",
        keyword: str | None = None,
        output: str | int | None = None,
        groups: Groups | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.layout, self.keyword, self.output = channels, layout, keyword, output
        self.normalise = Normalize(normalisation) if normalisation else nn.Identity()
        self.model = model
        self.classes = ClassMapping(groups) if groups else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, (N, classes), for images in [0, 1], (N, C, H, W)."""
        images: Tensor = self.normalise(convert_channels(inputs, self.channels))
        if self.layout == "NHWC":
            images = images.permute(0, 2, 3, 1)
        found = self.model(**{self.keyword: images}) if self.keyword else self.model(images)
        logits: Tensor = self.classes(extract_logits(found, self.output).float())
        return logits


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel."""

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised images."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        if len(mean) not in (1, images.shape[1]):
            raise ModelError(
                f"model.preprocessing has mean and std of {len(mean)} channels, the images have {images.shape[1]}; "
                "give as many, or say in model.channels what the model takes"
            )
        return (images - mean) / std


class ClassMapping(nn.Module):
    """Take the outputs that stand for each class; of several the probabilities are summed."""

    def __init__(self, groups: Groups) -> None:
        super().__init__()
        widest = max(map(len, groups))
        self.due = max(map(max, groups))
        self.register_buffer("index", torch.tensor([(*g, *(g[:1] * (widest - len(g)))) for g in groups]))
        self.register_buffer("filled", torch.tensor([[i >= len(g) for i in range(widest)] for g in groups]))

    def forward(self, logits: Tensor) -> Tensor:
        """Return logits of the data's classes: the logarithm of the sum of each one's exponentials."""
        if self.due >= logits.shape[1]:
            raise ModelError(
                f"model.classes names output {self.due}, the model has {logits.shape[1]}; outputs count from 0"
            )
        taken = logits[:, self.get_buffer("index")]
        if taken.shape[2] == 1:
            return taken[:, :, 0]
        return taken.masked_fill(self.get_buffer("filled"), -torch.inf).logsumexp(2)


def convert_channels(images: Tensor, channels: int | None) -> Tensor:
    """
    Return images with the channels that a model takes: grey ones thrice, colour as its luminance.

    >>> convert_channels(torch.ones(1, 1, 2, 2), 3).shape
    torch.Size([1, 3, 2, 2])
    """
    if channels is None or images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if channels == 1 and images.shape[1] == 3:
        return (images * images.new_tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)
    raise ModelError(f"the model takes images of {channels} channels, got {images.shape[1]}; no way between is known")


def extract_logits(found: Any, output: str | int | None = None) -> Tensor:
    """
    Return the logits among what a model gives: the tensor, the first of several, ``.logits``, or the entry named.

    >>> extract_logits((torch.zeros(1, 2), "auxiliary")).shape
    torch.Size([1, 2])
    """
    if output is not None:
        return _named(found, output)
    if isinstance(found, Tensor):
        return found
    if isinstance(given := getattr(found, "logits", None), Tensor):
        return given
    if isinstance(found, Mapping):
        entries = {key: value for key, value in found.items() if isinstance(value, Tensor)}
        if "logits" in entries or len(entries) == 1:
            return entries.get("logits", next(iter(entries.values())))
        raise ModelError(
            f"the model gives a dictionary with the entries {abbreviate([str(key) for key in found])}; "
            "say in model.output which are the logits"
        )
    if isinstance(found, list | tuple) and found and isinstance(found[0], Tensor):
        return found[0]
    raise ModelError(
        "the model must give a tensor, a tuple with the logits first, an object with .logits or a dictionary, "
        f"got {type(found).__name__}; say in model.output which part are the logits"
    )


def _named(found: Any, output: str | int) -> Tensor:
    try:
        value = found[output] if isinstance(output, int) or isinstance(found, Mapping) else getattr(found, output)
    except (LookupError, AttributeError, TypeError) as error:
        known = f" with {abbreviate([str(key) for key in found])}" if isinstance(found, Mapping) else ""
        raise ModelError(
            f"model.output = {output!r}: the model gives {type(found).__name__}{known}, not that"
        ) from error
    if not isinstance(value, Tensor):
        raise ModelError(f"model.output = {output!r} must be the logits, got {type(value).__name__}")
    return value


def logits_hook(_: nn.Module, given: Any, found: Any) -> Tensor | None:
    """Be the forward hook by which a model of the user's own may give more than a tensor."""
    return None if isinstance(found, Tensor) or found is None else extract_logits(found)


def check_single_input(module: nn.Module, what: str) -> None:
    """Raise ModelError where a forward needs more than images: there is nothing to give it."""
    if isinstance(module, torch.jit.ScriptModule):
        arguments = module.forward.schema.arguments[1:]  # type: ignore[attr-defined]
        due = [a.name for a in arguments if not a.has_default_value()]
    else:
        try:
            parameters = inspect.signature(module.forward).parameters.values()
        except (TypeError, ValueError):
            return
        due = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(due) > 1:
        raise ModelError(
            f"{what}: a classifier must take images alone, got a model whose forward needs {abbreviate(due)}; "
            "write a factory that gives the others"
        )
