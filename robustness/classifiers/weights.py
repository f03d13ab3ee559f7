"""Weights files: read without executing code, and checked against their checksums."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.classifiers import pickles
from robustness.errors import ModelError, plain
from robustness.util import file_formats, paths
from robustness.util.file_stat import file_stat
from robustness.util.source_files import sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn

# torch's names of the types of a safetensors file.
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip

# Suffixes of files that hold all of their tensors; others may be ONNX, whose tensors may be in other files.
SELF_CONTAINED = {".safetensors", ".pt", ".pth", ".pt2", ".ckpt", ".bin", ".npz"}


def metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file; empty for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > 2**26:
                raise ValueError("no header")
            return dict(json.loads(stream.read(size)).get("__metadata__", {}))
    except Exception as error:  # a foreign file may raise anything
        raise ModelError(f"{path}: not a safetensors file (truncated, or of another format): {error}") from error


def to_bytes(state: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """Serialise tensors as safetensors; the header gets their checksum."""
    import safetensors.torch

    # Copied, because safetensors rejects tensors that share memory.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    return bytes(safetensors.torch.save(tensors, {**header, "checksum": checksum(tensors)}))


def read(path: Path) -> dict[str, Tensor]:
    """
    Read the tensors of a ``.safetensors`` file, or of one that ``torch.load(weights_only=True)`` reads.

    ModelError if the file is missing, truncated, changed after it was written, or would execute code.
    """
    import torch

    state = load_untyped(path)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: must hold tensors by name, got {type(state).__name__}; save module.state_dict()")
    check_checksum(path, state)
    return state


def load_untyped(path: Path) -> Any:
    """Read a file's content, of any type, without executing code; ModelError if that fails."""
    import torch

    if why := paths.missing(path):
        raise ModelError(f"{path}: there is no such weights file: it {why}")
    if problem := file_formats.mistaken_file(path) or file_formats.whole_model(path):
        raise ModelError(f"{path}: {problem}")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load(path.read_bytes())
        if path.suffix == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on pickles that are rejected below
            content = pickles.load(path)
        tensors = list(_tensors(content))
        if any(tensor.is_nested for tensor in tensors):  # reading its shape would raise
            raise ModelError(f"{path}: holds a nested tensor, which cannot be a weight; save a dense tensor")
        check_records(path, tensors)
        return content
    except ModelError:
        raise
    except Exception as error:  # the parsers raise many types
        raise ModelError(
            f"{path}: cannot be read without executing code, or is truncated: {_load_error(path, error)}"
        ) from error


def _load_error(path: Path, error: Exception) -> str:
    """Return why a file was not read: what it would call, but not torch's advice to allow that."""
    remedy = "save module.state_dict() alone, best as safetensors"
    match = re.search(r"GLOBAL (\S+)", str(error))
    if name := match[1] if match else file_formats.called(path):
        return f"it calls {name} when it is loaded; {remedy}"
    if "weights_only" in str(error):
        return f"it holds no tensors by name that torch.save wrote; {remedy}"
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _tensors(content: Any, depth: int = 8) -> Iterator[Tensor]:
    """Yield the tensors of a nested checkpoint."""
    import torch

    if isinstance(content, torch.Tensor):
        yield content
    elif depth and isinstance(content, dict | list | tuple):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _tensors(value, depth - 1)


def check_records(path: Path, tensors: Iterable[Tensor]) -> None:
    """
    Raise ModelError if an archive of torch holds fewer bytes than one of its tensors has.

    PyTorch does not compare the two, and would read whatever follows in memory.
    """
    if not zipfile.is_zipfile(path):
        return
    storages: dict[int, int] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        for tensor in tensors:
            if not _is_sparse(tensor) and tensor.device.type == "cpu":
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    except (RuntimeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: holds a tensor without values (truncated); download or write it again") from error
    stored = Counter(m.file_size for m in members if re.search(r"/(data|constants)/[^/]+$", m.filename))
    if any(size for size in (Counter(storages.values()) - stored)):
        raise ModelError(
            f"{path}: a tensor is larger than its data in the file (truncated); download or write it again"
        )


def _is_sparse(tensor: Tensor) -> bool:
    import torch

    return tensor.layout != torch.strided


def check_checksum(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise ModelError if a file has a checksum and its tensors do not match it."""
    expected = metadata(path).get("checksum")
    if expected is not None and expected != checksum(state):
        raise ModelError(f"{path}: its tensors do not fit its checksum (damaged, or edited after it was written)")


def verify_checksum(path: Path) -> None:
    """
    Check a safetensors file that this project wrote against its checksum, without torch.

    ModelError if it is truncated, foreign or changed.
    """
    if metadata(path).get("checksum") != _stored_digest(path):
        raise ModelError(f"{path}: its tensors do not fit its checksum (damaged, or edited after it was written)")


def all_files(path: Path) -> list[Path]:
    """Return every file of some weights: the named one, and the shards or external tensors that it refers to."""
    if not path.is_file():
        return [path]
    if file_formats.is_index(path):
        return [path, *file_formats.shards(path)]
    return [path] if path.suffix in SELF_CONTAINED else [path, *file_formats.outside(path)]


def signature(path: Path) -> list[list[int]]:
    """Return sizes, modification times and inodes of `all_files`; it differs if one was written or replaced."""
    return [file_stat(str(file)) for file in all_files(path)]


def content_hash(path: Path) -> str:
    """
    Return the hash of the tensors in a safetensors file, or of the bytes of any other file; without torch.

    Metadata and the order of the tensors do not count: they differ each time a file is written. Shards and
    external files count.
    """
    if others := all_files(path)[1:]:
        parts = {file.relative_to(path.parent).as_posix(): content_hash(file) for file in others if file.is_file()}
        return hashlib.sha256(json.dumps([sha256_file(path), parts], sort_keys=True).encode()).hexdigest()
    try:
        return _stored_digest(path)
    except ModelError:  # another format, or truncated: loading it will say so
        return sha256_file(path)


def _stored_digest(path: Path) -> str:
    from safetensors import deserialize

    try:
        tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        return digest(
            (name, DTYPES[tensor["dtype"]], tuple(tensor["shape"]), tensor["data"]) for name, tensor in sorted(tensors)
        )
    except Exception as error:  # the parser raises many types
        raise ModelError(f"{path}: not a complete weights file (truncated or foreign)") from error


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module; ModelError lists missing and unexpected names, and those of another shape."""
    own = module.state_dict()
    for name, tensor in state.items():
        if problem := _tensor_problem(tensor, own.get(name)):
            raise ModelError(f"{path}: {plain(name)} {problem}")
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    check_state_dict_keys(path, missing, unexpected, wrong_shapes(state, own))
    ordered = OrderedDict(state)
    # The versions of its layers, which some layers check: files do not store them, and the names are the current ones.
    ordered._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(ordered)


def _tensor_problem(tensor: Tensor, own: Tensor | None) -> str:
    """Return why a tensor cannot replace the module's own, empty if it can."""
    from torch.nn.parameter import is_lazy

    if tensor.is_meta:
        return "has no values (it is on the device meta); save the model after its weights are loaded"
    if tensor.is_quantized:
        return "is quantised; save tensor.dequantize() instead, or the float model"
    if _is_sparse(tensor):
        return "is sparse; save tensor.to_dense() instead"
    if own is not None and not is_lazy(own) and own.is_floating_point() and not tensor.is_floating_point():
        return f"is of {str(tensor.dtype).removeprefix('torch.')}, the model's is of floats; save floats"
    return ""


def wrong_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors whose shape differs from the module's; lazy parameters have no shape yet."""
    from torch.nn.parameter import is_lazy

    return [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and not is_lazy(tensor) and state[name].shape != tensor.shape
    ]


def check_state_dict_keys(path: Path, missing: list[str], unexpected: list[str], wrong_shapes: list[str]) -> None:
    """Raise ModelError if names or shapes do not match; it lists five of each kind."""
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": wrong_shapes}
    if listed := "; ".join(f"{kind}: {abbreviate(names)}" for kind, names in kinds.items() if names):
        repair = "" if missing or unexpected else _pass_outputs(wrong_shapes)
        raise ModelError(f"{path}: these are weights of another architecture: {listed}{repair}")


def _pass_outputs(wrong_shapes: list[str]) -> str:
    """Return what to do if the shapes differ by one number of outputs alone, as of a model of other classes."""
    pattern = re.compile(r"\((\d+),(.*)\) instead of \((\d+),(.*)\)$")
    pairs = [match.groups() for shape in wrong_shapes if (match := pattern.search(shape))]
    alike = all(theirs == ours for _, theirs, _, ours in pairs)
    if len(pairs) < len(wrong_shapes) or not alike or len({(each[0], each[2]) for each in pairs}) != 1:
        return ""
    outputs = pairs[0][0]
    return (
        f"; the file's model has {outputs} outputs: pass that to the factory, for example `arguments = "
        f"{{ num_classes = {outputs} }}` or `--robustness-argument num_classes={outputs}`"
    )


def abbreviate(names: list[str]) -> str:
    """
    List the first five names and the number of the others.

    >>> abbreviate(list("abcdefg"))
    'a, b, c, d, e and 2 more'
    """
    return ", ".join(plain(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """
    Return the SHA-256 of the names, types, shapes and values of tensors on the CPU.

    >>> import torch
    >>> checksum({"w": torch.zeros(2)}) == checksum({"w": torch.zeros(2, 1)})
    False
    """
    import torch

    return digest(
        (
            name,
            str(tensor.dtype).removeprefix("torch."),
            tuple(tensor.shape),
            tensor.contiguous().flatten().view(torch.uint8).numpy().data,
        )
        for name, tensor in sorted(tensors.items())
    )


def digest(tensors: Iterable[tuple[str, str, tuple[int, ...], bytes | bytearray | memoryview]]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of tensors, in this order."""
    sha256 = hashlib.sha256()
    for name, dtype, shape, data in tensors:
        sha256.update(f"{name}{dtype}{shape}".encode())
        sha256.update(data)
    return sha256.hexdigest()
