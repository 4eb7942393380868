"""Triton kernels of :mod:`rankseg_plugins.core.fused`; importing this package needs Triton."""
