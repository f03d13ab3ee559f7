"""What the plugin costs: modules that nobody asked for are not imported."""

import json

import helpers
import pytest
from plugin_project import HOOK

HEAVY = {"torch", "torchvision", "sklearn", "scipy", "matplotlib", "hypothesis", "pandas", "tqdm", "tomlkit"}
NEEDED_BY_SUITES = {"numpy", "pydantic", "safetensors", "filelock", "tabulate"}

NO_HYPOTHESIS = ("-p", "no:hypothesispytest")
"""Its plugin imports all of it when the summary is printed."""

LISTER = """
import os, sys
from pathlib import Path
import pytest

@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    name = os.environ.get("PYTEST_XDIST_WORKER") if hasattr(config, "workerinput") else "main"
    Path(__file__).with_name(f"modules-{name}").write_text("\\n".join(sys.modules))
"""


def imported(project, process="main") -> set[str]:
    """Return the top-level packages that a run of pytest in its own process has imported."""
    return {name.partition(".")[0] for name in (project.root / f"modules-{process}").read_text().split()}


def test_a_suite_of_somebody_elses(project):
    """Catches: an import at the top of the plugin that whoever has it installed pays for."""
    project.write("conftest.py", LISTER).write("test_theirs.py", "def test_theirs(): pass\n")
    others = ("benchmark", "pytest_cov", "xdist")
    off = [word for name in others for word in ("-p", f"no:{name}")]
    assert project.plain("test_theirs.py", *NO_HYPOTHESIS, *off, apart=True).ret == 0
    found = imported(project)
    assert found & (HEAVY | NEEDED_BY_SUITES) == set()
    names = {name for name in (project.root / "modules-main").read_text().split() if name.startswith("robustness.")}
    light = (
        "errors",
        "plugin",
        *(f"plugin.{name}" for name in ("config", "fixtures", "hookspecs", "outcomes", "supervised_run")),
        "util",
        *(f"util.{name}" for name in ("output", "paths", "project")),
    )
    assert names <= {f"robustness.{name}" for name in light}


def test_warm_run(project):
    """Catches: torch, scikit-learn or scipy imported by a run that finds all its evidence, in any of its processes."""
    before = project.fill().entries()
    project.write("conftest.py", LISTER + HOOK)
    run = project.run("suites", "-n2", *NO_HYPOTHESIS)
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    for process in ("main", "gw0", "gw1"):
        found = imported(project, process=process)
        assert "numpy" in found
        assert found & HEAVY == set()
    assert project.entries() == before
    assert project.logged("modules") == project.logged("trainings") == []


@pytest.mark.parametrize(
    "modules",
    [
        "robustness.workspace.workspace, robustness.claims, robustness.cards.selection, robustness.plugin.state",
        "robustness.reporting.writers, robustness.reporting.terminal, robustness.reporting.build",
        "robustness.perturbations.external, robustness.plugin.xdist_scheduler",
    ],
)
def test_modules_of_a_warm_run(modules):
    """Catches: an import at the top of a module, which the whole run above shows without its place."""
    code = f"import sys, json, {modules}; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    assert set(json.loads(helpers.run(code))) & HEAVY == set()
