"""Deliberate mutations of a classifier, from slight to fatal: of its weights, inputs, outputs or training data."""
