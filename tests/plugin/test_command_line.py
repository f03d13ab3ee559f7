"""How pytest reads this plugin's options: in both spellings, whatever is there by the name of a value."""

import json
import os
import subprocess
import sys

import pytest
from helpers import LIMIT

from robustness.plugin.config import OPTIONS

VALUED = [name for name, about, _ in OPTIONS if "metavar" in about]
PROBE = """
import json, sys
import pytest

class Probe:
    def pytest_configure(self, config):
        names = sys.argv[1].split(",")
        self.seen = {
            "root": str(config.rootpath), "ini": str(config.inipath), "args": config.args,
            "mine": config.getoption("--mine"),
            "values": [config.getoption("robustness_" + name.replace("-", "_")) for name in names],
        }
    def pytest_sessionfinish(self):
        self.ran = True
    def pytest_runtest_logreport(self, report):
        self.test = report.nodeid, report.outcome

for line in sys.stdin:
    probe = Probe()
    code = pytest.main(["-q", "-p", "no:cacheprovider", *json.loads(line)], plugins=[probe])
    print("\\nread", json.dumps([int(code), probe.seen, probe.test]), flush=True)
"""
CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--mine")

def pytest_cmdline_main(config):
    # What this plugin checks of its values is not what is asked here.
    config.pluginmanager.unregister(name="robustness")
"""


@pytest.fixture
def project(tmp_path):
    """A project whose ini file names its tests and an option of theirs; beside it a folder of somebody else's."""
    (tmp_path / "outside").mkdir()
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "pytest.ini").write_text("[pytest]\ntestpaths = tests\naddopts = --mine=yes\n")
    (root / "tests" / "conftest.py").write_text(CONFTEST)
    (root / "tests" / "test_it.py").write_text("def test_it(): pass\n")
    return root


def read(project, lines, names=VALUED, **environment):
    """Have pytest read command lines in another process; return exit code, what it read, and the test that it ran."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE, ",".join(names)],
        input="".join(f"{json.dumps(line)}\n" for line in lines),
        cwd=project, env={**os.environ, "PYTEST_ADDOPTS": "", **environment},
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    found = [json.loads(line[5:]) for line in result.stdout.splitlines() if line.startswith("read ")]
    assert len(found) == len(lines), result.stdout + result.stderr
    return found


def test_a_value_that_exists_is_never_a_path_of_tests(project):
    """Catches: another root folder, and an ini file that is not read, once the folder of an option exists."""
    names = [name for name in VALUED if name not in ("images", "seed")]
    values = ["../outside", str(project.parent / "outside"), "tests/test_it.py"]
    lines = [[f"--robustness-{name}=../outside"] for name in names]
    lines += [[f"--robustness-{name}", value] for name in names for value in values]
    for line, (code, seen, test) in zip(lines, read(project, lines), strict=True):
        name, _, value = "=".join(line).removeprefix("--robustness-").partition("=")
        assert (code, test) == (0, ["tests/test_it.py::test_it", "passed"]), line
        assert (seen["root"], seen["ini"], seen["mine"]) == (str(project), str(project / "pytest.ini"), "yes"), line
        got = seen["values"][VALUED.index(name)]
        assert got in (value, [value]), line
        assert [v for n, v in zip(VALUED, seen["values"], strict=True) if n != name] == [None] * (len(VALUED) - 1)


def test_numbers_that_are_folders_too(project):
    """Catches: `--robustness-seed 7` where a folder is called 7."""
    (project / "7").mkdir()
    for _, seen, test in read(project, [["--robustness-seed", "7"], ["--robustness-images", "7"]], ["seed", "images"]):
        assert (seen["root"], seen["mine"], test[1]) == (str(project), "yes", "passed")
        assert 7 in seen["values"]


def test_an_option_of_the_environment_is_read_alike(project):
    (found,) = read(project, [["tests"]], ["store"], PYTEST_ADDOPTS="--robustness-store ../outside")
    assert (found[0], found[1]["ini"], found[1]["values"]) == (0, str(project / "pytest.ini"), ["../outside"])


def test_what_is_no_value_stays_as_it_is(project):
    """Catches: paths of tests, and other plugins' options, that are joined to an option of this one."""
    line = ["--robustness-strict", "tests/test_it.py", "--robustness-store", "../outside", "-k", "it", "--", "tests"]
    ((code, seen, _),) = read(project, [line], ["strict", "store"])
    assert code == 0
    assert seen["values"] == [True, "../outside"]
    assert seen["args"] == ["tests/test_it.py", "tests"]
