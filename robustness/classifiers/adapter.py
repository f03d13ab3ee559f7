"""Adapt a model to the classifier interface: channels, normalisation and layout before it, logits and classes after."""

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

# Weights of red, green and blue in grey (ITU-R 601), as in Pillow and torchvision.
LUMINANCE = (0.299, 0.587, 0.114)


class AdaptedModel(nn.Module):
    """
    A model with the layers that adapt its inputs and its outputs; maps images in [0, 1] to logits.

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
        logits_key: str | int | None = None,
        groups: Groups | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.layout, self.keyword, self.logits_key = channels, layout, keyword, logits_key
        self.normalise = Normalize(normalisation) if normalisation else nn.Identity()
        self.model = model
        self.classes = ClassMapping(groups) if groups else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, (N, classes), for images in [0, 1], (N, C, H, W)."""
        images: Tensor = self.normalise(convert_channels(inputs, self.channels))
        if self.layout == "NHWC":
            images = images.permute(0, 2, 3, 1)
        outputs = self.model(**{self.keyword: images}) if self.keyword else self.model(images)
        logits: Tensor = self.classes(extract_logits(outputs, self.logits_key).float())
        return logits


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, per channel."""

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
                "write as many values, or set model.channels to what the model takes"
            )
        return (images - mean) / std


class ClassMapping(nn.Module):
    """Select the outputs that stand for each class; probabilities of several outputs are summed."""

    def __init__(self, groups: Groups) -> None:
        super().__init__()
        width = max(map(len, groups))
        self.max_index = max(map(max, groups))
        self.register_buffer("index", torch.tensor([(*g, *(g[:1] * (width - len(g)))) for g in groups]))
        self.register_buffer("padding", torch.tensor([[i >= len(g) for i in range(width)] for g in groups]))

    def forward(self, logits: Tensor) -> Tensor:
        """Return logits of the data's classes: the log-sum-exp over each class's outputs."""
        if self.max_index >= logits.shape[1]:
            raise ModelError(
                f"model.classes names output {self.max_index}, the model has {logits.shape[1]}; outputs count from 0"
            )
        selected = logits[:, self.get_buffer("index")]
        if selected.shape[2] == 1:
            return selected[:, :, 0]
        return selected.masked_fill(self.get_buffer("padding"), -torch.inf).logsumexp(2)


def convert_channels(images: Tensor, channels: int | None) -> Tensor:
    """
    Convert images to the channels that a model takes: grey is repeated, colour becomes its luminance.

    >>> convert_channels(torch.ones(1, 1, 2, 2), 3).shape
    torch.Size([1, 3, 2, 2])
    """
    if channels is None or images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if channels == 1 and images.shape[1] == 3:
        return (images * images.new_tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)
    raise ModelError(f"the model takes images of {channels} channels, got {images.shape[1]}; convert the images")


def extract_logits(outputs: Any, logits_key: str | int | None = None) -> Tensor:
    """
    Return the logits in a model's outputs: the tensor, the first of several, ``.logits``, or the entry ``logits_key``.

    >>> extract_logits((torch.zeros(1, 2), "auxiliary")).shape
    torch.Size([1, 2])
    """
    if logits_key is not None:
        return _select_output(outputs, logits_key)
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(logits := getattr(outputs, "logits", None), Tensor):
        return logits
    if isinstance(outputs, Mapping):
        entries = {key: value for key, value in outputs.items() if isinstance(value, Tensor)}
        if "logits" in entries or len(entries) == 1:
            return entries.get("logits", next(iter(entries.values())))
        raise ModelError(
            f"the model returns a dictionary with the entries {abbreviate([str(key) for key in outputs])}; "
            "name the logits in model.logits_key"
        )
    if isinstance(outputs, list | tuple) and outputs and isinstance(outputs[0], Tensor):
        return outputs[0]
    raise ModelError(
        "the model must return a tensor, a tuple with the logits first, an object with .logits or a dictionary, "
        f"got {type(outputs).__name__}; name the logits in model.logits_key"
    )


def _select_output(outputs: Any, logits_key: str | int) -> Tensor:
    try:
        value = (
            outputs[logits_key]
            if isinstance(logits_key, int) or isinstance(outputs, Mapping)
            else getattr(outputs, logits_key)
        )
    except (LookupError, AttributeError, TypeError) as error:
        keys = f" with {abbreviate([str(key) for key in outputs])}" if isinstance(outputs, Mapping) else ""
        raise ModelError(
            f"model.logits_key = {logits_key!r}: the model returns {type(outputs).__name__}{keys}; name an entry of it"
        ) from error
    if not isinstance(value, Tensor):
        raise ModelError(f"model.logits_key = {logits_key!r} must be a tensor of logits, got {type(value).__name__}")
    return value


def logits_hook(_: nn.Module, inputs: Any, outputs: Any) -> Tensor | None:
    """Forward hook: replace a user model's outputs by the logits among them."""
    return None if isinstance(outputs, Tensor) or outputs is None else extract_logits(outputs)


def check_single_input(module: nn.Module, what: str) -> None:
    """Raise ModelError if a forward requires more arguments than the images."""
    if isinstance(module, torch.jit.ScriptModule):
        arguments = module.forward.schema.arguments[1:]  # type: ignore[attr-defined]
        required = [a.name for a in arguments if not a.has_default_value()]
    else:
        try:
            parameters = inspect.signature(module.forward).parameters.values()
        except (TypeError, ValueError):
            return
        required = [
            p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
    if len(required) > 1:
        raise ModelError(
            f"{what}: a classifier must take images alone, got a model whose forward needs {abbreviate(required)}; "
            "write a factory that supplies the others"
        )
