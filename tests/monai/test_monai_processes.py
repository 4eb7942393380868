"""The comparison beside evaluators of several processes: that of one process on all images."""

import logging

import processes
import pytest
import torch
from toolkits import is_installed

if not (is_installed("monai") and is_installed("ignite")):
    pytest.skip("MONAI, or Ignite, is not installed", allow_module_level=True)
pytest.importorskip("scipy", reason="extra scores need SciPy")
pytest.importorskip("jinja2", reason="the report needs it")
pytest.importorskip("matplotlib", reason="likewise")

from monai.data import DataLoader, DistributedSampler, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from rankseg_plugins.monai import RankSEGCompareHandler
from rankseg_plugins.scores.boundaries import Boundaries

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
    pytest.mark.filterwarnings("ignore::FutureWarning:monai", "ignore:.*leaves out classes"),
]
#: Of two processes the first gets three.
COUNT = 5


def make_data(named):
    generator, affine = torch.Generator().manual_seed(0), torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0]).double())
    images = torch.rand(COUNT, 1, 12, 10, generator=generator)
    labels = torch.randint(0, 3, (COUNT, 1, 12, 10), generator=generator)
    metas = [{"filename_or_obj": f"/in/case_{index}.nii"} if named else {} for index in range(COUNT)]
    images = [MetaTensor(image, affine=affine, meta=meta) for image, meta in zip(images, metas, strict=True)]
    return [{"image": image, "label": label.float()} for image, label in zip(images, labels, strict=True)]


def evaluate(data, sampler=None, **options):
    """The handler, and what the evaluator holds, at the end of a run."""
    torch.manual_seed(1)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    network.weight.data *= 12
    handler = RankSEGCompareHandler(
        num_classes=3, output_transform=from_engine(["pred", "label"]), activation="softmax", **options
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=2, sampler=sampler),
        network=network,
        val_handlers=[handler],
    )
    evaluator.run()
    return handler.comparison, dict(evaluator.state.metrics)


def _one_process(rank, folder):
    """All that is asked of two processes: what they import takes longer than what they do."""
    from rankseg_plugins.report import charts

    charts.to_png = lambda figure: b""  # likewise
    said = []
    logging.getLogger().addHandler(logging.Handler())
    logging.getLogger().handlers[-1].emit = lambda record: said.append(record.getMessage())
    logging.getLogger().setLevel(logging.INFO)
    for named in (True, False):
        data = make_data(named)
        sampler = DistributedSampler(data, even_divisible=False, shuffle=False, num_replicas=2, rank=rank)
        assert len(list(sampler)) == (3, 2)[rank]
        report = folder / f"report{rank}" if named else None
        found, metrics = evaluate(data, sampler, extra=Boundaries(1, "mm"), report=report)
        assert (found.verdict().sentence in said) == (rank == 0)
        torch.save((found.names, metrics, found.extra_entries), folder / f"{rank}-{named}.pt")
    # By every process, so that none waits for another.
    padding = DistributedSampler(data, even_divisible=True, shuffle=False, num_replicas=2, rank=rank)
    with pytest.raises(ValueError, match=r"case_0\.nii"):
        evaluate(make_data(True), padding)


def test_two_processes_with_uneven_data(tmp_path):
    """Files name the images, or their places; a sampler that pads is refused."""
    processes.run(_one_process, 2, tmp_path)
    for named in (True, False):
        expected, metrics = evaluate(make_data(named), extra=Boundaries(1, "mm"))
        for rank in range(2):
            names, found, extra = torch.load(tmp_path / f"{rank}-{named}.pt", weights_only=False)
            assert names == expected.names
            assert found == metrics
            torch.testing.assert_close(extra, expected.extra_entries, rtol=0, atol=0, equal_nan=True)
    assert (tmp_path / "report0/report.html").is_file()
    assert not (tmp_path / "report1").exists()
