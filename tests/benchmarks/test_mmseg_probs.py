"""From an MMSegmentation checkpoint to a comparison, with the toolkit's own scores as the judge."""

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
from mmengine.registry import DefaultScope, init_default_scope

from benchmarks.datasets.mmseg_probs import export
from rankseg_plugins.comparison import compare
from rankseg_plugins.files.cases import find_cases

ON = {"metric": "iou", "pruning_prob": 0.1, "compare": True}


@pytest.fixture(autouse=True)
def _scope():
    before = DefaultScope.get_current_instance()
    init_default_scope("mmseg")
    yield
    if before is not None:
        init_default_scope(before.scope_name)


def test_scores_are_those_of_the_toolkit(tmp_path):
    data = tiny.write_dataset(tmp_path / "data")
    network = tiny.build(tiny.model())
    tiny.config(tiny.model(), data, tmp_path).dump(str(tmp_path / "stock.py"))
    checkpoint = tiny.save_checkpoint(network, tmp_path / "stock.pth")
    assert export(tmp_path / "stock.py", checkpoint, data / "img_dir/val", tmp_path / "probs") == 7

    found = find_cases(tmp_path / "probs", data / "ann_dir/val")
    decoders = ["argmax", "rankseg(metric=iou, pruning_prob=0.1)"]
    comparison = compare((case.sample() for case in found.cases), decoders, ignore_index=255)
    ours = tiny.config(tiny.model("rankseg_plugins.mmseg.RankSEGEncoderDecoder", rankseg=ON), data, tmp_path)
    scores, _ = tiny.evaluate(ours, network.state_dict())
    # The files are float16, so a few pixels on the edge between two classes may differ.
    assert 100 * comparison.level(comparison.candidates[0], "iou", "dataset") == pytest.approx(scores["mIoU"], abs=0.1)
    plain = tiny.config(tiny.model(), data, tmp_path)
    scores, _ = tiny.evaluate(plain, network.state_dict())
    assert 100 * comparison.level("argmax", "iou", "dataset") == pytest.approx(scores["mIoU"], abs=0.1)
    assert 100 * comparison.level("argmax", "accuracy", "dataset") == pytest.approx(scores["aAcc"], abs=0.1)
    assert 100 * comparison.level("argmax", "accuracy", "class") == pytest.approx(scores["mAcc"], abs=0.1)
