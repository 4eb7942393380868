"""The steps of a decision in two kernel languages: numba on a CPU, Triton on an NVIDIA GPU."""
