"""Disks that are full, cannot be written or have no locks; clocks that were set back; users without a home or name."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import plugin_project
import pytest
from helpers import LIMIT

from robustness.cli import inventory
from robustness.data import npz_cache
from robustness.util import atomic_write
from robustness.workspace.store import Store


@pytest.fixture(autouse=True)
def nothing_aside(monkeypatch):
    """Have each test begin without a folder for what cannot be kept."""
    monkeypatch.delenv(atomic_write.ASIDE, raising=False)


@contextmanager
def mounted(folder, options):
    """A file system of its own in a folder; skipped where this user may mount none."""
    folder.mkdir(exist_ok=True)
    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount a file system: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def held(run):
    """Hold a run to the numbers of a sound machine: all claims passed, each with its images counted."""
    assert run.ret == 0, run.out + run.err
    assert set(run.outcomes.values()) == {"passed"}
    right = {c["metric"]: c["numbers"]["successes"] for c in run.claims if c["id"] == "tiny:clean:0:accuracy"}
    assert right == {"accuracy": 180}, "what the same run gives on a sound disk"


@pytest.fixture
def archive(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(6, dtype=np.uint8))
    return tmp_path / "a.npz"


def unpack(archive, cache, *say):
    assert npz_cache.memory_mapped_arrays(archive, cache, *say)["x"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", ["8k", "64k", "128k"])
def test_a_disk_that_is_nearly_full(project, size):
    """Catches: weights that are lost once trained, evidence half written, a run that judges nothing."""
    with mounted(project.store, f"size={size}"):
        run = project.run("suites")
        held(run)
        assert not [path for path in project.store.rglob("*") if path.name.startswith(atomic_write.BEGUN)]
        assert all(not isinstance(found, Exception) for _, found in Store(project.store).entries())
        if size == "8k":
            assert "kept for this run alone" in run.err
            assert sum("was not kept" in notice for notice in run.report["notices"]) == 3
        assert len(project.logged("trainings")) == 1


@pytest.mark.parametrize("warm", [False, True])
def test_a_store_that_cannot_be_written(project, warm):
    """Catches: a store on a read-only disk that serves nobody, or that loses what is not in it."""
    with mounted(project.store, "size=4m"):
        if warm:
            subprocess.run(["cp", "-r", f"{project.warm}/.", project.store], check=True)
        subprocess.run(["mount", "-o", "remount,ro", project.store], check=True)
        run = project.run("suites")
        held(run)
        assert len(project.logged("trainings")) == (0 if warm else 1)
        assert sum("Read-only file system" in notice for notice in run.report["notices"]) == (0 if warm else 3)


def test_arrays_are_unpacked_beside_a_store_that_cannot_be_written(archive, tmp_path):
    """Catches: arrays that cannot be read for want of a place to keep them, or unpacked elsewhere without a word."""
    said = []
    with mounted(tmp_path / "cache", "size=1m,ro") as cache:
        unpack(archive, cache, said.append)
    assert "a.npz is unpacked for this run only" in said[0]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks(project, archive, monkeypatch, code):
    """Catches: an OSError of the lock's, a soft lock that a killed process leaves for ever, its warning as an error."""

    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    unpack(archive, project.root / "cache")
    for _ in range(2):
        held(project.run("suites"))
        assert len(project.logged("trainings")) == 1
        assert not (project.store / "attempts").exists()


def test_a_clock_that_was_set_back(project, archive):
    """All of the store lies in the future. Catches: evidence that is not believed, or never removed, for its date."""
    project.fill()
    later = 4_000_000_000
    for path in (archive, *project.store.rglob("*")):
        os.utime(path, (later, later))
    held(project.run("suites"))
    assert project.logged("trainings") == project.logged("passes") == []
    assert len(inventory.to_prune(Store(project.store), every=True)) == 3
    unpack(archive, project.store)


NOBODY = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
# It may read this Python, wherever that lies, and write nothing that is not its own.
NOBODY += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


@pytest.mark.parametrize("home", [None, "/nonexistent", "closed", "relative"])
def test_a_user_without_a_home_and_a_name(home):
    """Catches: a traceback of whoever looks for a user's name or folder, and a run that keeps nothing in silence."""
    if shutil.which("setpriv") is None or subprocess.run([*NOBODY, "true"], check=False).returncode:
        pytest.skip("this user may not become another one")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plugin_project.write(root)
        (root / "closed").mkdir()
        subprocess.run(["chmod", "-R", "a+rwX", root], check=True)
        (root / "closed").chmod(0o500)
        environment = {"PATH": os.defpath, "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        if home is not None:
            environment["HOME"] = {"closed": str(root / "closed"), "relative": "no/such"}.get(home, home)
        done = subprocess.run(
            [*NOBODY, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--robustness-report=r.json", "suites"],
            cwd=root, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "Traceback" not in said
        report = json.loads((root / "r.json").read_text())
        assert {claim["outcome"] for model in report["models"] for claim in model["claims"]} == {"passed"}
        notices = " ".join(report["notices"])
        if home == "relative" or home is None:
            assert "there is no home folder" in notices
        else:
            assert notices.count("was not kept") == notices.count("Permission denied") == 3
