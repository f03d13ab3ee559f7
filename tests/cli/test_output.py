"""Text that a terminal lacks, pipes that close, files that begin with a byte order mark: no error, and readable."""

import io
import os
import subprocess
import sys
from codecs import BOM_UTF8

import helpers
import pytest
import tiny_project

from robustness import cards
from robustness.cards import edit
from robustness.cli import main
from robustness.util import output, project

ENCODINGS = ["ascii", "cp1252"]
CARD = str(helpers.ROOT / "models" / "digits-mlp.toml")


@pytest.fixture
def terminal(monkeypatch):
    """A function of an encoding that makes standard output and error such a terminal's, and gives what was written."""

    def of(encoding):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        return lambda: stream.buffer.getvalue().decode(encoding)

    return of


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_help_of_every_command(terminal, encoding):
    """Catches: a character in a help text that ends a command on Windows, or where nobody set a locale."""
    read = terminal(encoding)
    for command in ["", *main.COMMANDS]:
        with pytest.raises(SystemExit) as ended:
            main.main([*command.split(), "--help"])
        assert ended.value.code == 0
    assert read().count("usage: ") == len(main.COMMANDS) + 1
    assert "\\u" not in read()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["check", CARD], 0, "eps"),
        (["check-cards", CARD], 0, ""),
        (["check-cards", "grüße–中.toml"], 1, "\\u4e2d.toml"),
        (["profiles"], 0, "fgsm"),
        (["plan", "digits-mlp"], 0, "digits-mlp"),
        (["evidence", "list"], 0, ""),
        (["plan", "no–such"], 2, "no-such" ),
    ],
)  # fmt: skip
def test_commands(terminal, encoding, command, code, said, monkeypatch, tmp_path):
    """Catches: UnicodeEncodeError in what a command prints, or says of an error."""
    monkeypatch.chdir(helpers.ROOT)
    read = terminal(encoding)
    assert main.main(["--store", str(tmp_path), *command]) == code, read()
    if encoding == "ascii":
        assert said in read()


def test_what_is_lacking_is_spelt_and_a_choice_of_the_users_stays(terminal):
    """Catches: question marks for numbers' signs; a handler that is put over the user's own."""
    read = terminal("ascii")
    output.prepare()
    print("ε ≤ 0.1 ± 0.02, −3 dB – x·y → ∞ … 中 \udcff")
    assert read() == "eps <= 0.1 +/- 0.02, -3 dB - x*y -> inf ... \\u4e2d \\udcff\n"
    sys.stdout.reconfigure(errors="replace")
    output.prepare()
    assert sys.stdout.errors == "replace"


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}, {
    "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])  # fmt: skip
def test_a_run_of_the_suites(settings, tmp_path):
    """Catches: tables that pytest's terminal writes as \\u2265, or not at all; reports that are not UTF-8."""
    command = [sys.executable, "-m", "pytest", "suites", "--robustness-model", "digits-mlp", "-k", "clean", "-n", "0"]
    command += ["-v", "-p", "no:cacheprovider", "--robustness-report", str(tmp_path / "report.md")]
    environment = {**os.environ, "ROBUSTNESS_STORE": str(tmp_path), **settings}
    done = subprocess.run(command, cwd=helpers.ROOT, env=environment, capture_output=True, timeout=helpers.LIMIT)
    out = done.stdout.decode(settings.get("PYTHONIOENCODING", "ascii"))
    assert done.returncode == 0, out + done.stderr.decode(errors="replace")
    assert ">=.9" in out
    assert "\\u2265" not in out
    assert "≥" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("words", ["--help", "profiles", "plan digits-mlp"])
def test_a_reader_that_has_seen_enough(words):
    """Catches: a traceback, or "Exception ignored", where `head` closes the pipe."""
    code = f"from robustness.cli import main as cli; raise SystemExit(cli.main({words.split()!r}))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run([sys.executable, "-c", code], cwd=helpers.ROOT, stdout=closed, stderr=subprocess.PIPE)
    assert done.stderr == b""
    assert done.returncode == output.UNREAD or (words == "--help" and not done.returncode)  # argparse passes over it


def test_a_byte_order_mark(tmp_path, monkeypatch, capsys):
    """Catches: cards, and settings, that an editor on Windows has saved; a mark lost when claims are written."""
    made = tiny_project.make(tmp_path)
    made.path.write_bytes(BOM_UTF8 + made.path.read_bytes())
    card = cards.load(made.path)
    assert card == made.card
    written = edit.write_claims(card, {"clean": {"accuracy": [0.5]}}, {"c": 1.0})
    assert written.file.claims["clean"].thresholds["accuracy"] == (0.5,)
    assert made.path.read_bytes().count(BOM_UTF8) == 1
    assert made.path.read_bytes().startswith(BOM_UTF8)
    (tmp_path / "pyproject.toml").write_bytes(
        BOM_UTF8 + f'[tool.robustness]\nmodels = ["{made.path.relative_to(tmp_path).as_posix()}"]\n'.encode()
    )
    assert project.cards(tmp_path) == [made.path]
    monkeypatch.chdir(tmp_path)
    assert main.main(["check-cards", str(made.path)]) == 0, capsys.readouterr().out
