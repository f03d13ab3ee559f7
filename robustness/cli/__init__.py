"""The command `robustness`, one file per group of commands."""
