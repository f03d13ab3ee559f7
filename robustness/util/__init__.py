"""Utilities without knowledge of models or images."""
