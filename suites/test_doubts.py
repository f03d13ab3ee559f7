"""Reasons to distrust a card's numbers: each doubt is checked on its model and its attacks (docs/doubts.md)."""

import pytest

from robustness.cards.doubts import DOUBTS
from robustness.doubts import card_doubts
from robustness.plugin.config import run_state


@pytest.mark.parametrize("doubt", DOUBTS)
def test_doubts(card, doubt, findings, request):
    """The check finds no reason to distrust the card's numbers."""
    workspace = run_state(request.config).workspace

    def look(module, images):
        return card_doubts.run_checks(workspace, card, module, images)

    answer = findings("doubts", lambda: card_doubts.check_parameters(workspace, card), look)[doubt]
    request.node.user_properties.append(("seen", answer["seen"]))
    if "notice" in answer:
        workspace.notice(f"{card.name}: {answer['notice']}")
    if answer.get("broken"):
        pytest.fail(f"{card.name}: {doubt} {answer['seen']}", pytrace=False)
    if answer["doubted"] is None:
        pytest.skip(f"{card.name}, {doubt}: {answer['seen']}")
    if not answer["doubted"]:
        return
    said = f"{card.name}: {doubt}: {answer['seen']}"
    if known := card.file.doubts.get(doubt):
        workspace.notice(f"known doubt: {said} (its card: {known})")
        pytest.xfail(f"{said}; its card: {known}")
    workspace.notice(f"doubt: {said}")
    pytest.fail(
        f"{card.name}: {doubt}\n  seen: {answer['seen']}\n  why it matters: {DOUBTS[doubt].why}\n"
        f"  to try: {DOUBTS[doubt].repair} (docs/doubts.md)",
        pytrace=False,
    )
