"""The recipes for CI hold: each is read as its service would, and what it runs is run, on a tiny project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import pages
import pytest
import yaml
from helpers import LIMIT, ROOT
from plugin_project import CARD

from robustness.cli import main

PAGE = {block.title: block.text for block in pages.blocks(ROOT / "docs" / "ci.md") if block.title}
MLFLOW_NAME = re.compile(r"[\w.\-/ ]+", re.ASCII)


def recipe(title):
    return yaml.safe_load(PAGE[title])


@pytest.fixture
def two(project, monkeypatch):
    """A project of two models, the command on the path, and a store where the recipes' caches bring it."""
    project.write("models/other.toml", CARD.replace('"tiny"', '"other"'))
    shutil.copytree(project.warm, project.root / "robustness-store")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    return project


def sh(project, text, **variables):
    """Run a step as a service does, and give its exit code and what it printed."""
    command = ["bash", "-e", "-o", "pipefail", "-c", text]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, timeout=LIMIT)
    return done.returncode, done.stdout + done.stderr


def move(source, target):
    """Move a file, or the files of a folder to those of another, as an artifact does."""
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def test_a_store_that_is_moved_is_believed(project, tmp_path):
    """Catches: a folder that the page forgets, evidence that is moved and not believed, files written over."""
    project.fill()
    for path in project.store.rglob("*"):
        os.utime(path, (0, 0))
    assert sh(project, PAGE["on one machine"], ROBUSTNESS_STORE=str(project.store))[0] == 0
    new = tmp_path / "new"
    whole, torn = list((project.store / "evidence").glob("??/*"))[:2]
    for path, content in ((whole, whole.read_bytes()), (torn, torn.read_bytes()[:-9])):
        place = new / path.relative_to(project.store)
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
    code, said = sh(project, PAGE["on the other one"], ROBUSTNESS_STORE=str(new))
    assert (code, "removed 1 entries" in said) == (0, True), said
    assert (new / whole.relative_to(project.store)).stat().st_mtime > 0
    assert sh(project, PAGE["on the other one"], ROBUSTNESS_STORE=str(new))[0] == 0
    run = project.run("suites", f"--robustness-store={new}")
    assert (run.ret, project.logged("passes"), project.logged("trainings")) == (0, [], [])


def test_github(two):
    """Catches: steps that do not run, in their order; a summary left empty; evidence that no artifact brings along."""
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

    (uploaded,) = (step["with"]["path"] for step in jobs["shard"]["steps"] if "upload-artifact" in step.get("uses", ""))
    artifacts = root.with_name("artifacts")
    for shard in shards:
        assert f"shard {shard}/2" in "".join(run(jobs["shard"], matrix_shard=shard))
        for name in uploaded.replace("${{ matrix.shard }}", str(shard)).split():
            if (root / name).exists():
                move(root / name, artifacts / name)
        shutil.rmtree(root / "robustness-store")
    move(artifacts, root)
    merged, _ = run(jobs["verdict"])
    assert "passed: all 14 claims on 2 models" in merged
    assert "14 claims on 2 models" in (root / "summary.md").read_text()
    page = (root / "run.html").read_text()
    assert page.count("data:image/png;base64") > 5  # its pictures need the evidence of both shards
    assert json.loads((root / "run.json").read_text())["verdict"] == "passed"


GH = """#!/bin/sh
echo "$*" >> calls.txt
case "$*" in *--jq*) cat ids.txt;; esac
"""
"""GitHub's command: it notes what it is asked, and lists the comments in a file."""


def test_github_in_one_job_with_a_comment(project, monkeypatch):
    """Catches: steps that do not run, an empty summary, more rights than a job needs, a new comment on every push."""
    title = "GitHub Actions, one job"
    recipe = yaml.safe_load(PAGE[title] + PAGE[f"{title} (added)"])
    jobs, root = recipe["jobs"], project.root
    assert recipe["permissions"] == {"contents": "read"}
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    assert not any(
        "checkout" in step.get("uses", "") or "pip" in step.get("run", "") for step in jobs["comment"]["steps"]
    )
    steps = {step["name"]: step for job in jobs.values() for step in job["steps"] if "run" in step}
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    project.fill().run("suites")
    assert main.main(["baseline", "accept", "report.json", "--model", "tiny"]) == 0
    own = {"ROBUSTNESS_STORE": str(project.store), "GITHUB_STEP_SUMMARY": str(root / "summary.md")}
    for name in ("run", "compare with the baselines"):
        code, said = sh(project, steps[name]["run"], **own)
        assert code == 0, said
    assert (root / "summary.md").read_text().startswith("# Robustness report: GO: ")
    comment = (root / "comment.md").read_text().splitlines()
    assert comment[1].startswith("### ✅ Robustness: not worse")
    project.write("gh", GH)
    (root / "gh").chmod(0o755)
    monkeypatch.setenv("PATH", str(root), prepend=os.pathsep)
    own = {"COMMENTS": "repos/o/r/issues/7/comments", "GITHUB_REPOSITORY": "o/r"}
    for ids, call in (
        ("", "api -X POST repos/o/r/issues/7/comments -F body=@comment.md"),
        ("12\n13\n", "api -X PATCH repos/o/r/issues/comments/12 -F body=@comment.md"),
    ):
        project.write("ids.txt", ids)
        assert sh(project, steps["post"]["run"], **own)[0] == 0
        asked, written = (root / "calls.txt").read_text().splitlines()[-2:]
        assert f'startswith("{comment[0]}")' in asked
        assert written == call


def test_gitlab_with_a_red_model(two):
    """Catches: a red shard that ends green, or is green once merged; a JUnit file that is not where it is sought."""
    jobs, root = recipe("GitLab"), two.root
    two.edit(two.card, ("accuracy = [0.7, 0.5]", "accuracy = [0.7, 0.99]"))
    scripts = {name: [line for line in jobs[name]["script"] if "pip" not in line] for name in ("shard", "verdict")}
    codes = []
    for index in ("1", "2"):
        found = {"CI_NODE_INDEX": index, "CI_NODE_TOTAL": str(jobs["shard"]["parallel"])}
        found |= {"ROBUSTNESS_STORE": str(root / "robustness-store")}
        codes += [sh(two, line, **found)[0] for line in scripts["shard"]]
        assert list(root.glob(jobs["shard"]["artifacts"]["reports"]["junit"]))
    assert sorted(codes) == [0, 1]
    ((code, said),) = [sh(two, line) for line in scripts["verdict"]]
    assert (code, "FAILED: 14 claims on 2 models: 13 passed, 1 failed" in said) == (1, True)
    assert all((root / path).is_file() for path in jobs["verdict"]["artifacts"]["paths"])


def test_dvc_and_mlflow(two, monkeypatch):
    """Catches: numbers that are not the report's, two under one name, names that MLflow refuses."""
    stage = recipe("dvc.yaml")["stages"]["robustness"]
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
    numbers = [n["value"] for cell in cells for n in cell["metrics"].values()]
    assert sorted(found.values()) == sorted(number for number in numbers if number is not None)
    recall = report["models"][1]["sweeps"][2]["cells"][0]["metrics"]["recall[3]"]
    assert found["tiny/uniform/0.5/recall.3."] == recall["value"]
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
        (CARD[CARD.index("[claims.clean]") :], ""): "has neither claims nor a gate",
        (CARD[-5:], CARD[-5:] + waiver): "claim clean:0:loss is no longer waived by eve",
        ('[recipe]\ncallable = "tiny_net:fit"\n', 'weights = "gone.pt"\n'): "there is no file",
        ("[sweeps.normal]", '[gate]\nkind = "retraining"\n\n[sweeps.normal]'): "robustness baseline accept run.json",
    }
    for (old, new), said in edits.items():
        two.write("models/tiny.toml", CARD.replace(old, new, 1))
        capsys.readouterr()
        assert main.main(["check-cards", str(two.card)]) == 1, said
        assert said in capsys.readouterr().out


def test_check_cards_loads_no_library():
    """Catches: seconds of imports before each commit."""
    code = "import sys; from robustness.cli import main; print(main.main(sys.argv[1:]), 'torch' in sys.modules)"
    printed = helpers.run(code, "check-cards", *sorted((ROOT / "models").glob("*.toml")))
    assert printed.splitlines()[-1] == "0 False", printed


def test_errors_in_all_cells_are_never_green(two):
    """Catches: a model that gives no number at all, and is passed by claims that nobody could hold."""
    two.on_forward("logits = logits * float('nan')")
    found = two.run("suites", "--robustness-report=report.html", "-p", "no:terminal")
    assert (found.ret, found.report["verdict"]) == (1, "failed")
    assert set(found.outcomes.values()) == {"error"}
    assert "✗" in (two.root / "report.html").read_text()


def test_zero_cells_are_never_green(two):
    """Catches: a card that sweeps and claims nothing, alone or as a shard, called passed."""
    nothing = CARD[: CARD.index("[sweeps.normal]")]
    two.write("models/tiny.toml", nothing).write("models/other.toml", nothing.replace('"tiny"', '"other"'))
    for shard in ([], ["--robustness-shard=1/2"]):
        assert two.run("suites", "-p", "no:terminal", *shard).ret == 1
