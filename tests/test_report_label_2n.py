"""The label-2n protocol as cards: read as any card, in an order in which each finds what it needs."""

from pathlib import Path

import pytest

from reports.label_2n import protocol
from reports.label_2n.measure import levels
from robustness import cards


@pytest.fixture
def every(tmp_path):
    """All cards of both sets at both scales."""
    found = {}
    for source in protocol.SOURCES:
        for scale in protocol.SCALES.values():
            tables = protocol.cards(source, scale)
            tables |= protocol.evaluated(tables, source)
            paths = protocol.write(tables, tmp_path / scale.name)
            found[source, scale.name] = {name: cards.load(path) for name, path in paths.items()}
    return found


def test_cards(every):
    """Catches: outputs that do not fit a decision, mirrored signs, folds torn by image, a width of another scale."""
    assert {key: len(found) for key, found in every.items()} == {
        (source, scale): 1 + folds * (9 + 4 + 3 * 7)
        for source in ("cifar10", "gtsrb")
        for scale, folds in (("short", 3), ("full", 5))
    }
    for (source, scale), found in every.items():
        classes = {"cifar10": 10, "gtsrb": 43}[source]
        for name, card in found.items():
            model, plan = card.file.model, card.file.recipe.arguments
            if not name.endswith("-bin"):
                assert model.decision.outputs(classes) == model.arguments["outputs"] + 2 * name.partition("@")[
                    0
                ].endswith("+bin")
            assert model.arguments["width"] == {"short": 0.125, "full": 1.0}[scale]
            assert not (source == "gtsrb" and plan.get("flip"))
            assert card.file.data.groups == (None if source == "cifar10" else "train_track")
            assert card.file.scale == scale


def test_evaluation(every):
    """Catches: a substitute that is the fold's own model, white-box rows on other images, a fold tested elsewhere."""
    found = every["gtsrb", "short"]
    for name, card in found.items():
        for sweep, table in card.file.sweeps.items():
            source = card.source(sweep)
            assert (source is not None) == (sweep in ("curve", "mixed"))
            assert source is None or source.name == "gtsrb-substitute.toml"
            assert table.strengths
        assert (card.file.data.tested == 1000) == name.endswith("@few")
        assert (card.file.data.test == "given") == name.endswith("@official")
    assert [len(found[f"gtsrb-1-2n{suffix}"].file.sweeps) for suffix in ("@fold", "@official", "@few")] == [2, 1, 4]
    assert [len(found[f"gtsrb-1-{system}@few"].file.sweeps) for system in ("null", "null-stg", "adv+bin")] == [5, 5, 4]


def test_what_others_need_comes_first(every):
    for found in every.values():
        done = set()
        for level in levels(found):
            needs = {Path(path).stem for name in level for path in found[name].file.recipe.needs.values()}
            assert needs <= done
            done |= set(level)
        assert done == set(found)


def test_cards_that_are_the_same_stay(tmp_path):
    """Catches: cards that are new to the second run."""
    tables = protocol.cards("cifar10", protocol.SCALES["short"], range(1))
    paths = protocol.write(tables, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in paths.values()}
    protocol.write(tables, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in paths.values()} == before
