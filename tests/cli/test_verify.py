"""A verdict that can be signed: its hashes are those of the files, and only what the evidence says is verified."""

import hashlib
import json

import pytest

from robustness.cli.verify import verify
from robustness.errors import RobustnessError
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace


@pytest.fixture
def signed(project):
    """A project with the statement of a run that passed."""
    project.fill()
    run = project.run("suites", "--robustness-report=verdict.intoto.json")
    assert run.ret == 0, run.out
    return project


def verified(project):
    workspace = Workspace(Store(project.store), project.root / "data")
    return verify(project.root / "verdict.intoto.json", workspace, project.root)


def edit(project, change):
    path = project.root / "verdict.intoto.json"
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


def test_hashes_are_those_of_the_files_bytes(signed):
    """Catches: hashes of tensors or syntax trees, which sha256sum does not give; a card or source file left out."""
    whole = json.loads((signed.root / "verdict.intoto.json").read_text())
    items = [*whole["subject"], *whole["predicate"]["configuration"]]
    files = [item for item in items if item["annotations"]["kind"] in ("weights", "card", "source")]
    assert {item["annotations"]["kind"] for item in files} == {"weights", "card", "source"}
    for item in files:
        assert item["digest"]["sha256"] == hashlib.sha256((signed.root / item["name"]).read_bytes()).hexdigest()
    assert whole["predicate"]["result"] == "PASSED"
    assert whole["predicate"]["failedTests"] == []


def test_a_true_statement_is_verified(signed):
    lines, code = verified(signed)
    assert (lines[0].split(";")[0], code) == ("verified: PASSED", 0)


def test_a_failed_run_is_verified_as_failed(project):
    """Catches: exit code 0 for a model that must not be released."""
    project.fill()
    project.edit(project.card, ("accuracy = [0.7, 0.5]", "accuracy = [0.7, 0.99]"))
    assert project.run("suites", "--robustness-report=verdict.intoto.json").ret == 1
    lines, code = verified(project)
    assert (lines[0].split(";")[0], code) == ("verified: FAILED", 1)

    def flatter(whole):
        predicate = whole["predicate"]
        predicate["passedTests"] += predicate["failedTests"]
        predicate |= {"failedTests": [], "result": "PASSED"}

    edit(project, flatter)
    lines, code = verified(project)
    assert code == 1
    assert any("recorded as passed, failed by its evidence" in line for line in lines)


def test_changed_files_and_lost_evidence_are_named(signed):
    """Catches: a card whose thresholds were lowered after the run; evidence that nobody has any more."""
    signed.edit(signed.card, ("accuracy = [0.7, 0.5]", "accuracy = [0.6, 0.5]"))
    lines, code = verified(signed)
    assert code == 1
    assert any("another SHA-256" in line for line in lines)
    for path in (signed.store / "evidence").rglob("*.safetensors"):
        path.unlink()
    assert any("is not in the store" in line for line in verified(signed)[0])


def test_what_is_no_statement_is_refused(project):
    (project.root / "verdict.intoto.json").write_text("{}")
    with pytest.raises(RobustnessError, match="is no in-toto statement"):
        verified(project)
