"""Scheduling for xdist: tests of one sweep run on one worker; a test whose worker died is not repeated."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadScopeScheduling

from robustness.cards.doubts import DOUBTS

if TYPE_CHECKING:
    import pytest
    from xdist.workermanage import WorkerController


class SweepScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """
    Tests of the same sweep run on one worker, and so do all doubts of a model, because they share one computation.
    Every other test is a scope of its own, as in xdist's default scheduling.

    ``sweeps`` maps the ids of the selected cards' claims to the sweep that they are claims on.
    """

    def __init__(self, config: pytest.Config, log: Any, sweeps: Mapping[str, str]) -> None:
        super().__init__(config, log)
        self._sweeps = sweeps

    def _split_scope(self, nodeid: str) -> str:
        claim = claim_in_nodeid(nodeid, self._sweeps)
        return doubt_group(nodeid) if claim is None else self._sweeps[claim]

    def _reschedule(self, node: WorkerController) -> None:
        """
        Assign tests to a worker until it has two, or tell it that there are no more.

        A worker starts a test only when it knows the next one. LoadScopeScheduling gives the replacement of a dead
        worker a single scope: if that has a single test, it and the controller wait for each other forever.
        """
        if node not in self.registered_collections:  # it gets work after it has reported its collection
            return
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """
        Return the test during which the node died, and queue the others again.

        LoadScopeScheduling queues that test too: it would be reported twice, and kill the next worker.
        """
        units = self.assigned_work[node]
        died_of: str | None = next((test for unit in units.values() for test, done in unit.items() if not done), None)
        if died_of is not None:
            next(unit for unit in units.values() if died_of in unit)[died_of] = True
        super().remove_node(node)
        return died_of


def nodeid_parameters(nodeid: str) -> str:
    """
    Return the parameters in the brackets of a test's id.

    >>> nodeid_parameters("suites[1]/test_noise.py::test_noise[mlp:normal:0.3:recall[3]]@sweep")
    'mlp:normal:0.3:recall[3]'
    """
    # Folders may have brackets too; what follows the last one is a mark of xdist's.
    return nodeid.partition("::")[2].partition("[")[2].rpartition("]")[0]


def doubt_group(nodeid: str) -> str:
    """
    Return the common part of the test ids of a model's doubts; for another test, its id.

    >>> doubt_group("suites/test_doubts.py::test_doubts[fast-mlp-zero gradients]")
    'suites/test_doubts.py::test_doubts[fast-mlp'
    >>> doubt_group("suites/test_properties.py::test_contracts[mlp]")
    'suites/test_properties.py::test_contracts[mlp]'
    """
    return next((nodeid.removesuffix(end) for doubt in DOUBTS if nodeid.endswith(end := f"-{doubt}]")), nodeid)


def claim_in_nodeid(nodeid: str, known: Collection[str]) -> str | None:
    """
    Return the known claim in a test id's brackets, alone or with other parameters; None if there is none.

    >>> claim_in_nodeid("suites/test_noise.py::test_noise[mlp:normal:0.3:recall[3]]", {"mlp:normal:0.3:recall[3]"})
    'mlp:normal:0.3:recall[3]'
    >>> claim_in_nodeid("test_mine.py::test_mine[fast-mlp:normal:0.3:accuracy-2]", {"mlp:normal:0.3:accuracy"})
    'mlp:normal:0.3:accuracy'
    """
    within = nodeid_parameters(nodeid)
    if within in known:
        return within
    if within.count(":") < 3:  # most tests of other suites: no need to look through all claims
        return None
    # pytest escapes what is not ASCII. Names may contain its separator, a hyphen: take the longest match.
    shown = {claim.encode("unicode_escape").decode(): claim for claim in known}
    return shown.get(max((name for name in shown if f"-{name}-" in f"-{within}-"), key=len, default=""))
