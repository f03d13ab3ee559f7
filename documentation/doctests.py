"""Shows the examples of docstrings, which run as doctests, as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^>>> .*\n(?:^(?!\n).+\n?)*\n?)+", re.MULTILINE)


class Doctests(Extension):
    """Puts each example into a fence: Markdown takes its prompt for a quotation."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            text = EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n\n", obj.docstring.value)
            obj.docstring.value = text.replace("::\n", ":\n")  # as other markup begins code
