"""One paper: what its command measures, where results are stored, and how its pages are made from them."""

from __future__ import annotations

import argparse
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from reports import running, writing
from reports.rows import packed, unpacked
from reports.running import Run, evidence_record, images_record, say
from reports.verdicts import Criterion, Verdict, count_outcomes, judge, verdict_table
from robustness import engines
from robustness.cards import Card
from robustness.cli.parser import ENGINE
from robustness.errors import RobustnessError
from robustness.metrics.evidence import SEMANTICS, Evidence
from robustness.util import atomic_write, hardware, paths
from robustness.util.hashing import sha256_json
from robustness.util.progress import progress_bar
from robustness.workspace.context import data_root, store_root
from robustness.workspace.models import recipe_hash
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

RUNS = writing.ROOT / "reports" / "runs"
# The committed results, from which the pages of the documentation are made.
MEASURED = writing.ROOT / "reports" / "measured"
DOCS = writing.ROOT / "docs" / "papers"
# Lists of a result to which every unit adds.
LISTS = ("curves", "streams", "pairs", "runs", "pictures")

Result = Mapping[str, Any]
Tables = Mapping[str, Mapping[str, Any]]


class Paper(ABC):
    """
    A paper's reproduction. A run is divided into units (folds, seeds or parts); each has a result file of its own.

    Attributes:
        name: The paper's name, by which pages and figures are called.
        about: What its command does, in one line.
        unit: What a unit is called: "fold", "seed" or "part".
        version: Version of the form of its result files.
        protocol: The module with `SOURCES` (data sets by name), `SCALES` (how much of the protocol a run does, by name)
            and `cards(source, scale, unit)`.
        usual: The data set and the scale that are measured unless others are named.
        words: Replacements for the words of outcomes.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    unit: ClassVar[str] = "fold"
    version: ClassVar[int] = 1
    protocol: ClassVar[Any]
    usual: ClassVar[tuple[str, str]]
    words: ClassVar[Mapping[str, str]] = {}

    # What each paper states

    @abstractmethod
    def units(self, run: Run) -> Sequence[Any]:
        """Return the units of the protocol, in their order."""

    def trained(self, run: Run, unit: Any) -> Tables:
        """Return the cards that a unit trains, as tables by name; by default those of the protocol."""
        tables: Tables = self.protocol.cards(run.source, run.scale, unit)
        return tables

    def swept(self, run: Run, unit: Any) -> Tables:
        """Return the cards that a unit sweeps, as tables by name; by default those that it trains."""
        return self.trained(run, unit)

    def tested(self, run: Run, card: Card, sweep: str) -> Card:
        """Return the card as one of its sweeps is measured, such as on fewer images."""
        return card

    @abstractmethod
    def header(self, run: Run, unit: Any) -> dict[str, Any]:
        """Return what a result says of the protocol, among it its seeds."""

    @abstractmethod
    def rows(self, run: Run, name: str, card: Card, evidence: Mapping[str, Evidence]) -> Iterable[Mapping[str, Any]]:
        """Return the rows of one card, from the evidence of each of its sweeps."""

    def evidence(self, run: Run, card: Card) -> dict[str, Evidence]:
        """Return the evidence of each sweep of a card."""
        return {
            sweep: run.workspace.evidence(self.tested(run, card, sweep), sweep)
            for sweep in ("clean", *card.file.sweeps)
        }

    def extras(self, run: Run, unit: Any, cards: Mapping[str, Card]) -> dict[str, Any]:
        """Return what a result has beside its rows, such as pictures."""
        return {}

    def images(self, run: Run, unit: Any, cards: Mapping[str, Card]) -> dict[str, Any]:
        """Return the record of the images that a unit is measured on."""
        card = next(iter(cards.values()))
        data = {"tested on": run.workspace.images(card), "trained on": run.workspace.images(card, "train")}
        return {name: images_record(images) for name, images in data.items()}

    @abstractmethod
    def criteria(self, result: Result) -> Iterable[Criterion]:
        """Return the claims with the numbers that decide them."""

    @abstractmethod
    def context(self, result: Result) -> Mapping[str, Any]:
        """Return what the page's template needs beside the result and its verdicts."""

    @abstractmethod
    def headline(self, result: Result) -> tuple[str, str, str]:
        """Return what the overview compares: the name of a number, the published and the measured one."""

    @abstractmethod
    def draw(self, result: Result, folder: Path) -> list[Path]:
        """Draw the figures of a result."""

    # What all share

    @property
    def package(self) -> str:
        """The name of the paper's package in `reports`."""
        return self.name.replace("-", "_")

    @property
    def module(self) -> str:
        """The module that is the paper's command."""
        return f"reports.{self.package}"

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the command; return 2 if it fails, with the reason."""
        options = self.parser().parse_args(arguments)
        output = options.output or MEASURED
        return answer(lambda: self.render(output) if options.render or self.measure(options, output) else [])

    def parser(self) -> argparse.ArgumentParser:
        """Return the parser of the paper's command."""
        parser = argparse.ArgumentParser(prog=f"python -m {self.module}", description=self.about)
        self.add_options(parser)
        parser.add_argument(
            f"--{self.unit}s", dest="units", metavar="LIST", type=self.chosen,
            help=f"measure these {self.unit}s alone, such as 0,1 (default: all)",
        )  # fmt: skip
        return parser

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the options that name a run."""
        parser.add_argument("--data-set", choices=sorted(self.protocol.SOURCES), default=self.usual[0])
        parser.add_argument("--scale", choices=sorted(self.protocol.SCALES), default=self.usual[1])
        add_options(parser)

    def chosen(self, text: str) -> list[Any]:
        """Read a list of units: numbers from 0."""
        numbers = sorted({int(part) for part in text.split(",")})
        if numbers[0] < 0:
            raise argparse.ArgumentTypeError(f"{self.unit}s must be at least 0, got {numbers[0]}")
        return numbers

    def run(self, options: argparse.Namespace) -> Run:
        """Return the run that the options name."""
        folder = RUNS / f"{self.package}-{options.data_set}-{options.scale}"
        return run_for(options, options.data_set, self.scale(options.scale, options.data_set), folder)

    def scale(self, name: str, source: str) -> Any:
        """Return a scale as it is for a data set."""
        return self.protocol.SCALES[name]

    def file(self, output: Path, run: Run, unit: Any) -> Path:
        """Return the result file of a unit."""
        return output / f"{self.package}_{run.source}_{run.scale.name}_{unit}.json"

    def measure(self, options: argparse.Namespace, output: Path) -> bool:
        """Measure each unit whose result file is missing or of other inputs; return whether pages can be made."""
        run = self.run(options)
        for unit in options.units or self.units(run):
            trained, swept = run.cards(self.trained(run, unit)), run.cards(self.swept(run, unit))
            file, made_of = self.file(output, run, unit), inputs_hash(run.workspace, swept)
            if is_measured(file, made_of):
                say(f"{self.unit} {unit} is measured: {file}")
                continue
            records = run.train(trained)
            run.sweep([(self.tested(run, card, sweep), sweep) for card, sweep in running.sweeps(swept)])
            write_result(file, {**self.collect(run, unit, swept, records), "fold": unit, "made_of": made_of})
        return True

    def collect(self, run: Run, unit: Any, cards: Mapping[str, Card], records: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of a unit: all its numbers, and where they come from."""
        began = time.perf_counter()
        rows, sources = [], {}
        for number, (name, card) in enumerate(cards.items(), 1):
            say(f"{name} ({number} of {len(cards)})")
            evidence = self.evidence(run, card)
            rows += list(self.rows(run, name, card, evidence))
            for sweep, part in evidence.items():
                sources[f"{name}:{sweep}"] = evidence_record(part, run.workspace.store.run)
        extras = self.extras(run, unit, cards)
        for notice in run.workspace.notices:
            say(notice)
        sweeping, data = round(time.perf_counter() - began, 1), self.images(run, unit, cards)
        return {
            "format": f"pytest-robustness/report/{self.name}/{self.version}",
            "paper": self.name,
            "scale": run.scale.name,
            "source": run.source,
            **self.header(run, unit),
            "provenance": {**running.machine(run.workspace), "sweeping": sweeping, "data": data},
            "models": dict(records),
            "evidence": sources,
            **extras,
            **packed(rows),
        }

    def results(self, output: Path) -> list[dict[str, Any]]:
        """Return the results in a folder, the units of one data set and scale as one."""
        parts = [json.loads(file.read_text(encoding="utf-8")) for file in output.glob(f"{self.package}_*.json")]
        parts.sort(key=lambda part: (part["source"], part["scale"], part["fold"]))
        return [merged(list(units)) for _, units in groupby(parts, lambda part: (part["source"], part["scale"]))]

    def verdicts(self, result: Result) -> list[Verdict]:
        """Judge all claims."""
        return [judge(criterion, result["scale"]) for criterion in self.criteria(result)]

    def outcomes(self, result: Result) -> str:
        """Count the outcomes of the claims in words."""
        return count_outcomes(self.verdicts(result), words=self.words)

    def figure(self, result: Result, kind: str) -> str:
        """Return the file name of a figure."""
        return f"{self.name}-{result['source']}-{result['scale']}-{kind}.svg"

    def render(self, output: Path) -> list[Path]:
        """Write figures and pages from all results in a folder."""
        written, folder = [], pages_folder(output)
        results = self.results(output)
        for result in results:
            print(f"{result['source']}, {result['scale']}: {self.outcomes(result)}")
            written += self.draw(result, folder / "figures")
        pages = self.pages(results, output)
        return [*written, *(write_page(name, self.module, body, output) for name, body in pages.items())]

    def pages(self, results: Sequence[Result], output: Path = MEASURED) -> dict[str, str]:
        """Return the text of each page by its file's name."""
        return {f"{self.name}.md": joined([self.page(result) for result in results])}

    def page(self, result: Result, template: str = "page.md", **more: Any) -> str:
        """Return the part of a page that shows one result; ``more`` is for the template."""
        return writing.render(
            f"{self.package}/{template}",
            paper=self,
            result=result,
            provenance=result["provenance"],
            verdicts=(verdicts := self.verdicts(result)),
            verdict_table=verdict_table(verdicts, words=self.words),
            outcomes=count_outcomes(verdicts, words=self.words),
            seeds=writing.seeds(result),
            figure=lambda kind: f"figures/{self.figure(result, kind)}",
            origin=self.origin(result),
            **self.context(result),
            **more,
        )

    def origin(self, result: Result) -> str:
        """Return the paragraph on where the numbers of a result come from."""
        return writing.render(
            "origin.md",
            command=f"python -m {self.module} --data-set {result['source']} --scale {result['scale']}",
            provenance=result["provenance"],
            seconds=[record["seconds"] for record in result["models"].values() if record["seconds"] is not None],
            trainings=len(result["models"]),
            doubts=sorted({doubt for record in result["evidence"].values() for doubt in record["doubts"]}),
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all commands of papers have."""
    parser.add_argument("--data", metavar="DIR", help="data root (ROBUSTNESS_DATA, else the user's cache)")
    parser.add_argument("--store", metavar="DIR", help="weights and evidence (ROBUSTNESS_STORE, else the user's cache)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--workers", type=int, metavar="N", help="concurrent trainings (default: the cores)")
    parser.add_argument("--engine", metavar="ENGINE", default="local", help=f"what sweeps: {ENGINE}")
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder of the results (default reports/measured)")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the pages from the result files")


def run_for(options: argparse.Namespace, source: str, scale: Any, folder: Path) -> Run:
    """Return a run with the workspace, the workers and the engine that the options name."""
    engine = engines.parse(options.engine)
    # An engine's workers know whether they have a GPU.
    device = options.device if engine.name == "local" or hardware.gpu_count() else "cpu"
    store = Store(store_root(options.store), say=say)
    workspace = Workspace(store, data_root(options.data), device=device, progress=progress_bar)
    return Run(source, scale, workspace, folder, options.workers, engine, options.device)


def answer(do: Callable[[], Iterable[Path]]) -> int:
    """Run a command and print the files that it wrote; return 2 if it fails, with the reason."""
    try:
        written = list(do())
    except (RobustnessError, OSError) as error:
        say(f"error: {error}")
        return 2
    for file in written:
        print(f"written: {file}")
    return 0


def inputs_hash(workspace: Workspace, cards: Mapping[str, Card]) -> str:
    """Hash everything that a unit's numbers depend on: recipes, sweeps, images, and the kind of device."""
    fields = {
        name: {
            # As it is written: keys that cards gain later change nothing here.
            "card": paths.parse_toml(card.path.read_bytes()),
            "recipe": recipe_hash(workspace, card),
            "images": workspace.images(card).fingerprint,
            "sources": {
                sweep: recipe_hash(workspace, source)
                for sweep in card.file.sweeps
                if (source := workspace.source(card, sweep)) is not None
            },
        }
        for name, card in cards.items()
    }
    device = hardware.device_fingerprint(workspace.device)
    return sha256_json({"semantics": SEMANTICS, "device": device, "cards": fields})


def is_measured(file: Path, made_of: str) -> bool:
    """Return whether a result file has the numbers of these inputs."""
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("made_of") == made_of


def write_result(file: Path, result: Result) -> None:
    """Write a result file as a whole: the file that it replaces may hold hours of work."""
    with atomic_write.atomic_writer(file) as stream:
        stream.write(writing.dumped(result).encode())


def merged(parts: Sequence[Result]) -> dict[str, Any]:
    """Return the units of one data set and scale as one result."""
    origins = [part["provenance"] for part in parts]
    versions = {name: _distinct(origin["versions"][name] for origin in origins) for name in origins[0]["versions"]}
    provenance = {
        **{name: _distinct(origin[name] for origin in origins) for name in ("made", "device", "cores")},
        "versions": versions,
        "sweeping": sum(origin["sweeping"] for origin in origins),
        "data": _union(origin["data"] for origin in origins),
    }
    return {
        **parts[0],
        "folds": len(parts),
        "seeds": sorted({seed for part in parts for seed in part["seeds"]}),
        "provenance": provenance,
        **{name: _union(part[name] for part in parts) for name in ("models", "evidence")},
        **{name: [item for part in parts for item in part[name]] for name in LISTS if name in parts[0]},
        **packed([row for part in parts for row in unpacked(part)]),
    }


def _distinct(values: Iterable[Any]) -> str:
    """Join the distinct values of the units."""
    return " and ".join(dict.fromkeys(map(str, values)))


def _union(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for table in tables for name, value in table.items()}


def pages_folder(output: Path) -> Path:
    """Return the folder of the pages of some results: the documentation, for the committed ones."""
    return DOCS if output.resolve() == MEASURED else output


def write_page(name: str, module: str, body: str, output: Path) -> Path:
    """Write a page: in the documentation between its marks, elsewhere as a whole; return its file."""
    file = pages_folder(output) / name
    text = writing.inserted(file.read_text(encoding="utf-8"), module, body) if file.parent == DOCS else body
    file.write_text(text, encoding="utf-8")
    return file


def joined(parts: Collection[str]) -> str:
    """Join the parts of a page."""
    return "\n\n".join(parts) + "\n" if parts else "Nothing has been measured yet.\n"
