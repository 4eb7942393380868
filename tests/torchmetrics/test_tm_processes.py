"""Several processes with uneven data give what one process gives."""

import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("scipy", reason="extra scores need SciPy")

import processes
import references
from batches import CLASSES, make, run
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score, MulticlassJaccardIndex
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, MeanIoU

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.lesions import Lesions
from rankseg_plugins.torchmetrics import ExtraScores, MultiLevelScore, RankSEGWrapper

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")

IGNORE = 255
#: First and last batch of each process; the last process of three has none.
SHARES = {2: [(0, 3), (3, 4)], 3: [(0, 3), (3, 4), (4, 4)]}


def metrics(world):
    """Everything under test, wrapped. A process without data is too much for DiceScore, which keeps a list."""
    wrapped = {
        "levels": MultiLevelScore(CLASSES, ("dice", "iou"), ignore_index=IGNORE, worst=0.2),
        "extra": ExtraScores((Boundaries(1), Lesions()), CLASSES, IGNORE),
        "iou": MeanIoU(CLASSES),
        "jaccard": MulticlassJaccardIndex(CLASSES),
        "confusion": MulticlassConfusionMatrix(CLASSES),
        "collection": MetricCollection([MulticlassF1Score(CLASSES), GeneralizedDiceScore(CLASSES)]),
    }
    if world == 2:
        wrapped["dice"] = DiceScore(CLASSES, average="macro")
    return {name: RankSEGWrapper(each, RankSEG("iou"), ignore_index=IGNORE) for name, each in wrapped.items()}


def batches():
    return make(batches=4, ignore=IGNORE)


def _one_process(rank, world, folder):
    own = batches()[slice(*SHARES[world][rank])]
    result = {}
    for name, metric in metrics(world).items():
        # forward keeps each batch to its process; compute joins all of them.
        steps = [metric(*batch) for batch in own]
        result[name] = metric.compute()
        result[f"{name} alone"] = steps
    torch.save(result, f"{folder}/{rank}.pt")


@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_uneven_data(world, tmp_path):
    processes.run(_one_process, world, world, tmp_path)
    expected = {name: run(metric, batches()) for name, metric in metrics(world).items()}
    steps = {name: [metric(*batch) for batch in batches()] for name, metric in metrics(world).items()}
    for rank, share in enumerate(SHARES[world]):
        result = torch.load(tmp_path / f"{rank}.pt")
        for name, value in expected.items():
            torch.testing.assert_close(result[name], value, rtol=0, atol=1e-6)
            torch.testing.assert_close(result[f"{name} alone"], steps[name][slice(*share)], rtol=0, atol=1e-6)
        _check_levels(result["levels"])


def _check_levels(result):
    """Against plain loops over all images."""
    probs, target = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    predicted = references.masks_of(rankseg(probs, metric="iou"), CLASSES, IGNORE, target)
    true = references.masks_of(target, CLASSES, IGNORE)
    for score in ("dice", "iou"):
        for name, value in references.levels(predicted, true, score).items():
            assert float(result[name]) == pytest.approx(value, abs=1e-12)
