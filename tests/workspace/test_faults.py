"""What can go wrong in a run, and that none of it passes silently or leaves a store that lies."""

import errno
import json
import os
import pickle
import re
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import LIMIT
from plugin_project import CARD, IDS

from robustness.classifiers import weights
from robustness.util import atomic_write

ONCE = """
        if {where}:
            try:
                (HERE / "died").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
"""
EVERY = """
        if {where}:
            log("deaths")
            os.kill(os.getpid(), signal.SIGKILL)
"""


def accounted(project, run) -> dict[str, int]:
    """Check that everybody counted every claim exactly once; give the counts."""
    assert [claim["nodeid"] for claim in run.claims] == IDS
    cases = project.junit()
    assert sorted(cases) == sorted(nodeid.partition("::")[2] for nodeid in IDS)
    fates = [fate for fate, _ in cases.values()]
    counts = run.report["counts"]
    assert fates.count("passed") == counts["passed"]
    totals = dict(re.findall(r"(\d+) (passed|failed|error)", run.out.splitlines()[-1]))
    assert sum(map(int, totals)) == len(IDS) if len(totals) > 1 else True
    return {outcome: n for outcome, n in counts.items() if isinstance(n, int) and n and outcome != "claims"}


def test_worker_killed_in_a_sweep_once(project):
    """Catches: a claim lost or told twice, a sweep that kills the next worker, a store that keeps half a sweep."""
    project.on_forward(ONCE.format(where="noisy"))
    run = project.run("suites", "-n2", "--junitxml=junit.xml")
    assert run.ret == 1
    counts = accounted(project, run)
    assert counts["passed"] in (4, 5)  # clean, and the sweep that nobody died of
    assert counts["passed"] + counts["error"] == 7
    reasons = [claim["message"] for claim in run.claims if claim["outcome"] == "error"]
    assert re.search(r"worker 'gw\d' crashed while running", reasons[0])
    assert all(re.search(r"process \d+ of this run died while sweeping tiny:", reason) for reason in reasons[1:])
    assert run.out.count("replacing crashed worker") == 1
    assert len(project.evidence()) == 2
    # The next run is another attempt.
    again = project.run("suites")
    assert (again.ret, set(again.outcomes.values())) == (0, {"passed"})
    assert again.report["notices"] == []


def test_worker_killed_in_every_sweep(project):
    """Catches: a chain of dying workers, a run that never ends, claims that nobody accounts for."""
    project.on_forward(EVERY.format(where="True"))
    run = project.run("suites", "-n2", "--junitxml=junit.xml")
    assert run.ret == 1
    assert accounted(project, run) == {"error": 7}
    assert len(project.logged("deaths")) == 1  # whoever waited for the clean sweep does not try it
    assert project.entries() == {}
    assert run.seconds < 60


def test_worker_killed_where_no_other_may_replace_it(project):
    """Catches: claims that nobody ran any more called passed, or not counted."""
    project.on_forward(EVERY.format(where="noisy"))
    run = project.run("suites", "-n2", "--junitxml=junit.xml", "--max-worker-restart=0")
    assert run.ret != 0
    assert [claim["nodeid"] for claim in run.claims] == IDS
    assert run.report["counts"]["not run"] > 0
    assert "claims did not run" in run.summary


@pytest.mark.parametrize("code", [ONCE, EVERY], ids=["once", "every"])
def test_worker_killed_in_training(project, code):
    """Catches: a training that kills one worker after the other, half-trained weights in the store."""
    project.in_training(code.format(where="True").replace("\n    ", "\n"))
    run = project.run("suites", "-n2", "--junitxml=junit.xml")
    assert run.ret == 1
    assert accounted(project, run) == {"error": 7}
    assert len(project.logged("trainings")) == 1
    assert sum("died while training tiny (seed 0)" in message for message in run.messages) == 6
    assert project.entries("weights") == {}
    if code is ONCE:
        assert project.run("suites").ret == 0


def test_interrupted(project):
    """Catches: an interrupted run's report that looks complete, a marker that blames a process which did not die."""
    once = "((HERE / 'again').touch(exist_ok=False), os.kill(os.getpid(), signal.SIGINT))"  # more would be more Ctrl-C
    project.on_forward(f"noisy and not (HERE / 'again').exists() and {once}")
    run = project.run("suites", "--robustness-report=report.html", "--robustness-report=report.md", apart=True)
    assert run.ret == run.report["run"]["exit"] == pytest.ExitCode.INTERRUPTED
    for said in (run.summary, *((project.root / f"report.{form}").read_text() for form in ("html", "md"))):
        assert "This run was interrupted, so the report is partial." in said
    assert not run.report["run"]["complete"]
    assert run.report["verdict"] == "failed"
    assert list(run.outcomes.values()) == ["passed"] * 2 + ["not run"] * 5
    assert not list(project.store.glob("attempts/*"))
    assert project.run("suites").ret == 0


# ------------------------------------------------------------------ files that are not what they were


class Evil:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = {
    "truncated": lambda content, trace: content[: len(content) // 2],
    "empty": lambda content, trace: b"",
    "flipped": lambda content, trace: flip(content, len(content) // 2),
    "flipped head": lambda content, trace: flip(content, 9),
    "pickle": lambda content, trace: pickle.dumps(Evil(trace)),
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", ["evidence", "weights"])
def test_damaged_in_the_store(project, kind, how):
    """Catches: a damaged file believed, unpickled, left as it is, or replaced in silence."""
    trace = project.root / "trace"
    project.fill()
    for path in (project.store / kind).glob("??/*"):
        path.write_bytes(DAMAGES[how](path.read_bytes(), trace))
    run = project.run("suites")
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    assert not trace.exists()
    assert project.evidence() == project.evidence(of=project.warm)
    made, notices = ("swept", 3) if kind == "evidence" else ("made", 1)
    assert len(run.report["notices"]) == notices
    assert all(notice.endswith(f"; {made} again") and kind in notice for notice in run.report["notices"])
    assert f"notice: {run.report['notices'][0][:50]}" in run.summary
    assert len(project.logged("trainings")) == (kind == "weights")
    again = project.run("suites")
    assert again.report["notices"] == []


def commit_weights(project, name: str = "tiny.safetensors") -> Path:
    """Put the trained weights beside the card, as a project would commit them."""
    project.fill()
    (trained,) = (project.store / "weights").glob("??/*")
    path = project.card.parent / name
    path.write_bytes(trained.read_bytes())
    project.edit(project.card, ('factory = "tiny_net:net"\n', f'factory = "tiny_net:net"\nweights = "{name}"\n'))
    return path


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_committed_weights(project, how):
    """Catches: damaged weights of the user's trained anew in silence, unpickled, or judged."""
    trace = project.root / "trace"
    path = commit_weights(project)
    damaged = DAMAGES[how](path.read_bytes(), trace)
    path.write_bytes(damaged)
    run = project.run("suites")
    assert (run.ret, set(run.outcomes.values())) == (1, {"error"})
    assert all(message.startswith(str(path)) and "\n" not in message for message in run.messages)
    assert re.search("truncated|torn|damaged|not a", run.messages[0])
    assert not trace.exists()
    assert project.logged("trainings") == []
    assert path.read_bytes() == damaged


def test_weights_that_would_execute_code(project):
    """Catches: torch.load without weights_only."""
    trace = project.root / "trace"
    path = commit_weights(project, "tiny.pt")
    path.write_bytes(pickle.dumps(Evil(trace)))
    run = project.run("suites", "-k", "clean")
    assert (run.ret, set(run.outcomes.values())) == (1, {"error"})
    assert "cannot be read without executing code, or is truncated" in run.messages[0]
    assert not trace.exists()


def test_weights_older_than_their_recipe(project):
    """
    Catches: old weights used in silence, or trained anew by a run that was asked to judge; a notice that cries wolf;
    evidence that knows where weights lie.
    """
    path = commit_weights(project)
    run = project.run("suites")
    assert (run.ret, run.report["notices"]) == (0, [])
    assert project.logged("modules") == []  # swept for the same weights in the store, and found
    path.write_bytes(weights.to_bytes(weights.read(path), {"recipe": "0" * 64}))
    run = project.run("suites")
    assert run.ret == 0
    (notice,) = run.report["notices"]
    assert notice.startswith(f"{path} is older than its recipe")
    assert "`robustness update-thresholds tiny`" in notice
    assert f"notice: {path}" in run.summary
    assert project.logged("trainings") == []


def test_changed_helper(project):
    """Catches: a warm run green although what the model is made of was broken since."""
    project.write("parts/__init__.py", "").write("parts/head.py", "def head(logits):\n    return logits\n")
    project.edit(project.net, ("import torch\n", "import torch\nfrom parts.head import head\n"))
    project.on_forward("logits = head(logits)")
    assert project.run("suites").ret == 0
    before = project.entries()
    (project.root / "parts" / "head.py").touch()
    assert project.run("suites").report["notices"] == []
    assert project.entries() == before
    project.write("parts/head.py", "def head(logits):\n    return -logits\n")
    run = project.run("suites")
    assert (run.ret, set(run.outcomes.values())) == (1, {"failed"})
    labels = [f"tiny:{sweep}" for sweep in ("clean", "normal", "uniform")]
    assert sorted(run.report["notices"]) == [
        f"evidence of {label} is older than parts/head.py; swept again" for label in labels
    ]


# ------------------------------------------------------------------ disks and locks


def test_disk_full(project, monkeypatch):
    """
    For weights and evidence. Catches: a run that does not judge what it has measured, one that says nothing, files half
    written, a training that is begun anew for each claim, and one that is lost.
    """

    def fsync(descriptor: int) -> None:
        if re.search("/store/(evidence|weights)/", str(Path(f"/proc/self/fd/{descriptor}").readlink())):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_write, "os", types.SimpleNamespace(**{**vars(os), "fsync": fsync}))
    monkeypatch.delenv(atomic_write.ASIDE, raising=False)
    run = project.run("suites")
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    assert len(run.report["notices"]) == 3
    for sweep, notice in zip(("clean", "normal", "uniform"), run.report["notices"], strict=True):
        assert notice.startswith(f"evidence of tiny:{sweep} was not kept: ")
        assert "No space left on device" in notice
    assert "was not kept" in run.summary
    assert project.entries() == project.entries("weights") == {}
    assert not [path for path in project.store.rglob("*") if path.name.startswith(".")]
    assert len(project.logged("passes")) == len(project.logged("passes", of=project.warm.parent))
    assert all(sweep["evidence"] for sweep in run.report["models"][0]["sweeps"])
    assert "kept for this run alone: " in run.err
    assert "could not be written (No space left on device)" in run.err
    assert len(project.logged("trainings")) == 1


def test_store_that_is_none(project):
    """Catches: a run that cannot judge because it cannot keep; the weights are the project's own."""
    commit_weights(project)
    file = project.root / "file"
    file.write_text("not a folder")
    run = project.run("suites", f"--robustness-store={file}")
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    assert any("was not kept" in notice for notice in run.report["notices"])
    assert file.read_text() == "not a folder"


def test_two_runs_at_once(project):
    """Catches: a sweep or a training made by both, one that sees the other's half-written file."""
    names = ("a.json", "b.json")
    runs = [project.start("suites", f"--robustness-report={name}") for name in names]
    for run, name in zip(runs, names, strict=True):
        out, err = run.communicate(timeout=LIMIT)
        assert run.returncode == 0, out + err
        assert json.loads((project.root / name).read_text())["counts"]["passed"] == 7
    assert len(project.logged("trainings")) == 1
    assert len(project.logged("passes")) == len(project.logged("passes", of=project.warm.parent))
    assert project.evidence() == project.evidence(of=project.warm)
    assert not list(project.store.glob("attempts/*"))


# ------------------------------------------------------------------ models and data that do not fit


def test_wrong_outputs(project):
    """Catches: nine outputs judged on ten classes; a model run again for every claim."""
    run = project.on_forward("logits = logits[:, :9]").run("suites")
    assert (run.ret, set(run.outcomes.values())) == (1, {"error"})
    said = r"must return logits of shape \(images, outputs\) = \((\d+), 10\).*got \(\1, 9\)"
    assert all(re.search(said, message) and "\n" not in message for message in run.messages)
    assert len(project.logged("modules")) <= 2  # the training's, and the sweeps'
    assert project.entries() == {}


def test_forward_that_raises(project):
    """Catches: an exception in the model's code tried again for every claim, or believed by the next run."""
    run = project.on_forward("if noisy: raise RuntimeError('out of tricks')").run("suites")
    assert run.ret == 1
    assert list(run.outcomes.values()) == ["passed"] * 2 + ["error"] * 5
    assert run.messages[-1].endswith("the cell has no numbers: raised RuntimeError: out of tricks")
    passes = len(project.logged("passes"))
    run = project.run("suites")
    assert run.ret == 1
    assert sorted(run.report["notices"]) == [
        f"code failed when evidence of tiny:{sweep} was made; swept again" for sweep in ("normal", "uniform")
    ]
    assert len(project.logged("passes")) > passes


def test_recipe_that_only_its_command_starts(project):
    """Catches: a long training begun by a test run; a skip without the command."""
    project.edit(project.card, ("[recipe]\n", '[recipe]\nstart = "manual"\n'))
    run = project.run("suites", "-rs")
    assert (run.ret, set(run.outcomes.values())) == (1, {"skipped"})
    assert "tiny: its weights are not trained; get it with: robustness train tiny" in run.messages[0]
    assert "failed: all 7 claims were skipped" in run.summary
    assert project.logged("trainings") == []
    assert project.fill().run("suites").ret == 0  # where they are, they are used


def test_forward_that_is_not_deterministic(project):
    """Catches: numbers that cannot be had again shown without a word."""
    run = project.on_forward("logits = logits + torch.rand(1) * 1e-3").run("suites")
    assert run.report["models"][0]["doubts"] == ["non-deterministic forward"]
    assert "Doubt: non-deterministic forward: two clean passes" in run.summary


ARRAY = CARD.replace(
    'name = "digits"\nsplit = { kind = "balanced", per_class = 20 }', 'name = "array"\nfile = "far.npz"'
)
PIXELS = np.zeros((20, 28, 28), np.uint8)
LABELS = np.arange(20) % 10


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"test_y": LABELS + 1, "classes": np.array(list("0123456789"))}, "0..9.*labels start at 1"),
        ({"test_y": LABELS - 1}, "`labels` must be class numbers from 0, but 2 of 20 are negative"),
        ({"test_y": LABELS[:19]}, r"`labels` must have one entry per image \(20\), got 19"),
        ({"test_x": np.zeros((20, 1, 28, 28), np.uint8)}, r"`pixels` must have the shape.*got \(20, 1, 28, 28\)"),
        ({"test_x": PIXELS + np.float32(1.5)}, r"must lie in \[0, 1\], got 1.5 in image 0"),
        ({"test_x": PIXELS * np.float32(np.nan)}, r"must lie in \[0, 1\], got nan"),
        ({"test_x": PIXELS[:0], "test_y": LABELS[:0]}, r"at least one image of one pixel, got the shape \(0, 28, 28\)"),
        ({"test_x": np.array([Evil(Path("trace"))] * 20)}, "pickle|object"),
        ({"test_x": PIXELS[:, :20]}, "raised RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
    ids=["labels", "negative", "count", "shape", "range", "nan", "empty", "objects", "size"],
)  # fmt: skip
def test_data_that_cannot_be(project, arrays, said):
    """Catches: wrong data swept as they are, or an error that does not say what to mend."""
    project.write("models/tiny.toml", ARRAY)
    (project.root / "data").mkdir()
    given = {"train_x": PIXELS, "train_y": LABELS, "test_x": PIXELS, "test_y": LABELS} | arrays
    np.savez(project.root / "data" / "far.npz", **given)
    run = project.run("suites", "--robustness-model=tiny")
    assert (run.ret, set(run.outcomes.values())) == (1, {"error"})
    assert all(re.search(said, message) and "\n" not in message for message in run.messages), run.messages
    assert not (project.root / "trace").exists()
