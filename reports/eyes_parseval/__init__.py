"""eyes-parseval: wide residual and Parseval networks and a CNN on eye crops, with and without adversarial training."""
