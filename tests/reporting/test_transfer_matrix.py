"""The matrix of transfer, of a perceptron, another and one that can refuse: against counts on bare examples."""

import numpy as np
import pytest
import tiny_project
import torch
from helpers import open_workspace
from transfer_pairs import decided, pair, text

from robustness import cards
from robustness.cli import common, main
from robustness.errors import SweepError
from robustness.perturbations.fgsm import fgsm
from robustness.reporting import transfer_matrix
from robustness.sweep.runner import run_sweep

pytestmark = pytest.mark.usefixtures("own_path")

NULL = text("refuses", 'arguments = { outputs = 11 }\ndecision = { kind = "null" }', sweep="near", source=None)


@pytest.fixture
def project(tmp_path):
    """Cards tiny and other, which can be attacked; refuses, whose decision discards; and one on other images."""
    path = pair(tmp_path / "project", target=text(sweep="near", source=None))
    factory = path.read_text().split('factory = "')[1].split(":")[0]
    path.with_name("refuses.toml").write_text(NULL.replace("MODULE", factory))
    larger = path.read_text().replace("per_class = 8", "per_class = 5").replace('"tiny"', '"smaller"')
    path.with_name("smaller.toml").write_text(larger)
    return path


def loaded(path, *names):
    return [cards.load(path.with_name(f"{name}.toml")) for name in names]


def test_each_cell_is_the_count_of_bare_examples(project):
    """Catches: rows taken for columns, the source's own images, examples made on the target, all images below."""
    made, (tiny, other) = open_workspace(project), loaded(project, "tiny", "other")
    crossed = transfer_matrix.matrix(made, [tiny, other], "near")
    images = made.images(tiny)
    inputs, labels = torch.from_numpy(images.batch(0, len(images))), torch.from_numpy(images.labels.copy())
    modules = {card.name: made.classifier(card).module for card in (tiny, other)}
    assert not transfer_matrix.has_errors(crossed)
    printed = "\n".join(transfer_matrix.described(crossed, "near"))
    assert f"{len(images)} images of {images.name}, seed 0" in printed
    for strength in (0.02, 0.1, 0.3):
        table = printed.split(f"transferability at {strength}\n")[1].split("\n\n")[0].splitlines()
        assert table[0].split() == ["made", "on", "tiny", "other"]
        for source in modules:
            examples = fgsm(modules[source], inputs, labels, epsilon=strength)
            wrong = {
                name: (decided(m, inputs) == labels.numpy()) & (decided(m, examples) != labels.numpy())
                for name, m in modules.items()
            }
            (target,) = modules.keys() - {source}
            row = next(line for line in table if line.startswith(source))
            assert f"white-box: {wrong[source].sum()} misled" in row
            both = (wrong[source] & wrong[target]).sum()
            assert f"({both} of {wrong[source].sum()})" in row
            assert f" {both / wrong[source].sum():.3f} [" in row


def test_what_discards_has_a_matrix_of_its_own(project):
    """Catches: columns of models that discard nothing, a filter that is left out."""
    made, chosen = open_workspace(project), loaded(project, "tiny", "refuses")
    crossed = transfer_matrix.matrix(made, chosen, "near")
    lines = list(transfer_matrix.described(crossed, "near"))
    after = lines[lines.index("selective_transferability at 0.1") + 1].splitlines()
    assert after[0].split() == ["made", "on", "refuses"]
    here, source = crossed["tiny", "refuses"], crossed["tiny", "tiny"]
    labels, row = here.labels, here.index("0.1")

    def fell(evidence):
        return (evidence.clean.predictions[0] == labels) & (evidence.predictions[row] != labels)

    left = fell(here) & (here.attack_probability[row] <= 0.5)
    assert 0 < (left & fell(source)).sum() < (fell(here) & fell(source)).sum(), "else this shows nothing"
    assert f"({(left & fell(source)).sum()} of {fell(source).sum()})" in after[2]
    own = crossed["refuses", "refuses"]
    stays = (fell(own) & (own.attack_probability[row] <= 0.5)).sum()
    assert f"white-box: {stays} misled" in after[3]


def test_all_are_swept_on_the_images_of_the_first(project):
    """Catches: a denominator of other images than the numerator's."""
    made, (smaller, other) = open_workspace(project), loaded(project, "smaller", "other")
    crossed = transfer_matrix.matrix(made, [smaller, other], "near")
    due = made.images(smaller)
    assert len(due) != len(made.images(other))
    assert {evidence.provenance["images"]["fingerprint"] for evidence in crossed.values()} == {due.fingerprint}
    alone = run_sweep(made.classifier(other).module, due, smaller.perturbation("near"), [0.02, 0.1, 0.3])
    assert np.array_equal(crossed["other", "other"].predictions, alone.predictions)


def test_claims_of_the_same_find_it(tmp_path):
    """Catches: a matrix that is swept again for the suites, or for the next matrix."""
    path = pair(tmp_path / "project")
    made, (tiny, other) = open_workspace(path), loaded(path, "tiny", "other")
    due = made.evidence(tiny, "far").digest
    before = len(list(made.store.entries()))
    crossed = transfer_matrix.matrix(made, [tiny, other], "far")
    assert crossed["other", "tiny"].digest == due
    assert len(list(made.store.entries())) == before + 2  # tiny against itself, and other under tiny's
    again = open_workspace(path)
    transfer_matrix.matrix(again, [tiny, other], "far")
    assert (again._loaded, again.notices) == ({}, [])


def test_an_error_is_told_and_the_others_are_not_lost(project):
    path = project.with_name("other.toml")
    path.write_text(path.read_text().replace(':factory"', ':factory"\narguments = { before = "flat" }'))
    made, chosen = open_workspace(project), loaded(project, "tiny", "other")
    crossed = transfer_matrix.matrix(made, chosen, "near")
    assert transfer_matrix.has_errors(crossed)
    printed = "\n".join(transfer_matrix.described(crossed, "near"))
    table = printed.split("transferability at 0.1\n")[1].split("\n\n")[0].splitlines()
    assert table[2].split()[:3] == ["tiny", "white-box:", table[2].split()[2]]
    assert table[3].split() == ["other", "error", "error"]
    assert table[4].startswith("  tiny under other's: ")
    assert "gradient" in table[4]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("normal", r"`sweep` must be an attack, .*'normal' of tiny, which is noise"),
        ("fgms", r"`sweep` must be one of normal, got 'fgms', which no card of tiny has"),
    ],
)
def test_what_cannot_be_crossed_is_refused(tmp_path, sweep, said):
    tiny_project.make(tmp_path)
    (card,) = (cards.load(file) for file in (tmp_path / "models").glob("*.toml"))
    with pytest.raises(SweepError, match=said):
        transfer_matrix.matrix(open_workspace(card.path), [card], sweep)


def test_command(project, capsys, monkeypatch):
    monkeypatch.chdir(project.parents[1])
    options = [
        "--store",
        str(project.parents[2] / "store"),
        "--data",
        str(project.parents[2] / "data"),
        "--device",
        "cpu",
    ]
    assert main.main(["transfer", "tiny", "other", "--sweep", "near", *options]) == 0
    assert "transferability at 0.3" in capsys.readouterr().out
    assert main.main(["transfer", "tiny", "other", "--sweep", "far", *options]) == common.ERROR
    assert "must be one of near" in capsys.readouterr().err
