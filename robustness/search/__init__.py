"""Perturbations that Hypothesis describes, searches and shrinks, and contracts that hold for each of them."""
