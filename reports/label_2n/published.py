"""What the paper prints, as far as the text still has it (`reports/published/label_2n.toml`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from reports import writing

load = partial(writing.printed, "label_2n")


def of(source: str) -> Mapping[str, Any]:
    """Return what is printed of a data set; for another set, on which the code is tried, what is said of GTSRB."""
    printed: Mapping[str, Any] = load().get(source, load()["gtsrb"])
    return printed
