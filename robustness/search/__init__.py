"""Search for small perturbations that flip a prediction, with Hypothesis; and contracts of perturbations."""
