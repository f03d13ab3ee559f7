"""An engine's options, the job of its process, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.errors import EngineError, nearest

if TYPE_CHECKING:
    from robustness.cards import Card

NAMES = ("local", "ray")
KINDS: dict[str, Callable[[str], Any]] = {"workers": int, "cores": int, "gpus": float}


@dataclass(frozen=True)
class EngineSpec:
    """
    A requested engine.

    ``address`` of a running cluster ("": one of this machine's own, for as long as it is needed); ``workers`` at most
    (None: as many as fit), each with this many ``cores`` and this fraction of a GPU, ``gpus``.
    """

    name: str = "local"
    address: str = ""
    workers: int | None = None
    cores: int = 1
    gpus: float | None = None


def parse(text: str) -> EngineSpec:
    """
    Read ``local`` or ``ray[=ADDRESS][,workers=N][,cores=N][,gpus=SHARE]``.

    >>> parse("ray")
    EngineSpec(name='ray', address='', workers=None, cores=1, gpus=None)
    >>> parse("ray=10.0.0.1:6379,workers=8,gpus=0.5").gpus
    0.5
    """
    first, *settings = text.split(",")
    name, _, address = first.partition("=")
    if name not in NAMES or (address and name == "local"):
        raise EngineError(f"`engine` must be local or ray[=ADDRESS], got {text!r}{nearest(name, NAMES)}")
    if address.startswith("ray://"):
        raise EngineError(
            f"`engine`: {address}: is a client address; run this on a machine of the cluster, with HOST:PORT or auto"
        )
    options: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        try:
            options[key] = KINDS[key](value)
        except (KeyError, ValueError):
            raise EngineError(
                f"`engine` may set workers=N, cores=N and gpus=SHARE, got {setting!r}{nearest(key, KINDS)}"
            ) from None
        if options[key] < (0 if key == "gpus" else 1):
            raise EngineError(f"`engine`: {key} must be at least {0 if key == 'gpus' else 1}, got {value}")
    if (gpus := options.get("gpus")) is not None and gpus > 1 and gpus != int(gpus):
        raise EngineError(f"`engine`: gpus must be a whole number or a share below 1, got {gpus:g}")
    return EngineSpec(name, address, **options)


@dataclass(frozen=True)
class Job:
    """The job of an engine's process: engine, store, data root and sweeps."""

    engine: EngineSpec
    store: Path
    run: str
    data_root: Path
    device: str
    wanted: Sequence[tuple[Card, str]] = ()
    """Cards, and the names of their sweeps to compute."""
    seed: int = 0
    threads: int | None = None
    dtype: str = "float32"


@dataclass
class FillResult:
    """The result of a job: the device type of the evidence, and failures by key."""

    kind: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
