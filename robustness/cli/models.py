"""Commands for the selected models: sweep, plan, train, update thresholds, transfer, check."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from robustness.cli import common
from robustness.errors import RobustnessError
from robustness.util import atomic_write

if TYPE_CHECKING:
    from robustness.cards import Card


def run(options: Namespace) -> int:
    """Run the suites; pytest ends the process."""
    from robustness.cli import run

    run.start(options)


def sweep(options: Namespace) -> int:
    """Fill the store with the evidence of all sweeps."""
    from robustness.cli import listing

    workspace = common.open_workspace(options)
    if options.engine is not None:
        from robustness import engines

        wanted = [(card, sweep) for card in common.selected_cards(options) for sweep in ("clean", *card.file.sweeps)]
        engines.fill(workspace, engines.parse(options.engine), wanted, options.device)

    def one(card: Card) -> int:
        errors = 0
        for sweep in ("clean", *card.file.sweeps):
            evidence = workspace.evidence(card, sweep)
            errors += len(listing.errors(evidence))
            common.print_lines(listing.sweep_summary(f"{card.name}:{sweep}", evidence, workspace.store.run))
        return common.RED if errors else 0

    code = common.for_each_card(options, workspace, one)
    same = f" --robustness-store {options.store}" if options.store else ""
    print(f"evidence is stored in {workspace.store.root}; next: pytest suites/{same}, which checks the claims")
    return code


def plan(options: Namespace) -> int:
    """Print the cost of sweeps."""
    from robustness import engines
    from robustness.cli.plan import plan_lines

    engine = engines.parse(options.engine or "local")
    if options.workers is not None:
        engine = replace(engine, workers=options.workers)
    workspace = common.open_workspace(options)
    lines, wrong = plan_lines(workspace, common.selected_cards(options), engine)
    common.print_lines(lines)
    common.print_notices(workspace)
    for message in wrong:
        common.say(message)
    return common.ERROR if wrong else 0


def train(options: Namespace) -> int:
    """Train models by their recipes into the store."""
    from robustness.util.progress import progress_bar
    from robustness.workspace.training import train_many

    workspace = common.open_workspace(options)
    if options.output and (len(options.seeds or "1") > 1 or len(common.selected_cards(options)) > 1):
        raise RobustnessError(f"--output {options.output} takes one model and one seed; leave it out for several")

    def one(card: Card) -> int:
        every = [card.reseeded(seed) for seed in options.seeds or ()] if card.file.recipe else []
        root, what = workspace.store.root, f"training {card.name}"
        paths = train_many(
            every or [card], root, workspace.data_root, options.workers,
            say=common.say, progress=progress_bar, what=what, device=workspace.device,
        )  # fmt: skip
        for path, seed in zip(paths, options.seeds or ["its own"], strict=True):
            print(f"{card.name} (seed {seed}): {path}")
        if options.output:
            atomic_write.replace(options.output, paths[0].read_bytes())
            print(f"written: {options.output}")
        elif card.weights is not None:
            print(
                f"{card.name} is tested with {card.weights}, which is unchanged; update it: "
                f"robustness update-thresholds {card.name}"
            )
        return 0

    return common.for_each_card(options, workspace, one)


def update_thresholds(options: Namespace) -> int:
    """Update weights and thresholds that no longer match the recipe."""
    from robustness.thresholds.update import CardUpdate

    workspace = common.open_workspace(options)

    def one(card: Card) -> int:
        updated = CardUpdate(workspace, card, options.seeds, options.fresh, options.workers, options.force).run()
        for sentence in updated.done or [
            "nothing to do: weights and thresholds match the recipe (--force updates them)"
        ]:
            print(f"{card.name}: {sentence}")
        for verdict in updated.broken:
            print(f"  {verdict.message}")
        if updated.broken:
            print(
                f"{card.name}: its own weights break {len(updated.broken)} of {len(updated.verdicts)} claims, so the "
                "suites will fail: use another seed in its [recipe], or find out what is wrong with this training"
            )
        elif updated.verdicts:
            print(f"{card.name}: its own weights meet all {len(updated.verdicts)} claims; next: pytest suites/")
        return common.RED if updated.broken else 0

    return common.for_each_card(options, workspace, one)


def transfer(options: Namespace) -> int:
    """Attack each model with examples computed on every other."""
    from robustness.reporting import transfer_matrix as transfer

    workspace = common.open_workspace(options)
    crossed = transfer.matrix(workspace, common.selected_cards(options), options.sweep)
    common.print_lines(transfer.described(crossed, options.sweep))
    common.print_notices(workspace)
    return common.RED if transfer.has_errors(crossed) else 0


def corruption_error(options: Namespace) -> int:
    """Compare models with a reference under common corruptions."""
    from robustness.reporting import corruption_errors

    workspace = common.open_workspace(options)
    (reference,) = common.selected_cards(Namespace(**{**vars(options), "models": [options.reference]}))
    return common.for_each_card(
        options, workspace, lambda card: common.print_lines(corruption_errors.table(workspace, card, reference))
    )


def show_flip(options: Namespace) -> int:
    """Show one image before and after a perturbation from a search."""
    from robustness.search import descriptions, search

    workspace = common.open_workspace(options)

    def one(card: Card) -> int:
        images, table = workspace.images(card), card.file.search
        budget = table.budget if table else None
        if not options.row < len(images):
            raise RobustnessError(f"`row` must be one of the {len(images)} test images, got {options.row}")
        try:
            before, after = search.predict_pair(
                workspace.classifier(card).module,
                images,
                options.row,
                options.description,
                budget,
                card.file.model.decision,
            )
        except ValueError as error:
            raise RobustnessError(f"`description` must be copied from a search's message: {error}") from error
        names = images.classes
        label = names[images.labels[options.row]]
        print(
            f"{card.name}: image {options.row} of {images.name} ({label}) is {names[before]}, and {names[after]} under "
            f"{descriptions.parse_description(options.description)}"
        )
        return 0

    return common.for_each_card(options, workspace, one)


def init(options: Namespace) -> int:
    """Write a card."""
    from robustness.cli import start

    return common.print_lines(start.write_card(options, common.open_workspace(options)))


def check(options: Namespace) -> int:
    """Inspect models, and report what to fix."""
    from robustness.cli import check as checking
    from robustness.cli import start

    workspace, code = common.open_workspace(options), 0
    if options.factory or options.dataset:
        chosen = [start.draft(options).card()]
    else:
        files = [name for name in options.models if name.endswith(".toml")]
        options.card = (options.card or []) + files or None
        options.models = [name for name in options.models if name not in files]
        chosen = common.selected_cards(options)
    for card in chosen:
        lines, fine = checking.check_model(workspace, card, options.margin, options.images)
        common.print_lines(lines)
        code = max(code, 0 if fine else common.RED)
        common.print_notices(workspace)
    return code


def profiles(options: Namespace) -> int:
    """List the profiles of sweeps."""
    from robustness.cli import start

    return common.print_lines(start.list_profiles(options.shape, Path.cwd()))
