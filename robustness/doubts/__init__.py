"""Reasons to distrust a robustness number, looked for on a model and its attacks."""
