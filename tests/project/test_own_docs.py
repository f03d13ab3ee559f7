"""The page on one's own model holds: every block of it is run as it stands, in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import helpers
import pages
import pytest
from hatchling.builders.wheel import WheelBuilder

PAGE = helpers.ROOT / "docs" / "own-model.md"
BLOCKS = pages.blocks(PAGE)
README = pages.blocks(helpers.ROOT / "README.md")[0].text.partition(" && ")[0]
"""How the README installs."""
COMMON = "The model"
WAYS = ["Measure it without a card", "Write a card", "Cards from a hook", "Fixtures"]


def under(section):
    """Return the blocks under a heading."""
    found = [block for block in BLOCKS if block.section == section]
    assert found
    return found


@pytest.fixture(scope="module", params=["editable", "wheel"])
def installed(request, tmp_path_factory):
    """
    An installation as the README makes it, and one from the wheel: its interpreter, and variables.

    What it brings is put before all else on the path; with ROBUSTNESS_CLEAN=1 it is made in an empty environment.
    """
    editable = request.param == "editable"
    folder = tmp_path_factory.mktemp(request.param)
    if editable and not os.environ.get("ROBUSTNESS_CLEAN"):
        return sys.executable, {"PYTHONPATH": str(helpers.ROOT)}
    (wheel,) = WheelBuilder(str(helpers.ROOT)).build(directory=str(folder), versions=["standard"])
    if not os.environ.get("ROBUSTNESS_CLEAN"):
        zipfile.ZipFile(wheel).extractall(folder / "site")
        return sys.executable, {"PYTHONPATH": str(folder / "site")}
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = str(folder / "venv" / "bin" / "python")
    command = README.split()
    assert command[:4] == ["pip", "install", "-c", "constraints.txt"]
    what = command[4:] if editable else [wheel]
    subprocess.run([python, "-m", *command[:4], "-q", *what], check=True, cwd=helpers.ROOT)
    return python, {}


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    """Do what a section says in a folder; give what each command said."""
    if not shutil.which("bash"):
        pytest.skip("no bash to type commands into")
    python, variables = installed
    environment = pages.environment(tmp_path_factory.mktemp("shell"), python, **variables)
    return lambda name, folder: pages.Reader(folder, environment).follow(under(name))


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    run(COMMON, folder)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the folder that has the model, and nothing else."""
    return shutil.copytree(trained, tmp_path / "own")


def test_the_page_has_the_ways_and_no_block_is_left_out():
    """Catches: a section that is renamed, or a new one whose blocks nobody runs."""
    assert {block.section for block in BLOCKS} == {COMMON, *WAYS, "Profiles"}
    assert [block.language for block in under("Profiles")] == ["toml"]


def test_no_file_at_all(run, folder):
    """Catches: claims made up for a model that nobody claimed anything of, tables missing, files left behind."""
    before = {path.name for path in folder.iterdir()}
    checked, measured = run("Measure it without a card", folder)
    assert "nothing to fix" in checked
    assert "measured: 6 sweeps on 1 model; nothing was claimed" in measured
    for title in ("normal", "fgsm", "pgd", "brightness", "blur"):
        assert f"[claims.{title}]" in measured
        assert re.search(rf"^{title}\b", measured, re.MULTILINE)
    left = {path.name for path in folder.iterdir()} - before
    assert {name for name in left if not name.startswith(".")} <= {"__pycache__"}


def test_a_card_from_nothing_to_the_first_red_claim(run, folder):
    """Catches: an easy page that takes many steps; a candidate that is not what is judged, or not named."""
    *_, held, again, _, weak = run("Write a card", folder)
    for out in (held, again):
        assert re.search(r"passed: all \d+ claims on 1 model", out)
    assert re.search(r"FAILED: \d+ claims on 1 model: .*\d+ failed", weak)
    assert "weights weak.safetensors" in weak.partition("= robustness =")[2]
    assert sum(len(block.text.split("\n")) - 1 for block in under("Write a card")) <= 10


def test_a_hook(run, folder):
    """Catches: a conftest beside no tests that is not read, cards on data beside them that are left out."""
    out = run("Cards from a hook", folder)[-1]
    assert re.search(r"passed: all \d+ claims on 1 model", out)


def test_fixtures(run, folder):
    """Catches: a sweep of a table refused, a test a claim that is none."""
    out = run("Fixtures", folder)[-1]
    assert "5 passed" in out  # three claims under noise
