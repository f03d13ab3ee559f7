"""One perturbation at many strengths, on one classifier."""
