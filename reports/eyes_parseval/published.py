"""What the eyes-parseval report printed, and what its networks are called."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from robustness.util import paths

FILE = Path(__file__).parents[1] / "published" / "eyes_parseval.toml"
NAMES = {
    "parseval": "Parseval", "wrn": "ResNet (WRN-16-1)", "parseval-adv": "Parseval, adversarial",
    "wrn-adv": "ResNet, adversarial", "cnn": "CNN", "cnn-wd": "CNN, weight decay",
    "cnn-wd-adv": "CNN, weight decay + adversarial", "cnn-orth": "CNN, orthogonality",
    "dense": "fully connected", "dense-parseval": "fully connected, Parseval",
}  # fmt: skip


@cache
def printed() -> Mapping[str, Any]:
    """Read what was published."""
    return paths.parse_toml(FILE.read_bytes())
