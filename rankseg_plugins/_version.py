"""The version, which the face of the package and what is written by it name."""

__version__ = "0.1.0"
