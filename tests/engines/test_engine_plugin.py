"""`--robustness-engine`: what is made before tests run, and by whom; the engine itself is a stand-in here."""

import os
import signal

import pytest
from plugin_project import HOOK

from robustness import engines
from robustness.engines import EngineSpec, Job, parse, subprocess_job
from robustness.errors import EngineError

STANDS_IN = """
import os
from pathlib import Path
from robustness import engines
from robustness.errors import EngineError
from robustness.util import hardware
from robustness.workspace.workspace import Workspace
from robustness.workspace.store import Store


def fill(harness, engine, wanted, device):
    \"\"\"Make evidence here, as of another kind of device.\"\"\"
    with (Path(__file__).parent / "filled").open("a") as stream:
        stream.write(f"{os.getpid()} {engine.workers} {','.join(sweep for _, sweep in wanted)}\\n")
    if engine.address:
        raise EngineError("the cluster is gone")
    hardware.has_device = lambda kind: True
    own = Workspace(Store(harness.store.root, harness.store.run), harness.data_root, threads=1, kind="cpu-abacus")
    for card, sweep in wanted:
        own.evidence(card, sweep)
    harness.kind = own.kind
    harness.notice("it was made elsewhere")


engines.fill = fill
"""


@pytest.fixture
def filled(project, monkeypatch):
    """The project with a stand-in; gives what it was asked for."""
    monkeypatch.setattr(engines, "fill", engines.fill)  # put back after runs in this process
    project.write("conftest.py", HOOK + STANDS_IN)
    return lambda: [line.split() for line in (project.root / "filled").read_text().splitlines()]


def test_the_collected_tests_alone_are_filled(project, filled):
    """Catches: sweeps made that nobody asked for, evidence that is not found under the engine's kind of device."""
    run = project.run("suites", "-n0", "-k", "uniform", "--robustness-engine=ray,workers=3", apart=True)
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    ((pid, workers, sweeps),) = filled()
    assert (workers, sweeps) == ("3", "uniform")
    assert set(project.logged("passes")) == {int(pid)}
    assert run.report["notices"] == ["it was made elsewhere"]


def test_xdist_s_workers_find_what_the_controller_has_had_made(project, filled):
    """Catches: workers that sweep again, each for itself, or that start an engine of their own."""
    run = project.run("suites", "-n2", "--robustness-engine=ray")
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    ((pid, _, sweeps),) = filled()
    assert sweeps == "clean,normal,uniform"
    assert set(project.logged("passes")) == {int(pid)}


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_an_engine_that_fails_ends_the_run(project, filled, workers):
    """Catches: tests that sweep everything here after all, a traceback, a green run."""
    run = project.plain("suites", workers, "--robustness-engine=ray=10.0.0.1:6379", apart=True)
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: the cluster is gone" in run.out + run.err
    assert "Traceback" not in run.out + run.err
    assert project.logged("passes") == []


def test_a_run_without_an_engine_asks_none(project, filled):
    """Catches: an engine that is started for a run that needs none."""
    project.fill()
    assert project.run("suites", "-n0", apart=True).ret == 0
    assert project.run("suites", "-n0", "--robustness-engine=local", "--collect-only", apart=True).ret == 0
    assert not (project.root / "filled").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rays", r"`engine` must be local or ray\[=ADDRESS\], got 'rays'; did you mean 'ray'\?"),
        ("local=here", "got 'local=here'"),
        ("ray,worker=3", "got 'worker=3'; did you mean 'workers'?"),
        ("ray,workers=many", "may set workers=N, cores=N and gpus=SHARE"),
        ("ray,workers=0", "workers must be at least 1, got 0"),
        ("ray,gpus=1.5", "a whole number or a share below 1, got 1.5"),
        ("ray=ray://head:10001", "a client address"),
    ],
)
def test_engines_that_cannot_be(text, said):
    with pytest.raises(EngineError, match=said):
        parse(text)


def test_engines_that_can_be():
    """Catches: an address that is cut at its colons, a setting that is dropped."""
    assert parse("local") == EngineSpec()
    assert parse("ray=[::1]:6379,cores=2,workers=4") == EngineSpec("ray", "[::1]:6379", workers=4, cores=2)
    assert parse("ray,gpus=0.25").gpus == 0.25


@pytest.fixture
def job(tmp_path):
    return Job(EngineSpec("ray"), tmp_path, "this", tmp_path, "cpu")


def test_what_a_child_tells_is_heard(job):
    """Catches: a last word that is lost, a log that is left where nothing went wrong."""
    said = []
    filled = subprocess_job.run("child_jobs:tells", job, said.append)
    assert said == ["waiting"]
    assert (filled.kind, filled.notices, filled.failed) == ("cpu-abacus", ["look"], {"key": "no luck"})
    assert not list((job.store / "logs").iterdir())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("exits", r"died \(exit status 3\): .* finished chunks are stored(.|\n)*  the last line"),
        ("is_killed", r"died \(killed by SIGKILL\)"),
        ("raises", r"died \(exit status 1\)(.|\n)*ValueError: no luck"),
        ("refuses", "^nothing answers$"),
    ],
)
def test_the_death_of_a_child_is_reported(job, what, said):
    """Catches: a run that waits for a process that is gone, or takes its end for success."""
    with pytest.raises(EngineError, match=said):
        subprocess_job.run(f"child_jobs:{what}", job, print)


def test_a_child_ends_with_whoever_started_it(job):
    """Catches: a driver that goes on sweeping after its run was interrupted."""
    pids = []

    def said(text):
        pids.append(int(text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        subprocess_job.run("child_jobs:waits", job, said)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], signal.SIGTERM)


def test_a_store_that_cannot_be_written(job):
    """Catches: a traceback where the log of a child cannot be kept."""
    (job.store / "logs").touch()
    with pytest.raises(EngineError, match="cannot be written"):
        subprocess_job.run("child_jobs:tells", job, print)
