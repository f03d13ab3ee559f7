"""The pages made from the program say everything that it takes: commands, options, settings, keys of a card."""

import doctest
import html
import importlib
import re
import sys

import helpers
import pytest
from pydantic import TypeAdapter

from robustness.cards.schema import CardFile
from robustness.cli import main
from robustness.metrics.registry import METRICS
from robustness.perturbations import PERTURBATIONS

DOCUMENTATION = helpers.ROOT / "documentation"
sys.path.insert(0, str(DOCUMENTATION))
import reference_card  # noqa: E402  # as mkdocs finds them, from the hook's own folder
import reference_commands  # noqa: E402
import reference_metrics  # noqa: E402
import reference_options  # noqa: E402
import reference_report  # noqa: E402

sys.path.remove(str(DOCUMENTATION))

COMMANDS = {name: (text, below) for name, text, below in reference_commands.commands()}
ASKED = sorted(
    ".".join(path.relative_to(helpers.ROOT).with_suffix("").parts)
    for folder in ("benchmarks", "reports")
    for path in (helpers.ROOT / folder).rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
"""Benchmarks and reports that are commands."""


def sentence(text):
    """Whether a text says something: several words, and no placeholder."""
    return bool(text) and len(text.split()) >= 2 and "TODO" not in text


def tables_of(page):
    """The text under each heading with an anchor, by the anchor."""
    return dict(re.findall(r"^## [^\n]*\{ #(\w+) \}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() | main.COMMANDS.keys()))
def test_a_command_and_all_its_options_have_a_sentence_and_are_shown(name):
    """Catches: a command that is left out, or does nothing; an option without help; another command's section."""
    assert name in main.COMMANDS
    page = reference_commands.page()
    text, below = COMMANDS[name]
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[1]
    assert sentence(text)
    assert f"usage: robustness {name}" in section
    for action in below._actions:
        called = action.option_strings or [action.metavar or action.dest]
        assert sentence(action.help) or action.help in ("everything",), (name, called)
        assert all(each in section for each in called), (name, called)


@pytest.mark.parametrize("module", ASKED)
def test_a_benchmark_s_or_report_s_command_explains_itself(module, monkeypatch, capsys):
    """Catches: a percent sign that argparse takes for a format; a command that works where it is asked how."""
    monkeypatch.setattr("sys.argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_every_option_of_pytest_has_a_sentence_and_is_shown():
    """Catches: an option without help or without its ini twin, a page that leaves one out."""
    told, page = reference_options.heard(), reference_options.page()
    assert {name.removeprefix("--robustness-").replace("-", "_") for name in told.options} == {
        name.removeprefix("robustness_") for name in told.settings
    }
    for name, settings in told.options.items():
        assert sentence(settings["help"]), name
        assert f"| `{name}" in page
    for name, (kind, text) in told.settings.items():
        assert f"| `{name}` | {kind} | {text} |" in html.unescape(page)


def test_every_variable_of_the_environment_is_shown():
    """Catches: a variable that the program reads and the page does not know, or knows and nothing reads."""
    text = "".join(path.read_text(encoding="utf-8") for path in (helpers.ROOT / "robustness").rglob("*.py"))
    assert set(re.findall(r"ROBUSTNESS_[A-Z]+(?:_[A-Z]+)*", text)) == set(reference_options.ENVIRONMENT)


def test_every_fixture_is_shown():
    """Catches: a fixture that is found by a name that pytest has given up, so that none is shown."""
    assert {"card", "classifier", "sweep", "claim"} <= set(reference_options.given())
    assert all(sentence(text) for text in reference_options.given().values())


@pytest.mark.parametrize("table", reference_card.tables(), ids=lambda table: table.__name__)
def test_every_key_of_a_card_has_a_meaning(table):
    """Catches: a key that is added without saying what it is for."""
    meanings = reference_card.meanings(table)
    assert [name for name in table.model_fields if name != "kind" and not sentence(meanings.get(name, ""))] == []


def test_the_card_page_has_the_keys_that_a_card_may_hold():
    """Catches: a table or key that the walk through the models misses, against pydantic's schema; Python's words."""
    page, schema = reference_card.page(), CardFile.model_json_schema()
    sections = tables_of(page)
    tables = {name: table for name, table in schema["$defs"].items() if "properties" in table} | {"CardFile": schema}
    tables |= {of.__name__: TypeAdapter(of).json_schema() for name, of in PERTURBATIONS.items() if name != "clean"}
    tables.pop("Perturbation")
    assert {name.lower() for name in tables} == set(sections)
    for name, table in tables.items():
        shown = re.findall(r"^\| (?:`(\w+)`|…) \|.*?\| (required|—|`.*?`) \|", sections[name.lower()], re.MULTILINE)
        hidden = {"perturbation", "thresholds"} if name in ("SweepTable", "ClaimTable") else set()
        assert {key for key, _ in shown if key} == set(table["properties"]) - hidden, name
        required = {key for key, default in shown if key and default == "required"}
        assert required == set(table.get("required", ())) - hidden, name
    # Values are TOML's, not Python's.
    assert "| `unit` | " in page
    assert not re.search(r"\| `?(True|False|None|\(.*,\))`? \|", page)
    assert '| `metrics` | list of text | `["accuracy"]` |' in page
    assert doctest.testmod(reference_card).failed == 0


def test_the_report_page_has_every_key_of_the_schema_with_a_meaning():
    """Catches: a table that the walk through the schema misses, a key that nobody explains."""
    sections, schema = tables_of(reference_report.page()), reference_report.schema()
    tables = {name: table for name, table in schema["$defs"].items() if "properties" in table} | {"RunReport": schema}
    assert {name.lower() for name in tables} == set(sections)
    for name, table in tables.items():
        rows = re.findall(r"^\| `([\w ]+)` \| (.+?) \| (.+?) \|$", sections[name.lower()], re.MULTILINE)
        assert [key for key, _, _ in rows] == list(table["properties"]), name
        assert [key for key, kind, meaning in rows if kind == "anything" or not meaning] == [], name
    assert doctest.testmod(reference_report).failed == 0


def test_every_metric_is_in_the_table():
    """Catches: a metric that the page leaves out, a description that breaks the table."""
    rows = dict(re.findall(r"^\| `(\w+)`[^\n]*?\| (.*) \|$", reference_metrics.page(), re.MULTILINE))
    assert set(rows) == set(METRICS)
    assert all(sentence(row) for row in rows.values())
    assert rows["recall"].endswith("| higher | 0.1 | yes | —")
    assert rows["selective_max_accuracy_slope"].endswith(
        "| lower | ∞ | no | clean `accuracy`, clean `coverage`, detector, sweep"
    )


def test_the_pages_are_in_the_table_of_contents():
    """Catches: a page that is made and that nobody finds."""
    listed = (helpers.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    hook = (DOCUMENTATION / "hook.py").read_text(encoding="utf-8")
    made = re.findall(r'"(reference/\w+\.md)"', hook)
    assert len(made) == 5
    assert all(f": {path}\n" in listed for path in made)


def test_examples_of_docstrings_are_shown_as_code():
    """Catches: examples that Markdown takes for quotations, text after an example swallowed by it."""
    griffe = pytest.importorskip("griffe", reason="the docs extra is not installed")
    from documentation.doctests import Doctests

    text = "Do it.\n\n>>> for i in (1, 2):\n...     print(i)\n1\n2\n>>> 3\n3\n\nThen so::\n\n    code"
    made = griffe.Function("f", docstring=griffe.Docstring(text))
    Doctests().on_object(obj=made)
    code = text[text.index(">>>") : text.index("\n\nThen")]
    assert made.docstring.value == f"Do it.\n\n```pycon\n{code}\n```\n\nThen so:\n\n    code"
