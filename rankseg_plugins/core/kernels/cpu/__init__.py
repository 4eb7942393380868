"""Kernels for a CPU; importing what lies here needs numba."""
