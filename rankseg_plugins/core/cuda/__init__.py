"""Triton kernels of :mod:`rankseg_plugins.core.cuda.fused`; importing this package needs Triton."""
