"""Commands for a new model: write its card, list the profiles."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.cards import profiles
from robustness.cards.profiles import Shape
from robustness.errors import CardError
from robustness.util import project

if TYPE_CHECKING:
    from robustness.cards.from_options import CardOptions
    from robustness.workspace.workspace import Workspace

QUESTIONS = {
    "factory": "what returns the model, module:callable",
    "weights": "its weights file (empty for hf:, onnx:, torchscript: or torchexport:)",
    "dataset": "the images to test on, a file",
}


def draft(options: Namespace) -> CardOptions:
    """Return the model that the command's options describe."""
    from robustness.cards.from_options import CardOptions
    from robustness.workspace.context import data_root

    return CardOptions(
        Path.cwd(), options.factory, tuple(options.argument or ()), options.weights, options.dataset,
        name=options.name, data=data_root(options.data),
    )  # fmt: skip


def write_card(options: Namespace, workspace: Workspace) -> Iterator[str]:
    """Write a card from options, or from answers on a terminal; write nothing that would not load."""
    import tomlkit

    from robustness import cards
    from robustness.util.atomic_write import replace

    if sys.stdin is not None and sys.stdin.isatty():
        for name, question in QUESTIONS.items():
            if getattr(options, name) is None:
                setattr(options, name, input(f"{question}: ").strip() or None)
    card_draft = draft(options)
    path = Path.cwd() / (options.output or card_draft.path.name)
    if path.parent != card_draft.folder:
        raise CardError(
            f"`output` must name a file in this folder, because the card's paths are relative to it, got {path}"
        )
    if path.exists() and not options.force:
        raise CardError(f"{path} exists; choose another file with --output, or overwrite it with --force")
    card = card_draft.card()
    if options.images is not None:
        from robustness.cards.selection import limit_test_images

        card = limit_test_images(card, options.images)
    shape = workspace.images(card).shape
    table = card_draft.table() | {"sweeps": profiles.sweeps(options.profile, shape, project.profiles(card.project))}
    if options.images is not None:
        table["data"]["num_test_images"] = options.images
    written = cards.parse_card(table, path)  # with the project that it will have later
    text = tomlkit.dumps(table)
    if options.claims:
        text += "\n" + _claims(written, workspace)
    replace(path, text.encode())
    cards.load(path)
    yield f"wrote {path.name}: {len(written.file.sweeps)} sweeps of the profile {options.profile}"
    yield f"next: pytest --pyargs robustness.suites --robustness-card {path.name}"
    if not options.claims:
        yield (
            "the card has no claims yet: that run measures the model and prints suggested claims; the same command "
            "with --claims --force writes them into the card"
        )


def _claims(card: Any, workspace: Workspace) -> str:
    from robustness.doubts import card_doubts
    from robustness.reporting.advice import suggested_claims

    evidence = {sweep: workspace.evidence(card, sweep) for sweep in ("clean", *card.file.sweeps)}
    if not (text := suggested_claims(evidence)):
        raise CardError(
            f"{card.name}: no claim is possible: its clean accuracy is no better than guessing; `robustness check` "
            "says what to fix"
        )
    if doubted := card_doubts.unresolved_doubts(workspace, card):
        raise CardError(
            f"{card.name}: no claims are written, because its numbers are in doubt: {'; '.join(doubted)}; "
            "docs/doubts.md says what to try; without --claims the card is written without claims"
        )
    return text


def list_profiles(shape: Shape, folder: Path) -> Iterator[str]:
    """List the profiles, built-in and the project's, with their passes per image."""
    from tabulate import tabulate

    own = project.profiles(project.root_of(folder) or folder)
    rows = []
    for name in dict.fromkeys([*profiles.PROFILES, *own]):
        forward = backward = 0
        for i, (sweep, table) in enumerate(profiles.sweeps(name, shape, own).items()):
            passes = _passes(name, sweep, table)
            forward, backward = forward + passes["forward"], backward + passes["backward"]
            strengths = ", ".join(f"{s:g}" if isinstance(s, int | float) else str(s) for s in table["strengths"])
            rows.append([name if not i else "", sweep, strengths, passes["forward"], passes["backward"]])
        rows.append(["", "in all", "", forward, backward])
    yield tabulate(rows, ["profile", "sweep", "strengths", "forward", "backward"], disable_numparse=True)
    yield ""
    yield (
        f"For images of {shape[0]} x {shape[1]} x {shape[2]} (channels, height, width). Passes per image, without the "
        "shared clean pass and the doubts; an attack that stops at misclassified images takes fewer."
    )


def _passes(profile: str, sweep: str, table: dict[str, Any]) -> dict[str, int]:
    """Count the passes of a sweep per image, on a minimal model that is never misled."""
    import numpy as np
    import torch
    from pydantic import ValidationError
    from torch import nn

    from robustness.cards.schema import SweepTable
    from robustness.data import from_arrays
    from robustness.errors import RobustnessError
    from robustness.planning import costs
    from robustness.sweep.runner import run_sweep as run
    from robustness.util.validation_messages import format_problem

    try:
        sweep_table = SweepTable.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(format_problem(dict(e), table, SweepTable) for e in error.errors())
        raise CardError(f"profile {profile!r}: sweeps.{sweep}: {problems}") from error
    last = nn.Linear(64, 2)
    model = nn.Sequential(nn.Flatten(), last)
    with torch.no_grad():  # an attack that stops at misclassified images is counted with all its steps
        last.weight.mul_(0.01)
        last.bias.copy_(torch.tensor([1.0, 0.0]))
    images = from_arrays(np.full((4, 8, 8), 128, np.uint8), [0, 0, 0, 0], ("right", "wrong"))

    def swept(count: int, **settings: Any) -> None:
        run(
            model,
            images.select(range(count), "few"),
            sweep_table.perturbation,
            sweep_table.strengths,
            unit=sweep_table.unit,
            **settings,
        )

    try:
        passes = costs.passes_per_image({"forward": model}, swept)
    except (RobustnessError, ValueError) as error:
        raise CardError(f"profile {profile!r}: sweeps.{sweep}: its passes cannot be counted: {error}") from error
    return {"forward": passes["forward"], "backward": passes["backward"]}
