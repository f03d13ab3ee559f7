"""Mutation testing: which mutations of a classifier its claims and its gate catch, and from which level on."""
