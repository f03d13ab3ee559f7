"""Cards, store and device together: everything is made at most once."""
