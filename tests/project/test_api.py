"""The public interface: what the package exports by its own name, and what the reference documents."""

import importlib
import inspect
import re

import helpers
import pytest

import robustness

REFERENCE = (helpers.ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
FUNCTIONS = [name for name in robustness.PUBLIC if inspect.isfunction(getattr(robustness, name))]


def resolve(path: str) -> object:
    """Return what a dotted path means: a module, or an object in one."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        parent, _, name = path.rpartition(".")
        return getattr(resolve(parent), name)


def test_every_public_name_is_exported_and_documented():
    """Catches: a name whose module has moved, and one that the reference does not list."""
    assert set(robustness.__all__) == {"__version__", *robustness.PUBLIC}
    for name in robustness.PUBLIC:
        assert getattr(robustness, name) is resolve(robustness.PUBLIC[name].replace(":", "."))
        assert re.search(rf"\| .*`{name}`.* \|", REFERENCE), name
    with pytest.raises(AttributeError, match="module 'robustness' has no attribute 'nothing'"):
        robustness.nothing  # noqa: B018


def test_the_package_itself_imports_nothing_heavy():
    """Catches: a public name that is imported at the start of every pytest run."""
    code = "import sys, robustness; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    assert helpers.run(code) == "set()\n"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_name_every_argument(name):
    """Catches: an argument or an error that the docstring leaves out."""
    function = getattr(robustness, name)
    doc = inspect.getdoc(function)
    arguments, returns = doc.partition("Args:")[2].partition("Returns:")[::2]
    assert re.findall(r"^    (\w+):", arguments, re.MULTILINE) == list(inspect.signature(function).parameters)
    assert returns.strip()
    assert "Raises:" in returns


def test_the_reference_documents_what_exists():
    """Catches: a renamed function that the site leaves out without a word."""
    for path, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", REFERENCE, re.MULTILINE):
        documented = resolve(path)
        members = re.search(r"members: \[(.*)\]", options)
        for member in members[1].split(", ") if members else ():
            assert hasattr(documented, member), f"{path}.{member}"
