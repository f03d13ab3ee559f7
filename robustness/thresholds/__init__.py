"""Thresholds that healthy retrainings give."""
