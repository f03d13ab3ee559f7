"""The options of a run of the suites, and their validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.cards import shards
from robustness.classifiers import precision
from robustness.errors import RobustnessError
from robustness.util import hardware

if TYPE_CHECKING:
    from robustness.cards.from_options import CardOptions


@dataclass(frozen=True)
class RunOptions:
    """The options as plain values."""

    handed: tuple[Path, ...] = ()
    named: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    data: str | None = None
    store: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    seed: int = 0
    strict: bool = False
    inconclusive: str | None = None
    baseline_max_age: int | None = None
    workers: int = 1
    worker: int = 0
    run: str | None = None
    shard: str | None = None
    chosen: tuple[str, str] = ("", "")
    """The keyword and marker expressions of pytest's test selection."""
    draft: CardOptions | None = None
    profile: str | None = None
    weights: tuple[str, ...] = ()
    images: int | None = None
    folder: Path = Path()
    """The folder where pytest was called: paths on the command line are relative to it."""
    engine: str = "local"
    kind: str | None = None
    """The device type of an engine's evidence, for workers of a run."""

    def check(self) -> None:
        """Raise RobustnessError for an invalid seed, device or other option."""
        if not 0 <= self.seed < 2**32:
            raise RobustnessError(f"`seed` must lie in [0, 2**32), got {self.seed}; leave it out for 0")
        if self.images is not None and self.images < 1:
            raise RobustnessError(f"`images` must be at least 1, got {self.images}; leave it out for all test images")
        if self.baseline_max_age is not None and self.baseline_max_age < 0:
            raise RobustnessError(f"`baseline-max-age` must be a number of days, got {self.baseline_max_age}")
        if self.shard is not None:
            shards.parse(self.shard)
        if self.inconclusive not in (None, "red", "warning"):
            raise RobustnessError(f"`inconclusive` must be red or warning, got {self.inconclusive!r}")
        if self.engine != "local":
            from robustness import engines

            engines.parse(self.engine)
        kind, _, number = self.device.partition(":")
        if self.device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
            raise RobustnessError(f"`device` must be cpu, cuda, cuda:N or auto, got {self.device!r}")
        if (
            self.engine == "local"
            and kind == "cuda"
            and (index := int(number or 0)) >= hardware.gpu_count()
            and index >= _torch_gpus()
        ):
            raise RobustnessError(
                f"`device` = {self.device!r}: this machine has {_torch_gpus()} GPU(s) that torch can use; use cpu or "
                "auto"
            )
        here = hardware.worker_device(self.device, self.worker) if self.engine == "local" else None
        precision.check_dtype(self.dtype, here)

    def common(self) -> dict[str, Any]:
        """Return the options that must be equal in all shards of a run, in plain types."""
        keyword, markers = self.chosen
        options = {name: getattr(self, name) for name in ("seed", "strict", "profile", "images")}
        options |= {} if self.dtype == "float32" else {"dtype": self.dtype}
        return options | {"inconclusive gates fail": self.undecided_is_red, "-k": keyword, "-m": markers}

    @property
    def undecided_is_red(self) -> bool:
        """Whether an inconclusive gate fails its test."""
        return self.strict if self.inconclusive is None else self.inconclusive == "red"


def _torch_gpus() -> int:
    """Ask torch if the driver's folder lists too few GPUs, or is missing."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
