"""The defences: one file each, each a recipe over the one training loop (`models.loop`)."""
