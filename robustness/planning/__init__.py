"""Estimates what a run will cost."""
