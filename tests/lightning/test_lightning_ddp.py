"""Two processes must give what one gives."""

import importlib
import json
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

import ddp_run
import lightning_nets
from packages import PACKAGES
from sweeps import sweep

from rankseg_plugins.lightning.loaders import new_images


def started_by_lightning(command, environment):
    """The first process starts the second."""
    options = dict(capture_output=True, text=True, timeout=240, check=False)
    return subprocess.run([sys.executable, *map(str, command)], env=environment, **options)


def results(folder, processes):
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]
    pictures = {path.name: path.read_bytes() for path in sorted((folder / "png").iterdir())}
    return ranks, pictures


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_image_counts_once(package, wrapped, world, batch_size):
    """The samplers that Lightning puts in place, with and without a sampler of the user's below."""
    fabric = "lightning.fabric" if package == "lightning.pytorch" else "lightning_fabric"
    wrapper = importlib.import_module(f"{fabric}.utilities.distributed").DistributedSamplerWrapper
    for items in range(1, 10):
        counted = []
        for rank in range(world):
            data, options = list(range(items)), dict(num_replicas=world, rank=rank, shuffle=False)
            sampler = wrapper(data[::-1], **options) if wrapped else DistributedSampler(data, **options)
            loader = DataLoader(data, batch_size, sampler=sampler)
            for batch_idx, batch in enumerate(loader):
                counted += batch[: new_images(loader, batch_idx, len(batch))].tolist()
        assert sorted(counted) == list(range(items))


def test_other_samplers_and_batches_are_left_alone():
    class Chunks(DistributedSampler):
        """Deals out neighbours; which images repeat is its own affair."""

    data = list(range(5))
    for sampler, given, expected in (
        (DistributedSampler(data, 2, 1), 3, 2),
        (DistributedSampler(data, 2, 1), 12, 12),  # four crops of each image
        (DistributedSampler(data, 2, 1, drop_last=True), 2, 2),
        (Chunks(data, 2, 1), 3, 3),
        (None, 3, 3),
    ):
        assert new_images(DataLoader(data, batch_size=4, sampler=sampler), 0, given) == expected


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@sweep(
    ("package", "started_by"),
    [*((package, "the test") for package in PACKAGES), *((package, "Lightning") for package in PACKAGES[-1:])],
    quick=lambda package, started_by: started_by == "the test" and package == PACKAGES[0],
)
def test_two_processes_give_what_one_gives(forks, environment, package, tmp_path, started_by):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    ddp_run.main(package, 1, tmp_path / "one")
    (alone,), alone_pictures = results(tmp_path / "one", 1)
    command = [ddp_run.__file__, package, 2, tmp_path / "two"]
    if started_by == "Lightning":
        done = started_by_lightning(command, environment)
    else:
        done = forks.run(command, tmp_path, world=2)
    assert done.returncode == 0, done.stderr[-4000:]
    ranks, pictures = results(tmp_path / "two", 2)
    evaluated = alone["evaluated"]
    assert [name for name, _ in alone["images"]][:2] == [
        f"val/rankseg/image/dataloader_idx_0/{index}" for index in (0, 1)
    ]
    ours, argmax = (evaluated[f"val/rankseg/{name}dice_image/dataloader_idx_0"] for name in ("", "argmax/"))
    assert ours != argmax
    assert "test/rankseg/dice_image" in evaluated
    assert [result["images"] for result in ranks] == [alone["images"], []]
    for rank, result in enumerate(ranks):
        assert result["rank"] == rank
        assert result["evaluated"] == pytest.approx(evaluated, abs=1e-12, nan_ok=True)
    assert len(pictures) == 7
    assert pictures == alone_pictures
    assert "sync_dist" not in done.stderr
    _check_fit(package, ranks, tmp_path / "two")


def _check_fit(package, ranks, folder):
    """Two processes train on other batches than one. Their network, validated by one process, gives their scores."""
    first, second = ranks
    for name in ("fitted", "resumed_from", "steps"):
        assert first[name] == second[name]
    # Five images for each process, in three batches; an optimiser step after two batches and after the last.
    assert first["steps"] == 4
    assert first["resumed_from"]["val"].keys() == first["fitted"].keys()
    assert first["resumed_from"]["val"] != first["fitted"]
    weights = [torch.load(folder / f"weights{rank}.pt") for rank in (0, 1)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    callback, model = ddp_run.make_callback(), lightning_nets.module_class(package)()
    model.load_state_dict(weights[0])
    trainer = lightning_nets.trainer(package, folder, callbacks=[callback])
    trainer.validate(model, ddp_run.make_loaders(), verbose=False)
    assert first["fitted"] == pytest.approx(callback.scores_of_stage["val"], abs=1e-12)
