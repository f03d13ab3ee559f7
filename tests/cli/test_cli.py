"""The command line, on a project that trains in a moment; what it says, what it returns, what it leaves alone."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import tiny_project

from robustness.cli import inventory, main
from robustness.cli.command_parser import RENAMED
from robustness.cli.parser import parser
from robustness.data import mnist
from robustness.workspace.models import train_if_missing
from robustness.workspace.store import Store


@pytest.fixture
def project(tmp_path, monkeypatch):
    made = tiny_project.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTNESS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path / "data"))
    return made


@pytest.fixture
def call(project, capsys):
    def run(*arguments):
        code = main.main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def swept(call):
    """A store with the evidence of both sweeps, and the way to call the command."""
    assert call("sweep")[0] == 0
    return call


def entries(project):
    return inventory.entries(Store(project.root / "store"))


def test_starts_without_waiting_for_anything():
    code = (
        "import sys, robustness.cli.main\n"
        "try: robustness.cli.main.main(['update-thresholds', '--help'])\n"
        "except SystemExit: print({'torch', 'numpy', 'pydantic', 'tqdm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    "line", ["--store a --seed 3 run x", "run x --store a --seed 3", "--store b run --store a x --seed 3"]
)
def test_common_options_stand_before_or_after_the_command(line):
    options = parser().parse_args(line.split())
    assert (options.store, options.seed, options.device, options.models) == ("a", 3, "auto", ["x"])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "update-thresholds --seeds 4",
        "update-thresholds --fresh -1",
        "train --seeds 1,b",
        "run --device tpu",
        "evidence",
        "data",
    ],
)
def test_mistaken_lines_are_refused(line):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(line.split())
    assert caught.value.code == 2


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_of_a_command_is_answered_by_the_new_one(capsys, old, new):
    """Catches: a list of all commands for who types what older pages say; a command that is renamed to none."""
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(["--seed", "3", old, "x", "--force"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"robustness: `robustness {old}` is called `robustness {new}` now\n"
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args([new, "--help"])


def test_run_makes_evidence_then_finds_it(project, call):
    code, out, _ = call("sweep")
    clean, normal, last = out.splitlines()
    assert code == 0
    assert clean.startswith("tiny:clean  key ")
    assert "n 200  strengths 0.2, 0.9  made in" in normal
    assert "0 errors" in normal
    assert str(project.root / "store") in last
    code, out, _ = call("sweep", "tiny")
    assert code == 0
    assert out.count("from the store, made in") == 2
    assert project.trained() == [0]
    listed = {entry.key[: inventory.SHORT] for entry in entries(project)}
    assert {line.split()[2] for line in out.splitlines()[:2]} == listed


def test_run_with_a_cell_that_errors_is_red(project, call):
    """Where noise of 0.9 turns the corner white the module gives infinity, and 0.2 cannot."""
    project.edit('factory"  # mine', 'factory"\narguments = { nan_above = 0.99 }')
    code, out, _ = call("sweep")
    assert code == 1
    assert "1 error" in out
    assert "  at 0.9: non-finite logits" in out


def test_one_bad_card_does_not_stop_the_others(project, call):
    other = project.path.with_name("absent.toml")
    text = project.path.read_text().replace('"tiny"', '"absent"').replace('name = "digits"', 'name = "mnist"')
    other.write_text(text.replace("tiny.safetensors", "absent.safetensors"))
    code, out, err = call("sweep", "absent", "tiny")
    assert code == 2
    assert "tiny:normal" in out
    assert err.startswith("robustness: no MNIST in ")
    assert "Traceback" not in err
    assert call("sweep")[0] == 0  # a plain run takes the cards on embedded data alone


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sweep nobody", "no model is called nobody"),
        ("sweep --card elsewhere.toml", "no such card"),
        ("sweep --device cuda", "has no GPU"),
        ("evidence show 00", "no evidence in"),
        ("evidence prune", "needs an option that selects entries"),
    ],
)
def test_what_goes_wrong_is_one_sentence(call, line, told, monkeypatch):
    monkeypatch.setattr("robustness.util.hardware.gpu_count", lambda: 0)
    code, out, err = call(*line.split())
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("robustness: ")
    assert err.count("\n") == 1


def test_where_there_is_no_card_it_is_said_and_one_can_be_named(project, call, monkeypatch, tmp_path):
    """Catches: a green command that did nothing; cards that are looked for in the current folder alone."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, _, err = call("sweep")
    assert code == 2
    assert "no card is selected" in err
    assert call("sweep", "--card", project.path)[0] == 0


def test_train_fills_the_store(project, call):
    code, out, _ = call("train", "--seeds", "5,7", "--workers", "1")
    assert code == 0
    assert project.trained() == [5, 7]
    assert [line.split(":")[0] for line in out.splitlines()[:2]] == ["tiny (seed 5)", "tiny (seed 7)"]
    assert not project.weights.exists()
    call("train")
    assert project.trained() == [5, 7, 0]
    assert train_if_missing(project.workspace, project.card.reseeded(7)).is_file()
    assert project.trained() == [5, 7, 0]


def test_train_without_a_recipe_is_a_sentence(project, call):
    call("update-thresholds", "--seeds", "8", "--fresh", "0", "--workers", "1")
    text = project.path.read_text()
    start, stop = text.index("[recipe]"), text.index("[data]")
    project.path.write_text(text[:start] + text[stop:])
    for command in ("train", "update-thresholds"):
        code, _, err = call(command)
        assert code == 2
        assert "no [recipe]" in err


def test_update_thresholds_says_what_it_did_and_when_there_is_nothing_to_do(project, call):
    settings = ("update-thresholds", "--seeds", "8", "--fresh", "1", "--workers", "1")
    code, out, _ = call(*settings)
    assert code == 0
    assert "tiny.safetensors was missing: trained" in out
    assert "healthy seeds that fail when left out: 0 of 8" in out
    assert "meet all" in out
    code, out, _ = call(*settings)
    assert (code, out) == (0, "tiny: nothing to do: weights and thresholds match the recipe (--force updates them)\n")


def test_update_thresholds_is_red_when_the_cards_own_weights_are(project, call):
    project.edit("arguments = { ", 'arguments = { seed0 = "spoiled", ')
    code, out, _ = call("update-thresholds", "--seeds", "8", "--fresh", "0", "--workers", "1")
    assert code == 1
    assert "tiny under clean at 0: accuracy is" in out
    assert "its own weights break" in out


def test_interruption_ends_in_a_sentence(project, call, monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setitem(main.COMMANDS, "sweep", interrupted)
    code, _, err = call("sweep")
    assert code == 130
    assert str(project.root / "store") in err
    assert "to continue" in err


def test_mnist_is_brought_to_the_folder_that_is_named(call, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(mnist, "download", lambda root, say: asked.append(root) or say("done"))
    assert call("data", "mnist", "--root", tmp_path / "here") == (0, "done\n", "")
    call("data", "mnist")
    assert asked == [tmp_path / "here", tmp_path / "data"]


def test_list_says_what_is_believed(project, swept):
    code, out, _ = swept("evidence", "list")
    header, _, first, second, _, last = out.splitlines()
    assert code == 0
    assert header.split()[:3] == ["key", "model", "sweep"]
    assert {first.split()[2], second.split()[2]} == {"clean", "normal"}
    assert first.endswith("yes")
    assert last.startswith("2 entries, ")
    project.source.write_text(project.source.read_text() + "\nCHANGED = 1\n")
    entries(project)[0].path.write_bytes(b"torn")
    _, out, _ = swept("evidence", "list")
    assert f"is older than {project.module}.py" in out.splitlines()[2]
    assert "no: not an evidence file (truncated or foreign)" in out.splitlines()[3]


def test_the_list_is_by_model_and_time(project, swept):
    """Catches: entries in the order of their hashes; sizes in kB whatever they are; a broken one among the others."""
    day = iter(range(1, 9))

    def entry(label, started, key):
        path = Store(project.root / "store").path("evidence", key)
        path.parent.mkdir(parents=True, exist_ok=True)
        old = entries(project)[0].read()
        new = replace(old, provenance={**old.provenance, "label": label, "started": started, "key": key})
        path.write_bytes(new.to_bytes())

    for name, hour in (("b", 3), ("a", 2), ("b", 1), ("a", 9)):
        entry(f"{name}:normal", f"2020-01-01T{hour:02}:00:00+00:00", f"{next(day)}" * 64)
    (project.root / "store" / "evidence" / "00").mkdir()
    (project.root / "store" / "evidence" / "00" / f"{'0' * 64}.safetensors").write_bytes(b"torn")
    lines = swept("evidence", "list")[1].splitlines()
    rows = [line.split() for line in lines[2:-2]]
    assert [row[1] for row in rows[:4]] == ["a", "a", "b", "b"]
    assert [row[row.index("2020-01-01") + 1] for row in rows[:4]] == ["02:00", "09:00", "01:00", "03:00"]
    assert [row[1] for row in rows[4:6]] == ["tiny", "tiny"]
    assert lines[-3].split()[:3] == ["000000000000", "4", "B"]
    total = sum(each.size for each in entries(project))
    assert lines[-1].startswith(f"7 entries, {total / 1000:.1f} kB, in ")


def test_show_tells_everything(project, swept):
    (key,) = [entry.key for entry in entries(project) if entry.read().strengths == ("0.2", "0.9")]
    code, out, _ = swept("evidence", "show", key[:8])
    evidence = project.workspace.store.evidence(key, project.root)[0]
    right = int((evidence.predictions[0] == evidence.labels).sum())
    assert code == 0
    assert f"digest: {evidence.digest}" in out
    assert f"at 0.2: ok, accuracy {right / 200:.4f} [" in out
    assert f"({right} of 200 images, 95 % Wilson)" in out
    assert f"  {project.module}.py: " in out
    code, _, err = swept("evidence", "show", "")
    assert code == 2
    assert "is the prefix of 2 keys" in err


def test_prune_removes_what_it_is_told_to(project, swept):
    first, second = entries(project)
    first.path.write_bytes(b"torn")
    day = 24 * 3600
    os.utime(second.path, (time.time() - 3 * day,) * 2)
    half = first.path.with_name(".writing-x")
    half.write_bytes(b"1234")
    for arguments, left in [
        (("--older-than", "4"), {first.path, second.path, half}),
        (("--all", "--dry-run"), {first.path, second.path, half}),
        (("--broken",), {second.path, half}),  # somebody may be at what is half written
        (("--older-than", "2"), {half}),
    ]:
        code, out, _ = swept("evidence", "prune", *arguments)
        assert code == 0
        assert {path for path in (first.path, second.path, half) if path.exists()} == left
        if arguments == ("--broken",):
            assert "removed 1 entries, 4 B" in out
    os.utime(half, (time.time() - day,) * 2)
    swept("evidence", "prune", "--broken")
    assert not half.exists()


def test_prune_takes_evidence_under_a_foreign_key_for_broken(project, swept):
    first, second = entries(project)
    first.path.write_bytes(second.path.read_bytes())
    swept("evidence", "prune", "--broken")
    assert [entry.key for entry in entries(project)] == [second.key]


def test_prune_leaves_weights_and_all_that_links_lead_to(project, swept, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / f"ab{'0' * 62}.safetensors"
    precious.write_bytes(b"precious")
    folder = tmp_path / "store" / "evidence"
    (folder / "ab").symlink_to(outside)
    (entries(project)[0].path.parent / precious.name).symlink_to(precious)
    assert swept("evidence", "prune", "--all", "--broken", "--older-than", "0")[0] == 0
    assert entries(project) == []
    assert precious.read_bytes() == b"precious"
    assert list((tmp_path / "store" / "weights").glob("*/*.safetensors"))
    folder.rename(tmp_path / "moved")
    (tmp_path / "moved" / "own").mkdir()
    (tmp_path / "moved" / "own" / "cd.safetensors").touch()
    folder.symlink_to(tmp_path / "moved")
    swept("evidence", "prune", "--all")
    assert (tmp_path / "moved" / "own" / "cd.safetensors").exists()
