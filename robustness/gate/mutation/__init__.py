"""Mutation testing: which mutations of a classifier its claims and its gate detect, and from which level."""
