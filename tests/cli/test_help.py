"""What the command says of itself, and to somebody who mistypes; the copy of what it prints."""

import shlex
import subprocess
import sys

import pytest
import tiny_project

import robustness
from robustness.cli import main
from robustness.cli.command_parser import EXAMPLE, GROUPS
from robustness.cli.parser import parser


def ended(capsys, line):
    """Exit code, output and errors of a command line that ends in the parser."""
    with pytest.raises(SystemExit) as caught:
        main.main(shlex.split(line))
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def leaves(of, words=()):
    below = of.commands
    yield from (leaf for name, each in below.items() for leaf in leaves(each, (*words, name)))
    if not below:
        yield " ".join(words), of


LEAVES = dict(leaves(parser()))


@pytest.mark.parametrize("line", ["", "evidence", "baseline", "data", "--seed 3"])
def test_a_line_without_a_command_is_answered_by_the_help(capsys, line):
    """Catches: a sentence on arguments where the list of commands belongs; a script with an empty command is green."""
    code, out, err = ended(capsys, line)
    assert (code, err) == (2, "")
    assert all(f"  {name} " in out for name in parser().of_command(line if line.isalpha() else "").commands)


def test_the_version(capsys):
    """Catches: a version that is written in two places."""
    assert ended(capsys, "--version") == (0, f"pytest-robustness {robustness.__version__}\n", "")


def test_every_command_stands_in_one_group(capsys):
    """Catches: a new command that the help does not list."""
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(parser().commands)
    out = ended(capsys, "--help")[1]
    for title, names in GROUPS.items():
        section = out.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines() if line[2:3].strip()][:-1] == list(names)
        assert section.splitlines()[-1].strip().startswith(EXAMPLE)


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_an_example_that_parses(name):
    """Catches: an example with an option that is no more, or of another command."""
    example = LEAVES[name].example.removeprefix(EXAMPLE)
    words = shlex.split(example.partition(" -- ")[0])
    assert words[0] == "robustness"
    assert parser().parse_args(words[1:]).command == name
    assert f"\n{EXAMPLE}{example}\n" in LEAVES[name].format_help()


@pytest.mark.parametrize("name", sorted(LEAVES.keys()))
def test_every_command_takes_an_output(name):
    """Catches: a command whose result can only be piped."""
    assert {"-o", "--output"} <= set(LEAVES[name]._option_string_actions)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("swep x", "there is no command 'swep' (`robustness --help` lists them); did you mean 'sweep'?"),
        ("evidence lits", "(`robustness evidence --help` lists them); did you mean 'list'?"),
        ("sweep --enigne ray", "unrecognized arguments: --enigne; did you mean '--engine'?"),
        ("sweep --sede 3", "did you mean '--seed'?"),
        ("merge a.json --outptu=b.json -o c.json", "did you mean '--output'?"),
        ("sweep --dtype flaot32", "must be one of float32, tf32, bf16, got 'flaot32'; did you mean 'float32'?"),
        ("mutate --damage nois", "did you mean 'noise'?"),
        ("run -n 4", "unrecognized arguments: -n; options of pytest stand after --"),
        ("zzzz", "there is no command 'zzzz' (`robustness --help` lists them)\n"),
    ],
)
def test_the_nearest_word_is_named(capsys, line, said):
    """Catches: a list of twenty words without the one that was meant; a suggestion for what resembles nothing."""
    code, out, err = ended(capsys, line)
    assert (code, out) == (2, "")
    assert said in err


def test_the_nearest_model_is_named(capsys, monkeypatch, tmp_path):
    """Catches: two dozen names without the one that was meant."""
    monkeypatch.chdir(tmp_path)
    tiny_project.make(tmp_path)
    assert main.main(["plan", "tinny"]) == 2
    assert capsys.readouterr().err.endswith("known: tiny; did you mean 'tiny'?\n")


def test_what_is_printed_is_copied_whole(capsys, monkeypatch, tmp_path):
    """Catches: a copy in another encoding, without the last line, or of a command that failed; text in a .json file."""
    monkeypatch.chdir(tmp_path)
    assert main.main(["profiles", "-o", "profiles.txt"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") > 20
    assert (tmp_path / "profiles.txt").read_text(encoding="utf-8") == shown
    for line, said in (("profiles -o p.json", "is a text file here, such as p.txt"), ("plan x -o p.txt", "no model")):
        assert main.main(line.split()) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["profiles.txt"]
    done = subprocess.run([sys.executable, "-m", "robustness.cli.main", "check-cards", "no.toml", "-o", "red.txt"])
    assert done.returncode == 1
    assert "no.toml" in (tmp_path / "red.txt").read_text(encoding="utf-8")
