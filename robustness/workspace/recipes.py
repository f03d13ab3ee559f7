"""Training by a recipe: resumable, and with fixed random state and threads."""

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
"""Bytes of the SHA-256 at the start of a checkpoint."""


class Recipe(Protocol):
    """The type of a card's ``[recipe] callable``: it trains a module on images and returns it."""

    def __call__(self, module: nn.Module, images: Images, job: Job, **arguments: Any) -> nn.Module:
        """Train the module."""


@dataclass
class Job:
    """
    The settings of a training, and its connection to the outside: checkpoints, progress, log.

    Attributes:
        seed: The seed of the training.
        checkpoint: The file of the checkpoint; None for a training that cannot be resumed.
        progress: Called with the steps that are done, and all.
        notices: Sentences for the end of the run's report.
        store: The store that checkpoints and logs are written to.
        resumed: Whether the training continued from a checkpoint.
        device: The device to train on, as torch names it.
        needs: The trained modules of the cards that the recipe needs, by its names for them.
        log: The file of the training's log.
        key: The key of the recipe, which a checkpoint must have.
        reads: Records which files the recipe reads.
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

    def resume(self) -> dict[str, Any] | None:
        """
        Return the state of the last checkpoint, and restore the random state of that moment.

        None if there is no checkpoint, or, with a notice, if it cannot be trusted.
        """
        if self.checkpoint is None or not self.checkpoint.is_file():
            return None
        try:
            content = paths.read_bytes(self.checkpoint, follow=False)
            expected, content = content[:DIGEST], content[DIGEST:]  # torch does not verify checksums of its own files
            if hashlib.sha256(content).digest() != expected:
                raise ValueError("its checksum does not fit its content")
            saved = torch.load(io.BytesIO(content), weights_only=True)
            state, key = dict(saved["state"]), saved.get("key", "")
            if key != self.key:
                raise ValueError(f"it is of another recipe, {key[:12] or 'unnamed'}")
            rng_state.restore(saved["randomness"])
        except Exception as error:  # a torn or foreign file can make the parsers raise anything
            why = str(error) if type(error) is ValueError else type(error).__name__
            self._notice(f"{self.checkpoint} cannot be read ({why}); trained from the start")
            return None
        self.resumed = True
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint; if that fails, the training continues without one."""
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
        """Write all rows of the training so far as CSV, so that a resumed training repeats none."""
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
        """Report the progress of the training."""
        if self.progress:
            self.progress(done, total)


def train(card: Card, images: Images, job: Job, metadata: Mapping[str, str]) -> bytes:
    """
    Call a card's recipe and return the trained weights as a safetensors file.

    The same seed gives the same weights on the same machine: the call has a fixed number of threads, and neither uses
    nor changes the process's random state.

    Args:
        card: The card; it has a recipe.
        images: The images to train on.
        job: The settings of the training, which the recipe gets.
        metadata: Metadata for the file.

    Raises:
        TrainingError: If the recipe raises, or returns no module or non-finite weights.
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
    except Exception as error:  # the user's training code can raise anything
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
    # Of a resumed training, only the time of the last part is known.
    seconds = {} if job.resumed else {"seconds": f"{time.perf_counter() - started:.1f}"}
    reads = job.reads.digests()
    return weights.to_bytes(state, {**metadata, **seconds, **({"reads": json.dumps(reads)} if reads else {})})
