"""The page of what pytest is told: options, ini settings, marks and fixtures, as the plugin hands them to pytest."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

from robustness import plugin
from robustness.plugin import fixtures

HEAD = """# Options and settings of pytest

Made from the plugin when these pages are built. An option on the command line goes before the setting of the same name
in the ini file (`[tool.pytest.ini_options]` in `pyproject.toml`); paths in the ini file start from its folder. Options
that are repeatable are lists there, one entry a line.
"""

ENVIRONMENT = {
    "ROBUSTNESS_STORE": "the folder of evidence and weights; the option goes before it, and it before the ini file",
    "ROBUSTNESS_DATA": "the folder that holds the data sets; the same",
    "ROBUSTNESS_FACTORY_SECONDS": "how long a factory may take to give its model (300)",
    "ROBUSTNESS_FORWARD_SECONDS": "how long one pass of a model over one batch may take (600)",
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
            *("## Fixtures", "", "| fixture | what it gives |", "| --- | --- |", *asked, ""),
        ]
    )
