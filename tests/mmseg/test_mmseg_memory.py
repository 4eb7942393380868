"""Beside logits at full size only what the decision itself takes: no probabilities, and no labels that nobody keeps."""

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from benchmarks.measure import extra_memory
from rankseg_plugins import RankSEG
from rankseg_plugins.mmseg import RankSEGTTAModel

CLASSES, SIZE = 19, (256, 512)
DOTTED = "rankseg_plugins.mmseg.RankSEGEncoderDecoder"
META = {"ori_shape": SIZE, "img_path": "a.png"}


def bytes_of(tensor):
    return tensor.numel() * tensor.element_size()


def made(dtype):
    generator = torch.Generator().manual_seed(0)
    return (4 * torch.randn(1, CLASSES, 32, 64, generator=generator)).to(dtype)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compare", [False, True])
def test_the_decision_adds_its_own_memory_alone(dtype, activation, compare):
    options = {"metric": "dice", "pruning_prob": 0.1}
    ours = {**options, "activation": activation, "compare": compare}
    network, low = MODELS.build(tiny.model(DOTTED, CLASSES, rankseg=ours)), made(dtype)
    decoder, full = RankSEG(**options), torch.nn.functional.interpolate(low, SIZE, mode="bilinear")
    decoder.check_sums = False
    alone = bytes_of(full) * extra_memory(lambda logits: decoder.predict_logits(logits, activation), full)

    def through_the_segmentor(low):
        network._checked = False  # the first image is the one that is looked at
        return network.postprocess_result(low, [SegDataSample(metainfo=META)])[0].pred_sem_seg.data

    taken = bytes_of(low) * extra_memory(through_the_segmentor, low)
    # The toolkit's own labels are there before the decision, and during it where they are compared with.
    argmax = 8 * SIZE[0] * SIZE[1]
    assert taken <= 1.05 * bytes_of(full) + max(argmax, alone + (argmax if compare else 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_test_time_augmentation_takes_no_more_for_more_views(dtype):
    network, low = MODELS.build(tiny.model(DOTTED, CLASSES, rankseg={"metric": "dice"})), made(dtype)
    model = RankSEGTTAModel(network)
    network.inference = lambda inputs, metas: low.clone()

    def views(count):
        images = [[torch.zeros(3, 8, 8, dtype=torch.uint8)]] * count
        samples = [[SegDataSample(metainfo=META)] for _ in range(count)]
        with torch.no_grad():
            return model.test_step({"inputs": images, "data_samples": samples})[0].pred_sem_seg.data

    # The result may lie where something larger lay before, which then does not count: the larger of two looks.
    few, many = (max(extra_memory(lambda _, count=count: views(count), low) for _ in range(2)) for count in (3, 6))
    assert many <= 1.05 * few
