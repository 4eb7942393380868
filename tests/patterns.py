"""Rows of probabilities, written into a background that hardly counts, by what is hard to add up."""

import torch

PATTERNS = {
    "one among a thousand": lambda x: x[..., ::1024].fill_(1.0),
    "one among sixty": lambda x: x[..., ::64].fill_(1.0),
    "constant": lambda x: x.fill_(0.7),
    "third": lambda x: x.fill_(1 / 3),
    "uniform": lambda x: x.uniform_(generator=torch.Generator().manual_seed(0)),
    "skewed": lambda x: x.uniform_(generator=torch.Generator().manual_seed(0)).pow_(8),
}
