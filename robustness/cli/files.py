"""Commands for the store and for data."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from robustness.cli import common
from robustness.errors import RobustnessError


def mnist(options: Namespace) -> int:
    """Download MNIST to the data root."""
    from robustness.data import mnist
    from robustness.workspace.context import data_root

    mnist.download(options.root or data_root(options.data), print)
    return 0


def listed(options: Namespace) -> int:
    """List the evidence of the store."""
    from robustness.cards import selection
    from robustness.cli import listing

    projects = listing.projects(selection.card_files(common.card_folders(options)))
    return common.print_lines(listing.entry_list(common.store_of(options), projects, Path.cwd()))


def show(options: Namespace) -> int:
    """Show everything about one entry."""
    from robustness.cli import inventory, listing

    return common.print_lines(listing.described(inventory.find(common.store_of(options), options.key)))


def prune(options: Namespace) -> int:
    """Remove evidence, and leftovers of killed processes."""
    from robustness.cli import inventory, listing
    from robustness.workspace.context import data_root

    if not (options.broken or options.all or options.older_than is not None):
        raise RobustnessError(
            "evidence prune needs an option that selects entries: --broken, --older-than DAYS or --all"
        )
    store = common.store_of(options)
    chosen = inventory.to_prune(store, broken=options.broken, older_than=options.older_than, every=options.all)
    litter = inventory.litter(store, data_root(options.data)) if options.broken or options.all else []
    return common.print_lines(listing.prune_summary(store, chosen, litter, only_say=options.dry_run))
