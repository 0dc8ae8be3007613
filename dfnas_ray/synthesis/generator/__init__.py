"""Images by a network that makes them, and that learns to make better ones: faster by orders of magnitude than pixels."""
