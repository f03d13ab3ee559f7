"""What the paper prints, as far as the text still has it (`reports/published/label_2n.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "published" / "label_2n.toml"


@cache
def load() -> Mapping[str, Mapping[str, Any]]:
    """Return the printed values by data set."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def of(source: str) -> Mapping[str, Any]:
    """Return what is printed of a data set; for another set, on which the code is tried, what is said of GTSRB."""
    return load().get(source, load()["gtsrb"])
