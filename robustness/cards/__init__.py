"""What a model is and claims, read from TOML."""

from robustness.cards.card import Card, Claim, load, of_table, refuse_no_file, with_profile

__all__ = ["Card", "Claim", "load", "of_table", "refuse_no_file", "with_profile"]
