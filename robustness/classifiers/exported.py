"""Models that are a file, architecture and weights: TorchScript, torch.export, and ONNX, which has no gradients."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustness.classifiers import libraries, weights
from robustness.errors import GradientError, ModelError
from robustness.util import paths

NO_GRADIENTS = (
    "{file} is an ONNX file, which onnxruntime runs without gradients; noise, natural changes and examples made on "
    "another model work, attacks by gradient do not"
)


def load(kind: str, file: Path) -> nn.Module:
    """Return the module of an exported file, of a kind of ``libraries.FILES``; ModelError where there is none."""
    if why := paths.missing(file):
        raise ModelError(f"{file}: there is no such file: it {why}")
    if kind == "torchscript":
        return _torchscript(file)
    return Onnx(file) if kind == "onnx" else Exported(file)


def notes(module: nn.Module) -> list[str]:
    """Return what to say of an exported file: for which batches it was made."""
    size = module.at_once if isinstance(module, Onnx | Exported) else None
    return [f"exported for batches of {size} images; smaller ones are filled up"] if size else []


def _torchscript(file: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that TorchScript is old is known to who has a file
            module: nn.Module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the file holds
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(f"{file}: not a TorchScript file that can be read: {reason}") from error
    weights.check_records(file, module.state_dict().values())
    return module


class Exported(nn.Module):
    """A torch.export file as a module: images (N, C, H, W), float32, to what it gives, with gradients."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's own parts, and of files that are none of its
                program = torch.export.load(file)
                self.graph = program.module()
        except Exception as error:  # whatever the file holds
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise ModelError(f"{file}: not a torch.export file that can be read: {reason}") from error
        names = program.graph_signature.user_inputs
        if len(names) != 1:
            raise ModelError(
                f"{file}: a classifier must take images alone, got the inputs {', '.join(map(str, names))}; "
                "export a model that takes one"
            )
        size = next(node for node in program.graph.nodes if node.name == names[0]).meta["val"].shape[0]
        self.at_once = size if isinstance(size, int) else None
        """The one size of batches that it takes, if it was exported for one."""
        limits = {} if isinstance(size, int) else {str(key): each for key, each in program.range_constraints.items()}
        upper = str(getattr(limits.get(str(size)), "upper", ""))
        self.most = int(upper) if upper.isdecimal() else None
        """The largest batch that it takes, if it was exported with a limit."""
        for module in self.graph.modules():
            module.training = False

    def train(self, mode: bool = True) -> Exported:
        """Take note of a mode, and no more: what is exported was exported in one."""
        self.training = mode
        return self

    def forward(self, inputs: Tensor) -> Any:
        """Run the program on batches of the size that it takes; of what it gives for each all are put together."""
        count, size = len(inputs), self.at_once or self.most or len(inputs)
        if self.at_once and count % size:
            inputs = torch.cat([inputs, inputs[-1:].expand(-count % size, *inputs.shape[1:])])
        parts = [self.graph(inputs[start : start + size]) for start in range(0, len(inputs), size)]
        return parts[0] if len(parts) == 1 and len(inputs) == count else _joined(parts, count)


def _joined(parts: Sequence[Any], count: int) -> Any:
    """Return what was given for some batches as for one of so many images."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))[:count]
    if isinstance(parts[0], Mapping):
        return {key: _joined([part[key] for part in parts], count) for key in parts[0]}
    return [_joined(each, count) for each in zip(*parts, strict=True)]


class Onnx(nn.Module):
    """An ONNX file as a module: images (N, C, H, W), float32, to its first output, or to all of them by name."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        runtime = libraries.import_library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session: Any = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # whatever the file holds
            reason = str(error).strip().splitlines()[0][:200]
            raise ModelError(f"{file}: not an ONNX file that onnxruntime can run: {reason}") from error
        self.file = file.name
        given = self.session.get_inputs()
        if len(given) != 1:
            raise ModelError(
                f"{file}: a classifier must take images alone, got the inputs "
                f"{', '.join(each.name for each in given)}; export a model that takes one"
            )
        self.takes_half = given[0].type == "tensor(float16)"
        if not self.takes_half and given[0].type != "tensor(float)":
            raise ModelError(f"{file}: its input must be floats, got {given[0].type}; export it with float32 images")
        self.input = given[0].name
        self.at_once = given[0].shape[0] if given[0].shape and isinstance(given[0].shape[0], int) else None
        self.channels = given[0].shape[1] if len(given[0].shape) == 4 and isinstance(given[0].shape[1], int) else None
        self.names = [each.name for each in self.session.get_outputs()]

    def forward(self, inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """Run the file; GradientError where a gradient is wanted of it."""
        if torch.is_grad_enabled() and inputs.requires_grad:
            raise GradientError(NO_GRADIENTS.format(file=self.file))
        size = self.at_once or max(1, len(inputs))
        parts = [self._run(inputs[start : start + size], size) for start in range(0, len(inputs), size)]
        found = {name: torch.cat([part[name] for part in parts]).to(inputs.device) for name in self.names}
        return found[self.names[0]] if len(found) == 1 else found

    def _run(self, inputs: Tensor, size: int) -> dict[str, Tensor]:
        count = len(inputs)
        if self.at_once and count < size:  # a file that was exported for one size of batch takes no other
            inputs = torch.cat([inputs, inputs[-1:].expand(size - count, *inputs.shape[1:])])
        images = inputs.detach().cpu().to(torch.float16 if self.takes_half else torch.float32).contiguous().numpy()
        found = self.session.run(self.names, {self.input: images})
        return {name: torch.from_numpy(value)[:count] for name, value in zip(self.names, found, strict=True)}
