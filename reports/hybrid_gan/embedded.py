"""
The small hybrid set that comes with the project, for cards of the suites: digits, by the five targets that are shipped.

    python -m reports.hybrid_gan.embedded

It is made of the digits that the targets are tested on, so that neither they nor their generators have seen one of
them, and written to ``models/data/digits-hybrid.npz``. Where it is made of the same already, it stays.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import commands, running
from reports.hybrid_gan import building, built
from reports.hybrid_gan.building import Target
from robustness import cards
from robustness.cards.selection import limit_test_images
from robustness.perturbations import ConditionalAdvGAN
from robustness.util import output
from robustness.workspace.training import fit_many
from robustness.workspace.workspace import Workspace

TARGETS = ("digits-vgg19", "digits-shufflenet", "digits-repvgg", "digits-resnet50", "digits-mobilenet")
TRAINING = 45
"""Source images of each class in the training part, of the sixty that there are; the others are for testing."""
STRENGTHS = tuple(round(0.03 * step, 2) for step in range(1, 16))
"""k as they are tried, beyond the paper's 0.1: on digits one twin in fourteen misleads at 0.09, nine in ten at 0.45."""
FILE = commands.ROOT / "models" / "data" / "digits-hybrid.npz"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.hybrid_gan.embedded", description=(__doc__ or "").split("\n")[1]
    )
    running.add_options(parser)
    given = parser.parse_args(arguments)
    return commands.answered(lambda: [write(running.harness_for(given), given.output or FILE)])


def write(harness: Workspace, file: Path) -> Path:
    """Fit a generator to each target, and write the set, unless it is there; give its file."""
    # All digits of the test part, of which a run of the suites takes fewer.
    every = {name: limit_test_images(cards.load(commands.ROOT / "models" / f"{name}.toml"), None) for name in TARGETS}
    images = harness.images(every[TARGETS[0]])
    assert all(harness.images(card).fingerprint == images.fingerprint for card in every.values())
    test, train = building.divided(images.labels, [TRAINING] * len(images.classes), harness.seed)
    rows = {"train": train, "test": test}
    parts = {part: images.select(some, f"{part} of the hybrid digits") for part, some in rows.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    fit_many([(card, card.perturbation("gan")) for card in every.values()], harness)
    targets = [_target(harness, card) for card in every.values()]
    counts = building.write(parts, rows, targets, file, STRENGTHS, harness.seed)
    running.say(", ".join(f"{what}: {count}" for what, count in counts.items()))
    return file


def _target(harness: Workspace, card: cards.Card) -> Target:
    perturbation = card.perturbation("gan")
    assert isinstance(perturbation, ConditionalAdvGAN)
    return built.target(harness, card, perturbation)


if __name__ == "__main__":
    sys.exit(output.run(main))
