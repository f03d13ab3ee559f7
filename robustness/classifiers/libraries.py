"""Factories by name: models of timm and torchvision, Hugging Face folders, exported files; nothing is downloaded."""

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

PACKAGES = {
    "timm": "timm", "torchvision": "torchvision", "hf": "transformers", "onnx": "onnxruntime", "torchscript": "torch",
    "torchexport": "torch",
}  # fmt: skip
"""What stands before the colon of a factory by name, and the package that it needs."""
EXTRAS = {"timm": "timm", "transformers": "transformers", "onnxruntime": "onnx"}
PREPROCESSING = ("timm", "torchvision", "hf")
"""Factories whose libraries say what is done to images."""
FILES = ("onnx", "torchscript", "torchexport")
"""Factories that name a file with a whole model in it; such a file is run, so that only who names it so trusts it."""
BRINGING = ("hf", *FILES)
"""Factories that name a folder or file with weights in it."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
UNREAD = ("trainer_state.json", "training_args.bin", "optimizer.bin", "scheduler.bin")
"""What trainings leave in a folder for themselves."""
DOWNLOADING = ("pretrained", "weights", "weights_backbone", "checkpoint_path", "pretrained_cfg_overlay")
"""Arguments by which the libraries fetch or read weights."""


def factory_library(factory: str) -> str | None:
    """
    Return what stands before the colon where it is the name of a library, not of a module.

    >>> factory_library("timm:resnet18"), factory_library("mypackage.models:Net")
    ('timm', None)
    """
    before = factory.partition(":")[0]
    return before if before in PACKAGES else None


def factory_error(factory: str, arguments: Mapping[str, Any], folder: Path) -> str:
    """Say what is wrong with a factory by name as far as files tell, importing nothing; empty where nothing is."""
    of, name = factory_library(factory), factory.partition(":")[2]
    if of in ("timm", "torchvision"):
        if asked := [key for key in DOWNLOADING if arguments.get(key)]:
            return (
                f"arguments.{asked[0]} = {arguments[asked[0]]!r}: nothing is downloaded, and weights are read by the "
                "card alone; save the module's state_dict() in a file and name it in model.weights"
            )
        if not re.fullmatch(r"[\w.]+", name):
            return f"must name a model that {of} builds, as {of}:resnet18, got {name!r}; nothing is downloaded"
    if of == "hf" and not (folder / name / "config.json").is_file():
        return (
            f"{folder / name} must be a folder with a config.json, as save_pretrained writes it; nothing is downloaded"
        )
    if of in FILES and (why := paths.missing(folder / name)):
        return f"there is no file {folder / name}: it {why}"
    return ""


def bundled_weights(factory: str, folder: Path) -> Path | None:
    """Return the file of the weights that a factory by name brings: the exported file, or one of the folder."""
    of, place = factory_library(factory), folder / factory.partition(":")[2]
    if of in FILES:
        return place
    if of == "hf":
        return next((file for name in WEIGHTS if (file := place / name).is_file()), None)
    return None


def config_files(factory: str, folder: Path) -> list[Path]:
    """Return the files beside the weights that a factory by name reads."""
    if factory_library(factory) != "hf":
        return []
    own = bundled_weights(factory, folder)
    taken = [] if own is None else weights.all_files(own)
    place = folder / factory.partition(":")[2]
    # Its library may read any of them, as config.json says.
    return sorted(
        file for end in ("*.json", "*.safetensors", "*.bin") for file in place.glob(end)
        if file.is_file() and file not in taken and file.name not in UNREAD
    )  # fmt: skip


def install_command(package: str) -> str:
    """Return the command that installs a package with the extra that it is in."""
    return f'pip install "pytest-robustness[{EXTRAS[package]}]"' if package in EXTRAS else f"pip install {package}"


def import_library(package: str) -> Any:
    """Import what is needed of a library; MissingLibrary names the extra that installs it."""
    # The libraries import torchvision, which needs help beside a CPU-only torch.
    import robustness.util.torchvision_compat

    try:
        models = robustness.util.torchvision_compat.models
        if package == "torchvision":
            return models
        found = importlib.import_module(package)
        if package == "timm":
            importlib.import_module("timm.data")
        return found
    except ImportError as error:
        raise MissingLibrary(
            f"the factory needs {package}, which cannot be imported ({error}); {install_command(package)}"
        ) from error


def check_model_name(of: str, name: str) -> None:
    """Refuse a name that timm or torchvision builds no classifier of; ModelError says which may have been meant."""
    library = import_library(of)
    # A model's variant stands after a point: resnet18.a1_in1k.
    names = library.list_models() if of == "timm" else library.list_models(module=library)
    if name.partition(".")[0] not in names or (of == "torchvision" and "." in name):
        raise ModelError(f"{of} has no classifier {name!r}{nearest(name, names)}; nothing is downloaded")


def build(of: str, name: str, arguments: Mapping[str, Any], folder: Path) -> nn.Module:
    """Return a library's module with random weights, as its factory makes it; ModelError where it cannot be made."""
    library = import_library(PACKAGES[of])
    if of == "hf":
        return _hugging_face(folder / name, arguments, with_weights=False)
    check_model_name(of, name)
    options = {key: value for key, value in arguments.items() if key not in DOWNLOADING}
    try:
        if of == "timm":
            return library.create_model(name, pretrained=False, **options)  # type: ignore[no-any-return]
        builder = library.get_model_builder(name)
        if name in ("googlenet", "inception_v3"):
            options.setdefault("init_weights", False)  # as by default later on; today's default takes half a minute
        return builder(weights=None, **options)  # type: ignore[no-any-return]
    except Exception as error:  # the arguments are the user's
        raise ModelError(f"{of}:{name} raised {type(error).__name__}: {error}") from error


def with_own_weights(folder: Path, arguments: Mapping[str, Any]) -> tuple[nn.Module, list[str]]:
    """Return the module of a Hugging Face folder with its weights in it, in float32; and say if they were not."""
    import_library("transformers")
    module = _hugging_face(folder, arguments, with_weights=True)
    about = paths.parse_json(paths.read_bytes(folder / "config.json"))
    kept = about.get("dtype") or about.get("torch_dtype") or "float32"
    return module, [] if kept == "float32" else [f"weights of {kept} are computed with in float32"]


def _hugging_face(folder: Path, arguments: Mapping[str, Any], *, with_weights: bool) -> nn.Module:
    import torch
    from transformers import AutoConfig, AutoModelForImageClassification
    from transformers.utils import logging

    said, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local, **arguments)
        if not with_weights:
            return AutoModelForImageClassification.from_config(config, dtype=torch.float32)  # type: ignore[no-any-return]
        module, about = AutoModelForImageClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **local
        )
    except Exception as error:  # whatever the files hold
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else "no message"
        hint = (
            "; code in a model's folder is not run, write a factory of your own" if "remote_code" in str(error) else ""
        )
        raise ModelError(
            f"{folder}: transformers cannot make a classifier: {type(error).__name__}: {reason}{hint}"
        ) from error
    finally:
        logging.set_verbosity(said)
        if shown:
            logging.enable_progress_bar()
    misshapen = [f"{key} {tuple(got)} instead of {tuple(due)}" for key, got, due in about["mismatched_keys"]]
    weights.check_state_dict_keys(folder, sorted(about["missing_keys"]), sorted(about["unexpected_keys"]), misshapen)
    return module  # type: ignore[no-any-return]


def class_names(of: str | None, module: nn.Module, outputs: int) -> list[tuple[str, ...]]:
    """
    Return what a library calls each output: names, and WordNet ids where it has them; nothing where it says nothing.

    timm and torchvision speak of ImageNet, and only where there are as many outputs.
    """
    if of == "hf":
        labels = module.config.id2label  # type: ignore[union-attr]
        names = [str(labels.get(i, labels.get(str(i), ""))) for i in range(outputs)]  # type: ignore[union-attr,operator]
        return [] if all(re.fullmatch(r"LABEL_\d+|", name) for name in names) else [(name,) for name in names]
    if of not in ("timm", "torchvision"):
        return []
    found: list[tuple[str, ...]] = [()] * outputs
    if of == "torchvision" and outputs == 1000:
        found = [(name,) for name in import_library("torchvision").ResNet50_Weights.DEFAULT.meta["categories"]]
    with suppress(MissingLibrary):  # torchvision has no WordNet ids; timm's are in the same order
        data = import_library("timm").data
        if of == "timm" or outputs == 1000:
            subset = data.infer_imagenet_subset({"num_classes": outputs})
            if subset is not None:
                about = data.ImageNetInfo(subset)
                found = [
                    (*names, about.index_to_description(i), about.index_to_label_name(i))
                    for i, names in enumerate(found)
                ]
    return found if any(found) else []
