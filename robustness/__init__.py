"""Hold PyTorch image classifiers to robustness thresholds, with evidence."""

from pathlib import Path

__version__ = "0.1.0"

# `robustness.suites`: in an installed package it lies here; in a checkout it is the folder `suites` beside this one.
if not (_here := Path(__file__).parent).joinpath("suites").is_dir() and (_here.parent / "suites").is_dir():
    __path__.append(str(_here.parent))
