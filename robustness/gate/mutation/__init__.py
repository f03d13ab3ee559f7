"""Damage done to a classifier on purpose, in steps: what its claims and its gate catch, and from which step on."""
