"""Models stored whole in a file: TorchScript, torch.export, and ONNX, which has no gradients."""

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
    "{file} is an ONNX file, which onnxruntime runs without gradients; use noise, corruptions or examples transferred "
    "from another model, not gradient attacks"
)


def load(kind: str, file: Path) -> nn.Module:
    """Return the module of an exported file of one of the kinds ``libraries.FILES``; ModelError if it is missing."""
    if why := paths.missing(file):
        raise ModelError(f"{file}: there is no such file: it {why}")
    if kind == "torchscript":
        return _torchscript(file)
    return OnnxModel(file) if kind == "onnx" else ExportedProgramModel(file)


def batch_notes(module: nn.Module) -> list[str]:
    """Return notes on the batch size that a file was exported for."""
    size = module.batch_size if isinstance(module, OnnxModel | ExportedProgramModel) else None
    return [f"exported for batches of {size} images; smaller batches are padded"] if size else []


def _torchscript(file: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # who has a TorchScript file knows that it is deprecated
            module: nn.Module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever the file holds
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(f"{file}: not a TorchScript file that can be read: {reason}") from error
    weights.check_records(file, module.state_dict().values())
    return module


class ExportedProgramModel(nn.Module):
    """A torch.export file as a module: maps images (N, C, H, W), float32, to its outputs, with gradients."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, and those on foreign files
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
        self.batch_size = size if isinstance(size, int) else None
        """The only batch size that it takes, if it was exported for one."""
        ranges = {} if isinstance(size, int) else {str(key): r for key, r in program.range_constraints.items()}
        upper = str(getattr(ranges.get(str(size)), "upper", ""))
        self.max_batch_size = int(upper) if upper.isdecimal() else None
        """The largest batch that it takes, if it was exported with a limit."""
        for module in self.graph.modules():
            module.training = False

    def train(self, mode: bool = True) -> ExportedProgramModel:
        """Record the mode; it changes nothing, because the mode is fixed at export."""
        self.training = mode
        return self

    def forward(self, inputs: Tensor) -> Any:
        """Run the program on batches of the size that it takes, and concatenate the outputs."""
        count, size = len(inputs), self.batch_size or self.max_batch_size or len(inputs)
        if self.batch_size and count % size:
            inputs = torch.cat([inputs, inputs[-1:].expand(-count % size, *inputs.shape[1:])])
        parts = [self.graph(inputs[start : start + size]) for start in range(0, len(inputs), size)]
        return parts[0] if len(parts) == 1 and len(inputs) == count else _concatenate(parts, count)


def _concatenate(parts: Sequence[Any], count: int) -> Any:
    """Concatenate the outputs of several batches, cut to ``count`` images."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))[:count]
    if isinstance(parts[0], Mapping):
        return {key: _concatenate([part[key] for part in parts], count) for key in parts[0]}
    return [_concatenate(outputs, count) for outputs in zip(*parts, strict=True)]


class OnnxModel(nn.Module):
    """An ONNX file as a module: maps images (N, C, H, W), float32, to its only output, or to all outputs by name."""

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
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            raise ModelError(
                f"{file}: a classifier must take images alone, got the inputs "
                f"{', '.join(tensor.name for tensor in inputs)}; export a model that takes one"
            )
        self.is_half = inputs[0].type == "tensor(float16)"
        if not self.is_half and inputs[0].type != "tensor(float)":
            raise ModelError(f"{file}: its input must be floats, got {inputs[0].type}; export it with float32 images")
        self.input = inputs[0].name
        self.batch_size = inputs[0].shape[0] if inputs[0].shape and isinstance(inputs[0].shape[0], int) else None
        self.channels = (
            inputs[0].shape[1] if len(inputs[0].shape) == 4 and isinstance(inputs[0].shape[1], int) else None
        )
        self.names = [tensor.name for tensor in self.session.get_outputs()]

    def forward(self, inputs: Tensor) -> Tensor | dict[str, Tensor]:
        """Run the model; GradientError if a gradient is requested."""
        if torch.is_grad_enabled() and inputs.requires_grad:
            raise GradientError(NO_GRADIENTS.format(file=self.file))
        size = self.batch_size or max(1, len(inputs))
        parts = [self._run(inputs[start : start + size], size) for start in range(0, len(inputs), size)]
        outputs = {name: torch.cat([part[name] for part in parts]).to(inputs.device) for name in self.names}
        return outputs[self.names[0]] if len(outputs) == 1 else outputs

    def _run(self, inputs: Tensor, size: int) -> dict[str, Tensor]:
        count = len(inputs)
        if self.batch_size and count < size:  # a file that was exported for one batch size takes no other
            inputs = torch.cat([inputs, inputs[-1:].expand(size - count, *inputs.shape[1:])])
        images = inputs.detach().cpu().to(torch.float16 if self.is_half else torch.float32).contiguous().numpy()
        outputs = self.session.run(self.names, {self.input: images})
        return {name: torch.from_numpy(value)[:count] for name, value in zip(self.names, outputs, strict=True)}
