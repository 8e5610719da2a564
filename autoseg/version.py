"""The version, in a file of its own so that any room may take it."""

__version__ = "0.1.0"
