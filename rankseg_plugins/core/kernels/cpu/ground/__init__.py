"""What every kernel stands on: how it is compiled and run in threads, and how it reads a tensor."""
