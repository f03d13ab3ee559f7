"""The recipes for CI hold: each is read as its service would, and what it runs is run, on a tiny project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pages
import pytest
import yaml
from helpers import LIMIT, ROOT
from plugin_project import CARD

from robustness.cli import main
from robustness.reporting import annotations
from robustness.reporting.gate_report import GateReport
from robustness.reporting.report import ClaimReport, ModelReport, RunReport
from robustness.reporting.run_info import Counts, RunInfo, Skip

PAGE = {block.title: block.text for block in pages.blocks(ROOT / "docs" / "ci.md") if block.title}
MLFLOW_NAME = re.compile(r"[\w.\-/ ]+", re.ASCII)


def recipe(title):
    return yaml.safe_load(PAGE[title])


@pytest.fixture
def two(project, monkeypatch):
    """A project of two models, the command on the path, and a store where the recipes' caches bring it."""
    project.write("models/other.toml", CARD.replace('"tiny"', '"other"'))
    shutil.copytree(project.warm, project.root / ".robustness")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return project


def sh(project, text, **variables):
    """Run a step as a service does, and give its exit code and what it printed."""
    command = ["bash", "-e", "-o", "pipefail", "-c", text]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=LIMIT)
    return done.returncode, done.stdout + done.stderr


def test_github(two):
    """Catches: steps that do not run, in their order; a summary left empty; evidence that does not come along."""
    jobs, root = recipe("GitHub Actions")["jobs"], two.root
    assert jobs["verdict"]["needs"] == "shard"
    shards = jobs["shard"]["strategy"]["matrix"]["shard"]
    assert shards == [1, 2]
    given = {"github.workspace": str(root), "strategy.job-total": str(len(shards))}

    def run(job, **more):
        def filled(text):
            known = given | {name.replace("_", "."): str(value) for name, value in more.items()}
            return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: known[found[1]], text)

        variables = {name: filled(value) for name, value in job["env"].items()}
        variables["GITHUB_STEP_SUMMARY"] = str(root / "summary.md")
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "run" in step and step["name"] != "install":
                code, said = sh(two, filled(step["run"]), **variables)
                assert code == 0, (step["name"], said)
                yield said

    for shard in shards:
        assert f"shard {shard}/2" in "".join(run(jobs["shard"], matrix_shard=shard))
    imported, merged, _ = run(jobs["verdict"])
    assert "were there already" in imported
    assert "passed: 14 claims on 2 models: all held" in merged
    assert "14 claims on 2 models" in (root / "summary.md").read_text()
    page = (root / "run.html").read_text()
    assert page.count("data:image/png;base64") > 5  # its pictures need the evidence of both shards
    assert json.loads((root / "run.json").read_text())["verdict"] == "passed"


def test_gitlab_with_a_red_model(two):
    """Catches: a red shard that ends green, or is green once merged; a JUnit file that is not where it is sought."""
    jobs, root = recipe("GitLab"), two.root
    two.edit(two.card, ("accuracy = [0.7, 0.5]", "accuracy = [0.7, 0.99]"))
    scripts = {name: [line for line in jobs[name]["script"] if "pip" not in line] for name in ("shard", "verdict")}
    codes = []
    for index in ("1", "2"):
        found = {"CI_NODE_INDEX": index, "CI_NODE_TOTAL": str(jobs["shard"]["parallel"])}
        found |= {"ROBUSTNESS_STORE": str(root / ".robustness")}
        codes += [sh(two, line, **found)[0] for line in scripts["shard"]]
        assert list(root.glob(jobs["shard"]["artifacts"]["reports"]["junit"]))
    assert sorted(codes) == [0, 1]
    ((code, said),) = [sh(two, line) for line in scripts["verdict"]]
    assert (code, "FAILED: 14 claims on 2 models: 13 held, 1 failed" in said) == (1, True)
    assert all((root / path).is_file() for path in jobs["verdict"]["artifacts"]["paths"])


def test_dvc_and_mlflow(two, monkeypatch):
    """Catches: numbers that are not the report's, two under one name, names that MLflow refuses."""
    stage = recipe("dvc.yaml")["stages"]["robustness"]
    card = two.card.read_text()
    two.write("models/tiny.toml", card)
    two.fill()
    assert two.plain("suites", "--robustness-report=run.json", "-p", "no:terminal").ret == 0
    assert stage["cmd"][0] == "robustness run --report run.json"
    for name in ("metrics.py", "log_run.py"):
        two.write(name, PAGE[name])
    logged = "import contextlib, json\nstart_run = contextlib.nullcontext\nlog_artifact = print\n"
    logged += "def set_tag(*said): print(*said)\ndef log_metrics(found): json.dump(found, open('logged.json', 'w'))\n"
    two.write("mlflow.py", logged)
    assert sh(two, stage["cmd"][1])[0] == 0
    code, said = sh(two, "python log_run.py")
    assert (code, said) == (0, "robustness.verdict passed\nrun.json\n")
    found = json.loads((two.root / "metrics.json").read_text())
    assert found == json.loads((two.root / "logged.json").read_text())
    assert [name for metrics in stage["metrics"] for name in metrics] == ["metrics.json"]
    report = json.loads((two.root / "run.json").read_text())
    cells = [cell for model in report["models"] for sweep in model["sweeps"] for cell in sweep["cells"]]
    assert sorted(found.values()) == sorted(
        n["value"] for cell in cells for n in cell["metrics"].values() if n["value"] is not None
    )
    assert (
        found["tiny/uniform/0.5/recall.3."]
        == report["models"][1]["sweeps"][2]["cells"][0]["metrics"]["recall[3]"]["value"]
    )
    assert all(MLFLOW_NAME.fullmatch(name) for name in found)


def test_pre_commit(two, capsys):
    """Catches: hooks that name no command of ours, or look at no card; cards that pass and are red in a run."""
    (local,) = recipe(".pre-commit-config.yaml")["repos"][0]["hooks"]
    (offered,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    for hook in (local, offered):
        assert (hook["entry"], hook["language"]) == ("robustness check-cards", "system")
        assert re.search(hook["files"], "models/tiny.toml")
        assert not re.search(hook["files"], "pyproject.toml")
    assert main.main(["check-cards", str(two.card), str(two.card.with_name("other.toml"))]) == 0
    waiver = '\n[[waivers]]\nclaim = "clean:0:loss"\nowner = "eve"\nreason = "known"\nexpires = 2001-01-01\n'
    edits = {
        ("accuracy = 0.8", "acuracy = 0.8"): "did you mean 'accuracy'",
        ("tiny_net:net", "tiny_nut:net"): "there is no module 'tiny_nut'",
        (CARD[CARD.index("[claims.clean]") :], ""): "claims nothing",
        (CARD[-5:], CARD[-5:] + waiver): "claim clean:0:loss is no longer waived by eve",
        ('[recipe]\ncallable = "tiny_net:fit"\n', 'weights = "gone.pt"\n'): "there is no file",
        ("[sweeps.normal]", '[gate]\nkind = "recipe"\n\n[sweeps.normal]'): "robustness baseline accept run.json",
    }
    for (old, new), said in edits.items():
        two.write("models/tiny.toml", CARD.replace(old, new, 1))
        capsys.readouterr()
        assert main.main(["check-cards", str(two.card)]) == 1, said
        assert said in capsys.readouterr().out


def test_check_cards_loads_no_library():
    """Catches: seconds of imports before each commit."""
    code = "import sys; from robustness.cli import main; print(main.main(sys.argv[1:]), 'torch' in sys.modules)"
    cards = [str(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    command = [sys.executable, "-c", code, "check-cards", *cards]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stdout


def report(**run):
    about = RunInfo.model_construct(**{"problems": [], "complete": True, **run})
    return RunReport.model_construct(run=about, models=[], counts=Counts(claims=0, models=[], skips=[]))


def test_annotations_say_what_is_red_worst_first_and_no_more_than_are_shown():
    """Catches: names that begin a command of their own, the gate behind fifty claims, what GitHub leaves out unsaid."""
    evil = "a,b\n::set-output name=x::y"
    claim = ClaimReport.model_construct
    claims = [claim(id=f"{evil}:{i}", outcome="failed", message="50 %") for i in range(30)]
    claims.append(claim(id="w", outcome="waived", message="known"))
    gate = GateReport.model_construct(outcome="failed", message="the gate failed")
    found = report(problems=["no"], complete=False)
    found.models = [ModelReport.model_construct(name=evil, gate=gate, claims=claims)]
    found.counts.skips = [Skip(model="m", claims=2, reason="no MNIST")]
    lines = list(annotations.of(found))
    errors = [line for line in lines if line.startswith("::error ")]
    assert len(errors) == annotations.SHOWN
    assert errors[0] == "::error title=robustness::no"
    assert errors[1] == "::error title=a%2Cb%0A%3A%3Aset-output name=x%3A%3Ay%3A gate failed::the gate failed"
    assert errors[2].endswith("::50 %25")
    assert errors[-1] == "::error title=robustness::and 23 errors more, in the report"
    assert [line.partition("::")[2] for line in lines if line not in errors] == [
        "warning title=robustness::the run was interrupted: the report is partial",
        "warning title=w%3A waived::known",
        "warning title=m%3A 2 claims skipped::no MNIST",
    ]
    assert not any("\n" in line for line in lines)


def test_nothing_is_annotated_where_nothing_is_amiss():
    """Catches: an annotation at each green run, which people learn not to read."""
    assert list(annotations.of(report())) == []


def test_all_cells_errored_is_never_green(two):
    """Catches: a model that gives no number at all, and is passed by claims that nobody could hold."""
    two.on_forward("logits = logits * float('nan')")
    found = two.run("suites", "--robustness-report=report.html", "-p", "no:terminal")
    assert (found.ret, found.report["verdict"]) == (1, "failed")
    assert set(found.outcomes.values()) == {"errored"}
    assert "✗" in (two.root / "report.html").read_text()


def test_zero_cells_are_never_green(two):
    """Catches: a card that sweeps and claims nothing, alone or as a shard, called passed."""
    nothing = CARD[: CARD.index("[sweeps.normal]")]
    two.write("models/tiny.toml", nothing).write("models/other.toml", nothing.replace('"tiny"', '"other"'))
    for shard in ([], ["--robustness-shard=1/2"]):
        assert two.run("suites", "-p", "no:terminal", *shard).ret == 1
