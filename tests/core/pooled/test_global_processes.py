"""Decisions for a whole data set, fitted by two processes and by one."""

import itertools

import processes
import pytest
import torch
from pooling import fitted, network

from rankseg_plugins import GlobalRankSEG

SETTINGS = [*itertools.product((100_000, 2000), ("multiclass", "multilabel"), (True, False))]


#: Images of both processes: of different numbers, and none for one of them.
SHARES = {"uneven": (slice(0, 9), slice(9, 12)), "none": (slice(0, 12), slice(0, 0))}


def _one_process(rank, folder):
    probs, labels = network(images=12)
    found = {}
    for name, numbered, setting in itertools.product(SHARES, (False, True), SETTINGS):
        share = SHARES[name][rank]
        found[(name, numbered, *setting)] = fitted_to_share(probs, labels, share, numbered, *setting)
    torch.save(found, f"{folder}/{rank}.pt")


def fitted_to_share(probs, labels, share, numbered, max_pixels, output_mode, blind):
    decoder = GlobalRankSEG(3, max_pixels=max_pixels, output_mode=output_mode, min_gain=0)
    if len(probs[share]):
        number = share.start if numbered else None
        decoder.update(probs[share], None if blind else labels[share], number=number)
    fit = decoder.fit()
    return decoder.scale, decoder.offset, fit.after


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    processes.run(_one_process, 2, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("shares", SHARES)
def test_two_processes_give_what_one_gives(shares, of_two_processes):
    ours, theirs = of_two_processes
    probs, labels = network(images=12)
    for max_pixels, output_mode, blind in SETTINGS:
        values = ours[shares, False, max_pixels, output_mode, blind]
        torch.testing.assert_close(values, theirs[shares, False, max_pixels, output_mode, blind], rtol=0, atol=0)
        decoder, found = fitted(probs, None if blind else labels, output_mode=output_mode)
        tolerance = 1e-6 if max_pixels == 100_000 else 0.1
        torch.testing.assert_close(values, (decoder.scale, decoder.offset, found.after), rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("shares", SHARES)
def test_of_numbered_images_two_processes_keep_the_sample_of_one(shares, of_two_processes):
    probs, labels = network(images=12)
    for setting in SETTINGS:
        expected = fitted_to_share(probs, labels, slice(0, 12), True, *setting)
        for each in of_two_processes:
            torch.testing.assert_close(each[(shares, True, *setting)], expected, rtol=0, atol=0)
