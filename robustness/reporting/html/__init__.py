"""The report as one self-contained HTML page: curves, heat maps and pictures."""
