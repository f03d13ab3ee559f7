"""What a card's model needs around it to be a classifier of the card's images: told by the card and by libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustness.classifiers import checkpoints, class_mapping, exported, libraries, preprocessing
from robustness.classifiers.adapter import AdaptedModel
from robustness.classifiers.preprocessing import Normalisation
from robustness.classifiers.spec import ModelCard
from robustness.decisions import Argmax
from robustness.errors import ModelError


def build_library_model(card: ModelCard) -> nn.Module:
    """Make the module of a factory by name: with random weights, or those of an exported file."""
    model, folder = card.file.model, card.path.parent
    of, name = str(model.by_name), model.factory.partition(":")[2]
    if of in libraries.FILES:
        return exported.load(of, folder / name)
    return libraries.build(of, name, model.arguments, folder)


def with_weights(card: ModelCard, file: Path) -> tuple[nn.Module, list[str]]:
    """Make the module of a factory by name with the weights of a file in it, in float32; and say what was done."""
    model, folder = card.file.model, card.path.parent
    of, name = str(model.by_name), model.factory.partition(":")[2]
    if of in libraries.FILES:
        module = exported.load(of, file)
        notes = exported.notes(module)
    elif of == "hf" and model.weights is None and model.seed is None:
        module, notes = libraries.with_own_weights(folder / name, model.arguments)
    else:
        module = libraries.build(of, name, model.arguments, folder)
        notes = checkpoints.load_checkpoint(module, file, model.entry)
    state = [*module.parameters(), *module.buffers()]
    if other := {str(each.dtype).removeprefix("torch.") for each in state if each.is_floating_point()} - {"float32"}:
        notes.append(f"weights of {', '.join(sorted(other))} are computed with in float32")
        module = module.float()
    return module, notes


def needs_adapter(card: ModelCard, module: nn.Module) -> bool:
    """Return whether a module is no classifier of images in [0, 1] yet, as far as its card says."""
    model = card.file.model
    return bool(model.by_name or set(model.adaptation) - {"entry"} or isinstance(module, torch.jit.ScriptModule))


def adapt_model(
    card: ModelCard, module: nn.Module, wanted: Sequence[str], shape: tuple[int, int, int] | None = None
) -> tuple[AdaptedModel, list[str]]:
    """
    Return a card's module with what it needs around it, and what a report must say of that.

    ``wanted`` are the data's classes; without any, the module's outputs stay as they are. ``shape`` is that of the
    data's images, where they are known.
    """
    model = card.file.model
    normalisation, notes = _normalisation(card, shape)
    groups, outputs = None, _outputs(card, module)
    if outputs == 0:
        raise ModelError(
            f"model.factory = {model.factory!r}: it gives features, it has no classes; write "
            "arguments = { num_classes = ... } and name weights with that many"
        )
    if wanted and isinstance(model.decision, Argmax):
        names = libraries.class_names(model.by_name, module, outputs) if outputs else []
        groups, said = class_mapping.match_classes(wanted, model.classes, names, outputs)
        notes += [said] if said else []
    channels = model.channels or _channels(card, module)
    whole = AdaptedModel(
        module,
        channels=channels,
        normalisation=normalisation,
        layout=model.layout,
        keyword=str(module.main_input_name) if model.by_name == "hf" else None,
        output=model.output,
        groups=groups,
    )
    return whole, notes


def _normalisation(card: ModelCard, shape: tuple[int, int, int] | None) -> tuple[Normalisation | None, list[str]]:
    """Return what the first layer does, and say it beside what is left to the data."""
    model = card.file.model
    chosen = model.preprocessing or ("library" if model.by_name in libraries.PREPROCESSING else "none")
    if isinstance(chosen, Normalisation):
        return chosen, [f"normalised in its first layer by {chosen.said}, as the card says"]
    if chosen == "none":
        return None, []
    found = preprocessing.of_library(model.factory, model.arguments, folder=card.path.parent)
    if found is None or found.normalisation is None:
        raise ModelError(
            f"model.factory = {model.factory!r}: nothing says how images are normalised (no preprocessor_config.json); "
            'write [model] preprocessing = { mean = [...], std = [...] }, or "none"'
        )
    table = ", ".join(f"{key} {value}" for key, value in preprocessing.images_table(found).items())
    notes = [
        f"normalised in its first layer by {found.normalisation.said} ({found.source}); resizing is left to the data "
        f"([data.images]), by the same source {table}: {_done(card, preprocessing.images_table(found))}"
    ]
    if shape is not None and found.size not in (None, shape[1:]):
        notes.append(
            f"its images are {_size(shape[1:])}, its library's {_size(found.size)} ({found.source}): weights that were "
            "trained at the one size may do worse at the other; [data.images] brings pictures to a size"
        )
    return found.normalisation, notes


def _done(card: ModelCard, due: dict[str, Any]) -> str:
    """Say what a card's data do of the resizing that a library does."""
    decoding = (card.tested_on or card.file.data).images
    own = {} if decoding is None else decoding.model_dump(mode="json", include={*due, "resize", "size"})
    if not any(own.get(key) for key in ("resize", "size")):
        return "its images are as they were kept"
    if own == {"resize": None, **due}:
        return "so it is done"
    return "done otherwise, " + ", ".join(f"{key} {value}" for key, value in own.items() if value is not None)


def _size(size: tuple[int, ...] | None) -> str:
    """
    Write height and width.

    >>> _size((224, 160))
    '224×160 pixels'
    """
    return "×".join(map(str, size or ())) + " pixels"


def _outputs(card: ModelCard, module: nn.Module) -> int | None:
    """Return the number of a library's model's outputs; None where only running it would tell."""
    model = card.file.model
    if model.by_name == "hf":
        return int(module.config.num_labels)  # type: ignore[union-attr,arg-type]
    if model.by_name == "timm":
        return int(module.num_classes)  # type: ignore[arg-type]
    return int(model.arguments.get("num_classes", 1000)) if model.by_name == "torchvision" else None


def _channels(card: ModelCard, module: nn.Module) -> int | None:
    """Return the number of channels that a library's model takes; None where nothing says it."""
    model = card.file.model
    if model.by_name == "hf":
        return int(getattr(module.config, "num_channels", 3) or 3)
    if model.by_name == "timm":
        return int(model.arguments.get("in_chans", 3))
    if model.by_name == "onnx":
        return module.channels if isinstance(module, exported.Onnx) and model.layout == "NCHW" else None
    return 3 if model.by_name == "torchvision" else None
