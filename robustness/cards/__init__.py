"""Model cards: a model, its data, sweeps and claims, read from TOML."""

from robustness.cards.card import Card, Claim, expand_profile, load, parse_card, require_file

__all__ = ["Card", "Claim", "expand_profile", "load", "parse_card", "require_file"]
