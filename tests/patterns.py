"""Ten million probabilities of one row, by what is hard to add up."""

import torch

SIZE = 10_000_384


def sparse(step, background):
    probs = torch.full((1, 1, SIZE), background)
    probs[..., ::step] = 1.0
    return probs


def uniform():
    return torch.rand(1, 1, SIZE, generator=torch.Generator().manual_seed(0))


#: (1, 1, SIZE) each; in the sparse ones, a background that hardly counts.
PATTERNS = {
    "one among a thousand, 2^-24": lambda: sparse(1024, 2.0**-24),
    "one among a thousand, 2e-7": lambda: sparse(1024, 2e-7),
    "one among sixty, 2^-24": lambda: sparse(64, 2.0**-24),
    "one among sixty, 2e-7": lambda: sparse(64, 2e-7),
    "constant": lambda: torch.full((1, 1, SIZE), 0.7),
    "third": lambda: torch.full((1, 1, SIZE), 1 / 3),
    "uniform": uniform,
    "skewed": lambda: uniform().pow_(8),
}
