"""Kernels for an NVIDIA GPU; importing what lies here needs Triton."""
