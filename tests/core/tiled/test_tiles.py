"""Pieces of a tensor: the same whatever its layout, and sums to many digits."""

import pytest
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.core.tiled.passes import count_above
from rankseg_plugins.core.tiled.rma import row_statistics
from rankseg_plugins.core.tiled.tiles import Tiles

EPS = torch.finfo(torch.float32).eps
VOLUME = torch.randn(2, 5, 9, 14, 17, generator=torch.Generator().manual_seed(0)).mul(3).softmax(1)
IMAGE = VOLUME[:, :, 4]

VIEWS = {
    "crop": IMAGE[..., 2:-3, 1:-2],
    "columns": IMAGE[..., :-1],
    "transposed": IMAGE.transpose(2, 3),
    "every other": IMAGE[..., ::2, ::3],
    "channels last": IMAGE.contiguous(memory_format=torch.channels_last),
    "channels last, crop": IMAGE.contiguous(memory_format=torch.channels_last)[..., 1:-1, 1:-1],
    "volume, crop": VOLUME[..., 1:, 2:-2, :-3],
    "volume, permuted": VOLUME.permute(0, 1, 4, 2, 3),
    "one image for all": IMAGE[:1].expand(3, -1, -1, -1)[..., 1:],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize(
    "options",
    [{}, {"metric": "iou", "pruning_prob": 0.1}, {"smooth": 1.0}, {"metric": "acc"}],
    ids=str,
)
@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
def test_views_are_decided_as_their_copies(name, options, output_mode, monkeypatch):
    view, decoder = VIEWS[name], RankSEG(output_mode=output_mode, **options)
    monkeypatch.setattr("rankseg_plugins.core.tiled.tiles._SMALLEST_TILE", 64)
    valid = torch.rand(view.shape[2:], generator=torch.Generator().manual_seed(1)) > 0.2
    for mask in (None, valid):
        for dtype in (torch.float32, torch.float16):
            assert torch.equal(decoder(view.to(dtype), mask), decoder(view.contiguous().to(dtype), mask))


PATTERNS = {
    "one among a thousand": lambda x: x[..., ::1024].fill_(1.0),
    "one among sixty": lambda x: x[..., ::64].fill_(1.0),
    "constant": lambda x: x.fill_(0.7),
    "third": lambda x: x.fill_(1 / 3),
    "uniform": lambda x: x.uniform_(generator=torch.Generator().manual_seed(0)),
    "skewed": lambda x: x.uniform_(generator=torch.Generator().manual_seed(0)).pow_(8),
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("background", [2.0**-24, 2e-7])
def test_sums_of_ten_million_pixels(name, background):
    probs = torch.full((1, 1, 10_000_384), background)
    PATTERNS[name](probs)
    tiles = Tiles(probs)
    exact = probs.sum(dtype=torch.float64).item()
    assert abs(row_statistics(tiles).mu.item() - exact) <= 4 * EPS * exact
    threshold = torch.tensor([[0.25]], dtype=torch.float64)
    n, s = count_above(tiles, torch.tensor([[True]]), threshold)
    above = probs > 0.25
    exact = (probs * above).sum(dtype=torch.float64).item()
    assert n.item() == above.sum().item()
    assert abs(s.item() - exact) <= 4 * EPS * exact
