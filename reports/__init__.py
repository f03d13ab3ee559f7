"""The papers' tables rebuilt from evidence: which numbers, the published values, and results measured at full scale."""
