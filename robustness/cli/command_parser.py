"""A parser of commands in groups: help if there is no command, examples, and the nearest word for a mistyped one."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import Any, NoReturn

from robustness.errors import nearest

RENAMED = {"renew": "update-thresholds", "replay": "show-flip"}
"""Old names of commands, each with the new one."""

GROUPS = {
    "start": ("init", "check", "profiles", "data"),
    "run": ("run", "plan", "sweep", "train", "transfer", "corruption-error", "merge"),
    "accept": ("baseline", "compare", "mutate"),
    "inspect": ("report", "verify", "show-flip", "evidence"),
    "maintain": ("check-cards", "update-thresholds", "migrate"),
}
"""The commands in the help, by what somebody wants to do."""

EXAMPLE = "example: "


class _Help(argparse.HelpFormatter):
    """Leave an example on one line, so that it can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return f"{indent}{text}" if text.startswith(EXAMPLE) else super()._fill_text(text, width, indent)


class CommandParser(argparse.ArgumentParser):
    """A parser that shows its help if no command is typed, and names the nearest word if there is no such one."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Help, **settings})

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command line; exit with status 2 after help, or after a sentence that says what is wrong."""
        options, unknown = self.parse_known_args(args, namespace)
        command = self.of_command(getattr(options, "command", ""))
        if unknown:
            command.unrecognized(unknown)
        if command.commands:
            command.print_help()
            command.exit(2)
        return options

    @property
    def commands(self) -> dict[str, CommandParser]:
        """The commands below this one, by name."""
        actions = self._subparsers._group_actions if self._subparsers else ()  # argparse has no other way to ask
        return {name: below for action in actions for name, below in (action.choices or {}).items()}  # type: ignore[attr-defined]

    @property
    def example(self) -> str:
        """The example in its help; of several commands, that of the first."""
        return self.epilog or next((below.example for below in self.commands.values()), "")

    def of_command(self, words: str) -> CommandParser:
        """Return the parser of a command, such as `evidence list`."""
        return self.commands[words.split()[0]].of_command(words.partition(" ")[2]) if words else self

    def unrecognized(self, arguments: list[str]) -> NoReturn:
        """Exit with the nearest option, or the place where pytest's options belong."""
        mistyped = next((word for word in arguments if word.startswith("-")), arguments[0]).partition("=")[0]
        hint = nearest(mistyped, self._option_string_actions)
        if not hint and self.prog.endswith(" run"):
            hint = "; options of pytest stand after --"
        self.error(f"unrecognized arguments: {shlex.join(arguments)}{hint}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            if value in RENAMED:
                self.exit(2, f"robustness: `robustness {value}` is called `robustness {RENAMED[value]}` now\n")
            self.error(
                f"there is no command {value!r} (`{self.prog} --help` lists them){nearest(value, action.choices)}"
            )
        allowed = ", ".join(map(str, action.choices))
        raise argparse.ArgumentError(action, f"must be one of {allowed}, got {value!r}{nearest(value, action.choices)}")

    def format_help(self) -> str:
        """Return the help; that of the whole program has its commands in groups."""
        if self.prog != "robustness" or self._subparsers is None:
            return super().format_help()
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        (choices,) = self._subparsers._group_actions
        listed = {choice.dest: choice for choice in choices._get_subactions()}  # type: ignore[attr-defined]
        for title, names in GROUPS.items():
            formatter.start_section(title)
            formatter.add_arguments([listed[name] for name in names])
            formatter.add_text(self.commands[names[0]].example)
            formatter.end_section()
        for group in self._action_groups:
            if group is not self._subparsers:
                formatter.start_section(group.title)
                formatter.add_arguments(group._group_actions)
                formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()
