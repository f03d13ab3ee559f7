"""What the commands do with the store and with data."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from robustness.commands import given
from robustness.errors import RobustnessError


def mnist(options: Namespace) -> int:
    """Bring MNIST to the data root."""
    from robustness.datasets import mnist
    from robustness.harness import data_root

    mnist.download(options.root or data_root(options.data), print)
    return 0


def crops(options: Namespace) -> int:
    """Write crops as an array file."""
    from robustness.datasets import crops

    crops.write(options.source, options.target, options.size, options.subjects, print)
    return 0


def listed(options: Namespace) -> int:
    """List the evidence of the store."""
    from robustness import selection
    from robustness.commands import listing

    projects = listing.projects(selection.card_files(given.card_folders(options)))
    return given.printed(listing.listed(given.store_of(options), projects, Path.cwd()))


def show(options: Namespace) -> int:
    """Show everything about one entry."""
    from robustness.commands import inventory, listing

    return given.printed(listing.described(inventory.find(given.store_of(options), options.key)))


def prune(options: Namespace) -> int:
    """Remove evidence, and what killed processes left."""
    from robustness.commands import inventory, listing
    from robustness.harness import data_root

    if not (options.broken or options.all or options.older_than is not None):
        raise RobustnessError("evidence prune must be told what to remove: --broken, --older-than DAYS or --all")
    store = given.store_of(options)
    chosen = inventory.to_prune(store, broken=options.broken, older_than=options.older_than, every=options.all)
    litter = inventory.litter(store, data_root(options.data)) if options.broken or options.all else []
    return given.printed(listing.pruned(store, chosen, litter, only_say=options.dry_run))


def export(options: Namespace) -> int:
    """Write what a store holds as one file."""
    from robustness import archives

    store = given.store_of(options)
    told = archives.export(store, options.file, options.model or ())
    for said in told.left:
        given.say(f"left out: {said}")
    return given.printed([f"exported {told} from {store.root}, to {options.file} ({_size(options.file)})"])


def bring(options: Namespace) -> int:
    """Put what such a file holds into the store."""
    from robustness import archives

    told = archives.bring(given.store_of(options), options.file)
    for said in told.left:
        given.say(said)
    return given.printed([f"imported {told} into {given.store_of(options).root}; {told.there} were there already"])


def _size(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes"
