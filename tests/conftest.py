"""Fixtures of the plugin's tests: a tiny project that runs in a process of its own, or in this one."""

import multiprocessing.sharedctypes  # noqa: F401  # see below
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import plugin_project
import pytest
import torch._dynamo  # noqa: F401  # see below
from plugin_project import Project

import robustness.plugin.run_report  # noqa: F401  # see below
from robustness import cards
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

pytest_plugins = ["pytester"]
# A run inside this process forgets the modules that it was the first to import. Of `multiprocessing.heap`, imported
# above for that, the package then keeps another copy than `sys.modules`, and nothing that uses it can be pickled. Torch
# imports its compiler at the first `manual_seed`, and cannot do so a second time. A report's classes must be one copy.

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's job in the background hands that on to its children
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config, specs):
    """
    Give each worker, and what it starts, one thread: they share the cores, and would only wait for each other.

    Set here, since torch reads it once, when it is imported, and a worker has imported it before its first test.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Send all tests of a report to one worker: their fixtures run a paper at its smallest scale, once per worker."""
    from robustness.plugin.xdist_scheduler import SweepScheduling

    class ReportsTogether(SweepScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return file if "/test_report_" in file else super()._split_scope(nodeid)

    return ReportsTogether(config, log, {})


@pytest.fixture(scope="session")
def warm_store(tmp_path_factory) -> Path:
    """A store with the weights and all evidence of the tiny project, made as a library makes them, without pytest."""
    root = tmp_path_factory.mktemp("warm")
    plugin_project.write(root)
    path = list(sys.path)
    card = cards.load(root / "models" / "tiny.toml")
    workspace = Workspace(Store(root / "store"), root / "data", threads=1)
    for sweep in ("clean", *card.file.sweeps):
        assert set(workspace.evidence(card, sweep).status) == {"ok"}
    assert workspace.notices == []
    sys.path[:] = path
    del sys.modules["tiny_net"]
    return root / "store"


@pytest.fixture
def own_path() -> Iterator[None]:
    """Let what a test loads from a project of its own leave ``sys.path`` and the tiny project's module as they were."""
    before, module = list(sys.path), sys.modules.pop("tiny_net", None)
    yield
    sys.path[:] = before
    sys.modules.pop("tiny_net", None)
    if module is not None:
        sys.modules["tiny_net"] = module


@pytest.fixture
def project(pytester, monkeypatch, warm_store) -> Iterator[Project]:
    """The tiny project, with an empty store; `fill` fills it."""
    monkeypatch.setenv("ROBUSTNESS_STORE", str(pytester.path / "store"))
    monkeypatch.setenv("ROBUSTNESS_DATA", str(pytester.path / "data"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the stored evidence is a CPU's
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # a file rewritten within a second would be read from its cache
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    plugin_project.write(pytester.path)
    made = Project(pytester, warm_store)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
