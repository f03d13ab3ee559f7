"""Training by a recipe: under a lock, resumable, with a fixed number of threads, stored by content."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from robustness.cards import Card
from robustness.classifiers import weights
from robustness.classifiers.build import build_untrained, import_callable, on_path, unwrap
from robustness.classifiers.file_reads import FileReads
from robustness.data.images import Images
from robustness.errors import RobustnessError, StoreError, TrainingError
from robustness.util import paths, rng_state
from robustness.workspace.store import Store

__all__ = ["Job", "Recipe", "train"]

DIGEST = 32
"""Bytes before a checkpoint: the sha256 of the rest."""


class Recipe(Protocol):
    """What a card's ``[recipe] callable`` must be: it trains a module on images and gives it back."""

    def __call__(self, module: nn.Module, images: Images, job: Job, **arguments: Any) -> nn.Module:
        """Train."""


@dataclass
class Job:
    """
    What a recipe is given: its seed, a place for checkpoints, and somebody who wants to know how far it is.

    ``needs`` are the trained modules of the cards that the recipe needs, by its names for them; ``log`` is the file
    that its rows go to; ``key`` says which recipe a checkpoint belongs to.
    """

    seed: int
    checkpoint: Path | None = None
    progress: Callable[[int, int], None] | None = None
    notices: list[str] = field(default_factory=list)
    store: Store | None = None
    resumed: bool = False
    device: str = "cpu"
    needs: Mapping[str, nn.Module] = field(default_factory=dict)
    log: Path | None = None
    key: str = ""
    reads: FileReads = field(default_factory=FileReads)
    """Hears which files the recipe reads."""

    def resume(self) -> dict[str, Any] | None:
        """
        Return what was last saved, if that can be read; a torn checkpoint is passed over and said.

        The random state is then that of the moment of saving, as if nothing had come between.
        """
        if self.checkpoint is None or not self.checkpoint.is_file():
            return None
        try:
            content = paths.read_bytes(self.checkpoint, follow=False)
            due, content = content[:DIGEST], content[DIGEST:]  # torch does not look at the sums in its own files
            if hashlib.sha256(content).digest() != due:
                raise ValueError("its checksum does not fit its content")
            saved = torch.load(io.BytesIO(content), weights_only=True)
            state, key = dict(saved["state"]), saved.get("key", "")
            if key != self.key:
                raise ValueError(f"it is of another recipe, {key[:12] or 'unnamed'}")
            rng_state.restore(saved["randomness"])
        except Exception as error:  # torn, or foreign: the parsers raise many kinds
            why = str(error) if type(error) is ValueError else type(error).__name__
            self._notice(f"{self.checkpoint} cannot be read ({why}); trained from the start")
            return None
        self.resumed = True
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a checkpoint; where the disk does not take it the training goes on without."""
        if self.checkpoint is None or self.store is None:
            return
        buffer = io.BytesIO()
        torch.save({"state": dict(state), "randomness": rng_state.state(), "key": self.key}, buffer)
        try:
            content = buffer.getvalue()
            self.store.write(self.checkpoint, hashlib.sha256(content).digest() + content)
        except StoreError as error:
            self._notice(f"training goes on without a checkpoint: {error}")

    def write_log(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write all rows so far, of one training, as a table (CSV): a resumed training repeats none."""
        if self.log is None or self.store is None or not rows:
            return
        text = io.StringIO()
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        try:
            self.store.write(self.log, text.getvalue().encode())
        except StoreError as error:
            self._notice(f"training goes on without a log: {error}")

    def _notice(self, message: str) -> None:
        if message not in self.notices:
            self.notices.append(message)

    def report(self, done: int, total: int) -> None:
        """Say how far the training is."""
        if self.progress:
            self.progress(done, total)


def train(card: Card, images: Images, job: Job, about: Mapping[str, str]) -> bytes:
    """
    Call the card's recipe and give the weights as a safetensors file.

    The same seed gives the same weights on the same machine: threads are fixed for the call, and the
    process's own random state is neither used nor changed.
    """
    recipe = card.file.recipe
    if recipe is None:
        raise TrainingError(f"{card.path}: the card names no [recipe]")
    with on_path(card.project), job.reads.recording():
        call: Recipe = import_callable(card, recipe.callable)
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    started = time.perf_counter()
    try:
        with rng_state.isolated_rng(job.seed), job.reads.recording():
            module = call(build_untrained(card, images.classes), images, job, **recipe.arguments)
    except RobustnessError:
        raise
    except Exception as error:  # somebody's training code, which may raise anything
        raise TrainingError(
            f"{card.name}: the recipe {recipe.callable} raised {type(error).__name__}: {error}"
        ) from error
    finally:
        torch.set_num_threads(threads)
    if not isinstance(module, nn.Module):
        raise TrainingError(
            f"{card.name}: {recipe.callable} must return the trained module, got {type(module).__name__}"
        )
    state = unwrap(module).state_dict()
    if bad := [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise TrainingError(f"{card.name}: training gave non-finite weights in {', '.join(bad[:5])}")
    # Of one that was interrupted only the rest is known.
    seconds = {} if job.resumed else {"seconds": f"{time.perf_counter() - started:.1f}"}
    heard = job.reads.digests()
    return weights.to_bytes(state, {**about, **seconds, **({"reads": json.dumps(heard)} if heard else {})})
