"""Parts of a run for several machines: planned alike everywhere, evenly, each model whole; the command for one."""

import os
import random
import sys
from itertools import product

import pytest
from plugin_project import CARD

from robustness import cards
from robustness.cards import shards
from robustness.cards.shards import Shard
from robustness.cli import main, run
from robustness.errors import RobustnessError
from robustness.plugin.options import RunOptions
from robustness.plugin.state import RunState


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "1/4/4", "a/b", "1/4 x", "١/٤", "1.0/2"])
def test_shards_that_cannot_be(text):
    """Catches: shard 0, one beyond the last, digits of another script, and what a shell left of a variable."""
    with pytest.raises(RobustnessError, match=r"`shard` must be I/N with 1 ≤ I ≤ N"):
        shards.parse(text)


def test_division_is_whole_even_and_the_same_in_any_order():
    """Catches: a model lost or in two shards; one shard with all the work; a plan that depends on the cards' order."""
    drawn = random.Random(1)
    for _ in range(50):
        costs = {f"m{i}": drawn.randint(1, 40) for i in range(drawn.randint(2, 7))}
        of = drawn.randint(2, 3)
        found = shards.assign_shards(costs, of)
        assert set(found) == set(costs)
        loads = [sum(costs[name] for name in found if found[name] == n) for n in range(1, of + 1)]
        best = min(
            max(sum(c for c, n in zip(costs.values(), where, strict=True) if n == k) for k in range(of))
            for where in product(range(of), repeat=len(costs))
        )
        assert max(loads) * 3 <= best * 4
        shuffled = drawn.sample(list(costs), len(costs))
        assert shards.assign_shards({name: costs[name] for name in shuffled}, of) == found


@pytest.fixture
def three(tmp_path):
    """Three cards whose models sweep little, more and most."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "tiny_net.py").write_text("def net(): pass\ndef fit(): pass\n")
    pgd = '[sweeps.pgd]\nkind = "pgd"\nsteps = 10\nstrengths = [0.1]\n\n[claims.clean]'
    texts = {
        "a": CARD.replace('"tiny"', '"a"').replace("per_class = 20", "per_class = 20 }\nnum_test_images = 50 #"),
        "b": CARD.replace('"tiny"', '"b"'),
        "c": CARD.replace('"tiny"', '"c"').replace("[claims.clean]", pgd),
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
    return [cards.load(tmp_path / f"{name}.toml") for name in texts]


def test_costs_follow_images_strengths_and_gradients(three):
    """Catches: models counted as equal whatever they sweep; steps of an attack, or the tested images, forgotten."""
    costs = [shards.estimate_passes(card) for card in three]
    assert costs == [4 * 50, 4 * 1797, (4 + 1 + 3 * 10) * 1797]


def test_costs_follow_queries_that_take_no_gradient(tmp_path, three):
    """Catches: a search of thousands of forward passes counted as one."""
    path = three[2].path
    path.write_text(path.read_text().replace('kind = "pgd"\nsteps = 10', 'kind = "square"\nqueries = 700'))
    assert shards.estimate_passes(cards.load(path)) == (4 + 1 + 700) * 1797


def test_plan_knows_what_would_make_shards_unlike(three):
    """Catches: shards of other cards, weights, seeds or numbers of shards taken for parts of one run."""
    two = Shard(1, 2)
    plan = shards.plan(three, two, {"seed": 0})
    assert shards.plan(three, Shard(2, 2), {"seed": 0})["plan"] == plan["plan"]
    assert [model["shard"] for model in plan["models"]] == [2, 2, 1]
    weights = three[0].path.with_name("other.safetensors")
    weights.write_bytes(b"other")
    for other in (
        shards.plan(three, two, {"seed": 1}),
        shards.plan(three[:2], two, {"seed": 0}),
        shards.plan(three, Shard(1, 3), {"seed": 0}),
        shards.plan([three[0].override(weights=weights), *three[1:]], two, {"seed": 0}),
        shards.plan(
            [three[0].with_sweep("new", {"kind": "gaussian", "strengths": [0.1]}), *three[1:]], two, {"seed": 0}
        ),
    ):
        assert other["plan"] != plan["plan"]


def test_more_shards_than_models(three):
    """Catches: a shard that is green for want of anything to do."""
    with pytest.raises(RobustnessError, match=r"`shard` 4/4: a run of 3 model\(s\) has at most that many.*; use"):
        shards.plan(three, Shard(4, 4), {})


def test_every_model_is_in_one_shard_of_a_session(three):
    """Catches: a shard that runs all models, none, or those of another one."""
    found = []
    for number in (1, 2):
        session = RunState(RunOptions(named=tuple(card.path for card in three), shard=f"{number}/2"))
        found += [(number, card.name) for card in session.cards]
        assert {claim.model for claim in session.claims.values()} == {name for n, name in found if n == number}
    assert found == [(1, "c"), (2, "a"), (2, "b")]


# ------------------------------------------------------------------ the command


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return what the command would become, in a folder with suites."""
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "test_regression.py").touch()
    monkeypatch.chdir(tmp_path)
    became = []

    def execv(program, command):
        became.append((program, command))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)

    def call(*arguments):
        with pytest.raises(SystemExit):
            main.main(arguments)
        ((program, command),) = became
        assert (program, command[:3]) == (sys.executable, [sys.executable, "-m", "pytest"])
        return command[3:]

    return call


def test_run_becomes_pytest(started):
    """Catches: an option that is lost on the way, or pytest's own taken for the command's."""
    line = "run mlp cnn --shard 2/3 --store s --report a.json --report a.html --strict -- -n 2 --seed -k 'x y'"
    assert started(*line.split(" ")) == [
        "suites", "--robustness-model=mlp", "--robustness-model=cnn", "--robustness-report=a.json",
        "--robustness-report=a.html", "--robustness-shard=2/3", "--robustness-store=s", "--robustness-strict",
        "-n", "2", "--seed", "-k", "'x", "y'",
    ]  # fmt: skip


def test_run_leaves_to_the_ini_file_what_was_not_given(started):
    """Catches: defaults of the command that go before a project's own settings."""
    assert started("run") == ["suites"]


def test_run_takes_installed_suites_where_there_is_no_folder(started, monkeypatch, tmp_path):
    """Catches: any folder called suites taken for them; nothing said where there are none."""
    (tmp_path / "suites" / "test_regression.py").unlink()
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    assert main.main(["run"]) == 2
    monkeypatch.setattr(run, "find_spec", lambda name: object())
    assert started("run") == ["--pyargs", "robustness.suites"]


def test_run_refuses_a_shard_before_it_starts_anything(started, capsys):
    """Catches: pytest's usage page, and its seconds, for a mistyped shard."""
    assert main.main(["run", "--shard", "5/4"]) == 2
    assert "`shard` must be I/N" in capsys.readouterr().err
