"""Commands for results: reports, baselines, mutation testing, checks of card files."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from robustness.cli import common
from robustness.errors import RobustnessError
from robustness.util import atomic_write

if TYPE_CHECKING:
    from robustness.cards import Card


def report(options: Namespace) -> int:
    """Write the report of finished runs."""
    from robustness.reporting.html import rebuild

    workspace = common.open_workspace(options)
    written = rebuild.rebuild(options.runs, options.output, workspace, common.card_folders(options))
    common.print_notices(workspace)
    return common.print_lines(f"report: {path}" for path in written)


def merge(options: Namespace) -> int:
    """Merge the reports of all shards."""
    from robustness.cli import report as merging

    lines, code = merging.merged(options.runs, options.output)
    common.print_lines(lines)
    return code


def verify(options: Namespace) -> int:
    """Judge the verdict of a statement again."""
    from pathlib import Path

    from robustness.cli import verify

    workspace = common.open_workspace(options)
    lines, code = verify.verify(options.statement, workspace, Path.cwd())
    common.print_lines(lines)
    common.print_notices(workspace)
    return code


def check_cards(options: Namespace) -> int:
    """Check cards without running anything."""
    from robustness.cli import card_files

    problems = [problem for path in options.files for problem in card_files.problems(path)]
    common.print_lines(problems)
    return common.RED if problems else 0


def migrate(options: Namespace) -> int:
    """Rewrite cards and baselines whose names have changed; what goes wrong with one does not stop the others."""
    from robustness.cli import migration

    code = 0
    for path in migration.files(options):
        try:
            common.print_lines(migration.migrated(path))
        except RobustnessError as error:
            common.say(str(error))
            code = common.ERROR
    return code


def accept(options: Namespace) -> int:
    """Accept runs or retrainings as a model's baseline."""
    from robustness.gate import accept
    from robustness.workspace.workspace import fresh_workspace

    if bool(options.runs) == bool(options.seeds):
        raise RobustnessError("baseline accept needs either reports of runs (RUN.json) or --seeds")
    if options.runs and options.to:
        store = common.store_of(options)
        accepted = [accept.accepted_from_report(path, options.model, store) for path in options.runs]
        return common.print_lines(accept.accept(options.to, options.model, accepted, store))
    options.models = [options.model]
    workspace, card = common.open_workspace(options), common.selected_cards(options)[0]
    if not options.to:
        card.check_written(card.baseline)
    if options.runs:
        accepted = [accept.accepted_from_report(path, card.name, workspace.store) for path in options.runs]
    else:
        accept.train(card, options.seeds, workspace, options.workers)
        accepted = [accept.accepted_from_seed(fresh_workspace(workspace), card, seed) for seed in options.seeds]
    return common.print_lines(accept.accept(options.to or card.baseline, card.name, accepted, workspace.store, card))


def compare(options: Namespace) -> int:
    """Compare two runs, or a run with its baseline; red if anything is worse."""
    from robustness.cli import compare as command

    return command.compare(options)


def mutate(options: Namespace) -> int:
    """Damage models on purpose, and show what their claims and gates detect."""
    from robustness.gate.mutation import page, results, run
    from robustness.gate.mutation.plan import MutationOptions

    for path in options.output or ():
        page.check(path)
    kinds = [name for name, _ in options.damage or ()]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise RobustnessError(f"--damage {twice[0]} may be given once; write several levels as {twice[0]}=LEVEL,LEVEL")
    settings = MutationOptions(
        dict(options.damage) if options.damage else None, options.retrainings, options.all_levels, options.workers
    )
    workspace, rows = common.open_workspace(options), []

    def one(card: Card) -> int:
        rows.append(run.run_mutations(workspace, card, settings))
        common.print_lines(page.lines(rows[-1]))
        if options.keep:
            atomic_write.replace(results.place(card), results.text(rows[-1]).encode())
            print(f"kept: {results.place(card)}")
        return 0

    code = common.for_each_card(options, workspace, one)
    for path in options.output or ():
        if code:
            raise RobustnessError(f"{path} was not written, because some requested results are missing")
        page.write(path, rows)
        print(f"written: {path}")
    return code
