"""Checks of a model, its images and its attacks that give reasons to distrust a robustness number."""
