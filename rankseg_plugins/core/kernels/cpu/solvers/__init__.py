"""Kernels of the solvers: see :mod:`rankseg_plugins.core.solvers`."""
