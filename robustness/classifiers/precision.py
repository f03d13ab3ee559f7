"""The precision of a model's arithmetic: float32, TF32 matrix products on a GPU, or bfloat16 under autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from robustness.errors import RobustnessError

if TYPE_CHECKING:
    from torch import nn

Dtype = Literal["float32", "tf32", "bf16"]
DTYPES: tuple[str, ...] = get_args(Dtype)
# The backend setting of float32 matrix products per precision.
MATMUL_MODES = {"float32": "ieee", "tf32": "tf32", "bf16": "ieee"}


def check_dtype(dtype: str, device: str | None) -> None:
    """
    Raise RobustnessError for an unknown precision, or one that the device lacks (None: a device of another machine).

    >>> check_dtype("fp16", "cpu")
    Traceback (most recent call last):
        ...
    robustness.errors.RobustnessError: `dtype` must be float32, tf32 or bf16, got 'fp16'
    """
    if dtype not in DTYPES:
        raise RobustnessError(f"`dtype` must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {dtype!r}")
    if dtype == "float32" or device is None:
        return
    if device == "cpu":
        if dtype == "tf32":
            raise RobustnessError("`dtype` = 'tf32' needs a GPU, and the device is cpu; use float32 or bf16")
        return
    import torch

    if torch.cuda.get_device_capability(device) < (8, 0):
        raise RobustnessError(
            f"`dtype` = {dtype!r} needs a GPU of compute capability 8.0 or later, and "
            f"{torch.cuda.get_device_name(device)} has less; use float32"
        )


@contextmanager
def matmul_precision(dtype: str, device: str) -> Iterator[None]:
    """
    Set the precision of a GPU's matrix products inside the context; torch's default for convolutions is TF32.

    >>> import torch
    >>> with matmul_precision("float32", "cuda"):
    ...     torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    ('ieee', 'ieee')
    """
    if device == "cpu":
        yield
        return
    import torch

    backends: Any = torch.backends
    settings = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = MATMUL_MODES[dtype]
    try:
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def in_precision(modules: nn.ModuleDict, dtype: str, device: str) -> nn.ModuleDict:
    """
    Return the modules of a sweep with the classifiers in a precision; images and logits stay float32.

    >>> from torch import nn, rand
    >>> modules = nn.ModuleDict({"classifier": nn.Linear(2, 3)})
    >>> in_precision(modules, "bf16", "cpu")["classifier"](rand(1, 2)).dtype
    torch.float32
    """
    if dtype != "bf16":
        return modules
    from torch import nn

    from robustness.classifiers.modules import Bfloat16

    device_type = device.partition(":")[0]
    wrapped = {name: Bfloat16(modules[name], device_type) for name in ("classifier", "source") if name in modules}
    return nn.ModuleDict({**dict(modules.items()), **wrapped})
