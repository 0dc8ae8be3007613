"""The version of the package, as in its metadata."""

__version__ = "0.1.0"
