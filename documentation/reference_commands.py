"""The page of all commands: what `robustness COMMAND --help` says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest import mock

from robustness.cli.parser import parser

HEAD = """# Commands

The output of `robustness --help` and `robustness COMMAND --help`, generated from the program. Options for every command
may come before or after its name. The [exit codes](../ci.md#exit-codes) are those of the table there. A mistyped
command, option, model or kind is answered by the nearest one.
"""


def commands(of: argparse.ArgumentParser | None = None) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Return every command that does something: its words, the sentence in the list that it stands in, its parser."""
    of = parser() if of is None else of
    for action in of._actions:  # argparse has no other way to ask
        if not isinstance(action, argparse._SubParsersAction):
            continue
        said = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, below in action.choices.items():
            inner = list(commands(below))
            yield from ((f"{name} {rest}", text, leaf) for rest, text, leaf in inner)
            if not inner:
                yield name, said[name], below


def page() -> str:
    """Write the page."""
    found = list(commands())
    rows = [f"| [`{name}`](#{name.replace(' ', '-')}) | {text} |" for name, text, _ in found]
    parts = [HEAD.rstrip(), "\n".join(["| command | what it does |", "| --- | --- |", *rows])]
    with mock.patch.dict(os.environ, {"COLUMNS": "110", "NO_COLOR": "1"}):
        parts += [f"## {name}\n\n```text\n{below.format_help().rstrip()}\n```" for name, _, below in found]
    return "\n\n".join(parts) + "\n"
