"""
Pictures of a run for the README: a red terminal, and the report's first screen, each light and dark.

    python -m documentation.pictures [--output docs/pictures]

The model is digits-mlp with noise added to its weights. The report is drawn by a local Chromium.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "models" / "weights" / "digits-mlp.safetensors"
NOISE = 0.85
"""Standard deviation of the noise on each weight matrix, in standard deviations of its weights."""
COMMAND = (
    "pytest suites/test_noise.py suites/test_regression.py -k 'not uniform' --robustness-weights retrained.safetensors"
)
SIZE = (1280, 800)
COLOURS = {"31": "red", "32": "green", "33": "yellow"}
STYLE = """
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328; white-space: pre }
  rect { fill: #f6f8fa } .red { fill: #b42318 } .green { fill: #1a7f37 } .yellow { fill: #7d4e00 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } rect { fill: #161b22 }
    .red { fill: #ff7b72 } .green { fill: #56d364 } .yellow { fill: #e3b341 }
  }
"""


def run(folder: Path) -> str:
    """Test damaged weights; return what the terminal shows, with its escape sequences."""
    weights = load_file(WEIGHTS)
    torch.manual_seed(0)
    for name, values in weights.items():
        if values.ndim > 1:
            weights[name] = values + NOISE * values.std() * torch.randn_like(values)
    save_file(weights, folder / "retrained.safetensors")
    arguments = shlex.split(COMMAND.replace("retrained", str(folder / "retrained")))[1:]
    arguments += ["--robustness-model=digits-mlp", f"--robustness-report={folder / 'report.html'}"]
    quiet = ["--color=yes", "--tb=no", "-rN", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *quiet],
        cwd=ROOT,
        env={**os.environ, "ROBUSTNESS_STORE": str(folder / "store"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 1:
        raise SystemExit(f"the run must end with 1, and ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return re.sub(r"(?m)^(report: ).*/", r"\1", done.stdout)


def terminal_svg(lines: list[str]) -> str:
    r"""
    Draw lines with escape sequences as SVG that follows the reader's colour scheme.

    >>> "<tspan class='red'>no</tspan> yes" in terminal_svg(["\x1b[31mno\x1b[0m yes"])
    True
    """
    width = max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines)
    rows = [f"<text x='16' y='{28 + 18 * i}'>{_spans(line)}</text>" for i, line in enumerate(lines) if line.strip()]
    size = f"viewBox='0 0 {int(width * 7.85) + 32} {18 * len(lines) + 28}'"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' {size}><style>{STYLE}</style><rect width='100%' height='100%'/>"
    return "\n".join([head, *rows, "</svg>", ""])


def _spans(line: str) -> str:
    """Write a line's colours as spans; other attributes are dropped."""
    parts = re.split(r"\x1b\[([\d;]*)m", line)
    shown, colour = html.escape(parts[0]), ""
    for codes, text in zip(parts[1::2], parts[2::2], strict=True):
        named = [COLOURS[code] for code in codes.split(";") if code in COLOURS]
        colour = named[-1] if named else "" if "0" in codes.split(";") else colour
        text = html.escape(text)
        shown += f"<tspan class='{colour}'>{text}</tspan>" if colour and text else text
    return shown


def photograph(page: Path, picture: Path, *, dark: bool) -> None:
    """Take a picture of the first screen of a page with Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("install chromium: it draws the report")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    size = f"--window-size={SIZE[0]},{SIZE[1]}"
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", size, scheme]
    subprocess.run([browser, *flags, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True)


def main() -> None:
    """Write the four pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "pictures")
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        said = run(Path(scratch)).splitlines()
        start = next(i for i, line in enumerate(said) if "= robustness =" in line)
        shown = [f"$ {COMMAND}", *said[start + 1 :]]
        (output / "terminal.svg").write_text(terminal_svg(shown), encoding="utf-8")
        for dark in (False, True):
            photograph(Path(scratch) / "report.html", output / f"report{'-dark' * dark}.png", dark=dark)


if __name__ == "__main__":
    main()
