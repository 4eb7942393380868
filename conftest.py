"""Modules whose documentation cannot be tested everywhere."""

from importlib.util import find_spec

# Triton exists for Linux only.
collect_ignore_glob = [] if find_spec("triton") else ["rankseg_plugins/core/kernels/cuda/*"]
