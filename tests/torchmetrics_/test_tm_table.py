"""Every row of the table in the docs of the adapter, with and without ignored pixels."""

import re

import pytest
import torch

pytest.importorskip("torchmetrics")
pytest.importorskip("scipy")  # HausdorffDistance

from torchmetrics import classification, segmentation

import rankseg_plugins.torchmetrics as adapter
from rankseg_plugins import RankSEG

C = 3
ROW = re.compile(
    r"^``(?P<metric>.*?)``\s{2,}(?P<decoders>.+?)\s{2,}(?P<gets>\w+)\s{2,}(?P<ignores>[\w ]+)$", re.MULTILINE
)
NAMES = {
    "segmentation": segmentation,
    "classification": classification,
    "MultiLevelScore": adapter.MultiLevelScore,
    "C": C,
}
CASES = [
    pytest.param(row["metric"], decoder, row["gets"], row["ignores"], id=f"{row['metric']}-{decoder}")
    for row in ROW.finditer(adapter.__doc__)
    for decoder in row["decoders"].split()
]


def build(expression):
    return eval(expression, dict(NAMES))


def make(decoder, ignore):
    generator = torch.Generator().manual_seed(2)
    # Square, because TorchMetrics' HausdorffDistance fails on images higher than wide.
    probs = (1.5 * torch.randn(4, C, 9, 9, generator=generator)).softmax(1)
    if decoder == "binary":
        probs = probs[:, :1]
        target = (torch.rand(4, 9, 9, generator=generator) < probs[:, 0]).long()
    elif decoder == "multilabel" and ignore is None:
        return probs, torch.rand(probs.shape, generator=generator) < probs
    else:
        target = torch.randint(0, C, (4, 9, 9), generator=generator)
    if ignore is not None:
        target[torch.rand(target.shape, generator=generator) < 0.2] = ignore
    return probs, target


def as_masks(labels, decoder):
    if labels.ndim == 4:
        return labels
    return torch.stack([labels == c for c in ([1] if decoder == "binary" else range(C))], 1)


def test_the_table_is_read():
    assert len(CASES) == 26


@pytest.mark.parametrize("ignore", [None, 255])
@pytest.mark.parametrize(("metric", "decoder", "gets", "ignores"), CASES)
def test_row(metric, decoder, gets, ignores, ignore):
    options = {} if decoder == "multiclass" else {"output_mode": "multilabel"}
    probs, target = make(decoder, ignore)
    wrapper = adapter.RankSEGWrapper(build(metric), RankSEG(**options), ignore_index=ignore)
    result = wrapper(probs, target)
    # The same by hand, fed as the table says.
    decided, plain = RankSEG(**options)(probs), build(metric)
    kept = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
    if ignores == "metric":
        plain.ignore_index = ignore
    if ignores == "as masks" and ignore is not None:
        plain, gets = build(metric.replace("index", "one-hot")), "masks"
    if gets == "labels":
        decided = decided[:, 0].long() if decided.ndim == 4 else decided
    elif gets == "masks":
        decided, true = as_masks(decided, decoder), as_masks(target, decoder)
        if ignore is not None and ignores == "metric":
            target = torch.where(kept.unsqueeze(1), true.long(), ignore)
        elif ignore is not None:
            decided, target = decided & kept.unsqueeze(1), true & kept.unsqueeze(1)
        else:
            target = true
    expected = plain(decided, target)
    torch.testing.assert_close(result, expected, rtol=0, atol=0, equal_nan=True)
    assert not any(torch.as_tensor(value).isnan().all() for value in _values(result))


def _values(result):
    return result.values() if isinstance(result, dict) else [result]
