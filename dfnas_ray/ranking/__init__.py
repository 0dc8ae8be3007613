"""How well a ranking of architectures agrees with a table of true accuracies."""
