"""What comes before any network sees a hybrid set: its source images, the targets, their generators, the set itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports import commands, running
from reports.hybrid_gan import data, protocol
from reports.hybrid_gan.building import Target
from reports.hybrid_gan.protocol import Scale
from robustness.cards import Card
from robustness.classifiers.modules import state_hash
from robustness.data.images import Images
from robustness.data.validation import Indices
from robustness.perturbations import ConditionalAdvGAN
from robustness.util.progress import progress_bar
from robustness.workspace import attack_inputs
from robustness.workspace.training import fit_many
from robustness.workspace.workspace import Workspace

EPSILON = 8 / 255
"""Of the FGSM examples that detectors are shown."""
ANOTHER = 1
"""The seed of the generators that no hybrid set was made with."""


@dataclass(frozen=True)
class Begun:
    """The images of a run, divided: what targets are trained on is written, the rest is for the hybrid set."""

    source: str
    scale: Scale
    folder: Path
    found: Mapping[str, Images]
    rows: Mapping[str, tuple[Indices, Indices]]

    @property
    def root(self) -> Path:
        """The data root of the run's cards."""
        return self.folder / "data"

    def harness(self, of: Workspace, seed: int = 0) -> Workspace:
        """Return a harness that finds the run's array files."""
        return Workspace(of.store, self.root, device=of.device, seed=seed, progress=progress_bar)

    def hidden(self, part: str) -> Images:
        """Return the images of a part that the hybrid set is made of."""
        return self.found[part].select(self.rows[part][1], f"{part} of the hybrid set")


@dataclass(frozen=True)
class Built:
    """A hybrid set, and the targets that it was made with."""

    of: Begun
    cards: Mapping[str, Card]
    """Of the targets."""
    targets: Sequence[Target]
    counts: Mapping[str, int]
    made_of: str
    """The digest of all that the set is made of."""


def begin(source: str, scale: Scale, folder: Path, harness: Workspace) -> Begun:
    """Divide the images of a source, and write what the targets are trained on."""
    found = data.images(source, harness.data_root, harness.store.root)
    begun = Begun(source, scale, folder, found, data.sources(found, scale))
    data.write_targets(begun.found, begun.rows, begun.root)
    return begun


def build(begun: Begun, harness: Workspace, work: running.Work) -> Built:
    """Train the targets, fit a generator to each, and write the hybrid set; what is there already is not made again."""
    inside = begun.harness(harness)
    cards = commands.loaded(protocol.targets(begun.source, begun.scale, data.TARGETS), begun.folder)
    running.train(cards, inside, work)
    fit_many([(card, _generator(begun.scale)) for card in cards.values()], inside, work.workers)
    fitted = [_target(inside, card, begun.scale) for card in cards.values()]
    counts, made_of = data.write_hybrid(
        {part: begun.hidden(part) for part in begun.found}, begun.rows, fitted, begun.root
    )
    return Built(begun, cards, fitted, counts, made_of)


def write_probes(built: Built, network: str, harness: Workspace) -> None:
    """Write what a detector is tested on beside the hybrid set, unless it is there."""
    begun = built.of
    (own,) = (target for target in built.targets if target.name.endswith(f"-{protocol.attacked_as(network)}"))
    another = _target(begun.harness(harness, ANOTHER), built.cards[own.name], begun.scale)
    data.write_probes(begun.hidden("test"), own, another, EPSILON, begun.root / protocol.probes(network))


def target(harness: Workspace, card: Card, perturbation: ConditionalAdvGAN) -> Target:
    """Fit a generator to a trained target, or take the one that was fitted; give both."""
    running.say(f"the generator of {card.name}")
    fitted = attack_inputs.generator(harness, card, perturbation)
    module = harness.classifier(card).module
    return Target(card.name, module, fitted, f"{state_hash(module)}{state_hash(fitted)}", harness.device)


def _target(harness: Workspace, card: Card, scale: Scale) -> Target:
    return target(harness, card, _generator(scale))


def _generator(scale: Scale) -> ConditionalAdvGAN:
    return ConditionalAdvGAN.model_validate({"kind": "conditional-advgan", **scale.generator})
