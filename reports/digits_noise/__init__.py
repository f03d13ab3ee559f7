"""The paper digits-noise: its numbers, tables and page."""
