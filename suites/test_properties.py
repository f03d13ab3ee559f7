"""Contracts of perturbations on a card's model, and the search for perturbations that flip confident predictions."""

import secrets
import shlex

import pytest

from robustness.plugin.config import report_files, run_state
from robustness.search import card_search
from robustness.search.hypothesis_profiles import SCALES
from robustness.util import paths


@pytest.fixture
def workspace(request):
    """The workspace of this process."""
    return run_state(request.config).workspace


def test_contracts(card, workspace, findings):
    """Every perturbation of the card stays in its bounds, is the identity at 0, is repeatable, and leaves no trace."""
    if not card.file.sweeps:
        pytest.skip(f"{card.name} has no sweeps")

    def look(module, images):
        from robustness.search import contracts

        return {name: contracts.find_violations(workspace, card, name) for name in card.file.sweeps}

    found = findings(
        "contracts",
        lambda: {name: workspace.key_fields(workspace.resolve(card, name)) for name in card.file.sweeps},
        look,
    )
    lines = [f"{name}: {contract} {how}" for name, broken in found.items() for contract, how in broken.items()]
    if lines:
        pytest.fail(f"{card.name} breaks {len(lines)} contract(s):\n  " + "\n  ".join(lines), pytrace=False)


def test_search(card, workspace, findings, request):
    """The search flips at most the claimed fraction of the confident predictions."""
    table = card.file.search
    if table is None:
        pytest.skip(f"{card.name} has no [search] table (docs/properties.md)")

    profile = request.config.getoption("--hypothesis-profile", None)
    seed = secrets.randbelow(2**31) if profile == "robustness-thorough" else workspace.seed
    about = card_search.search_parameters(card, seed, SCALES.get(profile, 1.0))

    def look(module, images):
        return card_search.run_search(card, module, images, about)

    found = findings("search", lambda: about, look, sweeps=())
    request.node.user_properties += [("flip_rate", found["flip_rate"]), ("images", len(found["images"]))]
    if not found["images"]:
        pytest.fail(f"{card.name} is confident on no correct image; lower `sure` in [search]", pytrace=False)
    clean = workspace.evidence(card)
    accuracy = float((clean.predictions[0] == clean.labels).mean())
    if accuracy < card.file.clean_accuracy:
        pytest.fail(
            f"{card.name}: a flip rate counts only with a clean accuracy of at least {card.file.clean_accuracy:g}, "
            f"which is {accuracy:.4f}",
            pytrace=False,
        )
    if found["flip_rate"] > table.max_flip_rate:
        pytest.fail(_told(card, workspace, request.config, table, found), pytrace=False)


def _told(card, workspace, config, table, found):
    """Describe the flips, where their pictures are, and how to show one again."""
    from robustness.search import search

    folder = next((path.parent for path in report_files(config)), config.rootpath / "reports") / "flips"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{card.name}: {len(found['found'])} of {len(found['images'])} confident predictions are flipped within "
        f"{table.budget.norm} {table.budget.size:g}; its card claims at most {table.max_flip_rate:g}"
    ]
    for one in found["found"][:5]:
        file = paths.place(folder, card.name, f"-{one['row']}.png")
        pair = search.image_pair(workspace.images(card), one["row"], one["description"], table.budget)
        file.write_bytes(search.png(pair))
        lines.append(f"image {one['row']} ({one['label']} → {one['after']}): {one['sentence']}; {file}")
        lines.append(f"  again: robustness show-flip {card.name} {one['row']} {shlex.quote(one['description'])}")
    return "\n  ".join(lines)
