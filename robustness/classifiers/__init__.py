"""From a card's `[model]` to a module that maps images to logits."""
