"""What the post-processing takes and refuses, beside the families: decoders, sizes, one class, patches, a pipeline."""

import numpy as np
import pytest
import torch
from toolkits import is_installed

if not is_installed("transformers"):
    pytest.skip("Transformers is not installed", allow_module_level=True)

import hf_networks
import transformers as hf
from PIL import Image
from transformers.modeling_outputs import DepthEstimatorOutput, SemanticSegmenterOutput

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.transformers import RankSEGSemanticPostProcessor, post_process_semantic_segmentation

SIZES = [(20, 30), (31, 17)]


@pytest.fixture(scope="module")
def segformer():
    return hf.SegformerImageProcessorPil()


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return SemanticSegmenterOutput(logits=3 * torch.randn(2, 5, 9, 8, generator=generator))


def decide(decoder, outputs):
    """The labels of each image from softmax of its resized logits."""
    resized = [
        torch.nn.functional.interpolate(logits[None].double(), size, mode="bilinear")
        for logits, size in zip(outputs.logits, SIZES, strict=True)
    ]
    return [decoder(each.softmax(1))[0] for each in resized]


def assert_equal(found, expected):
    assert [each.dtype for each in found] == [torch.int64] * len(expected)
    assert all(torch.equal(*both) for both in zip(found, expected, strict=True))


def decoders():
    generator = torch.Generator().manual_seed(1)
    probs = (3 * torch.randn(12, 5, 10, 10, generator=generator)).softmax(1)
    truth = torch.multinomial(probs.movedim(1, -1).reshape(-1, 5), 1, generator=generator).view(12, 10, 10)
    pooled = GlobalRankSEG(5, min_images=0, min_gain=0)
    pooled.update(probs)
    pooled.fit()
    presence = PresenceRankSEG(5)
    presence.update(probs, truth)
    presence.fit()
    yield from (RankSEG("iou", pruning_prob=0.1), RankSEG(unassigned_policy="void"), pooled, presence)
    yield TunedDecoder(RankSEG(pruning_prob=0.1), 5, temperature=0.7)


@pytest.mark.parametrize("decoder", decoders(), ids=lambda decoder: type(decoder).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoders(decoder, dtype, segformer, outputs):
    if dtype == torch.bfloat16:
        # Resizing in half precision is the library's; the decision is on what it gives.
        outputs.logits = outputs.logits.bfloat16()
        items = segformer.post_process_semantic_segmentation(outputs, SIZES, return_segmentation_scores=True)
        expected = [decoder(item.segmentation_scores[None].double().softmax(1))[0] for item in items]
    else:
        expected = decide(decoder, outputs)
    assert_equal(RankSEGSemanticPostProcessor(segformer, decoder)(outputs, SIZES), expected)
    assert_equal(post_process_semantic_segmentation(segformer, outputs, SIZES, decoder), expected)


def test_by_default_rankseg_decides(segformer, outputs):
    assert_equal(post_process_semantic_segmentation(segformer, outputs, SIZES), decide(RankSEG(), outputs))


def test_the_file_of_a_tuned_decoder(segformer, outputs, tmp_path):
    decoder = TunedDecoder(RankSEG(pruning_prob=0.1), 5, temperature=0.7)
    decoder.save(tmp_path / "decoder.json")
    expected = decide(decoder, outputs)
    for path in (tmp_path / "decoder.json", str(tmp_path / "decoder.json")):
        assert_equal(post_process_semantic_segmentation(segformer, outputs, SIZES, path), expected)


@pytest.mark.parametrize("sizes", [torch.tensor(SIZES), np.array(SIZES), [torch.tensor(size) for size in SIZES]])
def test_sizes_of_any_form(sizes, segformer, outputs):
    assert_equal(post_process_semantic_segmentation(segformer, outputs, sizes), decide(RankSEG(), outputs))


def test_scores_beside_the_labels(segformer, outputs):
    given = {"outputs": outputs, "target_sizes": SIZES, "return_segmentation_scores": True}
    own = segformer.post_process_semantic_segmentation(**given)
    items = RankSEGSemanticPostProcessor(segformer)(**given)
    assert_equal([item.segmentation for item in items], decide(RankSEG(), outputs))
    assert all(torch.equal(a.segmentation_scores, b.segmentation_scores) for a, b in zip(items, own, strict=True))
    argmax = RankSEGSemanticPostProcessor(segformer, "argmax")(**given)
    assert_equal([item.segmentation for item in argmax], [item.segmentation for item in own])


def test_one_class_is_a_sigmoid(segformer):
    torch.manual_seed(0)
    model, given = hf_networks.segformer(num_labels=1)
    with torch.no_grad():
        outputs = model.eval()(**given)
    outputs.logits = outputs.logits + 3 * torch.randn(outputs.logits.shape)
    decoder = RankSEG("dice", output_mode="multilabel")
    found = post_process_semantic_segmentation(segformer, outputs, decoder=decoder)
    assert_equal(found, list(decoder(outputs.logits.double().sigmoid())[:, 0].long()))
    assert any(
        (labels != (logits > 0).long()).any() for labels, logits in zip(found, outputs.logits[:, 0], strict=True)
    )
    with pytest.raises(ValueError, match="image 0: a single channel cannot compete with itself"):
        post_process_semantic_segmentation(segformer, outputs)


def test_images_in_patches():
    """Of EoMT, whose patches of one image are brought together before they are decided on."""
    processor = hf.EomtImageProcessorPil(size={"shortest_edge": 32, "longest_edge": None}, do_split_image=True)
    torch.manual_seed(0)
    model, _ = hf_networks.eomt()
    images = [np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8) for shape in ((32, 60, 3), (50, 32, 3))]
    inputs = processor(images, return_tensors="pt")
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    assert len(outputs.masks_queries_logits) > 2
    for name in ("class_queries_logits", "masks_queries_logits"):
        outputs[name] = outputs[name] + 3 * torch.randn(outputs[name].shape)
    sizes = [(32, 60), (50, 32)]
    items = processor.post_process_semantic_segmentation(outputs, sizes, return_segmentation_scores=True)
    scores = [item.segmentation_scores[None].double() for item in items]
    rankseg = RankSEG(pruning_prob=0.1)
    expected = [rankseg(each / each.sum(1, keepdim=True))[0] for each in scores]
    assert_equal(post_process_semantic_segmentation(processor, outputs, sizes, rankseg), expected)
    with pytest.raises(ValueError, match="each of the 2 images, got 1"):
        post_process_semantic_segmentation(processor, outputs, sizes[:1])


def test_in_a_pipeline(segformer):
    torch.manual_seed(0)
    model = hf_networks.segformer()[0].eval()
    processor = hf.SegformerImageProcessorPil(size={"height": 32, "width": 32})
    model.decode_head.classifier.weight.data *= 1e4
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    pipe = hf.pipeline("image-segmentation", model=model, image_processor=processor)
    with torch.no_grad():
        outputs = model(**processor(image, return_tensors="pt"))
    rankseg = RankSEG(pruning_prob=0.1)
    expected = post_process_semantic_segmentation(processor, outputs, [(40, 50)], rankseg)[0]
    plain = {part["label"]: np.array(part["mask"]) > 0 for part in pipe(image)}
    processor.post_process_semantic_segmentation = RankSEGSemanticPostProcessor(processor, rankseg)
    found = {part["label"]: np.array(part["mask"]) > 0 for part in pipe(image)}
    assert found.keys() == {f"LABEL_{label}" for label in expected.unique()}
    assert all((mask == (expected.numpy() == int(label[-1]))).all() for label, mask in found.items())
    assert found.keys() != plain.keys() or any((found[label] != plain[label]).any() for label in found)


# What is refused.


class Own(hf.SegformerImageProcessorPil):
    """Its scores may be anything."""

    def post_process_semantic_segmentation(self, outputs, target_sizes=None, return_segmentation_scores=False):
        return super().post_process_semantic_segmentation(outputs, target_sizes, return_segmentation_scores)


def test_an_unknown_image_processor(outputs):
    with pytest.raises(ValueError, match=r"Own is not known; known are those of beit, .*sam3\. Say what .*activation="):
        RankSEGSemanticPostProcessor(Own())
    own = Own().post_process_semantic_segmentation(outputs, SIZES)
    assert_equal(post_process_semantic_segmentation(Own(), outputs, SIZES, "argmax"), own)
    found = post_process_semantic_segmentation(Own(), outputs, SIZES, activation="softmax")
    assert_equal(found, decide(RankSEG(), outputs))


class Renamed(hf.SegformerImageProcessorPil):
    """A subclass that leaves the method as it is."""


def test_a_subclass_is_of_the_family(outputs):
    assert_equal(post_process_semantic_segmentation(Renamed(), outputs, SIZES), decide(RankSEG(), outputs))


def test_a_processor_that_holds_an_image_processor(segformer, outputs):
    class Processor:
        image_processor = segformer

    assert_equal(post_process_semantic_segmentation(Processor(), outputs, SIZES), decide(RankSEG(), outputs))


def test_scores_that_are_no_probabilities():
    with pytest.raises(
        ValueError, match="SegGptImageProcessorPil gives distances to colours, which are no probabilities"
    ):
        RankSEGSemanticPostProcessor(hf.SegGptImageProcessorPil())


class Old:
    def post_process_semantic_segmentation(self, outputs, target_sizes=None):
        return []


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"image_processor": hf.ViTImageProcessorPil()}, TypeError, "method post_process_.*, got ViTImageProcessorPil"),
        ({"image_processor": Old()}, ValueError, "that of Transformers does since 5.13"),
        ({"activation": "relu"}, ValueError, "activation must be one of 'auto', 'softmax'"),
        ({"decoder": 3}, TypeError, "decoder must be a RankSEG"),
        ({"decoder": "nowhere.json"}, FileNotFoundError, "no such file"),
        ({"decoder": RankSEG}, TypeError, "got the class RankSEG"),
    ],
)
def test_options_that_are_refused(given, error, message, segformer):
    with pytest.raises(error, match=message):
        RankSEGSemanticPostProcessor(**{"image_processor": segformer, **given})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"outputs": None}, TypeError, r"outputs must have logits \(B, channels, H, W\) for Segformer.*, got NoneType"),
        ({"outputs": DepthEstimatorOutput(predicted_depth=torch.rand(1, 4, 4))}, TypeError, "got DepthEstimatorOutput"),
        ({"outputs": SemanticSegmenterOutput(logits=torch.rand(2, 5))}, TypeError, r"got shape \(2, 5\)"),
        ({"target_sizes": SIZES[:1]}, ValueError, "a size for each of the 2 images, got 1"),
        ({"target_sizes": (20, 30)}, TypeError, r"must hold \(height, width\).*got \(20, 30\)"),
        ({"target_sizes": [(20, 30), (4.5, 2)]}, TypeError, "integers of at least 1"),
        ({"target_sizes": [(20, 30), (0, 2)]}, TypeError, "integers of at least 1"),
        ({"treshold": 1}, TypeError, "takes no option 'treshold', did you mean .* Allowed are target_sizes, return_"),
        ({"threshold": 0.3}, ValueError, "threshold is for decoder='argmax'"),
        ({"decoder": TunedDecoder(RankSEG(), 4)}, ValueError, "image 0: logits must have 4 classes, got shape"),
        ({"decoder": RankSEG(output_mode="multilabel")}, ValueError, "image 0: decoder must give one int64 label"),
        ({"decoder": lambda probs: probs}, ValueError, "decoder must give one int64 label a pixel"),
        ({"activation": "normalize"}, ValueError, "image 0: activation='normalize' needs non-negative scores"),
    ],
)
def test_calls_that_are_refused(given, error, message, segformer, outputs):
    with pytest.raises(error, match=message):
        post_process_semantic_segmentation(segformer, **{"outputs": outputs, "target_sizes": SIZES, **given})


def test_logits_that_are_not_finite(segformer, outputs):
    outputs.logits[1, 2, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="outputs, image 1: logits must be finite"):
        post_process_semantic_segmentation(segformer, outputs, SIZES)
