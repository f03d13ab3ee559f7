"""The command `robustness`: fill the store ahead of the suites, train, renew, get data, look at evidence."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustness.errors import CardError, ModelError, RobustnessError

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.harness import Harness
    from robustness.store import Store

# Each command imports what it needs: help does not wait for NumPy, nor a list of evidence for torch.

RED, ERROR, INTERRUPTED, UNREAD = 1, 2, 130, 141
MODELS = Path("models")
"""The folder of cards, below the current one, that is taken where none is named."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if all is well, 1 if something is red or errored, 2 for what one sentence tells."""
    from robustness.commands.arguments import parser
    from robustness.commands.run import split

    given, behind = split(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    options.pytest = behind
    try:
        code = COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except RobustnessError as error:
        _say(str(error))
        return ERROR
    except KeyboardInterrupt:
        _say(
            f"interrupted; what was finished is kept in {_store(options).root}, and the same command goes on from there"
        )
        return INTERRUPTED
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD


def _run(options: Namespace) -> int:
    from robustness.commands import run

    run.start(options)


def _sweep(options: Namespace) -> int:
    from robustness.commands import listing

    harness = _harness(options)
    if options.engine is not None:
        from robustness import engines

        wanted = [(card, sweep) for card in _chosen(options) for sweep in ("clean", *card.file.sweeps)]
        engines.fill(harness, engines.parse(options.engine), wanted, options.device)

    def one(card: Card) -> int:
        errored = 0
        for sweep in ("clean", *card.file.sweeps):
            evidence = harness.evidence(card, sweep)
            errored += len(listing.errors(evidence))
            _printed(listing.swept(f"{card.name}:{sweep}", evidence, harness.store.run))
        return RED if errored else 0

    code = _each(options, harness, one)
    same = f" --robustness-store {options.store}" if options.store else ""
    print(f"evidence is kept in {harness.store.root}; next: pytest suites/{same}, which holds it to the claims")
    return code


def _plan(options: Namespace) -> int:
    from robustness import engines
    from robustness.commands.plan import planned

    engine = engines.parse(options.engine or "plain")
    if options.workers is not None:
        engine = replace(engine, workers=options.workers)
    harness = _harness(options)
    lines, wrong = planned(harness, _chosen(options), engine)
    _printed(lines)
    _noted(harness)
    for message in wrong:
        _say(message)
    return ERROR if wrong else 0


def _train(options: Namespace) -> int:
    from robustness import cardfile, engines
    from robustness.parallel import train_many
    from robustness.progress import bar

    harness, engine = _harness(options), engines.parse(options.engine or "plain")
    if options.output and (len(options.seeds or "1") > 1 or len(_chosen(options)) > 1):
        raise RobustnessError(f"--output {options.output} must be of one model and one seed; leave it out for several")

    def one(card: Card) -> int:
        every = [card.reseeded(seed) for seed in options.seeds or ()] if card.file.recipe else []
        root, what = harness.store.root, f"training {card.name}"
        paths = train_many(
            every or [card], root, harness.data_root, options.workers, say=_say, progress=bar, what=what,
            device=options.device if options.engine else harness.device, engine=engine,
        )  # fmt: skip
        for path, seed in zip(paths, options.seeds or ["its own"], strict=True):
            print(f"{card.name} (seed {seed}): {path}")
        if options.output:
            cardfile.replace(options.output, paths[0].read_bytes())
            print(f"written: {options.output}")
        elif card.weights is not None:
            print(f"{card.name} is tested with {card.weights}, which is as it was: `robustness renew` writes it")
        return 0

    return _each(options, harness, one)


def _renew(options: Namespace) -> int:
    from robustness.commands.renewal import Renewal

    harness = _harness(options)

    def one(card: Card) -> int:
        renewed = Renewal(harness, card, options.seeds, options.fresh, options.workers, options.force).run()
        for sentence in renewed.done or ["nothing to do: weights and thresholds fit the recipe (--force renews them)"]:
            print(f"{card.name}: {sentence}")
        for verdict in renewed.broken:
            print(f"  {verdict.message}")
        if renewed.broken:
            print(
                f"{card.name}: its own weights break {len(renewed.broken)} of {len(renewed.verdicts)} claims, so the "
                "suites will be red: take another seed in its [recipe], or find out why this training is not healthy"
            )
        elif renewed.verdicts:
            print(f"{card.name}: its own weights keep all {len(renewed.verdicts)} claims; next: pytest suites/")
        return RED if renewed.broken else 0

    return _each(options, harness, one)


def _transfer(options: Namespace) -> int:
    from robustness import transfer

    harness = _harness(options)
    crossed = transfer.matrix(harness, _chosen(options), options.sweep)
    _printed(transfer.described(crossed, options.sweep))
    _noted(harness)
    return RED if transfer.errored(crossed) else 0


def _report(options: Namespace) -> int:
    from robustness.reporting.web import rebuild

    harness = _harness(options)
    written = rebuild.rebuild(options.runs, options.output, harness, _card_folders(options))
    _noted(harness)
    return _printed(f"report: {path}" for path in written)


def _merge(options: Namespace) -> int:
    from robustness.commands import merging

    lines, code = merging.merged(options.runs, options.output)
    _printed(lines)
    return code


def _annotate(options: Namespace) -> int:
    from robustness.reporting import annotations
    from robustness.reporting.web.rebuild import read

    return _printed(line for path in options.runs for line in annotations.of(read(path)))


def _check_cards(options: Namespace) -> int:
    from robustness.commands import card_files

    problems = [problem for path in options.files for problem in card_files.problems(path)]
    _printed(problems)
    return RED if problems else 0


def _mnist(options: Namespace) -> int:
    from robustness.datasets import mnist
    from robustness.harness import data_root

    mnist.download(options.root or data_root(options.data), print)
    return 0


def _crops(options: Namespace) -> int:
    from robustness.datasets import crops

    crops.write(options.source, options.target, options.size, options.subjects, print)
    return 0


def _replay(options: Namespace) -> int:
    from robustness.properties import described, search

    harness = _harness(options)

    def one(card: Card) -> int:
        images, table = harness.images(card), card.file.search
        budget = table.budget if table else None
        if not options.row < len(images):
            raise RobustnessError(f"`row` must be one of the {len(images)} test images, got {options.row}")
        try:
            before, after = search.replay(
                harness.classifier(card).module,
                images,
                options.row,
                options.description,
                budget,
                card.file.model.decision,
            )
        except ValueError as error:
            raise RobustnessError(f"`description` must be one that a search printed: {error}") from error
        names = images.classes
        label = names[images.labels[options.row]]
        print(
            f"{card.name}: image {options.row} of {images.name} ({label}) is {names[before]}, and {names[after]} under "
            f"{described.read(options.description)}"
        )
        return 0

    return _each(options, harness, one)


def _init(options: Namespace) -> int:
    from robustness.commands import starting

    return _printed(starting.initialised(options, _harness(options)))


def _check(options: Namespace) -> int:
    from robustness.commands import checking, starting

    harness, code = _harness(options), 0
    if options.factory or options.dataset:
        chosen = [starting.draft(options).card()]
    else:
        files = [name for name in options.models if name.endswith(".toml")]
        options.card = (options.card or []) + files or None
        options.models = [name for name in options.models if name not in files]
        chosen = _chosen(options)
    for card in chosen:
        lines, fine = checking.checked(harness, card, options.margin, options.images)
        _printed(lines)
        code = max(code, 0 if fine else RED)
        _noted(harness)
    return code


def _profiles(options: Namespace) -> int:
    from robustness.commands import starting

    return _printed(starting.listed(options.shape, Path.cwd()))


def _list(options: Namespace) -> int:
    from robustness import selection
    from robustness.commands import listing

    projects = listing.projects(selection.card_files(_card_folders(options)))
    return _printed(listing.listed(_store(options), projects, Path.cwd()))


def _show(options: Namespace) -> int:
    from robustness.commands import inventory, listing

    return _printed(listing.described(inventory.find(_store(options), options.key)))


def _prune(options: Namespace) -> int:
    from robustness.commands import inventory, listing

    if not (options.broken or options.all or options.older_than is not None):
        raise RobustnessError("evidence prune must be told what to remove: --broken, --older-than DAYS or --all")
    store = _store(options)
    chosen = inventory.to_prune(store, broken=options.broken, older_than=options.older_than, every=options.all)
    return _printed(listing.pruned(store, chosen, only_say=options.dry_run))


def _export(options: Namespace) -> int:
    from robustness import archives

    told = archives.export(_store(options), options.file, options.model or ())
    for said in told.left:
        _say(f"left out: {said}")
    return _printed([f"exported {told} from {_store(options).root}, to {options.file} ({_size(options.file)})"])


def _import(options: Namespace) -> int:
    from robustness import archives

    told = archives.bring(_store(options), options.file)
    for said in told.left:
        _say(said)
    return _printed([f"imported {told} into {_store(options).root}; {told.there} were there already"])


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"


def _accept(options: Namespace) -> int:
    from robustness import healthy
    from robustness.gate import accept

    if bool(options.runs) == bool(options.seeds):
        raise RobustnessError("baseline accept takes either reports of runs (RUN.json), or --seeds to train from")
    if options.runs and options.to:
        store = _store(options)
        accepted = [accept.of_run(path, options.model, store) for path in options.runs]
        return _printed(accept.accept(options.to, options.model, accepted, store))
    options.models = [options.model]
    harness, card = _harness(options), _chosen(options)[0]
    if options.runs:
        accepted = [accept.of_run(path, card.name, harness.store) for path in options.runs]
    else:
        accept.train(card, options.seeds, harness, options.workers)
        accepted = [accept.of_seed(healthy.anew(harness), card, seed) for seed in options.seeds]
    return _printed(accept.accept(options.to or card.baseline, card.name, accepted, harness.store))


def _mutate(options: Namespace) -> int:
    from robustness import cardfile
    from robustness.damage import keeping, mutation, telling
    from robustness.damage.plan import Asked

    for path in options.output or ():
        telling.check(path)
    given = [name for name, _ in options.damage or ()]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise RobustnessError(f"--damage {twice[0]} must be given once; name several levels as {twice[0]}=LEVEL,LEVEL")
    asked = Asked(
        dict(options.damage) if options.damage else None, options.retrainings, options.all_levels, options.workers
    )
    harness, found = _harness(options), []

    def one(card: Card) -> int:
        found.append(mutation.mutated(harness, card, asked))
        _printed(telling.lines(found[-1]))
        if options.keep:
            cardfile.replace(keeping.place(card), keeping.text(found[-1]).encode())
            print(f"kept: {keeping.place(card)}")
        return 0

    code = _each(options, harness, one)
    for path in options.output or ():
        if code:
            raise RobustnessError(f"{path} was not written, for not all that was asked for is there")
        telling.write(path, found)
        print(f"written: {path}")
    return code


def _compare(options: Namespace) -> int:
    from robustness.gate import compare

    return _printed(compare.compared(options.runs[0], options.runs[1], _store(options)))


def _printed(lines: Iterable[str]) -> int:
    for line in lines:
        print(line, flush=True)
    return 0


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "run": _run,
    "sweep": _sweep,
    "plan": _plan,
    "train": _train,
    "renew": _renew,
    "transfer": _transfer,
    "report": _report,
    "merge": _merge,
    "annotate": _annotate,
    "check-cards": _check_cards,
    "replay": _replay,
    "init": _init,
    "check": _check,
    "profiles": _profiles,
    "data mnist": _mnist,
    "data crops": _crops,
    "baseline accept": _accept,
    "compare": _compare,
    "mutate": _mutate,
    "evidence list": _list,
    "evidence show": _show,
    "evidence prune": _prune,
    "evidence export": _export,
    "evidence import": _import,
}


def _each(options: Namespace, harness: Harness, one: Callable[[Card], int]) -> int:
    """Do one thing for every selected card; what goes wrong with one is told and does not stop the others."""
    code = 0
    for card in _chosen(options):
        try:
            code = max(code, one(card))
        except RobustnessError as error:
            _say(str(error))
            code = ERROR
        _noted(harness)
    return code


def _chosen(options: Namespace) -> list[Card]:
    from robustness import selection

    folders = _card_folders(options)
    named = options.card is not None or folders != [MODELS.resolve()]
    chosen = selection.select([] if named else folders, folders if named else [], options.models)
    if not chosen:
        raise CardError("no card is selected: name models of the cards in models/, or give cards with --card FILE")
    return chosen


def _noted(harness: Harness) -> None:
    while harness.notices:
        _say(f"note: {harness.notices.pop(0)}")


def _card_folders(options: Namespace) -> list[Path]:
    """Give the cards that are named, else those of the project's pyproject.toml, else the folder of cards."""
    from robustness import project

    if options.card:
        return [Path(path).resolve() for path in options.card]
    root = project.root_of(Path.cwd())
    if root is not None and (found := project.cards(root)):
        return [path.resolve() for path in found]
    return [MODELS.resolve()] if MODELS.is_dir() else []


def _harness(options: Namespace) -> Harness:
    from robustness import hardware, precision
    from robustness.harness import Harness, data_root
    from robustness.progress import bar

    device = hardware.worker_device(options.device, 0)
    if getattr(options, "engine", None) is not None and not hardware.gpus():
        device = "cpu"  # whether there is a GPU where the engine works, it says itself
    if device.startswith("cuda") and not hardware.gpus():
        raise ModelError(f"--device {options.device}: there is no GPU on this machine; leave it out, or take cpu")
    dtype = getattr(options, "dtype", "float32")
    precision.check(dtype, device if getattr(options, "engine", None) is None else None)
    return Harness(_store(options), data_root(options.data), device, options.seed, progress=bar, dtype=dtype)


def _store(options: Namespace) -> Store:
    from robustness.harness import store_root
    from robustness.store import Store

    return Store(store_root(options.store), say=_say)


def _say(message: str) -> None:
    print(f"robustness: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
