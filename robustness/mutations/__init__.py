"""Damage done to a classifier on purpose, from slight to fatal: to its weights, inputs, outputs or training data."""
