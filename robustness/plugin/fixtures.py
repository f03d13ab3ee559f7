"""The fixtures `card`, `classifier`, `sweep`, `claim` and `measured`, and the tests that they parametrize."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from robustness.errors import printable
from robustness.plugin.config import is_worker, run_state

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card, Claim
    from robustness.claims import Verdict
    from robustness.metrics.evidence import Evidence
    from robustness.plugin.measured import UnclaimedSweep
    from robustness.plugin.state import RunState

T = TypeVar("T")

SAID = pytest.StashKey[bool]()
"""Whether the project's error was already reported."""

TAKEN = ("claim", "measured", "gate", "card")
"""Fixtures that parametrize a test: one test per claim, sweep, gate or card; earlier ones imply later ones."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Create one test per claim (or card, gate, or sweep without claims) of the selected cards."""
    wanted = next((name for name in TAKEN if _is_ours(metafunc.definition, name)), None)
    if wanted is None:
        return
    from robustness.errors import RobustnessError

    try:
        session = run_state(metafunc.config)
    except pytest.UsageError as error:  # quiet runs have no header that reports it
        first, metafunc.config.stash[SAID] = SAID not in metafunc.config.stash, True
        if first and not is_worker(metafunc.config):
            raise _red(error) from None
        metafunc.parametrize(wanted, [], indirect=True)
        return
    session.requested.add(wanted)
    try:
        cards, every, sweeps = session.cards, session.claims, session.measurable
    except RobustnessError as error:
        first, session.unreadable = not session.unreadable, str(error)
        if first and not is_worker(metafunc.config):  # reported once, not per module or worker
            raise _red(error) from None
        cards, every, sweeps = [], {}, {}
    if wanted == "claim":
        claims = [claim for claim in every.values() if _holds(metafunc.definition, claim)]
        metafunc.parametrize("claim", claims, ids=[claim.id for claim in claims], indirect=True)
    elif wanted == "measured":
        metafunc.parametrize("measured", list(sweeps.values()), ids=list(sweeps), indirect=True)
    elif wanted == "gate":
        from robustness.plugin.state import gate_id

        gated = [card for card in cards if card.file.gate is not None]
        metafunc.parametrize("gate", gated, ids=[gate_id(card) for card in gated], indirect=True)
    else:
        metafunc.parametrize("card", cards, ids=[card.name for card in cards], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the suites for which no selected card has claims, instead of skipping each."""
    empty = [item for item in items if _is_empty(item)]
    if empty and len(empty) < len(items):  # if nothing else ran, the skip says why
        items[:] = [item for item in items if item not in empty]
        config.hook.pytest_deselected(items=empty)


def _is_empty(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    return item.name.endswith("[NOTSET]") and any(name in params and _is_ours(item, name) for name in TAKEN)


def _is_ours(definition: Any, name: str) -> bool:
    """Return whether a test uses our fixture: another fixture or argument may have its name."""
    for fixture in reversed(definition._fixtureinfo.name2fixturedefs.get(name, ())):
        if getattr(fixture.func, "__module__", None) == __name__:
            return True
        if name not in fixture.argnames:  # a test that requests it extends it
            return False
    return False


def _holds(definition: pytest.Item, claim: Claim) -> bool:
    known = vars(claim)
    for mark in definition.iter_markers("claims"):
        if other := [*map(repr, mark.args), *(key for key in mark.kwargs if key not in known)]:
            raise pytest.fail.Exception(
                f"{definition.nodeid}: the marker `claims` takes {', '.join(f'{key}=...' for key in known)}; "
                f"got {', '.join(other)}",
                pytrace=False,
            )
        if any(known[key] != value for key, value in mark.kwargs.items()):
            return False
    return True


def _red(error: Exception) -> BaseException:
    """Return an exception that fails a test (or a module) with only the message of an expected error."""
    return pytest.fail.Exception(printable(str(error)), pytrace=False)


@pytest.fixture
def card(request: pytest.FixtureRequest) -> Card:
    """A selected model's card; with `claim`, `measured` or `gate`, the card to which it belongs."""
    if hasattr(request, "param"):
        request.node.user_properties.append(("card", request.param.name))
        return request.param  # type: ignore[no-any-return]
    for name in ("measured", "gate"):
        if name in request.fixturenames:
            return request.getfixturevalue(name).card  # type: ignore[no-any-return]
    return request.getfixturevalue("claim").card  # type: ignore[no-any-return]


@pytest.fixture
def classifier(request: pytest.FixtureRequest, card: Card) -> nn.Module:
    """The card's module with its weights, in evaluation mode; loaded once per process, not shared with sweeps."""
    return _skip_or_fail(request.config, lambda: run_state(request.config).classifier(card))


@pytest.fixture
def sweep(request: pytest.FixtureRequest, card: Card) -> Callable[..., Evidence]:
    """Return the evidence of one of the card's sweeps by its name, of "clean", or of a table as in a card."""
    workspace = run_state(request.config).workspace
    claimed = request.getfixturevalue("claim").sweep if "claim" in request.fixturenames else None

    def evidence(name: str | Mapping[str, Any] = "clean") -> Evidence:
        if name == claimed is not None:
            from robustness import claims

            return _skip_or_fail(request.config, lambda: workspace.evidence_for_claims(card, claimed, claims.decide))
        if isinstance(name, str):
            return _skip_or_fail(request.config, lambda: workspace.evidence(card, name))
        return _skip_or_fail(request.config, lambda: workspace.evidence(card.with_sweep("own", name), "own"))

    return evidence


@pytest.fixture
def findings(request: pytest.FixtureRequest, card: Card) -> Callable[..., dict[str, Any]]:
    """
    Return a cached result on the card's model: `findings(what, parameters, make)`, from the store or computed now.

    ``parameters`` returns what the result depends on besides the model and its images; ``sweeps`` names the card's
    sweeps that it uses (default: all). See `robustness.workspace.cached_results`.
    """
    from robustness.workspace import cached_results as kept

    workspace = run_state(request.config).workspace

    def found(
        what: str,
        parameters: Callable[[], Any],
        make: Callable[..., dict[str, Any]],
        sweeps: Collection[str] | None = None,
    ) -> dict[str, Any]:
        return _skip_or_fail(
            request.config, lambda: kept.cached_document(workspace, card, what, parameters(), make, sweeps)
        )

    return found


@pytest.fixture
def claim(request: pytest.FixtureRequest) -> ClaimCheck:
    """One claim of a selected card; `claim.check(evidence)` checks it."""
    return ClaimCheck(request.node, run_state(request.config), request.param)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> UnclaimedSweepCheck:
    """One sweep without claims; `measured.check(evidence)` checks that it has numbers."""
    return UnclaimedSweepCheck(request.node, run_state(request.config), request.param)


class UnclaimedSweepCheck:
    """A sweep under test: its `card`, the name of its `sweep`, and `check`."""

    def __init__(self, node: pytest.Item, session: RunState, measurable: UnclaimedSweep) -> None:
        self._node = node
        self.card, self.sweep = session.card(measurable.model), measurable.sweep

    def check(self, evidence: Evidence) -> None:
        """Record where the evidence is stored, and fail if a strength has no numbers."""
        from robustness.reporting.advice import failed_cells

        failed = failed_cells(evidence)
        about = {"model": self.card.name, "sweep": self.sweep, "evidence": evidence.provenance.get("key", "")}
        self._node.user_properties += (about | {"outcome": "error" if failed else "measured"}).items()
        if failed:
            pytest.fail(f"{self.card.name} under {self.sweep} has no numbers " + "; ".join(failed), pytrace=False)


class ClaimCheck:
    """A claim under test: its `card`, `sweep`, `strength`, `metric`, `threshold`, and `check`."""

    def __init__(self, node: pytest.Item, session: RunState, claim: Claim) -> None:
        self._node = node
        self._session = session
        self._claim = claim
        self.card = session.card(claim.model)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._claim, name)

    def check(self, evidence: Evidence) -> None:
        """Judge the claim, record the numbers on the test, and fail with a message if it does not pass."""
        from robustness import claims

        self._refuse_other(evidence)
        verdict = claims.judge(self._claim, evidence)
        properties = claims.properties(verdict, evidence)
        waiver = self.card.waiver(self._claim) if verdict.outcome == "failed" else None
        if waiver is not None:
            properties |= {"outcome": "waived", "message": f"{verdict.message}; {waiver}"}
        self._node.user_properties += properties.items()
        if waiver is not None:
            pytest.xfail(properties["message"])
        if not verdict.passed:
            pytest.fail(printable(self._short(verdict)), pytrace=False)

    def _short(self, verdict: Verdict) -> str:
        """Return the message; of a claim that fails with another one, which has its own, only that claim's name."""
        cause, explained = verdict.prerequisite, self._session.explained
        if not cause:
            return verdict.message
        if cause in {claim.id for claim in self._session.planned.values()}:
            return f"{self._claim.id} fails with {cause}, on which it depends"
        first = explained.setdefault(cause, self._claim.id)
        if first == self._claim.id:
            return verdict.message
        return f"{self._claim.id} fails for the same reason as {first}: {cause} is not met"

    def _refuse_other(self, evidence: Evidence) -> None:
        """Fail if the evidence is that of another sweep, which may have the claim's strength too."""
        workspace = self._session.workspace
        expected = workspace.key(self.card, self._claim.sweep)
        key = evidence.provenance.get("key", expected)
        if key != expected and key != workspace.stopped_key(self.card, self._claim.sweep):
            pytest.fail(
                f"{self._claim.id}: `check` must get the claim's evidence, sweep(claim.sweep), got that of "
                f"{evidence.provenance.get('label')}; select the claims of one sweep with the marker claims(sweep=...)",
                pytrace=False,
            )


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> GateCheck:
    """The gate of a selected card; `gate.check()` tests the model against its baseline."""
    return GateCheck(request.node, run_state(request.config), request.param)


class GateCheck:
    """A gate under test: its `card`, and `check`."""

    def __init__(self, node: pytest.Item, session: RunState, card: Card) -> None:
        self._node = node
        self._session = session
        self.card = card

    def check(self, sweep: Callable[[str], Evidence]) -> None:
        """Decide from all evidence, record the table on the test, and fail with a message if the gate does not pass."""
        from robustness.gate.decide import decide
        from robustness.reporting.report_types import plain
        from robustness.util.hashing import canonical_json

        decision = decide(self.card, sweep, self._session.workspace.store, self._session.options.baseline_max_age)
        properties = {"model": self.card.name, "outcome": decision.outcome, "message": decision.message}
        properties["gate"] = canonical_json(plain(decision.table)).decode()
        self._node.user_properties += properties.items()
        if decision.outcome == "inconclusive" and not self._session.options.undecided_is_red:
            self._session.workspace.notice(decision.message)
        elif decision.outcome != "passed":
            pytest.fail(printable(decision.message), pytrace=False)


def _skip_or_fail(config: pytest.Config, make: Callable[[], T]) -> T:
    """Call a function; skip the test if data are missing (an error if strict), fail on an expected error."""
    from robustness.errors import DataMissing, RobustnessError

    try:
        return make()
    except RobustnessError as error:
        if isinstance(error, DataMissing) and not run_state(config).options.strict:
            raise pytest.skip.Exception(str(error)) from None
        raise _red(error) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        from robustness.classifiers.call_factory import describe_error, is_foreign

        if not is_foreign(error):
            raise
        message = f"a model's code raised {describe_error(error)}, which would control the test run; remove that call"
        raise _red(RuntimeError(message)) from None
