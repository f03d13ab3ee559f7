"""A model of options: its card, the card that `init` writes, candidates' weights, the cards that a project names."""

import os
import re
import sys
import tomllib
from io import StringIO
from pathlib import Path

import helpers
import numpy as np
import pytest
import torch

from robustness import cards
from robustness.cards import selection
from robustness.cards.from_options import CardOptions, arguments
from robustness.claims import judge
from robustness.classifiers.weights import to_bytes
from robustness.cli import main
from robustness.errors import CardError
from robustness.util import project
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace


@pytest.fixture
def folder(tmp_path, monkeypatch, own_path):
    """An empty folder with a model that gets most digits right, its weights and 60 of these; it is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTNESS_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ROBUSTNESS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    helpers.project(tmp_path / "made")
    (module,) = (tmp_path / "made").glob("tiny_*.py")
    (tmp_path / module.name).write_text(module.read_text())
    digits, model = helpers.digits(6), helpers.linear(helpers.digits(6))
    pixels = digits.stored(0, len(digits))[:, 0]
    means = np.stack([digits.batch(0, 60)[digits.labels == c].mean(0).ravel() for c in range(10)])
    # A fifth: of larger logits some probabilities round to 1, which is a doubt, and no claims are written then.
    model[1].weight.data = torch.from_numpy(means / 5).float()
    model[1].bias.data = torch.from_numpy(-(means**2).sum(1) / 10).float()
    (tmp_path / "w.safetensors").write_bytes(to_bytes(model.state_dict(), {}))
    np.savez(tmp_path / "test.npz", test_x=pixels, test_y=digits.labels)
    return tmp_path


def draft(folder, **settings):
    (module,) = folder.glob("tiny_*.py")
    given = {"factory": f"{module.stem}:factory", "weights": "w.safetensors", "dataset": "test.npz"}
    return CardOptions(folder, **{**given, **settings})


def test_a_draft_is_the_card_that_its_table_would_be(folder):
    """Catches: paths that start elsewhere, data below a data root that nobody named."""
    card = draft(folder).card()
    assert (card.name, card.weights, card.project) == ("w", folder / "w.safetensors", folder)
    assert (card.file.data.name, card.file.data.file, card.file.data.beside_card) == ("array", "./test.npz", True)
    images = helpers.open_workspace(folder / "made" / "models" / "x.toml").images(card)
    assert np.array_equal(images.labels, helpers.digits(6).labels)


def test_an_error_names_no_card_that_nobody_wrote(folder):
    """Catches: a reader who looks for net.toml, which is not there."""
    with pytest.raises(CardError, match=r"w \(of options\): model\.factory = 'no_such_module:net'"):
        draft(folder, factory="no_such_module:net").card()


@pytest.mark.parametrize("name", ["../out", "a/b", "...", "é" * 300])
def test_a_name_is_no_path(folder, name):
    """Catches: a card, or data that lie beside it, looked for where the model's name leads."""
    made = draft(folder, name=name)
    assert made.path.parent == folder
    assert len(os.fsencode(made.path.name)) < 255
    with pytest.raises(CardError, match=r"name = .*: must (consist of letters|have at most 100 characters)"):
        made.card()


def test_its_modules_are_its_folders_whatever_lies_above(folder):
    """Catches: a parent that looks like a project's root, as one under version control does."""
    (folder / ".git").mkdir()
    inner = folder / "inner"
    inner.mkdir()
    (inner / "nets.py").write_text(helpers.MODULE)
    made = CardOptions(inner, "nets:factory", weights="../w.safetensors", dataset="digits").card()
    assert made.project == inner.resolve()
    assert made.weights.is_file()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"factory": None}, "`factory` must be given for a model without a card, as --robustness-factory nets:Net"),
        ({"dataset": None}, "`dataset` must be given"),
        ({"factory": "nets"}, "must be 'module:callable'"),
        ({"factory": "no_such_module:net"}, "there is no module 'no_such_module' below"),
        ({"weights": "gone.pt"}, "`weights` must be a file, got 'gone.pt'"),
        ({"weights": "."}, "it is a folder, not a file"),
        ({"weights": None, "factory": "timm:resnet18"}, "`weights` must be given for timm:resnet18"),
        ({"dataset": "digit"}, "did you mean 'digits'?"),
        (
            {"dataset": "gone.npz"},
            "`dataset` must be a file or a folder, or one of digits, mnist, torchvision:SET, got 'gone.npz'",
        ),
        ({"dataset": "w.safetensors"}, "must be a folder or a file of .npz, .npz.xz, .parquet"),
        ({"arguments": ("classes",)}, "`argument` must be KEY=VALUE, as classes=10, got 'classes'"),
        ({"arguments": ("1st=2",)}, "`argument` must be KEY=VALUE"),
        ({"name": "a:b"}, "must consist of letters (a-z), digits, '.', '_' and '-'"),
    ],
)
def test_drafts_that_cannot_be(folder, settings, said):
    with pytest.raises(CardError, match=re.escape(said)):
        draft(folder, **settings).card()


def test_data_below_the_data_root_and_elsewhere(folder, tmp_path_factory):
    """Catches: a file that is found and then looked for below another folder."""
    root = tmp_path_factory.mktemp("root")
    (root / "sub").mkdir()
    (folder / "test.npz").rename(root / "sub" / "far.npz")
    for given in ("sub/far.npz", str(root / "sub" / "far.npz")):
        card = draft(folder, dataset=given, data=root).card()
        assert (card.file.data.file, card.file.data.beside_card) == ("sub/far.npz", False)
    (root / "sub" / "deeper").mkdir()
    (folder / "link.npz").symlink_to(root / "sub" / "far.npz")
    due = draft(folder, dataset="sub/far.npz", data=root).card()
    near = os.path.relpath(root / "sub" / "far.npz", folder)
    for way in (root / "sub" / "far.npz", root / "sub" / "deeper" / ".." / "far.npz", near, "link.npz"):
        card = draft(folder, dataset=str(way)).card()
        found = Workspace(Store(folder / "store"), folder / "no data").images(card)
        assert found.fingerprint == Workspace(Store(folder / "store"), root).images(due).fingerprint
    with pytest.raises(CardError, match=rf"robustness --data {re.escape(str(root / 'sub'))} init"):
        draft(folder, dataset=str(root / "sub" / "far.npz")).table()  # a card could not say where they are
    assert draft(folder, dataset="link.npz").table()["data"] == {"name": "array", "file": "./link.npz"}


def test_a_file_of_one_part_is_tested_on_whole(folder):
    """Catches: x and y refused for want of a test part, or half of them tested on."""
    digits = helpers.digits(6)
    np.savez(folder / "test.npz", x=digits.stored(0, 60)[:, 0], y=digits.labels)
    card = draft(folder).card()
    assert len(helpers.open_workspace(folder / "made" / "models" / "x.toml").images(card)) == 60


def test_a_file_without_a_training_part_says_so(folder):
    """Catches: a KeyError where a recipe asks for images that are not there."""
    with pytest.raises(Exception, match=r"test test has no train part; add one"):
        helpers.open_workspace(folder / "made" / "models" / "x.toml").images(draft(folder).card(), "train")


@pytest.mark.parametrize("given", ["net (final) é.pt", "a:b[c].pt", "…"])
def test_names_are_made_of_what_names_may_hold(folder, given):
    (folder / given).write_bytes(b"")
    assert cards.parse_card(draft(folder, weights=given).table(), folder / "x.toml").name


def test_arguments_have_tomls_types():
    assert arguments(["a=1", "b=0.5", "c=true", 'd="x=y"', "e=x=y", "f="]) == {
        "a": 1, "b": 0.5, "c": True, "d": "x=y", "e": "x=y", "f": "",
    }  # fmt: skip


# ------------------------------------------------------------------ robustness init


@pytest.fixture
def call(folder, capsys):
    (module,) = folder.glob("tiny_*.py")

    def run(*words, plain=False):
        given = () if plain else ("--factory", f"{module.stem}:factory", "--weights", "w.safetensors")
        code = main.main(["init", *given, *(() if plain else ("--dataset", "test.npz")), *words])
        return code, *capsys.readouterr()

    return run


def test_init_writes_a_card_that_loads_and_holds(folder, call):
    """Catches: TOML that is not what was swept, claims that its own evidence breaks."""
    code, out, err = call("--profile", "quick", "--claims")
    assert (code, err) == (0, ""), err
    assert "robustness-card w.toml" in out
    card = cards.load(folder / "w.toml")
    workspace = helpers.open_workspace(folder / "made" / "models" / "x.toml")
    claims = list(card.claims())
    assert {claim.sweep for claim in claims} >= {"clean", "normal"}
    assert all(judge(claim, workspace.evidence(card, claim.sweep)).passed for claim in claims)


def test_init_writes_no_claims_while_a_doubt_stands(folder, call):
    """Catches: claims from numbers that no attack was fit to make, written without a word."""
    (module,) = folder.glob("tiny_*.py")
    module.write_text(module.read_text().replace("classes))", "classes), nn.Softmax(1))"))
    code, _, err = call("--profile", "quick", "--claims")
    assert code == 2
    assert "no claims are written, because its numbers are in doubt: " in err
    assert "probabilities for logits" in err
    assert not (folder / "w.toml").exists()


def test_init_loses_nothing(folder, call):
    """Catches: a card that was edited written over; half a file where a card cannot be."""
    assert call()[0] == 0
    (folder / "w.toml").write_text("mine")
    code, _, err = call()
    assert (code, (folder / "w.toml").read_text()) == (2, "mine")
    assert "exists; choose another file with --output, or overwrite it with --force" in err
    assert call("--output", "other.toml", "--images", "20")[0] == 0
    assert tomllib.loads((folder / "other.toml").read_text())["data"]["num_test_images"] == 20
    assert call("--force")[0] == 0
    assert cards.load(folder / "w.toml").name == "w"
    before = sorted(folder.iterdir())
    for words, said in (
        (["--profile", "quik"], "did you mean 'quick'?"),
        (["--output", "sub/x.toml"], "must name a file in this folder"),
        (["--argument", "classes=3"], "1.weight (10, 784) instead of (3, 784)"),
    ):
        code, _, err = call("--force", "--claims", *words)
        assert (code, said in err) == (2, True), err
    assert {path.name for path in folder.iterdir()} - {path.name for path in before} <= {"store"}


def test_init_asks_on_a_terminal_and_only_there(folder, call, monkeypatch):
    """Catches: a pipe that waits for answers; options that are asked for again."""
    assert call(plain=True)[0] == 2
    (module,) = folder.glob("tiny_*.py")
    terminal = StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    answers = iter([f"{module.stem}:factory", " w.safetensors "])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert call("--dataset", "digits", "--name", "asked", plain=True)[0] == 0
    assert cards.load(folder / "asked.toml").file.model.weights == "w.safetensors"


# ------------------------------------------------------------------ candidates


@pytest.fixture
def two(folder):
    files = [folder / f"{name}.safetensors" for name in ("a", "b", "x=y")]
    for file in files:
        file.write_bytes(b"")
    return [cards.parse_card({**draft(folder).table(), "name": name}, folder / "c.toml") for name in ("one", "one-two")]


def weights_of(chosen):
    return {card.name: Path(card.weights).name for card in chosen}


@pytest.mark.parametrize(
    ("count", "given", "due"),
    [
        (1, ["a.safetensors"], {"one": "a.safetensors"}),
        (1, ["x=y.safetensors"], {"one": "x=y.safetensors"}),
        (1, ["one=x=y.safetensors"], {"one": "x=y.safetensors"}),
        (2, ["one-two=a.safetensors"], {"one": "w.safetensors", "one-two": "a.safetensors"}),
        (2, ["one=a.safetensors", "one-two=b.safetensors"], {"one": "a.safetensors", "one-two": "b.safetensors"}),
    ],
)
def test_weights_by_name(folder, two, count, given, due):
    """Catches: names and files split at the wrong sign, other models judged with a candidate, its file not said."""
    chosen = selection.with_weights(two[:count], given, folder)
    assert weights_of(chosen) == due
    assert {card.name for card in chosen if card.overrides.weights} == {
        n for n, file in due.items() if file != "w.safetensors"
    }
    assert weights_of(two) == {"one": "w.safetensors", "one-two": "w.safetensors"}


@pytest.mark.parametrize(
    ("count", "given", "said"),
    [
        (2, ["a.safetensors"], "must be NAME=FILE unless one model is selected (one, one-two)"),
        (1, ["tow=a.safetensors"], "no selected model is called 'tow'; selected: one"),
        (1, ["gone.pt"], "`weights` of one must be a file, got 'gone.pt'"),
        (1, ["a.safetensors", "b.safetensors"], "`weights` of one are given twice"),
        (0, ["a.safetensors"], "unless one model is selected (none)"),
    ],
)
def test_weights_that_cannot_be(folder, two, count, given, said):
    with pytest.raises(CardError, match=re.escape(said)):
        selection.with_weights(two[:count], given, folder)


def test_weights_outside_of_the_project_are_said(folder, tmp_path_factory):
    """Catches: a notice for weights within, through a link or not; none for those without."""
    far = tmp_path_factory.mktemp("far") / "w.safetensors"
    far.write_bytes((folder / "w.safetensors").read_bytes())
    (folder / "pyproject.toml").touch()
    for given, outside in ((str(far), True), ("w.safetensors", False)):
        table = draft(folder).table()
        table["model"]["weights"] = given
        workspace = helpers.open_workspace(folder / "made" / "models" / "x.toml")
        workspace.weights(cards.parse_card(table, folder / "c.toml"))
        assert any("lie outside of its project" in notice for notice in workspace.notices) == outside


# ------------------------------------------------------------------ the project's table


def written(folder, text):
    (folder / "pyproject.toml").write_text(f"[tool.robustness]\n{text}\n")
    return folder


def test_patterns_name_each_card_once_in_order(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.toml").touch()
    assert [p.name for p in project.cards(written(tmp_path, 'models = ["c.toml", "?.toml"]'))] == [
        "c.toml", "a.toml", "b.toml",
    ]  # fmt: skip
    assert project.cards(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('models = ["cards/*.toml"]', "'cards/*.toml' names no file below"),
        ('models = "net.toml"', "must be a list of paths"),
        ("models = [3]", "must be a list of paths"),
        ('models = [""]', "must be a list of paths"),
        ('models = ["/net.toml"]', "'/net.toml' must be relative to this folder"),
        ('model = ["net.toml"]', "unknown key; allowed: models, profiles; did you mean 'models'?"),
        ("[tool]\nrobustness = 3", "not a readable TOML file"),
        ("models = [", "not a readable TOML file"),
    ],
)
def test_tables_that_cannot_be(tmp_path, text, said):
    with pytest.raises(CardError, match=re.escape(said)):
        project.cards(written(tmp_path, text))


def test_the_command_takes_the_projects_cards_from_folders_below_it(folder, call, monkeypatch, capsys):
    """Catches: a command that knows cards in models/ alone."""
    assert call("--profile", "quick")[0] == 0
    written(folder, 'models = ["w.toml"]')
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert main.main(["sweep"]) == 0
    assert "w:fgsm" in capsys.readouterr().out
