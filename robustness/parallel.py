"""Several trainings side by side, each in a process and one thread of its own, all kept in one store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robustness import engines, hardware, weights
from robustness.cards import Card
from robustness.engines import Engine
from robustness.errors import ModelError, RobustnessError, TrainingError
from robustness.harness import Harness, Progress, no_progress
from robustness.store import Store
from robustness.trained import by_recipe, named, recipe_hash

GLANCE = 0.2
"""Seconds between two looks at how far the trainings are."""


def train_many(
    cards: Sequence[Card],
    store: Path,
    data_root: Path,
    workers: int | None = None,
    *,
    say: Callable[[str], None] | None = None,
    progress: Progress = no_progress,
    what: str = "",
    device: str = "cpu",
    engine: Engine | None = None,
) -> list[Path]:
    """
    Train each card by its recipe, unless the store has its weights, and give the files in the order of the cards.

    ``workers`` processes work side by side (default: as many as the cores carry); with one, or one card to train, it
    is done here. They are spawned, so a script that calls this needs ``if __name__ == "__main__":``. The first failure
    ends all and is raised, TrainingError or what the recipe met; what was finished is in the store. Another ``engine``
    than plain trains them on its own workers instead.
    """
    plain = engine is None or engine.name == "plain"
    here = Harness(Store(store, say=say), data_root, device if plain else "cpu")
    found = [stored(here, card) for card in cards]
    missing = [i for i, path in enumerate(found) if path is None]
    if missing:
        many = len(missing) > 1
        with progress(f"{what or 'training'}, percent of {len(missing)} models") if many else no_progress("") as show:
            left = [cards[i] for i in missing]
            workers = min(workers or workers_for(cards), len(left))
            if engine is not None and not plain:
                engines.train(here, engine, left, device, show)
                made = [stored(here, card) for card in left]
            elif workers > 1:
                made = [*_side_by_side(left, here, workers, show)]
            else:
                made = [*_one_by_one(left, here, show, no_progress if many else progress)]
        for i, path in zip(missing, made, strict=True):
            found[i] = path
    for notice in here.notices:
        here.store.say(notice)
    return [path for path in found if path is not None]


def workers_for(cards: Sequence[Card]) -> int:
    """Give how many trainings the cores carry at once."""
    return max(1, hardware.cores() // max((c.file.recipe.threads for c in cards if c.file.recipe), default=1))


def stored(harness: Harness, card: Card) -> Path | None:
    """Give the file of the weights that a card's recipe makes if the store has it whole; train nothing."""
    if card.file.recipe is None:
        raise TrainingError(f"{card.path}: the card names no [recipe], so there is nothing to train it by")
    path = harness.store.path("weights", recipe_hash(harness, card))
    try:
        weights.verify(path)
    except ModelError:
        return None
    return path


def _one_by_one(
    cards: Sequence[Card], here: Harness, show: Callable[[int, int], None] | None, progress: Progress
) -> list[Path]:
    parts = [0.0] * len(cards)
    made = []
    for i, card in enumerate(cards):
        here.progress = _sharing(parts, i, show) if show else progress
        with _telling(card):
            made.append(by_recipe(here, card, by_command=True))
        parts[i] = 1.0
    return made


def _sharing(parts: Any, i: int, show: Callable[[int, int], None] | None = None) -> Progress:
    """Give a progress that keeps the share that is done of one training among others."""

    def report(done: int, total: int) -> None:
        parts[i] = done / max(total, 1)
        if show:
            show(_percent(parts), 100)

    @contextmanager
    def begin(what: str) -> Iterator[Callable[[int, int], None]]:
        yield report

    return begin


def _percent(parts: Any) -> int:
    return int(100 * sum(parts) / len(parts))


def _side_by_side(
    cards: Sequence[Card], here: Harness, workers: int, show: Callable[[int, int], None] | None
) -> list[Path]:
    """Train in spawned processes (a fork of a process that has used torch's threads may hang)."""
    spawn = multiprocessing.get_context("spawn")
    # No lock: every training writes its own number only, and a process that is killed can hold none.
    parts = spawn.RawArray("d", len(cards))
    others = set(multiprocessing.active_children())
    settings = (here.store.root, here.store.run, here.data_root, here.device, parts)
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=settings)
    try:
        futures = [pool.submit(_train, i, card) for i, card in enumerate(cards)]
        pending: set[Future[tuple[Path, list[str]]]] = set(futures)
        while pending and not any(map(_failed, futures)):
            pending = wait(pending, timeout=GLANCE, return_when=FIRST_EXCEPTION).not_done
            if show:
                show(_percent(parts), 100)
        in_turn = sorted(range(len(cards)), key=lambda i: not _failed(futures[i]))  # a failure first
        made = {i: _outcome(futures[i], cards[i]) for i in in_turn}
    except BaseException:
        # The executor waits for what runs, which may take minutes: what was asked to end ends now.
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    for _, notices in made.values():
        for notice in notices:
            here.notice(notice)
    return [made[i][0] for i in range(len(cards))]


def _failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None


def _outcome(future: Future[tuple[Path, list[str]]], card: Card) -> tuple[Path, list[str]]:
    with _telling(card):
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "its process, or one beside it, died (out of memory? killed?); what is finished is kept, "
                "and the same command goes on"
            ) from error


@contextmanager
def _telling(card: Card) -> Iterator[None]:
    """Say which training it was that failed, in one sentence, whatever a process raised."""
    which = named(card)
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{which}: {error}") from error
    except RobustnessError:
        raise
    except Exception as error:
        raise TrainingError(f"{which} raised {type(error).__name__}: {error}") from error


_settings: tuple[Any, ...] = ()


def _begin(*settings: Any) -> None:
    """Prepare a worker: it leaves Ctrl-C to its parent, and ends when that has died."""
    global _settings
    _settings = settings
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(i: int, card: Card) -> tuple[Path, list[str]]:
    root, run, data_root, device, parts = _settings
    harness = Harness(Store(root, run), data_root, device, progress=_sharing(parts, i))
    path = by_recipe(harness, card, by_command=True)
    parts[i] = 1.0
    return path, harness.notices
