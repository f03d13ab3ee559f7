"""The release gate: accepted models kept as baselines, and retrained ones held against them (docs/gate.md)."""
