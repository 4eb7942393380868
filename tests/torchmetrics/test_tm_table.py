"""The page about TorchMetrics: its code runs, and every row of its table holds, with and without ignored pixels."""

import re

import pytest
import torch
from pages import run_page
from places import ROOT

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("scipy")  # HausdorffDistance

from torchmetrics import classification, segmentation

import rankseg_plugins.torchmetrics as adapter
from rankseg_plugins import RankSEG

C = 3
PAGE = "docs/torchmetrics.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| `(?P<metric>.*?)` \| (?P<decoders>.+?) \| (?P<gets>\w+) \| (?P<ignores>[\w ]+) \| (?P<pools>\w+) \|$",
    re.MULTILINE,
)
NAMES = {
    "segmentation": segmentation,
    "classification": classification,
    "MultiLevelScore": adapter.MultiLevelScore,
    "C": C,
}
ROWS = [row.groupdict() for row in ROW.finditer(TEXT)]
CASES = [
    pytest.param(row["metric"], decoder, row["gets"], row["ignores"], id=f"{row['metric']}-{decoder}")
    for row in ROWS
    for decoder in row["decoders"].split(", ")
]


def test_the_code_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(PAGE)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("argmax", "rankseg", "MeanIoU", "iou_image_worst10"))


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


def test_the_whole_table_is_read():
    assert len(ROWS) == len(re.findall(r"^\| `", TEXT, re.MULTILINE)) == 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["metric"])
def test_what_is_pooled(row):
    """Image level: the score of a batch is the mean of the scores of its images. Dataset level: it is not."""
    decoder = row["decoders"].split(", ")[0]
    probs, target = make(decoder, None)
    wrapper = adapter.RankSEGWrapper(build(row["metric"]), decoder_of(decoder))
    whole = wrapper(probs, target)
    wrapper.reset()
    parts = [wrapper(*image) for image in zip(probs.split(1), target.split(1), strict=True)]
    (whole,), *parts = (_values(each) for each in (whole, *parts))
    mean = torch.stack([part.double() for (part,) in parts]).mean(0)
    assert torch.allclose(whole.double(), mean, atol=1e-6) == (row["pools"] == "image")


def decoder_of(name):
    return RankSEG() if name == "multiclass" else RankSEG(output_mode="multilabel")


@pytest.mark.parametrize("ignore", [None, 255])
@pytest.mark.parametrize(("metric", "decoder", "gets", "ignores"), CASES)
def test_row(metric, decoder, gets, ignores, ignore):
    probs, target = make(decoder, ignore)
    wrapper = adapter.RankSEGWrapper(build(metric), decoder_of(decoder), ignore_index=ignore)
    result = wrapper(probs, target)
    # The same by hand, fed as the table says.
    decided, plain = decoder_of(decoder)(probs), build(metric)
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
    return list(result.values()) if isinstance(result, dict) else [result]
