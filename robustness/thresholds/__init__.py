"""Thresholds derived from healthy retrainings."""
