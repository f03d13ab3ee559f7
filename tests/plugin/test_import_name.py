"""Other people's `robustness` beside ours: one sentence with the repair, never a traceback, never green."""

import os
import shutil
import subprocess
import sys
import zipfile

import helpers
import pytest
from hatchling.builders.wheel import WheelBuilder

COMMAND = "import sys, pytest_robustness; sys.argv[1:] = ['profiles']; sys.exit(pytest_robustness.main())"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """What the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    (file,) = WheelBuilder(str(helpers.ROOT)).build(directory=str(folder), versions=["standard"])
    zipfile.ZipFile(file).extractall(folder / "site-packages")
    return folder / "site-packages"


@pytest.fixture
def site(wheel, tmp_path):
    """A copy of it, and a project with one green test."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "conftest.py").touch()
    (tmp_path / "project" / "test_theirs.py").write_text("def test_theirs(): pass\n")
    return shutil.copytree(wheel, tmp_path / "site-packages")


def run(site, *arguments):
    """Run Python where the wheel is installed, and this checkout is not; return exit code and output."""
    others = [path for path in sys.path if path.endswith("site-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *others])}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, "-S", *arguments], cwd=site.parent / "project", env=environment,
        capture_output=True, text=True, timeout=helpers.LIMIT,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def install_other(site):
    (site / "robustness" / "__init__.py").write_text('name = "robustness"\n')


def uninstall_other(site):
    (site / "robustness" / "__init__.py").unlink()


def lose_a_part(site):
    (site / "robustness" / "claims.py").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (install_other, "another distribution that is called robustness took the place"),
        (uninstall_other, "has lost its __init__.py, as when another distribution called robustness is uninstalled"),
        (lose_a_part, "claims.py is missing from the installation"),
    ],
)
def test_another_distribution_of_that_name(site, damage, said):
    """Catches: ModuleNotFoundError from an entry point, in pytest and the command, and a run without the plugin."""
    damage(site)
    for due, arguments in {4: ("-m", "pytest"), 2: ("-c", COMMAND)}.items():
        code, out = run(site, *arguments)
        assert (code, "Traceback" in out) == (due, False), out
        (line,) = [line for line in out.splitlines() if said in line]
        assert "repair: " in line
        assert "--force-reinstall" in line


@pytest.mark.parametrize("name", ["robustness.py", "robustness/__init__.py"])
def test_a_module_of_somebody_elses_of_that_name(site, name):
    """Catches: the same for a project's own module, which pytest and its workers find first."""
    own = site.parent / "project" / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("ours = 1\n")
    late = "import sys; sys.path.remove(''); import pytest; sys.exit(pytest.main(sys.argv[1:]))"  # as `pytest` does
    for arguments in (("-m", "pytest"), ("-c", late), ("-c", late, "-n", "2")):
        code, out = run(site, *arguments)
        assert (code, "Traceback" in out) == (4, False), out
        (line,) = [line for line in out.splitlines() if "ERROR" in line]
        assert f"{name.partition('/')[0]} comes before pytest-robustness's package" in line
        assert "rename it, or run pytest with -p no:robustness" in line
    (own.parent / "test_robustness.py").write_text("import robustness\n\ndef test(): assert robustness.ours\n")
    assert run(site, "-m", "pytest", "-p", "no:robustness", "-n", "0")[0] == 0


def test_a_healthy_installation_begins(site):
    """Catches: a folder called robustness that is no package taken for one; a check that always refuses."""
    (site.parent / "project" / "robustness").mkdir()
    assert run(site, "-m", "pytest")[0] == 0
    code, out = run(site, "-c", COMMAND)
    assert (code, "default" in out) == (0, True)


def test_the_suites_are_the_same_in_a_checkout_and_installed(site):
    """Catches: suites that an editable installation lacks, that are collected twice, or under other names."""
    card = str(helpers.ROOT / "models" / "digits-mlp.toml")
    words = ["-q", "--collect-only", "-n", "0", "-p", "no:cacheprovider", "--robustness-card", card]
    installed = run(site, "-m", "pytest", "--pyargs", "robustness.suites", *words)
    environment = {**os.environ, "PYTHONPATH": str(helpers.ROOT)}

    def collected(folder, *names):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *names, *words], cwd=folder, env=environment,
            capture_output=True, text=True, timeout=helpers.LIMIT,
        )  # fmt: skip
        return done.returncode, done.stdout

    elsewhere = collected(site.parent / "project", "--pyargs", "robustness.suites")
    by_folder = collected(helpers.ROOT, "suites")
    by_name = collected(helpers.ROOT, "--pyargs", "robustness.suites")

    def names(result):
        code, out = result
        assert code == 0, out
        found = [line.rpartition("/")[2] for line in out.splitlines() if "[digits-mlp" in line]
        assert len(found) == len(set(found)) > 100
        return found

    assert names(installed) == names(elsewhere) == names(by_folder) == names(by_name)
