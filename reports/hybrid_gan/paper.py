"""The paper hybrid-gan: its measurements part by part, tables and figures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from reports import running, writing
from reports.figures import draw_strips, figure, strip
from reports.hybrid_gan import building, protocol, sweeping
from reports.hybrid_gan.criteria import Numbers, criteria
from reports.hybrid_gan.hybrid import HybridSet, divide
from reports.hybrid_gan.protocol import CLASSIFIERS, COUNTS, HEADS, TARGETS, TEST, TITLES, UNDEFENDED, VALIDATION
from reports.paper import Paper, Result, is_measured, write_result
from reports.running import Run, images_record, say
from reports.verdicts import Criterion, by_outcome
from reports.writing import value_range
from robustness.cards import Card
from robustness.metrics.evidence import Evidence
from robustness.util import hardware

TWINS = {"classify": "hybrid", "clean": "real alone"}
PANELS = {"own": "generators of the set", "anew": "generators fitted to the network itself"}


class Hybrid(Paper):
    """Classifiers and detectors of real and of GAN-perturbed images, trained on both."""

    name = "hybrid-gan"
    about = "Train targets, fit generators, build the hybrid set, train and sweep networks on it, write the tables."
    unit = "part"
    protocol: ClassVar[Any] = protocol
    usual = ("cifar10", "short")

    def parser(self) -> argparse.ArgumentParser:
        parser = super().parser()
        parser.add_argument("--pictures", metavar="DIR", type=Path, help="write the hybrid set as folders of PNGs too")
        return parser

    def chosen(self, text: str) -> list[str]:
        parts = text.split(",")
        if unknown := set(parts) - set(protocol.parts("cifar10")):
            raise argparse.ArgumentTypeError(f"unknown parts: {', '.join(sorted(unknown))}")
        return parts

    def units(self, run: Run) -> Sequence[str]:
        return list(protocol.parts(run.source))

    def trained(self, run: Run, unit: str) -> protocol.Tables:
        every = protocol.targets(run.source, run.scale) | protocol.trained(run.source, run.scale)
        return {name: every[name] for name in protocol.parts(run.source)[unit]}

    def swept(self, run: Run, unit: str) -> protocol.Tables:
        trained = self.trained(run, unit)
        return protocol.undefended(trained, run.scale) if unit == UNDEFENDED else protocol.attacked(run, trained)

    def measure(self, options: argparse.Namespace, output: Path) -> bool:
        division = divide(self.run(options))
        hybrid, made_of = HybridSet(division), division.inputs_hash()
        run, every, missing = hybrid.run, self.units(hybrid.run), []
        for part in options.units or every:
            if is_measured(self.file(output, run, part), made_of):
                say(f"part {part} is measured: {self.file(output, run, part)}")
            else:
                missing.append(part)
        if options.pictures:
            say(f"hybrid set: {hybrid.counts}")
            print(f"{building.pictures(hybrid.file, options.pictures):,} pictures in {options.pictures}")
        trainings = {part: len(self.trained(run, part)) * (part != UNDEFENDED) for part in missing}
        for group in groups(trainings, run.workers or hardware.cpu_count()):
            say(f"hybrid set: {hybrid.counts}")
            records = {part: run.cards(self.trained(run, part)) for part in group}
            trained = run.train({name: card for cards in records.values() for name, card in cards.items()})
            for part, names in records.items():
                cards = run.cards(self.swept(run, part))
                if part.startswith("detect-"):
                    hybrid.write_probes(part.removeprefix("detect-"))
                run.sweep(running.sweeps(cards))
                hybrid.other.sweep([(card, "own") for card in cards.values() if "own" in card.file.sweeps])
                result = self.collect(run, part, cards, {name: trained[name] for name in names})
                write_result(self.file(output, run, part), {**result, "fold": every.index(part), "made_of": made_of})
        return True

    def evidence(self, run: Run, card: Card) -> dict[str, Evidence]:
        evidence = super().evidence(run, card)
        if "own" in evidence:  # with the generator of another seed too
            evidence["another"] = run.context.other.workspace.evidence(card, "own")
        return evidence

    def rows(self, run: Run, name: str, card: Card, evidence: Mapping[str, Evidence]) -> Iterator[dict[str, Any]]:
        for sweep, part in evidence.items():
            yield from sweeping.rows(name, sweep, part, run.context.kinds)
        if name.endswith("@probes"):
            yield from sweeping.probe_rows(name, evidence["clean"])

    def extras(self, run: Run, unit: str, cards: Mapping[str, Card]) -> dict[str, Any]:
        streams, lost = [], dict[tuple[str, str], Any]()
        for name, card in cards.items():
            model, _, images = name.partition("@")
            evidence = self.evidence(run, card)
            if images == "hybrid":
                correct = evidence["clean"].predictions[0] == evidence["clean"].labels
                streams += [{"model": model, **stream} for stream in sweeping.streams(correct, run.context.kinds)]
            if images == "real":
                key = model.partition("-")[2]
                lost |= {(key, sweep): sweeping.losses(part) for sweep, part in evidence.items() if sweep != "clean"}
        pictured = {
            name.partition("@")[0].rpartition("-")[2]: card for name, card in cards.items() if unit == UNDEFENDED
        }
        strips = [strip(run.workspace, card, "own", network) for network, card in pictured.items()]
        return {"strips": strips, "streams": streams, "pairs": list(sweeping.pairs(lost))}

    def images(self, run: Run, unit: str, cards: Mapping[str, Card]) -> dict[str, Any]:
        hybrid = run.context
        record = {"name": "the hybrid set", "n": 2 * hybrid.counts["test kind"], "fingerprint": hybrid.made_of}
        data = {name: images_record(images) for name, images in hybrid.division.images.items()}
        return {**data, f"set of {unit}": record}

    def header(self, run: Run, unit: str) -> dict[str, Any]:
        scale, targets = run.scale, protocol.of_targets(run.scale)
        return {
            "seeds": [run.workspace.seed],
            "networks": dict(TITLES),
            "width": scale.width,
            "epochs": {name: protocol.epochs(scale, name) for name in CLASSIFIERS},
            "targets": {"width": targets.width, "epochs": targets.epochs},
            "hybrid": dict(run.context.counts),
        }

    def criteria(self, result: Result) -> Iterator[Criterion]:
        return criteria(Numbers.of(result), absent(result))

    def outcomes(self, result: Result) -> str:
        parts = absent(result)
        return super().outcomes(result) + (f"; parts not measured yet: {', '.join(parts)}" if parts else "")

    def headline(self, result: Result) -> tuple[str, str, str]:
        n, printed = Numbers.of(result), writing.printed(self.package)["trained"]
        accuracies = [
            f"{title} {value_range(n.value(f'{head}-{name}', 'hybrid') for name in CLASSIFIERS)}"
            for head, title in HEADS.items()
        ]
        published = value_range(printed[name][3] / 100 for name in CLASSIFIERS)
        return "accuracy of four networks on the hybrid test set", published, "; ".join(accuracies)

    def context(self, result: Result) -> dict[str, Any]:
        n, printed = Numbers.of(result), writing.printed(self.package)
        parts = [f"set of {part}" for part in protocol.parts(result["source"])]
        data, last = result["provenance"]["data"], max(n.strengths("own", "targets"), key=float, default="")
        sizes = [2 * sum(COUNTS.values()), 20 * VALIDATION, 20 * TEST]
        best_real = {name: max(real for real, _ in printed["streams"][name][:2]) for name in CLASSIFIERS}
        return {
            "n": n, "printed": printed, "protocol": protocol, "source": result["source"], "sweeps": protocol.SWEEPS,
            "twins": TWINS, "probes": building.PROBES, "kinds": building.KINDS, "is_whole_number": is_whole_number,
            "best_real": best_real, "best": max(best_real, key=lambda name: best_real[name]),
            "shares": ":".join(f"{100 * size / sum(sizes):.0f}" for size in sizes), "last": last,
            "left": value_range(n.value(f"target-{name}", "targets", sweep="own", strength=last) for name in n.targets),
            "published_gaps": {
                name: max(abs(real - adversarial) for real, adversarial in cells) / 100
                for name, cells in printed["streams"].items()
            },
            "decided": by_outcome(self.verdicts(result)), "all_outcomes": self.outcomes(result),
            "titles": [n.networks[name] for name in n.targets], "expected": [TITLES[name] for name in TARGETS],
            "sets": len({data[part]["fingerprint"] for part in parts if part in data}),
            "length": max(result["epochs"].values()), "targets": result.get("targets", {"width": result["width"]}),
        }  # fmt: skip

    def draw(self, result: Result, folder: Path) -> list[Path]:
        written, n = [], Numbers.of(result)
        if result["strips"]:
            written.append(draw_strips(result["strips"], folder / self.figure(result, "strips"), "{}"))
        file = folder / self.figure(result, "curves")
        with figure(file, (10, 3.6)) as canvas:
            for axes, (sweep, title) in zip(canvas.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
                strengths = n.strengths(sweep, "real")
                for color, name in enumerate(CLASSIFIERS):
                    for kind, style in (("classify", "-"), ("clean", "--")):
                        values = [n.value(f"{kind}-{name}", "real", sweep=sweep, strength=k) for k in strengths]
                        values.insert(0, n.value(f"{kind}-{name}", "real"))
                        label = n.networks[name] if kind == "classify" else None
                        axes.plot([0.0, *map(float, strengths)], values, style, color=f"C{color}", label=label)
                axes.set(title=title, xlabel="k", ylabel="accuracy on real images")
                axes.grid(alpha=0.3)
            canvas.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
        return [*written, file]


def groups(trainings: Mapping[str, int], workers: int) -> Iterator[list[str]]:
    """
    Return parts to train together: as few as leave no worker idle, for a part is written when its group is trained.

    >>> list(groups({"a": 0, "b": 2, "c": 1, "d": 1, "e": 1}, 2))
    [['a'], ['b'], ['c', 'd'], ['e']]
    """
    group: list[str] = []
    for part in trainings:
        group.append(part)
        if sum(trainings[name] for name in group) % workers == 0:
            yield group
            group = []
    if group:
        yield group


def absent(result: Result) -> list[str]:
    """Return the parts that are not measured yet."""
    return [part for part in protocol.parts(result["source"]) if f"set of {part}" not in result["provenance"]["data"]]


def is_whole_number(percent: float, images: float) -> bool:
    """Return whether a printed rate is that of a whole number of images."""
    near = round(percent / 100 * images)
    return any(round(100 * count / images, 2) == percent for count in (near - 1, near, near + 1))


PAPER = Hybrid()
