"""What the command `robustness` does, a file a group."""
