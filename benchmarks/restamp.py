"""
Shipped weights get the hash of their recipe as it is now, where the code of trainings changed and the weights did not.

    python -m benchmarks.restamp REVISION [MODEL ...] [--epochs 1]

Each model is trained here twice, by the code of REVISION and by that of HEAD, for so many epochs. Where the weights
are the same to the bit, and the shipped ones are those of REVISION's recipe, the shipped file and the card's thresholds
get the hash of HEAD's recipe; the tensors stay. All else is left as it is, and the script ends with 1. The shipped
weights themselves may come from another processor, whose last bits differ: they are not what is compared.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from robustness import cards
from robustness.cards import Card, edit
from robustness.classifiers import weights
from robustness.thresholds.update import CardUpdate
from robustness.util import atomic_write, output
from robustness.workspace.context import data_root
from robustness.workspace.models import recipe_hash
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

ROOT = Path(__file__).parents[1]
OLDER = """
import tempfile
from pathlib import Path
from robustness import cards
from robustness.workspace.context import data_root
from robustness.workspace.workspace import Workspace
from robustness.workspace.store import Store
from robustness.workspace.models import is_stale
with tempfile.TemporaryDirectory() as folder:
    workspace = Workspace(Store(Path(folder)), data_root(None), "cpu")
    every = [cards.load(path) for path in Path("models").glob("*.toml")]
    print(*(card.name for card in every if card.weights and card.weights.is_file() and is_stale(workspace, card)))
"""


def exported(revision: str, folder: Path) -> Path:
    """Write a revision's files to a folder."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
    return folder


def shorten(tree: Path, epochs: int) -> None:
    """Let all cards of a tree be trained for so many epochs."""
    for path in (tree / "models").rglob("*.toml"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\bepochs = \d+", f"epochs = {epochs}", text), encoding="utf-8")


def run(tree: Path, *arguments: str) -> str:
    """Run Python on a tree's own code; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arguments} failed in {tree}:\n{done.stdout}{done.stderr}")
    return done.stdout


def trained(tree: Path, name: str) -> str:
    """Train a model by the code of a tree; return the checksum of its weights."""
    said = run(tree, "-m", "robustness.cli.main", "--store", str(tree / "store"), "train", name, "--workers", "1")
    found = re.search(rf"^{re.escape(name)} \(seed .+\): (.+)$", said, re.MULTILINE)
    assert found is not None, said
    return weights.metadata(Path(found[1]))["checksum"]


def stamp(workspace: Workspace, card: Card) -> None:
    """Write the hash of a card's recipe into its weights and its thresholds."""
    assert card.weights is not None
    recipe = recipe_hash(workspace, card)
    about = {**weights.metadata(card.weights), "recipe": recipe}
    atomic_write.replace(card.weights, weights.to_bytes(weights.read(card.weights), about))
    if said := card.file.thresholds:
        updated = {**said, "recipe": recipe}
        if "tested" in said:
            updated["tested"] = CardUpdate(workspace, card).tested
        edit.write_claims(card, {}, updated)


def main() -> int:
    """Train, compare and stamp."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", metavar="REVISION", help="of the code that the shipped weights were trained by")
    parser.add_argument("models", metavar="MODEL", nargs="*", help="default: all that ship with weights")
    parser.add_argument("--epochs", type=int, default=1, help="of each training (default: 1)")
    options = parser.parse_args()
    every = [cards.load(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    due = [
        card for card in every
        if card.file.recipe and card.weights and card.weights.is_file()
        and (not options.models or card.name in options.models)
    ]  # fmt: skip
    refused = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workspace = Workspace(Store(folder / "store"), data_root(None), "cpu")
        before, after = (exported(name, folder / name) for name in (options.revision, "HEAD"))
        older = run(before, "-c", OLDER).split()
        for tree in (before, after):
            shorten(tree, options.epochs)
        for card in due:
            if card.name in older:
                said = f"its weights are not those of {options.revision}'s recipe: not stamped"
            elif trained(before, card.name) != trained(after, card.name):
                said = "other weights: not stamped"
            else:
                stamp(workspace, card)
                said = "the same to the bit: stamped"
            refused += "not stamped" in said
            print(f"{card.name}: {said}", flush=True)
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(output.run(main))
