"""Words of a card's ``[gate]`` that were renamed, old to new."""

GATE_KINDS = {"weights": "paired", "recipe": "retraining"}
