"""The page of what pytest is told: options, ini settings, marks and fixtures, as the plugin hands them to pytest."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from robustness import plugin
from robustness.plugin import fixtures

HEAD = """# Options and settings of pytest

Generated from the plugin. An option on the command line takes precedence over the setting of the same name in the ini
file (`[tool.pytest.ini_options]` in `pyproject.toml`). Paths in the ini file are relative to its folder, and repeatable
options are lists there, one entry per line.
"""

ENVIRONMENT = {
    "ROBUSTNESS_STORE": "the folder for evidence and weights; order: option, this variable, ini file",
    "ROBUSTNESS_DATA": "the folder with the data sets; likewise",
    "ROBUSTNESS_FACTORY_SECONDS": "time limit in seconds for a factory to return its model (300)",
    "ROBUSTNESS_FORWARD_SECONDS": "time limit in seconds for one forward pass over a batch (600)",
}


@dataclass
class Heard:
    """Stands where pytest's parser and configuration would, and notes what the plugin says to them."""

    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, tuple[str, str]] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)

    def getgroup(self, *_: str) -> Heard:
        """Return what options are added to."""
        return self

    def addoption(self, name: str, **settings: Any) -> None:
        """Note an option."""
        self.options[name] = settings

    def addini(self, name: str, text: str, type: str = "string", **_: Any) -> None:
        """Note a setting of the ini file."""
        self.settings[name] = (type, text)


def heard() -> Heard:
    """Ask the plugin what it adds."""
    told = Heard()
    plugin.pytest_addoption(told)
    return told


def given() -> dict[str, str]:
    """Return the sentences of all fixtures that a test may ask for."""
    found = {
        name: value for name, value in vars(fixtures).items() if type(value).__name__ == "FixtureFunctionDefinition"
    }
    return {name: " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split()) for name, value in found.items()}


def plain(text: str) -> str:
    """
    Keep Markdown from taking brackets for a link.

    >>> plain("ray[=ADDRESS][,workers=N]")
    'ray&#91;=ADDRESS&#93;&#91;,workers=N&#93;'
    """
    return text.replace("[", "&#91;").replace("]", "&#93;")


def page() -> str:
    """Write the page."""
    told = heard()
    options = [
        f"| `{' '.join([name, s.get('metavar', '')]).strip()}` | {plain(s['help'])} |"
        for name, s in told.options.items()
    ]
    settings = [f"| `{name}` | {kind} | {plain(text)} |" for name, (kind, text) in told.settings.items()]
    variables = [f"| `{name}` | {text} |" for name, text in ENVIRONMENT.items()]
    asked = [f"| `{name}` | {text} |" for name, text in given().items()]
    return "\n".join(
        [
            HEAD,
            *("## Options", "", "| option | meaning |", "| --- | --- |", *options, ""),
            *("## Ini settings", "", "| setting | type | meaning |", "| --- | --- | --- |", *settings, ""),
            *("## Environment", "", "| variable | meaning |", "| --- | --- |", *variables, ""),
            *("## Fixtures", "", "| fixture | value |", "| --- | --- |", *asked, ""),
        ]
    )
