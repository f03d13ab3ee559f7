"""Weights files: read without executing code, checked against what they say of themselves."""

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

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
"""What torch calls the types of a safetensors file."""


WHOLE = {".safetensors", ".pt", ".pth", ".pt2", ".ckpt", ".bin", ".npz"}
"""How files end that hold all of their tensors; any other may be ONNX, whose tensors may lie beside it."""


def metadata(path: Path) -> dict[str, str]:
    """Return what a safetensors file says of itself, reading its header alone; nothing for other files."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > 2**26:
                raise ValueError("no header")
            return dict(json.loads(stream.read(size)).get("__metadata__", {}))
    except Exception as error:  # whatever a foreign file makes the parser say
        raise ModelError(f"{path}: not a safetensors file (torn, or of another format): {error}") from error


def to_bytes(state: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """Write tensors as safetensors with a checksum of the tensors in the header."""
    import safetensors.torch

    # Copied, for tensors that share memory are refused; each name holds its own when they are read.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    return bytes(safetensors.torch.save(tensors, {**about, "checksum": checksum(tensors)}))


def read(path: Path) -> dict[str, Tensor]:
    """
    Read the tensors of a ``.safetensors`` file, or of one that ``torch.load(weights_only=True)`` takes.

    ModelError where the file is missing, torn, changed after it was written, or would execute code.
    """
    import torch

    state = load_untyped(path)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path}: must hold tensors by name, got {type(state).__name__}; save module.state_dict()")
    check_checksum(path, state)
    return state


def load_untyped(path: Path) -> Any:
    """Read what a file holds, whatever it is, without executing code; ModelError where that cannot be."""
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
            warnings.simplefilter("ignore", UserWarning)  # of pickles that are refused then
            found = pickles.load(path)
        tensors = list(_tensors(found))
        if any(tensor.is_nested for tensor in tensors):  # code that asks for its shape would raise
            raise ModelError(f"{path}: holds a nested tensor, which is no weight; save floats")
        check_records(path, tensors)
        return found
    except ModelError:
        raise
    except Exception as error:  # the parsers raise many kinds; to the user it is one
        raise ModelError(f"{path}: cannot be read without executing code, or is torn: {_why(path, error)}") from error


def _why(path: Path, error: Exception) -> str:
    """Say why a file was not read: what it would call, where it would, and never torch's advice to let it."""
    repair = "save module.state_dict() alone, best as safetensors"
    found = re.search(r"GLOBAL (\S+)", str(error))
    if called := found[1] if found else file_formats.called(path):
        return f"it calls {called} when it is loaded; {repair}"
    if "weights_only" in str(error):
        return f"it holds no tensors by name that torch.save wrote; {repair}"
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _tensors(found: Any, depth: int = 8) -> Iterator[Tensor]:
    """Return the tensors of a nested checkpoint."""
    import torch

    if isinstance(found, torch.Tensor):
        yield found
    elif depth and isinstance(found, dict | list | tuple):
        for value in found.values() if isinstance(found, dict) else found:
            yield from _tensors(value, depth - 1)


def check_records(path: Path, tensors: Iterable[Tensor]) -> None:
    """
    Raise ModelError where an archive of torch's holds less of a tensor than this has.

    PyTorch does not compare the two, and reads what happens to lie behind in memory.
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
        raise ModelError(f"{path}: holds a tensor that has no values (torn); get or write it again") from error
    held = Counter(m.file_size for m in members if re.search(r"/(data|constants)/[^/]+$", m.filename))
    if any(size for size in (Counter(storages.values()) - held)):
        raise ModelError(f"{path}: a tensor is larger than what the file holds of it (torn); get or write it again")


def _is_sparse(tensor: Tensor) -> bool:
    import torch

    return tensor.layout != torch.strided


def check_checksum(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise ModelError where the tensors of a file do not fit the checksum that it has, if it has one."""
    said = metadata(path).get("checksum")
    if said is not None and said != checksum(state):
        raise ModelError(f"{path}: its tensors do not fit its checksum (damaged, or edited after it was written)")


def verify_checksum(path: Path) -> None:
    """
    Check a safetensors file that this project wrote against its checksum, without torch.

    ModelError where it is torn, foreign or changed.
    """
    said = metadata(path).get("checksum")
    if said != _stored(path):
        raise ModelError(f"{path}: its tensors do not fit its checksum (damaged, or edited after it was written)")


def all_files(path: Path) -> list[Path]:
    """Return every file that weights lie in: the one that is named, and the shards or outside tensors that it names."""
    if not path.is_file():
        return [path]
    if file_formats.is_index(path):
        return [path, *file_formats.shards(path)]
    return [path] if path.suffix in WHOLE else [path, *file_formats.outside(path)]


def signature(path: Path) -> list[list[int]]:
    """Return sizes, times of change and inodes of `all_files`: what is another where one was written or replaced."""
    return [file_stat(str(file)) for file in all_files(path)]


def content_hash(path: Path) -> str:
    """
    Return the hash of the tensors in a safetensors file, of the bytes of any other; without torch.

    What stands beside the tensors does not count, nor their order, which differs each time they are written. Of
    several files all count.
    """
    if others := all_files(path)[1:]:
        parts = {file.relative_to(path.parent).as_posix(): content_hash(file) for file in others if file.is_file()}
        return hashlib.sha256(json.dumps([sha256_file(path), parts], sort_keys=True).encode()).hexdigest()
    try:
        return _stored(path)
    except ModelError:  # another format, or torn: loading it will say so
        return sha256_file(path)


def _stored(path: Path) -> str:
    from safetensors import deserialize

    try:
        tensors = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        return digest(
            (name, DTYPES[about["dtype"]], tuple(about["shape"]), about["data"]) for name, about in sorted(tensors)
        )
    except Exception as error:  # the parser raises many kinds
        raise ModelError(f"{path}: not a whole weights file (torn or foreign)") from error


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors into a module; ModelError lists what is missing, unexpected or of another shape."""
    own = module.state_dict()
    for name, tensor in state.items():
        if problem := _unusable(tensor, own.get(name)):
            raise ModelError(f"{path}: {plain(name)} {problem}")
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    check_state_dict_keys(path, missing, unexpected, misshapen(state, own))
    given = OrderedDict(state)
    # The versions of its layers, which some ask for: files do not keep them, and the names are those of today's.
    given._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(given)


def _unusable(tensor: Tensor, own: Tensor | None) -> str:
    """Say why a tensor cannot be put in the place of the module's own; nothing where it can."""
    from torch.nn.parameter import is_lazy

    if tensor.is_meta:
        return "has no values (it is on the device meta); save the model once it has its weights"
    if tensor.is_quantized:
        return "is quantised; save tensor.dequantize() in its place, or the model in float"
    if _is_sparse(tensor):
        return "is sparse; save tensor.to_dense() in its place"
    if own is not None and not is_lazy(own) and own.is_floating_point() and not tensor.is_floating_point():
        return f"is of {str(tensor.dtype).removeprefix('torch.')}, which are no weights in float; save floats"
    return ""


def misshapen(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Say which tensors have another shape than a module's own of that name; lazy ones have none yet."""
    from torch.nn.parameter import is_lazy

    return [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and not is_lazy(tensor) and state[name].shape != tensor.shape
    ]


def check_state_dict_keys(path: Path, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
    """Raise ModelError that lists what makes weights those of another architecture, five of each kind."""
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if listed := "; ".join(f"{kind}: {abbreviate(names)}" for kind, names in kinds.items() if names):
        raise ModelError(f"{path}: these are weights of another architecture: {listed}")


def abbreviate(names: list[str]) -> str:
    """
    List the first five, and say how many more there are.

    >>> abbreviate(list("abcdefg"))
    'a, b, c, d, e and 2 more'
    """
    return ", ".join(plain(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """
    Return the sha256 over names, types, shapes and values of tensors on the CPU.

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
    """Hash names, types, shapes and bytes of tensors, in this order."""
    found = hashlib.sha256()
    for name, dtype, shape, data in tensors:
        found.update(f"{name}{dtype}{shape}".encode())
        found.update(data)
    return found.hexdigest()
