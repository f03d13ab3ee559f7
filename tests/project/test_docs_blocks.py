"""No page tells a reader to type what does not work: every block is run, or held to what would read it."""

import ast
import importlib.util
import re
import shlex
import tomllib

import helpers
import pages
import pytest

from robustness.cards.schema import CardFile
from robustness.cli.parser import parser
from robustness.plugin.config import OPTIONS

EVERY = [block for page in pages.pages() for block in pages.blocks(page)]
SHOWN = {"text", "json", "yaml", "ini", "groovy", "csv", "html", "diff", "console"}
"""Languages of what is shown and not typed here."""
TOOLS = {"sed", "pip", "tox", "git", "pre-commit", "mkdocs", "cp", "echo", "ls", "mkdir", "cat", "seq", "tar"}
"""Programs beside our own that a page may call unmarked."""
CARD = {
    "name": "shown",
    "model": {"factory": "nets:Net", "weights": "net.safetensors"},
    "data": {"name": "digits"},
    "sweeps": {"normal": {"kind": "gaussian", "strengths": [0.1, 0.3, 0.5]}},
    "claims": {"clean": {"accuracy": 0.9}, "normal": {"accuracy": [0.9, 0.7, 0.5]}},
}
"""What a table that a page shows alone may stand in."""


def each(chosen):
    return pytest.mark.parametrize("block", chosen, ids=lambda block: block.place)


def of(language):
    """The blocks in a language that are not marked as ones that cannot run here."""
    return each([block for block in EVERY if block.language == language and block.reason is None])


def test_every_block_says_what_it_is_in():
    """Catches: a block without a language, which nothing here would look at, and marks that no block follows."""
    known = SHOWN | {"python", "sh", "toml"}
    assert [f"{block.place}: {block.language!r}" for block in EVERY if block.language not in known] == []
    fences = sum(len(re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in pages.pages())
    assert fences == 2 * len(EVERY)
    marks = sum(page.read_text(encoding="utf-8").count("\n<!-- not run:") for page in pages.pages())
    assert marks == sum(block.reason is not None for block in EVERY)


@pytest.mark.parametrize("page", sorted({b.page for b in EVERY if b.language == "python"}), ids=lambda page: page.stem)
def test_python(page):
    """Catches: names that have moved, results that have changed, examples that were never run."""
    names = {}
    for block in (block for block in EVERY if block.page == page and block.language == "python"):
        if block.title or block.reason is not None:  # a file, which the page's own test writes, or needs a reader's own
            assert_imports(ast.parse(block.text, block.place))
            continue
        for text, shown, got in pages.evaluate(block, names):
            assert got == shown, f"{block.place}: {text}"


@each([block for block in EVERY if block.reason is not None])
def test_a_block_that_does_not_run_says_why(block):
    """Catches: a mark without a reason. `pytest -rs` lists them all."""
    assert len(block.reason.split()) >= 3
    pytest.skip(block.reason)


def assert_imports(tree):
    """What is imported of ours is there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "robustness":
            module = importlib.import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)], ast.unparse(node)


@of("toml")
def test_toml(block):
    """Catches: keys that a card does not know, values that it refuses."""
    table = tomllib.loads(block.text)
    if "tool" not in table and not block.title.startswith("pyproject"):
        CardFile.model_validate(merged(CARD, table))


def merged(under, over):
    """One table over another: what both have is taken of the upper, but for tables, which are merged."""
    shared = {
        key: merged(under[key], over[key])
        for key in under.keys() & over.keys()
        if isinstance(under[key], dict) and isinstance(over[key], dict)
    }
    if "data" in shared:
        shared["data"] = over["data"]  # what one data set takes, another refuses
    return {**under, **over, **shared}


@of("sh")
def test_sh(block, capsys):
    """Catches: commands and options that are no longer there, files and modules that have moved."""
    for line in block.commands:
        for words in commands(line):
            try:
                held(words, block)
            except SystemExit:
                pytest.fail(f"{block.place}: {line}\n{capsys.readouterr().err}")


def commands(line):
    """The commands of a line, in words; what another command prints stands as a 1."""
    lexer = shlex.shlex(re.sub(r"\$\([^)]*\)", "1", line), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            words.append([])
        elif not (not words[-1] and re.match(r"\w+=", word)):
            words[-1].append(word)
    return [each for each in words if each]


def held(words, block):
    """Hold one command to what would read it."""
    program, *rest = words
    if program == "robustness":
        parser().parse_args(rest)
    elif program == "pytest":
        known = {f"--robustness-{name}" for name, *_ in OPTIONS}
        assert {word.partition("=")[0] for word in rest if word.startswith("--robustness")} <= known, block.place
        missing = [word for word in rest if word.startswith("suites/") and not (helpers.ROOT / word).exists()]
        assert not missing, block.place
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), block.place
    elif program == "python":
        told = {other.title.removesuffix(pages.ADDED) for other in EVERY}  # pages go on where others end
        assert rest[0] in told or (helpers.ROOT / rest[0]).is_file(), f"{block.place}: no page says what {rest[0]} is"
    else:
        assert program in TOOLS, (
            f"{block.place}: {program} is not known here: write <!-- not run: REASON --> before the block, "
            "or put it into TOOLS"
        )
