"""Reports: one typed report of a run, and the tables and files that are computed from it alone."""
