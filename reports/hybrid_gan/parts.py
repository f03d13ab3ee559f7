"""The parts of hybrid-gan's result, a file each: the targets, each pair of twins, each detector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reports import commands, folds
from reports.hybrid_gan import building, data, protocol
from reports.hybrid_gan.built import ANOTHER, EPSILON, Begun
from reports.hybrid_gan.protocol import CLASSIFIERS
from robustness.util.source_files import sha256_file
from robustness.workspace.workspace import Workspace

TARGETS = "targets"


def parts(source: str) -> dict[str, list[str]]:
    """
    Return the parts in the order in which they are made, and the networks of each.

    A network that saw the hybrid set and its twin are compared image by image, so they are in one part.

    >>> list(parts("cifar10"))[:2], parts("cifar10")["vgg19_bn"]
    (['targets', 'vgg19_bn'], ['cifar10-classify-vgg19_bn', 'cifar10-clean-vgg19_bn'])
    """
    return {
        TARGETS: [f"{source}-target-{name}" for name in protocol.TARGETS],
        **{name: [f"{source}-classify-{name}", f"{source}-clean-{name}"] for name in CLASSIFIERS},
        **{f"detect-{name}": [f"{source}-detect-{name}"] for name in CLASSIFIERS},
    }


def made_of(begun: Begun, harness: Workspace) -> str:
    """
    Hash everything that the numbers of every part depend on, without training anything.

    The hybrid set is not there yet: it follows from the targets, its source images and the code that builds it. So
    every network is taken as if it were trained on what the targets are trained on.
    """
    source, scale = begun.source, begun.scale
    targets = protocol.targets(source, scale, data.TARGETS)
    trained = protocol.trained(source, scale, data.HYBRID, data.REAL)
    there = {"name": "array", "file": data.TARGETS}
    tables = {name: {**table, "data": there} for name, table in {**targets, **trained}.items()}
    cards = commands.loaded(tables, begun.folder / "as-if")
    judged = dict(protocol.attacked(trained, source, data.HYBRID, data.REAL, scale))
    return building.digest(
        folds.made_of(begun.harness(harness), cards),
        {**protocol.undefended(targets, scale), **judged},
        [begun.hidden(part).fingerprint for part in begun.found],
        [sha256_file(Path(str(module.__file__))) for module in (building, data)],
        [EPSILON, ANOTHER],
    )


def groups(trainings: Mapping[str, Sequence[str]], workers: int) -> Iterator[list[str]]:
    """
    Return parts to train together: as few as leave no worker idle, for each is kept when its group is trained.

    >>> list(groups({"a": [], "b": ["1", "2"], "c": ["3"], "d": ["4"], "e": ["5"]}, 2))
    [['a'], ['b'], ['c', 'd'], ['e']]
    """
    group: list[str] = []
    for part in trainings:
        group.append(part)
        if sum(len(trainings[name]) for name in group) % workers == 0:
            yield group
            group = []
    if group:
        yield group
