"""Metrics, their intervals and chance levels, computed from evidence."""
