"""The document as one HTML page: curves, heat maps and pictures, read from disk, without a network and without scripts."""
