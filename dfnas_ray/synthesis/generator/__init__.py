"""Images from a generator, which learns to make better ones: orders of magnitude faster than optimising pixels."""
