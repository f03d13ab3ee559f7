"""Numbers from evidence: metrics, their intervals, and what they are read beside."""
