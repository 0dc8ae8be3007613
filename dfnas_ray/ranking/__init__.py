"""Agreement of a ranking of architectures with a table of true accuracies."""
