"""From cards to what their sweeps will cost here: each model timed once, each sweep beside it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from torch import nn

from robustness.cards import Card
from robustness.classifiers import build, precision
from robustness.data.images import Images
from robustness.errors import ModelError
from robustness.perturbations import Perturbation, Step
from robustness.perturbations.advgan import AdvGAN
from robustness.planning import items, timing
from robustness.planning.costs import Cost, Plan, of_sweep
from robustness.planning.items import Item
from robustness.planning.timing import Pace, Rest
from robustness.sweep import batching
from robustness.sweep.runner import choose_batch_size, module_dict
from robustness.util import hardware, rng_state
from robustness.workspace import attack_inputs, generators
from robustness.workspace.workspace import Workspace, swept_strengths


@dataclass
class Planner:
    """
    Times the models and sweeps of some cards, each once, as many batches side by side as the machine has cores.

    A model that is not trained is timed with random weights: its sweeps take as long.
    """

    harness: Workspace
    _paces: dict[tuple[object, ...], Pace] = field(default_factory=dict)
    _random: dict[str, nn.Module] = field(default_factory=dict)
    _planned: set[str] = field(default_factory=set)

    def plan(self, card: Card) -> Plan:
        """Plan the sweeps of one card; what an earlier one needs too is counted there."""
        chosen = [item for item in items.needed(self.harness, card) if self._is_new(item)]
        missing = [item for item in chosen if item.stored is None]
        made: list[Cost] = []
        with precision.matmul_precision(self.harness.dtype, self.harness.device):
            memory = timing.memory(lambda: made.extend(map(self._cost, missing)), self.harness.device)
        behind = {one.name: one for item in missing for one in (item.card, self._source(item)) if one is not None}
        images = self.harness.images(card)
        sent = sum(map(self._weights, behind.values()))
        if missing:
            sent += len(images) * math.prod(images.shape) * images.pixels.dtype.itemsize
        return Plan(
            tuple(made),
            tuple(item.label for item in chosen if item.stored is not None),
            tuple(dict.fromkeys(said for item in missing for said in self._first(item))),
            memory if missing else 0,
            sent,
        )

    def _is_new(self, item: Item) -> bool:
        new = item.key not in self._planned
        self._planned.add(item.key)
        return new

    def _source(self, item: Item) -> Card | None:
        return self.harness.source(item.card, item.sweep)

    def _first(self, item: Item) -> list[str]:
        """Say what must be made before a sweep."""
        attacked = self._source(item) or item.card
        untrained = [card.name for card in (item.card, attacked) if not items.is_trained(self.harness, card)]
        found = [f"{name} is not trained: `robustness train {name}` comes first" for name in untrained]
        perturbation = item.card.perturbation(item.sweep)
        if isinstance(perturbation, AdvGAN) and not (
            attacked.name not in untrained
            and self.harness.store.holds(attack_inputs.generator_file(self.harness, attacked, perturbation))
        ):
            found.append(f"the generator of {perturbation.kind} is fitted to {attacked.name} first")
        return found

    def _cost(self, item: Item) -> Cost:
        """Put the time of a sweep together: its own, and that of each pass through its models."""
        harness, card, source = self.harness, item.card, self._source(item)
        images, perturbation = harness.images(card), card.perturbation(item.sweep)
        generator = generators.unfitted(images, perturbation) if isinstance(perturbation, AdvGAN) else None
        modules = module_dict(self._module(card), None if source is None else self._module(source), generator)
        size = choose_batch_size(images, perturbation, modules, harness.device)
        count = batching.batch_count(len(images), size)
        abreast = min(self.threads if perturbation.side_by_side else 1, count)
        rest = self._rest(item, generator, size, abreast)
        passes, role = Counter(rest.passes), "forward" if source is None else "source"
        if source is not None and _signed(perturbation) and not self._directed(source, item.sweep):
            passes.update(source=1, backward=1)
        paces = {
            name: self._pace(of, images, size, abreast, gradient=name == role and passes["backward"] > 0)
            for name, of in (("forward", card), ("source", source))
            if of is not None
        }
        seconds = rest.seconds + sum(passes[name] * pace.forward for name, pace in paces.items())
        seconds += passes["backward"] * max(paces[role].gradient - paces[role].forward, 0.0)
        return Cost(
            item.label,
            len(images),
            len(swept_strengths(card, item.sweep)),
            passes["forward"] + passes["source"],
            passes["backward"],
            of_sweep(card, item.sweep, len(images), len(images.classes)),
            count,
            sum(pace.start for pace in paces.values()),
            seconds,
            side_by_side=perturbation.side_by_side,
        )

    def _rest(self, item: Item, generator: nn.Module | None, size: int, abreast: int) -> Rest:
        card, source, table = item.card, self._source(item), item.card.file.sweeps.get(item.sweep)
        perturbation = card.perturbation(item.sweep)
        return timing.rest(
            self.harness.images(card),
            perturbation,
            swept_strengths(card, item.sweep),
            table.unit if table else "native",
            card.file.model.decision,
            None if source is None else source.file.model.decision,
            device=self.harness.device,
            batch_size=size,
            abreast=abreast,
            probabilities=card.file.probabilities,
            generator=generator,
            directions=source is not None and _signed(perturbation),
        )

    @property
    def threads(self) -> int:
        """How many batches are at work side by side on this machine, whatever processes they are of."""
        return hardware.cpu_count() if self.harness.device == "cpu" else 1

    def _pace(self, card: Card, images: Images, size: int, abreast: int, *, gradient: bool) -> Pace:
        """Time a model once for images of a shape, in batches of a size; with its gradient once that is asked for."""
        about = (card.path.resolve(), card.file.model.model_dump_json(), images.shape, size, abreast)
        if (*about, True) not in self._paces and (*about, gradient) not in self._paces:
            decision = card.file.model.decision
            try:
                modules = module_dict(self._module(card), None, None)
                modules = precision.in_precision(modules, self.harness.dtype, self.harness.device)
                self._paces[*about, gradient] = timing.pace(
                    modules["classifier"], images, decision,
                    device=self.harness.device, batch_size=size, abreast=abreast, gradient=gradient,
                )  # fmt: skip
            except ModelError as error:
                raise ModelError(f"{card.name}: {error}") from error
        return self._paces.get((*about, True)) or self._paces[*about, gradient]

    def _module(self, card: Card) -> nn.Module:
        if items.is_trained(self.harness, card):
            return self.harness.classifier(card).module
        key = f"{card.path.resolve()}\n{card.file.model.model_dump_json()}"
        if key not in self._random:
            with rng_state.isolated_rng(0):
                self._random[key] = build.build_untrained(card, self.harness.images(card).classes).eval()
        return self._random[key]

    def _weights(self, card: Card) -> int:
        return sum(value.numel() * value.element_size() for value in self._module(card).state_dict().values())

    def _directed(self, source: Card, sweep: str) -> bool:
        """Return whether the directions of a transfer are in the store."""
        return items.is_trained(self.harness, source) and self.harness.store.holds(
            attack_inputs.directions_file(self.harness, source, sweep)
        )


def _signed(perturbation: Perturbation) -> bool:
    return isinstance(perturbation, Step) and perturbation.signed
