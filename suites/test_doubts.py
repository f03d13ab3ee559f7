"""What makes a card's numbers unbelievable: each doubt is looked for on its model and its attacks (docs/doubts.md)."""

import pytest

from robustness.doubts import DOUBTS
from robustness.perturbations import FGSM
from robustness.perturbations.iterated import Iterated
from robustness.plugin.settings import session_of

EPSILON = 0.1
"""The largest budget that is tried where the card attacks with none."""


@pytest.mark.parametrize("doubt", DOUBTS)
def test_doubts(card, doubt, findings, request):
    """Nothing was seen that makes the numbers of this card doubtful."""
    harness = session_of(request.config).harness
    tables = {name: table for name, table in card.file.sweeps.items() if table.unit == "native"}
    own = {
        name: table for name, table in tables.items()
        if isinstance(p := table.perturbation, FGSM | Iterated) and p.norm == "linf" and p.made_on is None
    }  # fmt: skip
    sizes = [s for table in own.values() for s in table.strengths if isinstance(s, int | float)]
    epsilon = max(sizes, default=0) or EPSILON
    attacks = {name: table.perturbation for name, table in own.items() if isinstance(table.perturbation, Iterated)}
    # The model that its transferred examples are made on: the first, if the card names one.
    transferred = next((name for name, t in card.file.sweeps.items() if t.perturbation.made_on is not None), None)

    def source():
        return None if transferred is None else harness.source(card, transferred)

    def look(module, images):
        from robustness.doubts.look import look

        other = source()
        given = {} if other is None else {
            "source": harness.classifier(other).module, "source_decision": other.file.model.decision
        }  # fmt: skip
        return look(
            module, images, epsilon=epsilon, attacks=attacks, decision=card.file.model.decision,
            seed=harness.seed, device=harness.device, **given,
        )  # fmt: skip

    def about():
        other = source()
        return {
            "epsilon": epsilon,
            "attacks": {name: attack.model_dump() for name, attack in attacks.items()},
            "source": None if other is None else harness.model(other),
            "seed": harness.seed,
        }

    answer = findings("doubts", about, look)[doubt]
    request.node.user_properties.append(("seen", answer["seen"]))
    if answer.get("broken"):
        pytest.fail(f"{card.name}: {doubt} {answer['seen']}", pytrace=False)
    if answer["doubted"] is None:
        pytest.skip(f"{card.name}, {doubt}: {answer['seen']}")
    if not answer["doubted"]:
        return
    said = f"{card.name}: {doubt}: {answer['seen']}"
    if known := card.file.doubts.get(doubt):
        harness.notice(f"known doubt: {said} (its card: {known})")
        pytest.xfail(f"{said}; its card: {known}")
    harness.notice(f"doubt: {said}")
    pytest.fail(
        f"{card.name}: {doubt}\n  seen: {answer['seen']}\n  why it matters: {DOUBTS[doubt].why}\n"
        f"  to try: {DOUBTS[doubt].repair} (docs/doubts.md)",
        pytrace=False,
    )
