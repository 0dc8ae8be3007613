"""The package's version: what its metadata say."""

__version__ = "0.1.0"
