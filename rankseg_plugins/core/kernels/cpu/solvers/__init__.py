"""Kernels of the solvers: see ``rankseg_plugins.core.solvers``."""
