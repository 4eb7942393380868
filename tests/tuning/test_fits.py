"""What fits to a sample of pixels take, refuse and say: memory, processes, evidence."""

import warnings

import numpy as np
import peaks
import processes
import pytest
import torch

from rankseg_plugins import GlobalRankSEG
from rankseg_plugins.calibration import TemperatureScaling

FITTING = """
import torch
from rankseg_plugins import GlobalRankSEG

def with_images(number, mode, labels):
    generator = torch.Generator().manual_seed(0)
    decoder = GlobalRankSEG(30, output_mode=mode, min_gain=0)
    for _ in range(number):
        probs = torch.randn(1, 30, 5_000, generator=generator).mul_(4).softmax(1)
        decoder.update(probs, probs.argmax(1) if labels else None)
    return decoder

def bytes_for_a_pixel(mode, labels):
    with_images(5, mode, labels).fit()  # compiles what it needs, once
    return peak(with_images(20, mode, labels).fit) / 100_000

torch.set_num_threads(1)
print(json.dumps(each_apart(bytes_for_a_pixel, sys.argv[1:])))
"""


@peaks.needed
def test_the_memory_of_a_fit_does_not_grow_with_the_classes():
    """A copy of the sample would take 120 bytes for each pixel, in float64 twice that."""
    cases = ["multiclass-", "multilabel-", "multiclass-labels"]
    found = peaks.run(FITTING, *cases)
    assert list(found) == cases
    assert {case: taken for case, taken in found.items() if taken >= 100} == {}


def test_nothing_to_pursue_is_said_once():
    """Five images, of which one holds almost all of both classes' evidence: fewer than five."""
    generator = torch.Generator().manual_seed(0)
    sharpness = torch.tensor([20.0, 1.0, 1.0, 1.0, 1.0]).view(-1, 1, 1)
    probs = (sharpness * torch.randn(5, 3, 400, generator=generator)).softmax(1)
    decoder = GlobalRankSEG(3)
    decoder.update(probs)
    with pytest.warns(
        UserWarning,
        match=r"pursues no class and decides as argmax does\. Class 0: an effective number of .* min_images=5\. Class",
    ) as caught:
        found = decoder.fit()
    assert len(caught) == 1
    assert not found.pursued.any()
    assert torch.equal(decoder(probs), probs.argmax(1))
    even = GlobalRankSEG(3, min_gain=0)
    even.update(probs[1:2].expand(5, -1, -1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert even.fit().pursued.all()


def drawn(images=12, classes=3, pixels=400):
    """Logits, and labels drawn from softmax(logits / 2)."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, classes, pixels, generator=generator)
    probs = (logits / 2).softmax(1).movedim(1, -1).flatten(0, 1)
    return logits, torch.multinomial(probs, 1, generator=generator).view(images, pixels)


def scaled(share, max_pixels):
    logits, labels = drawn()
    scaling = TemperatureScaling(3, activation="softmax", max_pixels=max_pixels)
    if len(logits[share]):
        scaling.update(logits[share], labels[share])
    return scaling


def _one_process(rank, folder):
    found = {}
    for name, max_pixels, shares in SETTINGS:
        found[name] = scaled(shares[rank], max_pixels).fit()
    try:
        scaled(slice(0, 0), 10).fit()
    except RuntimeError as error:
        found["nothing"] = str(error)
    logits, labels = drawn()
    decoder = GlobalRankSEG(3, min_images=0)
    decoder.update(logits.softmax(1), labels if rank == 0 else None)
    try:
        decoder.fit()
    except ValueError as error:
        found["labels"] = str(error)
    torch.save(found, f"{folder}/{rank}.pt")


SETTINGS = [
    ("uneven", 100_000, (slice(0, 9), slice(9, 12))),
    ("one holds nothing", 100_000, (slice(0, 12), slice(0, 0))),
    ("small", 2000, (slice(0, 5), slice(5, 12))),
]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_fit_what_one_fits_and_refuse_alike(tmp_path):
    processes.run(_one_process, 2, tmp_path)
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    expected = scaled(slice(None), 100_000).fit()
    for name, max_pixels, _ in SETTINGS:
        assert np.array_equal(ours[name].temperature, theirs[name].temperature)
        assert (ours[name].loss, ours[name].error) == (theirs[name].loss, theirs[name].error)
        tolerance = 1e-6 if max_pixels == 100_000 else 0.1
        assert ours[name].temperature == pytest.approx(expected.temperature, rel=tolerance)
        assert ours[name].loss == pytest.approx(expected.loss, rel=tolerance)
    for each in (ours, theirs):
        assert each["labels"] == "labels must be given on every process or on none, got them on some"
        assert "no pixels to fit" in each["nothing"]
