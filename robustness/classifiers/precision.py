"""The precision in which models compute: float32; on a GPU TF32's products; or bfloat16 wherever that is sound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from robustness.errors import RobustnessError

if TYPE_CHECKING:
    from torch import nn

Dtype = Literal["float32", "tf32", "bf16"]
DTYPES: tuple[str, ...] = get_args(Dtype)
PRODUCTS = {"float32": "ieee", "tf32": "tf32", "bf16": "ieee"}
"""How a GPU multiplies what is in float32."""


def check(dtype: str, device: str | None) -> None:
    """
    Refuse a precision that is none, or that a device has not (None: it is not this machine's); without torch if it can.

    >>> check("fp16", "cpu")
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
            raise RobustnessError(
                "`dtype` = 'tf32' is how some GPUs multiply, and the device is cpu; take float32 or bf16"
            )
        return
    import torch

    if torch.cuda.get_device_capability(device) < (8, 0):
        raise RobustnessError(
            f"`dtype` = {dtype!r} needs a GPU of compute capability 8.0 or later, and "
            f"{torch.cuda.get_device_name(device)} has less; take float32"
        )


@contextmanager
def matmul_precision(dtype: str, device: str) -> Iterator[None]:
    """
    Have a GPU multiply as asked meanwhile: torch's own default is TF32 for convolutions, which is not float32.

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
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = PRODUCTS[dtype]
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def in_precision(modules: nn.ModuleDict, dtype: str, device: str) -> nn.ModuleDict:
    """
    Return what runs in a sweep, its classifiers computing in a precision, from images and to logits in float32.

    >>> from torch import nn, rand
    >>> modules = nn.ModuleDict({"classifier": nn.Linear(2, 3)})
    >>> in_precision(modules, "bf16", "cpu")["classifier"](rand(1, 2)).dtype
    torch.float32
    """
    if dtype != "bf16":
        return modules
    from torch import nn

    from robustness.classifiers.modules import Bfloat16

    kind = device.partition(":")[0]
    computed = {name: Bfloat16(modules[name], kind) for name in ("classifier", "source") if name in modules}
    return nn.ModuleDict({**dict(modules.items()), **computed})
