"""What the image processors of Transformers score classes by, and what makes probabilities of it."""

from __future__ import annotations

from typing import Any, NamedTuple

METHOD = "post_process_semantic_segmentation"
AUTO = "auto"


class Family(NamedTuple):
    """Image processors whose ``segmentation_scores`` are of one kind.

    Args:
        scores: what they are, in words.
        activation: what makes probabilities of them; ``""`` if nothing does.
        fields: of the network's output, (B, channels, H, W), on which the scores rest; the first that is there counts.
    """

    scores: str
    activation: str
    fields: tuple[str, ...]


LOGITS = Family("logits", "softmax", ("logits",))
#: The sum over the queries of class probability times mask probability is the number of queries of the class that are
#: expected to hold the pixel. Divided by their sum over the classes it is the probability that one of these queries,
#: drawn at random, is of the class; the null class takes no part. The largest stays the largest.
QUERIES = Family("sums over queries", "normalize", ("masks_queries_logits",))
DETR = QUERIES._replace(fields=("pred_masks",))

#: By the folder in ``transformers.models`` in which the method stands: that of BEiT serves Data2Vec, too, that of
#: SegFormer UPerNet, and that of EoMT its version with DINOv3.
FAMILIES = {
    **dict.fromkeys(("beit", "dpt", "mobilenet_v2", "mobilevit", "sapiens2", "segformer"), LOGITS),
    "tipsv2_dpt": LOGITS._replace(fields=("segmentation_logits", "logits")),
    **dict.fromkeys(("conditional_detr", "detr"), DETR),
    **dict.fromkeys(("eomt", "mask2former", "maskformer", "oneformer", "videomt"), QUERIES),
    "sam3": Family("probabilities of the foreground", "identity", ("semantic_seg",)),
    # A painted image, and its distance to the colour of each class.
    "seggpt": Family("distances to colours", "", ("pred_masks",)),
}
KNOWN = ", ".join(name for name, family in FAMILIES.items() if family.activation)


def find_family(image_processor: Any) -> Family | None:
    """The family of the class that defines the method; None of an unknown one."""
    for kind in type(image_processor).__mro__:
        if METHOD in vars(kind):
            package, _, module = kind.__module__.partition(".models.")
            return FAMILIES.get(module.split(".")[0]) if package == "transformers" else None
    return None


def choose_activation(image_processor: Any, activation: str) -> str:
    """The activation of the scores, ``"auto"`` resolved.

    Raises:
        ValueError: if none is known for this image processor.
    """
    if activation != AUTO:
        return activation
    family = find_family(image_processor)
    if family is not None and family.activation:
        return family.activation
    name = type(image_processor).__name__
    what = f"gives {family.scores}, which are no probabilities" if family else "is not known"
    raise ValueError(
        f"image_processor: {name} {what}; known are those of {KNOWN}. Say what makes probabilities of its "
        "segmentation_scores by activation='softmax', 'sigmoid', 'normalize' or 'identity'"
    )
