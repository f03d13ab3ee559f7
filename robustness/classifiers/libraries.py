"""Models of libraries: timm and torchvision by name, Hugging Face folders, exported files; nothing is downloaded."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.classifiers import weights
from robustness.errors import MissingLibrary, ModelError, nearest
from robustness.util import paths

if TYPE_CHECKING:
    from torch import nn

# The prefix of a library's factory, and the package that it needs.
PACKAGES = {
    "timm": "timm", "torchvision": "torchvision", "hf": "transformers", "onnx": "onnxruntime", "torchscript": "torch",
    "torchexport": "torch",
}  # fmt: skip
EXTRAS = {"timm": "timm", "transformers": "transformers", "onnxruntime": "onnx"}
# Libraries that define the preprocessing of their models.
PREPROCESSING = ("timm", "torchvision", "hf")
# Prefixes of a file that holds a whole model. Such a file is executed: naming it so means trusting it.
FILES = ("onnx", "torchscript", "torchexport")
# Prefixes of a folder or file that includes weights.
WITH_WEIGHTS = ("hf", *FILES)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# Files of the training, which a model's library does not read.
TRAINING_FILES = ("trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin")
# Arguments by which the libraries fetch or read weights.
DOWNLOAD_ARGUMENTS = ("pretrained", "weights", "weights_backbone", "checkpoint_path", "pretrained_cfg_overlay")


def factory_library(factory: str) -> str | None:
    """
    Return the library that a factory's prefix names, or None if the prefix is a module.

    >>> factory_library("timm:resnet18"), factory_library("mypackage.models:Net")
    ('timm', None)
    """
    prefix = factory.partition(":")[0]
    return prefix if prefix in PACKAGES else None


def factory_error(factory: str, arguments: Mapping[str, Any], folder: Path) -> str:
    """Return what is wrong with a library's factory, empty if nothing; looks at files only and imports nothing."""
    library, name = factory_library(factory), factory.partition(":")[2]
    if library in ("timm", "torchvision"):
        if downloads := [key for key in DOWNLOAD_ARGUMENTS if arguments.get(key)]:
            return (
                f"arguments.{downloads[0]} = {arguments[downloads[0]]!r}: nothing is downloaded, and only the card "
                "names weights; save the module's state_dict() in a file and name it in model.weights"
            )
        if not re.fullmatch(r"[\w.]+", name):
            return (
                f"must name a model that {library} builds, as {library}:resnet18, got {name!r}; nothing is downloaded"
            )
    if library == "hf" and not (folder / name / "config.json").is_file():
        return (
            f"{folder / name} must be a folder with a config.json, as save_pretrained writes it; nothing is downloaded"
        )
    if library in FILES and (why := paths.missing(folder / name)):
        return f"there is no file {folder / name}: it {why}"
    return ""


def bundled_weights(factory: str, folder: Path) -> Path | None:
    """Return the weights file that a library's factory includes: the exported file, or one in the folder."""
    library, path = factory_library(factory), folder / factory.partition(":")[2]
    if library in FILES:
        return path
    if library == "hf":
        return next((file for name in WEIGHTS if (file := path / name).is_file()), None)
    return None


def config_files(factory: str, folder: Path) -> list[Path]:
    """Return the files other than the weights that a library's factory reads."""
    if factory_library(factory) != "hf":
        return []
    weights_file = bundled_weights(factory, folder)
    excluded = [] if weights_file is None else weights.all_files(weights_file)
    model_folder = folder / factory.partition(":")[2]
    # The library may read any of them, depending on config.json.
    return sorted(
        file for pattern in ("*.json", "*.safetensors", "*.bin") for file in model_folder.glob(pattern)
        if file.is_file() and file not in excluded and file.name not in TRAINING_FILES
    )  # fmt: skip


def install_command(package: str) -> str:
    """Return the command that installs a package, by the extra that includes it."""
    return f'pip install "pytest-robustness[{EXTRAS[package]}]"' if package in EXTRAS else f"pip install {package}"


def import_library(package: str) -> Any:
    """Import a library; MissingLibrary names the extra that installs it."""
    # The libraries import torchvision, which needs a patch with a CPU-only torch.
    import robustness.util.torchvision_compat

    try:
        models = robustness.util.torchvision_compat.models
        if package == "torchvision":
            return models
        module = importlib.import_module(package)
        if package == "timm":
            importlib.import_module("timm.data")
        return module
    except ImportError as error:
        raise MissingLibrary(
            f"the factory needs {package}, which cannot be imported ({error}); {install_command(package)}"
        ) from error


def check_model_name(library: str, name: str) -> None:
    """Raise ModelError if timm or torchvision has no classifier of that name; it suggests the nearest name."""
    module = import_library(library)
    # A point separates a model from its variant: resnet18.a1_in1k.
    names = module.list_models() if library == "timm" else module.list_models(module=module)
    if name.partition(".")[0] not in names or (library == "torchvision" and "." in name):
        raise ModelError(f"{library} has no classifier {name!r}{nearest(name, names)}; nothing is downloaded")


def build(library: str, name: str, arguments: Mapping[str, Any], folder: Path) -> nn.Module:
    """Build a library's module with random weights; ModelError if that fails."""
    module = import_library(PACKAGES[library])
    if library == "hf":
        return _build_hugging_face(folder / name, arguments, with_weights=False)
    check_model_name(library, name)
    options = {key: value for key, value in arguments.items() if key not in DOWNLOAD_ARGUMENTS}
    try:
        if library == "timm":
            return module.create_model(name, pretrained=False, **options)  # type: ignore[no-any-return]
        builder = module.get_model_builder(name)
        if name in ("googlenet", "inception_v3"):
            options.setdefault("init_weights", False)  # the future default; today's takes half a minute
        return builder(weights=None, **options)  # type: ignore[no-any-return]
    except Exception as error:  # the arguments are the user's
        raise ModelError(f"{library}:{name} raised {type(error).__name__}: {error}") from error


def load_hugging_face(folder: Path, arguments: Mapping[str, Any]) -> tuple[nn.Module, list[str]]:
    """Build the module of a Hugging Face folder with its weights, in float32; return it with notes."""
    import_library("transformers")
    module = _build_hugging_face(folder, arguments, with_weights=True)
    config = paths.parse_json(paths.read_bytes(folder / "config.json"))
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    return module, [] if dtype == "float32" else [f"weights of {dtype} are converted to float32"]


def _build_hugging_face(folder: Path, arguments: Mapping[str, Any], *, with_weights: bool) -> nn.Module:
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.utils import logging

    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **options, **arguments)
        if not with_weights:
            return AutoModelForImageClassification.from_config(config, dtype=torch.float32)  # type: ignore[no-any-return]
        module, loading = AutoModelForImageClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except Exception as error:  # whatever the files hold
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else "no message"
        hint = (
            "; code in a model's folder is not executed, write your own factory" if "remote_code" in str(error) else ""
        )
        raise ModelError(
            f"{folder}: transformers cannot build a classifier: {type(error).__name__}: {reason}{hint}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()
    wrong_shapes = [
        f"{key} {tuple(actual)} instead of {tuple(expected)}" for key, actual, expected in loading["mismatched_keys"]
    ]
    weights.check_state_dict_keys(
        folder, sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"]), wrong_shapes
    )
    return module  # type: ignore[no-any-return]


def class_names(library: str | None, module: nn.Module, outputs: int) -> list[tuple[str, ...]]:
    """
    Return a library's names of each output, with WordNet ids if it has them; empty if it names none.

    timm and torchvision name the classes of ImageNet, and only if the number of outputs fits.
    """
    if library == "hf":
        labels = module.config.id2label  # type: ignore[union-attr]
        base = [str(labels.get(i, labels.get(str(i), ""))) for i in range(outputs)]  # type: ignore[union-attr,operator]
        return [] if all(re.fullmatch(r"LABEL_\d+|", name) for name in base) else [(name,) for name in base]
    if library not in ("timm", "torchvision"):
        return []
    names: list[tuple[str, ...]] = [()] * outputs
    if library == "torchvision" and outputs == 1000:
        names = [(name,) for name in import_library("torchvision").ResNet50_Weights.DEFAULT.meta["categories"]]
    with suppress(MissingLibrary):  # torchvision has no WordNet ids; timm's are in the same order
        data = import_library("timm").data
        if library == "timm" or outputs == 1000:
            subset = data.infer_imagenet_subset({"num_classes": outputs})
            if subset is not None:
                imagenet = data.ImageNetInfo(subset)
                names = [
                    (*base, imagenet.index_to_description(i), imagenet.index_to_label_name(i))
                    for i, base in enumerate(names)
                ]
    return names if any(names) else []
