"""Values of a card's ``[gate]`` that were renamed, old to new, by their key."""

from __future__ import annotations

from collections.abc import Mapping

VALUES: dict[str, Mapping[str, str]] = {"gate.kind": {"weights": "paired", "recipe": "retraining"}}
