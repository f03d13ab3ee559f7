"""Models that are a file, architecture and weights: TorchScript, and ONNX, which onnxruntime runs without gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustness import files, weights
from robustness.errors import GradientError, ModelError
from robustness.found import libraries

NO_GRADIENTS = (
    "{file} is an ONNX file, which onnxruntime runs without gradients; noise, natural changes and examples made on "
    "another model work, attacks by gradient do not"
)


def load(kind: str, file: Path) -> nn.Module:
    """Give the module of an exported file, ``onnx`` or ``torchscript``; ModelError where it is no classifier's."""
    if why := files.missing(file):
        raise ModelError(f"{file}: there is no such file: it {why}")
    return Onnx(file) if kind == "onnx" else _torchscript(file)


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


class Onnx(nn.Module):
    """An ONNX file as a module: images (N, C, H, W), float32, to its first output, or to all of them by name."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        runtime = libraries.imported("onnxruntime")
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
