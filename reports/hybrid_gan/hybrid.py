"""A run's hybrid set: its source images, the targets, their generators, and the array files that cards name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from reports import paper
from reports.hybrid_gan import building, protocol
from reports.hybrid_gan.building import Target
from reports.hybrid_gan.protocol import HYBRID, REAL, TARGET_DATA, TEST, VALIDATION, Tables
from reports.running import Run, say
from robustness import data
from robustness.cards import Card
from robustness.classifiers.modules import state_hash
from robustness.data import DataSpec
from robustness.data.images import Images, from_arrays
from robustness.data.validation import Indices
from robustness.perturbations import ConditionalAdvGAN
from robustness.util.progress import progress_bar
from robustness.util.source_files import content_hash
from robustness.workspace import attack_inputs
from robustness.workspace.training import fit_many
from robustness.workspace.workspace import Workspace

# Of the FGSM examples that detectors are shown.
EPSILON = 8 / 255
# The seed of the generators that no hybrid set was made with.
OTHER_SEED = 1


@dataclass(frozen=True)
class Division:
    """The images of a run: the targets are trained on one side, the hybrid set is made of the other."""

    run: Run
    images: Mapping[str, Images]
    rows: Mapping[str, tuple[Indices, Indices]]

    @property
    def root(self) -> Path:
        """The data root of the run's cards."""
        return self.run.folder / "data"

    def at(self, seed: int = 0) -> Run:
        """Return the run with a workspace of some seed that reads the run's array files."""
        outer = self.run.workspace
        return replace(
            self.run, workspace=Workspace(outer.store, self.root, device=outer.device, seed=seed, progress=progress_bar)
        )

    def side(self, hybrid: bool) -> dict[str, Images]:
        """Return the images of the hybrid set, or those of the targets."""
        name = "the hybrid set" if hybrid else "the targets"
        return {part: self.images[part].select(self.rows[part][hybrid], f"{part} of {name}") for part in self.images}

    def inputs_hash(self) -> str:
        """
        Hash everything that the numbers of every part depend on, without training anything.

        The hybrid set does not exist yet: it follows from the targets, its source images and the code that builds it.
        So every network counts as if it were trained on the images of the targets.
        """
        targets, trained = self.tables()
        training = {name: {**table, "data": protocol.array(TARGET_DATA)} for name, table in (targets | trained).items()}
        inner = replace(self.at(), folder=self.run.folder / "as-if")
        swept = {**protocol.undefended(targets, self.run.scale), **protocol.attacked(self.run, trained)}
        return building.digest(
            paper.inputs_hash(inner.workspace, inner.cards(training)),
            swept,
            [images.fingerprint for images in self.side(hybrid=True).values()],
            [content_hash(Path(str(module))) for module in (building.__file__, __file__)],
            [EPSILON, OTHER_SEED],
        )

    def tables(self) -> tuple[Tables, Tables]:
        """Return the cards of the targets and those of the networks that are trained on the hybrid set."""
        return protocol.targets(self.run.source, self.run.scale), protocol.trained(self.run.source, self.run.scale)


def divide(run: Run, seed: int = 0) -> Division:
    """
    Divide the images of a run, and write those of the targets.

    The hybrid set gets of the training part as many images as table 1 has and those by which the epoch is chosen, of
    the test part 500 per class.
    """
    images, scale = source_images(run), run.scale
    test = [max(2, round(scale.part * TEST))] * len(images["test"].classes)
    counts = {"train": protocol.counts(scale, VALIDATION), "test": test}
    rows = {part: building.divided(images[part].labels, counts[part], seed) for part in images}
    division = Division(run, images, rows)
    arrays: dict[str, np.ndarray] = {"classes": np.array(images["train"].classes)}
    for part, side in division.side(hybrid=False).items():
        pixels = np.ascontiguousarray(side.stored(0, len(side)).transpose(0, 2, 3, 1))
        arrays |= {f"{part}_x": pixels, f"{part}_y": side.labels}
    building.save(division.root / TARGET_DATA, arrays)
    return division


def source_images(run: Run) -> dict[str, Images]:
    """Return the training and the test images of a source; digits have three channels here, and 16x16 pixels."""
    if run.source != "digits":
        spec, workspace = DataSpec(name="array", file=protocol.SOURCES[run.source].file), run.workspace
        root, cache = workspace.data_root, workspace.store.root
        return {part: data.load(spec, part, root=root, cache=cache) for part in ("train", "test")}
    from sklearn.datasets import load_digits

    bunch = load_digits()
    large = np.kron(np.minimum(bunch.images * 16, 255), np.ones((2, 2))).astype(np.uint8)
    pixels, test = np.repeat(large[..., None], 3, axis=3), np.arange(len(large)) % 4 == 0
    names = tuple(str(digit) for digit in range(10))
    return {
        part: from_arrays(pixels[rows], bunch.target[rows], names, name=f"digits {part}")
        for part, rows in (("train", ~test), ("test", test))
    }


class HybridSet:
    """The hybrid set of a run; its targets are trained and it is built on first use, unless both are stored."""

    def __init__(self, division: Division) -> None:
        self.division = division
        self.run = replace(division.at(), context=self)
        self.other = division.at(OTHER_SEED)

    @property
    def file(self) -> Path:
        """The array file."""
        return self.division.root / HYBRID

    @cached_property
    def cards(self) -> dict[str, Card]:
        """The cards of the targets, which are trained."""
        cards = self.run.cards(self.division.tables()[0])
        self.run.train(cards)
        return cards

    @cached_property
    def targets(self) -> list[Target]:
        """The targets with their generators."""
        perturbation = _generator(self.run)
        fit_many([(card, perturbation) for card in self.cards.values()], self.run.workspace, self.run.workers)
        return [fitted(self.run.workspace, card, perturbation) for card in self.cards.values()]

    @cached_property
    def counts(self) -> dict[str, int]:
        """The counts of the set, which is written with its real half."""
        parts = self.division.side(hybrid=True)
        counts = building.write(parts, {part: self.division.rows[part][1] for part in parts}, self.targets, self.file)
        with np.load(self.file) as stored:
            real = {f"{part}_{name}": stored[f"{part}_{name}"][::2] for part in parts for name in ("x", "y")}
            self.made_of = str(stored["made_of"])
            building.save(self.division.root / REAL, {"classes": stored["classes"], **real})
        return counts

    @cached_property
    def kinds(self) -> np.ndarray:
        """Whether each test image is adversarial."""
        return np.asarray(np.load(self.file)["test_kind"])

    def write_probes(self, network: str) -> None:
        """Write the images that a detector is tested on beside the hybrid set, unless the file exists."""
        name = f"{self.run.source}-target-{protocol.attacked_as(network)}"
        fooled = next(target for target in self.targets if target.name == name)
        another = fitted(self.other.workspace, self.cards[name], _generator(self.run))
        file = self.division.root / protocol.probes(network)
        building.write_probes(self.division.side(hybrid=True)["test"], fooled, another, EPSILON, file)


def fitted(workspace: Workspace, card: Card, perturbation: ConditionalAdvGAN) -> Target:
    """Return a trained target with its generator, which is fitted unless it is stored."""
    say(f"the generator of {card.name}")
    generator = attack_inputs.generator(workspace, card, perturbation)
    module = workspace.classifier(card).module
    return Target(card.name, module, generator, f"{state_hash(module)}{state_hash(generator)}", workspace.device)


def _generator(run: Run) -> ConditionalAdvGAN:
    return ConditionalAdvGAN.model_validate(protocol.generator(run.scale))
