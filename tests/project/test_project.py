"""What the project says about itself holds: settings, dependencies, tasks, the wheel, the commands of the README."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
import zipfile
from importlib.metadata import packages_distributions

import pytest
from hatchling.builders.wheel import WheelBuilder
from helpers import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import robustness

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(*groups):
    """The requirements of the run-time group ``""`` and of extras, by name, without the project itself."""
    listed = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    wanted = [Requirement(line) for group in groups or listed for line in listed[group]]
    return {canonicalize_name(r.name): r for r in wanted if canonicalize_name(r.name) != PROJECT["name"]}


@pytest.fixture(scope="module")
def ci_steps():
    """Name and command of each step of `.ci/run`."""
    bash = shutil.which("bash") or pytest.skip("no bash to run .ci/run with")
    listing = subprocess.run([bash, ROOT / ".ci" / "run", "--list"], capture_output=True, text=True, check=True).stdout
    return dict(line.split(": ", 1) for line in listing.splitlines())


@pytest.fixture(scope="module")
def tox():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    return parser


# Settings of pytest


def test_an_xfail_that_passes_and_a_warning_are_errors(pytestconfig):
    assert pytestconfig.getini("xfail_strict") is True
    assert pytestconfig.getini("filterwarnings")[0] == "error"
    with pytest.raises(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


# Dependencies


def test_each_dependency_is_documented_and_nothing_else_is():
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| `([^`]+)` \| \w", page, re.MULTILINE)) == sorted(requirements())


def test_each_dependency_is_pinned_within_its_range():
    # The other libraries' own requirements contradict ours, so their pins stand apart.
    files = ("constraints.txt", "tests/oracles/requirements.txt")
    lines = [line for file in files for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {}
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "==", f"{pin} leaves a choice"
        versions.setdefault(canonicalize_name(pin.name), []).append(exact.version)

    outside = {
        str(requirement): versions.get(name, "no pin")
        for name, requirement in requirements().items()
        if not (name in versions and all(requirement.specifier.contains(v) for v in versions[name]))
    }
    assert not outside


def imports(path):
    """The top-level names that a file imports, each with whether importing the file is enough to need it."""

    def visit(node, at_import):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], at_import
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    return set(visit(ast.parse(path.read_bytes()), True))


@pytest.mark.parametrize("folder", ["robustness", "suites", "models", "reports"])
def test_what_is_imported_is_a_declared_dependency(folder):
    """What a module imports is installed with the plugin; what only a function imports, at least with an extra."""
    ours = {"robustness", "suites", "models", "reports"} | sys.stdlib_module_names
    providers = {"art": ["adversarial-robustness-toolbox"], **packages_distributions()}  # which tests do not install
    always, sometimes = requirements(""), requirements()

    undeclared = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, at_import in sorted(imports(path))
        if name not in ours
        and not {canonicalize_name(d) for d in providers.get(name, [name])}
        & (always if at_import else sometimes).keys()
    ]
    assert not undeclared


# Tasks


def test_each_tox_environment_says_what_it_does(tox):
    listed = tox["tox"]["env_list"].replace(",", " ").split()

    assert [f"testenv:{name}" for name in listed] == [name for name in tox.sections() if name.startswith("testenv:")]
    assert all(tox[f"testenv:{name}"].get("description") for name in listed)


@pytest.mark.parametrize("task", ["lint", "types", "docs", "bench"])
def test_tox_and_ci_run_the_same(tox, ci_steps, task):
    commands = tox[f"testenv:{task}"]["commands"].replace(" {posargs}", "").strip().splitlines()

    assert " && ".join(commands) == ci_steps[task]


def test_ci_runs_the_commands_of_the_readme(tox, ci_steps):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    suites, tests = re.findall(r"^```sh\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)[:2]

    assert (suites, tests) == (ci_steps["suites"], ci_steps["tests"])
    assert "pip install -c constraints.txt -e . && " + tox["testenv:suites"]["commands"] == suites + " {posargs}"
    assert suites.endswith(" && " + ci_steps["suites-again"])
    always = [name for name in ci_steps if not name.startswith("mnist")]  # which need real data
    assert always[-8:] == ["tests", "processors", "own-model", "suites", "suites-again", "bench", "ray", "oracles"]
    assert "tox -qq -e oracles" in ci_steps["oracles"]


# The wheel


@pytest.fixture
def wheel(tmp_path):
    """What the wheel built from this tree holds, by path."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files(folder):
    """The files under a folder of the tree, by path below it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_library_and_suites_unchanged_and_nothing_else(wheel):
    """Catches: a file that is left out, or packed though it is none of the package's; a missing licence or plugin."""
    expected = {"pytest_robustness.py": (ROOT / "pytest_robustness.py").read_bytes()}
    for packed, folder in (("robustness/", "robustness"), ("robustness/suites/", "suites")):
        expected |= {packed + name: content for name, content in files(ROOT / folder).items()}
    information = f"pytest_robustness-{robustness.__version__}.dist-info"

    assert {name: text for name, text in wheel.items() if not name.startswith(f"{information}/")} == expected
    assert wheel[f"{information}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"robustness = pytest_robustness:plugin" in wheel[f"{information}/entry_points.txt"]


def test_no_file_has_conflict_markers():
    """Catches: a merge that was committed half done; markers in Markdown break no linter."""
    done = subprocess.run(["git", "grep", "-nE", "^(<<<<<<<|>>>>>>>) "], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    assert done.stdout == ""
