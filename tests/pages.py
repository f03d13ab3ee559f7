"""The pages' blocks of code: found, told apart, done as a reader would do them."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helpers

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"<!-- not run: (?P<reason>.+?) -->\s*\Z", re.DOTALL)
ADDED = " (added)"
REST = "…"
"""Stands in a page for what differs from machine to machine, within a line or as a line."""


@dataclass(frozen=True)
class Block:
    """A block of code on a page, under its `section`; `reason` says why it is not run, where it is marked."""

    page: Path
    line: int
    section: str
    language: str
    title: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(helpers.ROOT).as_posix()}:{self.line}"

    @property
    def status(self) -> int:
        """The exit status that its title announces: `red: why`, `exit 10: why`, else 0."""
        announced = re.match(r"exit (\d+)\b", self.title)
        return int(announced[1]) if announced else int(self.title.startswith("red"))

    @property
    def commands(self) -> list[str]:
        """What is typed, a command a line; a line that ends in a backslash goes on in the next."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def pages() -> list[Path]:
    """Return every page that tells a reader what to type."""
    root = helpers.ROOT
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """
    Find the blocks of a page.

    A comment `<!-- not run: REASON -->` straight before a block marks one that cannot run offline.
    """
    text = page.read_text(encoding="utf-8")
    headings = [(match.start(), match[1]) for match in re.finditer(r"^## (.*)$", text, re.MULTILINE)]
    found = []
    for match in FENCE.finditer(text):
        marked = MARK.search(text, 0, match.start())
        title = re.search(r'title="([^"]*)"', match["rest"])
        found.append(
            Block(
                page,
                text.count("\n", 0, match.start()) + 1,
                next((name for start, name in reversed(headings) if start < match.start()), ""),
                match["language"],
                title[1] if title else "",
                re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
                marked["reason"] if marked else None,
            )
        )
    return found


@dataclass
class Reader:
    """One who does what pages say, block by block, in a folder: writes the files, types the commands, compares."""

    folder: Path
    environment: Mapping[str, str]
    said: list[str] = field(default_factory=list)

    def follow(self, told: Iterable[Block]) -> list[str]:
        """Do blocks in their order, and give what each command said."""
        before = len(self.said)
        for block in told:
            if block.reason is not None:
                continue
            if block.language == "sh":
                self.said += [self._type(command, block) for command in block.commands]
            elif block.language == "text":
                compare(block, self.said[-1])
            else:
                assert block.title, f"{block.place}: a block of {block.language} on this page must name its file"
                self._write(block)
        return self.said[before:]

    def _type(self, command: str, block: Block) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        wrong = f"{block.place}: {command}\nended with {done.returncode}, not {block.status}\n{done.stdout}"
        assert done.returncode == block.status, wrong
        return done.stdout

    def _write(self, block: Block) -> None:
        path = self.folder / block.title.removesuffix(ADDED)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if block.title.endswith(ADDED) else "w", encoding="utf-8") as stream:
            stream.write(block.text)


def compare(block: Block, said: str) -> None:
    """
    Hold output that a page shows to what was said: its lines come in this order, others may stand between them.

    Runs of spaces count as one, and `…` stands for anything within a line.
    """
    left: Iterator[str] = iter([" ".join(line.split()) for line in said.splitlines()])
    shown = [" ".join(line.split()) for line in block.text.splitlines()]
    due = [line for line in shown if line.strip(REST)]
    assert due, f"{block.place}: shows no output that could differ"
    for line in due:
        pattern = ".*".join(re.escape(part) for part in line.split(REST))
        assert any(re.fullmatch(pattern, each) for each in left), (
            f"{block.place}: nobody said {line!r} there in\n{said}"
        )


def evaluate(block: Block, names: dict[str, Any]) -> list[tuple[str, str, str]]:
    """
    Run Python; of each expression with a comment in the line below give its text, the comment and its value.

    `names` is what earlier blocks of the page have defined, and is added to.
    """
    lines, found = block.text.splitlines(), []
    for node in ast.parse(block.text).body:
        below = lines[node.end_lineno] if node.end_lineno < len(lines) else ""
        if isinstance(node, ast.Expr) and below.startswith("# "):
            value = eval(compile(ast.Expression(node.value), block.place, "eval"), names)
            found.append((ast.unparse(node), below.removeprefix("# "), repr(value)))
        else:
            exec(compile(ast.Module([node], []), block.place, "exec"), names)
    return found


def environment(folder: Path, python: str = sys.executable, **variables: str) -> dict[str, str]:
    """Give the variables of a reader's shell: programs are `python`'s, the store is a new one, nothing else is set."""
    ours = ("PYTEST_", "ROBUSTNESS_", "PYTHONPATH", "VIRTUAL_ENV")
    programs = {"python": "", "pytest": "-m pytest", "robustness": "-m robustness.cli.main"}
    (folder / "bin").mkdir()
    for name, how in programs.items():
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(python)} {how} "$@"\n')
        program.chmod(0o755)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "ROBUSTNESS_STORE": str(folder / "store"),
        "CUDA_VISIBLE_DEVICES": "",
        **variables,
    }
