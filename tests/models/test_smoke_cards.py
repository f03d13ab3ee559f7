"""The cards on the embedded digits: together they exercise the networks of two papers and every perturbation."""

from pathlib import Path

import helpers
import numpy as np
import pytest
import torch

from models.parseval import Convex, weights
from models.repvgg import Block
from reports.eyes_parseval import protocol as eyes
from reports.hybrid_gan import embedded
from reports.hybrid_gan import protocol as hybrid
from robustness import cards
from robustness.cards.selection import limit_test_images
from robustness.perturbations import PERTURBATIONS
from robustness.workspace.context import data_root
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

MODELS = Path(__file__).parents[2] / "models"
SMOKE = {card.name: card for card in map(cards.load, sorted(MODELS.glob("*.toml"))) if card.file.scale == "smoke"}
# Networks without a card: the smoke runs of their reports train them.
TRIED = ("models.cifar_targets", "models.dense")
PARSEVAL = ["digits-parseval", "digits-parseval-adv"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace(Store(tmp_path_factory.mktemp("store")), data_root())


def described(tables):
    """Return factory and recipe of every card of a protocol."""
    return {(table["model"]["factory"], table["recipe"]["callable"]) for table in tables.values()}


def test_the_cards_have_every_network_of_the_two_papers():
    """Catches: a network that only its report would ever run; the smoke runs of the reports train those of `TRIED`."""
    scale = eyes.SCALES["smoke"]
    factories = {factory for factory, _ in described(eyes.cards("digits", scale, 0))}
    factories |= {network["factory"] for network in hybrid.NETWORKS.values()}
    factories = {factory for factory in factories if factory.partition(":")[0] not in TRIED}
    assert factories <= {card.file.model.factory for card in SMOKE.values()}


def test_the_cards_have_every_training_of_the_two_papers_systems():
    """Catches: a defence without a card; a Parseval network that is never constrained."""
    shipped = {
        (
            card.file.model.factory,
            card.file.recipe.callable,
            "convex" in card.file.model.arguments.values(),
            bool(card.file.recipe.arguments.get("beta")),
        )
        for card in SMOKE.values()
    }
    tables = eyes.cards("digits", eyes.SCALES["smoke"], 0).values()
    wanted = {
        (
            table["model"]["factory"],
            table["recipe"]["callable"],
            "convex" in table["model"]["arguments"].values(),
            bool(table["recipe"]["arguments"].get("beta")),
        )
        for table in tables
        if table["model"]["factory"] == "models.wrn:wrn"
    }
    assert wanted <= shipped


def test_the_cards_have_both_heads_of_hybrid_networks():
    """Catches: a head, or training on a hybrid set, that only its report would ever run."""
    of_sets = [card.file for card in SMOKE.values() if card.file.data.file == "./data/digits-hybrid.npz"]
    assert {file.data.labels: file.model.arguments.get("outputs", 10) for file in of_sets} == {None: 10, "kind": 2}


def test_the_committed_hybrid_set_holds_what_it_says(workspace):
    """
    Against the shipped targets and digits themselves.

    Catches: a set of other weights than the targets have now, a twin of another digit, a k that is exceeded or that
    does not mislead, a digit in both parts.
    """
    digits = workspace.images(limit_test_images(SMOKE[embedded.TARGETS[0]], None))
    with np.load(embedded.FILE) as held:
        for part, count in (("train", 450), ("test", 150)):
            x, y, kind, source, target, k, fooled = (
                held[f"{part}_{name}"] for name in ("x", "y", "kind", "source", "target", "k", "fooled")
            )
            assert kind.tolist() == [0, 1] * count
            assert np.array_equal(x[::2], digits.stored(0, len(digits)).transpose(0, 2, 3, 1)[source[::2]])
            assert np.array_equal(y, digits.labels[source])
            assert np.array_equal(source[::2], source[1::2])
            apart = np.abs(x[1::2].astype(float) - x[::2]).max((1, 2, 3)) / 255
            assert (apart <= k[1::2] + 0.51 / 255).all()
            assert fooled[1::2].mean() > 0.7
            for number, name in enumerate(held["targets"].tolist()):
                rows = target == number
                inputs = torch.from_numpy((x[rows] / np.float32(255)).transpose(0, 3, 1, 2))
                with torch.inference_mode():
                    misled = workspace.classifier(SMOKE[name]).module(inputs).argmax(1).numpy() != y[rows]
                assert (misled == fooled[rows]).mean() > 0.98  # another processor may decide what lies on the edge
        assert not set(held["train_source"]) & set(held["test_source"])


def test_the_cards_sweep_every_shipped_perturbation():
    """
    Catches: a kind of perturbation that no suite ever runs.

    Attacks of other libraries need these libraries.
    """
    swept = {sweep.perturbation.kind for card in SMOKE.values() for sweep in card.file.sweeps.values()}
    # Members of `autoattack`; a thousand passes per image; a square that is fitted to each model.
    others = {"apgd", "apgd-t", "fab", "square", "smoothing", "patch"}
    assert set(PERTURBATIONS) - swept == {"clean", "external"} | others


def test_all_committed_weights_together_are_small():
    """Catches: a checkout that grows by a network at full width."""
    sizes = {file.name: file.stat().st_size for file in (MODELS / "weights").iterdir()}
    assert {f"{name}.safetensors" for name in SMOKE} <= set(sizes)
    assert sum(sizes.values()) < 10_000_000


@pytest.mark.parametrize("name", PARSEVAL)
def test_the_committed_parseval_networks_are_constrained(workspace, name):
    """Catches: sums that are not convex, weights that were drawn as a plain network's: β = 0.001 does not mend them."""
    module = workspace.classifier(SMOKE[name]).module
    for layer in module.modules():
        if isinstance(layer, Convex):
            assert layer.coefficients.min() >= 0
            assert layer.coefficients.sum().item() == pytest.approx(1, abs=1e-6)

    def apart(network):
        found = [torch.linalg.svdvals(weight.flatten(1)) for weight in weights(network)]
        return (torch.cat(found) - 1).abs().mean().item()

    plain = (apart(workspace.classifier(SMOKE[name]).module) for name in ("digits-wrn", "digits-wrn-adv"))
    assert apart(module) < 2 / 3 * min(plain)


def test_the_committed_repvgg_decides_alike_by_its_branches(workspace, monkeypatch):
    """Catches: a re-parameterisation that holds for drawn weights alone."""
    card = SMOKE["digits-repvgg"]
    module, images = workspace.classifier(card).module, workspace.images(card)
    inputs = torch.from_numpy(images.batch(0, len(images)))
    with torch.inference_mode():
        after = module(inputs)
        monkeypatch.setattr(Block, "forward", helpers.repvgg_branches)
        before = module(inputs)
    # Sums are taken in another order: no more than float32 leaves open.
    assert torch.allclose(after, before, atol=1e-3 * before.abs().max().item())
    settled = before.topk(2).values.diff().abs().flatten() > 1e-2
    assert settled.float().mean() > 0.99
    assert torch.equal(after.argmax(1)[settled], before.argmax(1)[settled])
