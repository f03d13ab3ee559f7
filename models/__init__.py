"""The classifiers of the papers: architectures, training, and one card each."""
