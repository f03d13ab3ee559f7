"""Wrap a card's model so that it classifies the card's images; the card and the libraries say how."""

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
    """Build a library's module: with random weights, or with those of an exported file."""
    model, folder = card.file.model, card.path.parent
    library, name = str(model.factory_library), model.factory.partition(":")[2]
    if library in libraries.FILES:
        return exported.load(library, folder / name)
    return libraries.build(library, name, model.arguments, folder)


def load_library_model(card: ModelCard, file: Path) -> tuple[nn.Module, list[str]]:
    """Build a library's module in float32 with the weights of a file; return it with notes for the report."""
    model, folder = card.file.model, card.path.parent
    library, name = str(model.factory_library), model.factory.partition(":")[2]
    if library in libraries.FILES:
        module = exported.load(library, file)
        notes = exported.batch_notes(module)
    elif library == "hf" and model.weights is None and model.seed is None:
        module, notes = libraries.load_hugging_face(folder / name, model.arguments)
    else:
        module = libraries.build(library, name, model.arguments, folder)
        notes = checkpoints.load_checkpoint(module, file, model.checkpoint_key)
    state = [*module.parameters(), *module.buffers()]
    if other_dtypes := {str(tensor.dtype).removeprefix("torch.") for tensor in state if tensor.is_floating_point()} - {
        "float32"
    }:
        notes.append(f"weights of {', '.join(sorted(other_dtypes))} are converted to float32")
        module = module.float()
    return module, notes


def needs_adapter(card: ModelCard, module: nn.Module) -> bool:
    """Return whether a module must be wrapped to classify images in [0, 1], as far as its card says."""
    model = card.file.model
    return bool(
        model.factory_library
        or set(model.adaptation) - {"checkpoint_key"}
        or isinstance(module, torch.jit.ScriptModule)
    )


def adapt_model(
    card: ModelCard, module: nn.Module, class_names: Sequence[str], shape: tuple[int, int, int] | None = None
) -> tuple[AdaptedModel, list[str]]:
    """
    Return a card's module in its adapter, and notes for the report.

    ``class_names`` are the data's classes; without any, the module's outputs are not mapped. ``shape`` is the shape of
    the data's images, if it is known.
    """
    model = card.file.model
    normalisation, notes = _first_layer(card, shape)
    groups, outputs = None, _output_count(card, module)
    if outputs == 0:
        raise ModelError(
            f"model.factory = {model.factory!r}: the model returns features and has no classes; write "
            "arguments = { num_classes = ... } and name weights with that many classes"
        )
    if class_names and isinstance(model.decision, Argmax):
        names = libraries.class_names(model.factory_library, module, outputs) if outputs else []
        groups, note = class_mapping.match_classes(class_names, model.classes, names, outputs)
        notes += [note] if note else []
    channels = model.channels or _input_channels(card, module)
    adapted = AdaptedModel(
        module,
        channels=channels,
        normalisation=normalisation,
        layout=model.layout,
        keyword=str(module.main_input_name) if model.factory_library == "hf" else None,
        logits_key=model.logits_key,
        groups=groups,
    )
    return adapted, notes


def _first_layer(card: ModelCard, shape: tuple[int, int, int] | None) -> tuple[Normalisation | None, list[str]]:
    """Return the normalisation of the first layer, and notes on it and on the resizing that is left to the data."""
    model = card.file.model
    choice = model.preprocessing or ("library" if model.factory_library in libraries.PREPROCESSING else "none")
    if isinstance(choice, Normalisation):
        return choice, [f"normalised in its first layer by {choice.description}, as the card says"]
    if choice == "none":
        return None, []
    expected = preprocessing.expected_preprocessing(model.factory, model.arguments, folder=card.path.parent)
    if expected is None or expected.normalisation is None:
        raise ModelError(
            f"model.factory = {model.factory!r}: the normalisation is unknown (no preprocessor_config.json); "
            'write [model] preprocessing = { mean = [...], std = [...] }, or "none"'
        )
    table = ", ".join(f"{key} {value}" for key, value in preprocessing.images_table(expected).items())
    notes = [
        f"normalised in its first layer by {expected.normalisation.description} ({expected.source}); resizing is left "
        f"to the data ([data.images]), the same source says {table}: "
        f"{_resizing_note(card, preprocessing.images_table(expected))}"
    ]
    if shape is not None and expected.size not in (None, shape[1:]):
        notes.append(
            f"its images are {_format_size(shape[1:])}, its library's {_format_size(expected.size)} "
            f"({expected.source}): weights trained at one size may do worse at another; [data.images] resizes pictures"
        )
    return expected.normalisation, notes


def _resizing_note(card: ModelCard, expected: dict[str, Any]) -> str:
    """Return a note on whether a card's data do the resizing that the library does."""
    decoding = card.data("test")[0].images
    actual = {} if decoding is None else decoding.model_dump(mode="json", include={*expected, "resize", "size"})
    if not any(actual.get(key) for key in ("resize", "size")):
        return "the card's images are not resized"
    if actual == {"resize": None, **expected}:
        return "the card does the same"
    return "the card differs, " + ", ".join(f"{key} {value}" for key, value in actual.items() if value is not None)


def _format_size(size: tuple[int, ...] | None) -> str:
    """
    Format height and width.

    >>> _format_size((224, 160))
    '224×160 pixels'
    """
    return "×".join(map(str, size or ())) + " pixels"


def _output_count(card: ModelCard, module: nn.Module) -> int | None:
    """Return the number of outputs of a library's model, or None if only a forward pass would show it."""
    model = card.file.model
    if model.factory_library == "hf":
        return int(module.config.num_labels)  # type: ignore[union-attr,arg-type]
    if model.factory_library == "timm":
        return int(module.num_classes)  # type: ignore[arg-type]
    return int(model.arguments.get("num_classes", 1000)) if model.factory_library == "torchvision" else None


def _input_channels(card: ModelCard, module: nn.Module) -> int | None:
    """Return the number of input channels of a library's model, or None if it is unknown."""
    model = card.file.model
    if model.factory_library == "hf":
        return int(getattr(module.config, "num_channels", 3) or 3)
    if model.factory_library == "timm":
        return int(model.arguments.get("in_chans", 3))
    if model.factory_library == "onnx":
        return module.channels if isinstance(module, exported.OnnxModel) and model.layout == "NCHW" else None
    return 3 if model.factory_library == "torchvision" else None
