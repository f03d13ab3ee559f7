"""The release gate: baselines of accepted models, and tests of retrained models against them (docs/gate.md)."""
