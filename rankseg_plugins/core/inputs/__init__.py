"""What decisions are given: options, and the output of a network on its way to probabilities."""
