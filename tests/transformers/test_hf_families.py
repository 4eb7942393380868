"""Every family of image processors: argmax is the library's own, RankSEG that of the core on its probabilities."""

import re
from pathlib import Path

import pytest
import torch
from places import ROOT
from toolkits import is_installed

if not is_installed("transformers"):
    pytest.skip("Transformers is not installed", allow_module_level=True)

import hf_networks
import transformers as hf
from hf_networks import CLASSES, IMAGES
from transformers.utils import is_torchvision_available

from rankseg_plugins import RankSEG
from rankseg_plugins.transformers import RankSEGSemanticPostProcessor, post_process_semantic_segmentation
from rankseg_plugins.transformers.families import FAMILIES, KNOWN, METHOD, find_family

SIZES = [(40, 37), (29, 50)]
#: Network, start of the names of its image processors, their folder, and whether one does without torchvision.
NETWORKS = [
    ("segformer", "SegformerImageProcessor", "segformer", True),
    ("upernet", "SegformerImageProcessor", "segformer", True),
    ("beit", "BeitImageProcessor", "beit", True),
    ("data2vec", "BeitImageProcessor", "beit", True),
    ("dpt", "DPTImageProcessor", "dpt", True),
    ("mobilevit", "MobileViTImageProcessor", "mobilevit", True),
    ("mobilevitv2", "MobileViTImageProcessor", "mobilevit", True),
    ("mobilenet_v2", "MobileNetV2ImageProcessor", "mobilenet_v2", True),
    ("sapiens2", "Sapiens2ImageProcessor", "sapiens2", False),
    ("tipsv2_dpt", "Tipsv2DptImageProcessor", "tipsv2_dpt", False),
    ("detr", "DetrImageProcessor", "detr", True),
    ("conditional_detr", "ConditionalDetrImageProcessor", "conditional_detr", True),
    ("maskformer", "MaskFormerImageProcessor", "maskformer", True),
    ("mask2former", "Mask2FormerImageProcessor", "mask2former", True),
    ("oneformer", "OneFormerImageProcessor", "oneformer", True),
    ("eomt", "EomtImageProcessor", "eomt", True),
    ("eomt_dinov3", "EomtImageProcessor", "eomt", True),
    ("videomt", "VideomtVideoProcessor", "videomt", False),
    ("sam3", "Sam3ImageProcessor", "sam3", False),
    ("seggpt", "SegGptImageProcessor", "seggpt", True),
]
#: What each of these needs to be made.
ARGUMENTS = {
    "EomtImageProcessor": {"size": {"shortest_edge": 32, "longest_edge": 32}},
    "OneFormerImageProcessor": {"class_info_file": None},
}
SPREAD = ("logits", "class_queries_logits", "masks_queries_logits", "pred_masks", "semantic_seg")


def cases():
    needs = pytest.mark.skipif(not is_torchvision_available(), reason="torchvision is not installed")
    for network, processor, folder, alone in NETWORKS:
        if alone:
            yield pytest.param(network, f"{processor}Pil", folder, id=f"{network}-pil")
        yield pytest.param(network, processor, folder, id=network, marks=needs)


def make_processor(name):
    return getattr(hf, name)(**ARGUMENTS.get(name.removesuffix("Pil"), {}))


def run(network, **options):
    """What a network at random gives, made as sure as a trained one: otherwise no decision would differ from argmax."""
    torch.manual_seed(0)
    model, given = getattr(hf_networks, network)(**options)
    with torch.no_grad():
        outputs = model.eval()(**given)
    for name in SPREAD:
        if torch.is_tensor(outputs.get(name)):
            outputs[name] = outputs[name] + 3 * torch.randn(outputs[name].shape)
    return outputs


def resized(scores, size):
    return scores if size is None else torch.nn.functional.interpolate(scores, size, mode="bilinear")


def probabilities(network, outputs, sizes):
    """Of each image, (1, C, H, W), from the outputs alone, in float64."""
    if network == "sam3":
        scores = outputs.semantic_seg.double().sigmoid()
    elif "logits" in outputs and "pred_masks" not in outputs:
        scores = outputs.logits.double()
    else:
        classes, masks = outputs.get("class_queries_logits", outputs.get("logits")), outputs.get("masks_queries_logits")
        masks = (outputs.pred_masks if masks is None else masks).double()
        masks = resized(masks, {"mask2former": (384, 384), "eomt": (32, 32), "eomt_dinov3": (32, 32)}.get(network))
        # The last class is none of them, but for Conditional DETR, which has no such class.
        classes = classes.double().softmax(-1)[..., :CLASSES]
        scores = torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())
    scores = [resized(scores[i : i + 1], size) for i, size in enumerate(sizes)]
    if network == "sam3":
        return scores
    if "logits" in outputs and "pred_masks" not in outputs:
        return [each.softmax(1) for each in scores]
    return [each / each.sum(1, keepdim=True) for each in scores]


@pytest.mark.parametrize(("network", "processor", "folder"), cases())
def test_labels_of_a_family(network, processor, folder):
    outputs, image_processor = run(network), make_processor(processor)
    assert find_family(image_processor) is FAMILIES[folder]
    library = getattr(image_processor, METHOD)
    for sizes in (SIZES, None):
        if sizes is None and folder in ("eomt", "videomt"):
            with pytest.raises(ValueError, match="target_sizes must be given"):
                RankSEGSemanticPostProcessor(image_processor)(outputs)
            continue
        own = library(outputs, target_sizes=sizes)
        argmax = post_process_semantic_segmentation(image_processor, outputs, sizes, "argmax")
        assert [each.dtype for each in argmax] == [each.dtype for each in own]
        assert all(torch.equal(*both) for both in zip(argmax, own, strict=True))
        if folder == "seggpt":
            continue
        probs = probabilities(network, outputs, sizes or [None] * IMAGES)
        multilabel = {"output_mode": "multilabel"} if network == "sam3" else {}
        rankseg = RankSEG("iou", pruning_prob=0.1, **multilabel)
        post_process = RankSEGSemanticPostProcessor(image_processor, rankseg)
        for found, expected in zip(post_process.probabilities(outputs, sizes), probs, strict=True):
            torch.testing.assert_close(found, expected[0].float(), rtol=0, atol=1e-4)
        labels = post_process(outputs, sizes)
        for found, expected in zip(labels, probs, strict=True):
            decided = rankseg(expected)
            assert found.dtype == torch.int64
            assert torch.equal(found, decided[0, 0].long() if multilabel else decided[0])
        assert sizes is None or any((ours != theirs).any() for ours, theirs in zip(labels, own, strict=True))
        accuracy = post_process_semantic_segmentation(image_processor, outputs, sizes, RankSEG("acc", **multilabel))
        assert all(torch.equal(*both) for both in zip(accuracy, own, strict=True))


@pytest.mark.skipif(not is_torchvision_available(), reason="torchvision is not installed")
def test_the_threshold_of_sam3_is_for_argmax():
    outputs, image_processor = run("sam3"), hf.Sam3ImageProcessor()
    own = getattr(image_processor, METHOD)(outputs, threshold=0.3)
    found = post_process_semantic_segmentation(image_processor, outputs, decoder="argmax", threshold=0.3)
    assert all(torch.equal(*both) for both in zip(found, own, strict=True))
    with pytest.raises(ValueError, match="threshold is for decoder='argmax'"):
        post_process_semantic_segmentation(image_processor, outputs, threshold=0.3)


def test_every_image_processor_of_this_version_is_in_the_table():
    """But for CHMv2, which inherits the method and predicts heights."""
    found = set()
    for path in Path(hf.__file__).parent.glob("models/*/*_processing_*.py"):
        if f"def {METHOD}(" in path.read_text(encoding="utf-8"):
            found.add(path.parent.name)
    assert found == {*FAMILIES, "chmv2"}


def test_the_page_has_the_table():
    page = (ROOT / "docs" / "transformers.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.*)` \|.*\| (?:`(\w+)`|none).*\|$", page, re.MULTILINE)
    told = {name: activation for names, activation in rows for name in names.split("`, `")}
    assert told == {name: family.activation for name, family in FAMILIES.items()}
    assert set(KNOWN.split(", ")) == {name for name, activation in told.items() if activation}
