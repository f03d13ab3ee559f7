"""Hold PyTorch image classifiers to robustness thresholds, with evidence."""

__version__ = "0.1.0"
