"""Models as they are found: libraries' factories, exported files, checkpoints, and what stands around them."""
