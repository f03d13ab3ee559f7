"""The README holds: its three lines test a model, and the output that it shows is the program's."""

import re
import subprocess
import sys

import helpers
import pages
import pytest

README = helpers.ROOT / "README.md"
BLOCKS = pages.blocks(README)
NETWORK = """
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
"""


def test_three_lines_test_your_model(tmp_path):
    """Catches: commands that no longer work as printed, and a card that is not read."""
    reader = pages.Reader(tmp_path, pages.environment(tmp_path, PYTHONPATH=str(helpers.ROOT)))
    script = next(block for block in pages.blocks(helpers.ROOT / "docs" / "own-model.md") if block.title == "train.py")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "nets.py").write_text(NETWORK)
    (tmp_path / "train.py").write_text(
        script.text.replace("from nets import Net", "from my_package.nets import build as Net")
        .replace("test.npz", "images.npz")
        .replace("pixels[1000:]", "pixels[1700:]")
        .replace("target[1000:]", "target[1700:]")
    )
    subprocess.run([sys.executable, "train.py", "my-net.safetensors", "150"], cwd=tmp_path, check=True)
    measured, card = [block for block in BLOCKS if block.section == "Test your own model"]

    (output,) = reader.follow([measured])
    assert "measured: " in output
    assert "[claims.fgsm]" in output

    (tmp_path / "my-net.toml").write_text(card.text)
    command = re.search(r"`(pytest [^`]*my-net\.toml)`", README.read_text(encoding="utf-8"))[1]
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=reader.environment, capture_output=True, text=True)
    assert re.search(r"4 claims on 1 model", done.stdout), done.stdout + done.stderr
    assert done.returncode in (0, 1)
    assert "ERROR" not in done.stdout


@pytest.mark.parametrize("verbose", [False, True])
def test_the_output_is_the_program_s(verbose, tmp_path):
    """With numbers masked: processors differ. Catches: columns, marks and words of an older version."""
    command = [sys.executable, "-m", "pytest", "suites/test_clean.py", "suites/test_noise.py", *["-v"] * verbose]
    done = subprocess.run(
        [
            *command,
            "--robustness-model=digits-mlp",
            "-p",
            "no:cacheprovider",
            f"--robustness-report={tmp_path}/run.json",
        ],
        cwd=helpers.ROOT,
        env=pages.environment(tmp_path),
        capture_output=True,
        text=True,
    )
    line, table = [block for block in BLOCKS if block.section == "What the output means"]
    expected = masked(table.text if verbose else line.text)
    assert expected <= masked(done.stdout), expected - masked(done.stdout)


def masked(text):
    """The lines, with a 0 in place of each number and one space in place of several."""
    return {re.sub(r"-?\d*\.?\d+", "0", " ".join(line.split())) for line in text.splitlines() if line.strip()}
