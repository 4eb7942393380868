"""RMA on a CPU, tile by tile."""
