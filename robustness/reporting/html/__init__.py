"""The document as one HTML page: curves, heat maps and pictures, in a file that needs no other."""
