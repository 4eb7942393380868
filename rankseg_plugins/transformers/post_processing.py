"""The semantic post-processing of an image processor, decided by RankSEG."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from operator import index
from os import PathLike
from typing import Any

from torch import Tensor

from rankseg_plugins.calibration.deciding import as_decoder, decide, label_maps
from rankseg_plugins.core.inputs.options import suggest
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice, to_probabilities
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.transformers.families import AUTO, METHOD, choose_activation, find_family

ARGMAX = "argmax"


class RankSEGSemanticPostProcessor:
    """Takes the place of ``image_processor.post_process_semantic_segmentation``.

    The library scores and resizes as ever; only what it does last, the argmax over the ``segmentation_scores`` of an
    image at its target size, is replaced. So the order is the library's own: logits are resized before softmax; sums
    over queries, and SAM3's probabilities, are resized as they are.

    Args:
        image_processor: an image or video processor of Transformers, or a processor that holds one.
        decoder: the decision, by default ``RankSEG()``; the path of the file of a
            ``TunedDecoder``; or ``"argmax"``, the library's own result, bit for bit. A network of one class (one
            channel) takes a decoder with ``output_mode="multilabel"``.
        activation: what makes probabilities of the scores: ``"softmax"``, ``"sigmoid"``, ``"normalize"``,
            ``"identity"``, or ``"auto"``, which follows from the image processor: softmax of logits (sigmoid of one
            channel), and sums over queries divided by their sum over the classes.

    Raises:
        TypeError: if the image processor has no such method, or ``decoder`` is of the wrong type.
        ValueError: for an unknown activation, an image processor of which none is known, or one that gives no
            ``segmentation_scores`` (before Transformers 5.13); for a file that holds no decoder.
        OSError: if the file cannot be read.

    Example:
        >>> import torch, transformers
        >>> from transformers.modeling_outputs import SemanticSegmenterOutput
        >>> logits = torch.tensor([[[[2.0, 0.1, -3.0]], [[0.0, 0.0, 0.0]]]])  # (B, C, H, W)
        >>> outputs = SemanticSegmenterOutput(logits=logits)
        >>> from rankseg_plugins import RankSEG
        >>> post_process = RankSEGSemanticPostProcessor(transformers.SegformerImageProcessorPil(), RankSEG("dice"))
        >>> post_process(outputs)
        [tensor([[0, 0, 1]])]
        >>> post_process(outputs, target_sizes=[(2, 4)])[0].shape
        torch.Size([2, 4])
    """

    def __init__(
        self, image_processor: Any, decoder: Any | str | PathLike[str] | None = None, activation: str = AUTO
    ) -> None:
        image_processor = getattr(image_processor, "image_processor", image_processor)
        if not callable(getattr(image_processor, METHOD, None)):
            raise TypeError(f"image_processor must have the method {METHOD}, got {type(image_processor).__name__}")
        check_choice("activation", activation, (AUTO, *ACTIVATIONS))
        self.image_processor, self.activation = image_processor, activation
        # The method as it is now: this object may take its place in the image processor of a pipeline.
        self._method = getattr(image_processor, METHOD)
        self._parameters = inspect.signature(self._method).parameters
        if "return_segmentation_scores" not in self._parameters:
            raise ValueError(
                f"image_processor: {METHOD} of {type(image_processor).__name__} takes no return_segmentation_scores; "
                "that of Transformers does since 5.13"
            )
        self._is_argmax = isinstance(decoder, str) and decoder == ARGMAX
        self.decoder = decoder if self._is_argmax else as_decoder(decoder)
        if not self._is_argmax:
            choose_activation(image_processor, activation)

    def __call__(
        self,
        outputs: Any,
        target_sizes: Sequence[Sequence[int]] | Tensor | None = None,
        *,
        return_segmentation_scores: bool = False,
        **options: Any,
    ) -> list[Any]:
        """Label maps of a batch.

        Args:
            outputs: what the network returned, for B images.
            target_sizes: (height, width) of each image; a list, or an integer tensor (B, 2). None leaves the labels at
                the size of the scores.
            return_segmentation_scores: give the library's ``SemanticSegmentationPostProcessorOutput`` of each image:
                its ``segmentation`` is the decision, its ``segmentation_scores`` are the library's.
            **options: others of the library's method, such as ``size`` of EoMT.

        Returns:
            B label maps (H, W), int64, on the device of the scores.

        Raises:
            TypeError: for an output that the image processor is not for, sizes of the wrong type, an unknown option.
            ValueError: for another number of sizes than of images, ``threshold`` where it does not decide, scores that
                are not finite, or a decoder that does not fit the number of classes; the message names the image.
        """
        if not self._is_argmax and "threshold" in options:
            raise ValueError("threshold is for decoder='argmax'; any other finds its own")
        items = self._score(outputs, target_sizes, options)
        if not self._is_argmax:
            for number, item in enumerate(items):
                with naming(f"outputs, image {number}"):
                    item["segmentation"] = self._decide(item["segmentation_scores"][None])
        return items if return_segmentation_scores else [item["segmentation"] for item in items]

    def probabilities(
        self, outputs: Any, target_sizes: Sequence[Sequence[int]] | Tensor | None = None, **options: Any
    ) -> list[Tensor]:
        """What is decided on, for ``rankseg_plugins.tuning.tune`` and ``rankseg_plugins.comparison.compare``.

        Arguments and errors are those of ``__call__``.

        Returns:
            Probabilities (C, H, W) of each image, float32 or float64.

        Example:
            >>> import torch, transformers
            >>> from transformers.modeling_outputs import SemanticSegmenterOutput
            >>> outputs = SemanticSegmenterOutput(logits=torch.tensor([[[[0.0, 1.0]], [[0.0, 0.0]]]]))  # (B, C, H, W)
            >>> post_process = RankSEGSemanticPostProcessor(transformers.SegformerImageProcessorPil())
            >>> post_process.probabilities(outputs)[0][:, 0]
            tensor([[0.5000, 0.7311],
                    [0.5000, 0.2689]])
        """
        scores = [item["segmentation_scores"][None] for item in self._score(outputs, target_sizes, options)]
        return [to_probabilities(each.detach(), self._activation(each))[0] for each in scores]

    def _score(self, outputs: Any, target_sizes: Any, options: dict[str, Any]) -> list[Any]:
        """The library's result of each image, scores at the target size and argmax."""
        for name in options:
            if name not in self._parameters:
                raise TypeError(f"{METHOD} takes no option {name!r}, {suggest(name, list(self._parameters)[1:])}")
        count = self._count(outputs)
        if target_sizes is not None:
            target_sizes = _read_sizes(target_sizes, count)
        elif self._parameters["target_sizes"].default is inspect.Parameter.empty:
            raise ValueError(f"target_sizes must be given: {type(self.image_processor).__name__} needs them")
        found: list[Any] = self._method(outputs, target_sizes=target_sizes, return_segmentation_scores=True, **options)
        return found

    def _count(self, outputs: Any) -> int | None:
        """Images in what a network returned; None if that is not known."""
        family = find_family(self.image_processor)
        if family is None:
            return None
        given = (getattr(outputs, name, None) for name in family.fields)
        found = next((each for each in given if each is not None), None)
        if not isinstance(found, Tensor) or found.ndim != 4:
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(outputs).__name__
            raise TypeError(
                f"outputs must have {' or '.join(family.fields)} (B, channels, H, W) for "
                f"{type(self.image_processor).__name__}, got {got}"
            )
        # Of EoMT, an image may come in several patches, whose first number is its own.
        patches = getattr(outputs, "patch_offsets", None)
        return len({int(patch[0]) for patch in patches}) if patches else len(found)

    def _activation(self, scores: Tensor) -> str:
        chosen = choose_activation(self.image_processor, self.activation)
        return "sigmoid" if (chosen, self.activation, scores.shape[1]) == ("softmax", AUTO, 1) else chosen

    def _decide(self, scores: Tensor) -> Tensor:
        return label_maps(decide(self.decoder, scores, self._activation(scores)), scores)[0]


def post_process_semantic_segmentation(
    image_processor: Any,
    outputs: Any,
    target_sizes: Sequence[Sequence[int]] | Tensor | None = None,
    decoder: Any | str | PathLike[str] | None = None,
    activation: str = AUTO,
    **options: Any,
) -> list[Any]:
    """Functional twin of ``RankSEGSemanticPostProcessor``: label maps of a batch in a single call.

    Args:
        image_processor: see the class.
        outputs: what the network returned, for B images.
        target_sizes: (height, width) of each image, or None.
        decoder: see the class.
        activation: see the class.
        **options: see ``RankSEGSemanticPostProcessor.__call__``.

    Returns:
        B label maps (H, W), int64.

    Raises:
        TypeError: as the class and its call.
        ValueError: as the class and its call.
        OSError: if the file of a decoder cannot be read.

    Example:
        >>> import torch, transformers
        >>> from transformers.modeling_outputs import SemanticSegmenterOutput
        >>> outputs = SemanticSegmenterOutput(logits=torch.tensor([[[[2.0, 0.1, -3.0]], [[0.0, 0.0, 0.0]]]]))
        >>> post_process_semantic_segmentation(transformers.SegformerImageProcessorPil(), outputs, decoder="argmax")
        [tensor([[0, 0, 1]])]
    """
    return RankSEGSemanticPostProcessor(image_processor, decoder, activation)(outputs, target_sizes, **options)


def _read_sizes(sizes: Any, count: int | None) -> list[tuple[int, int]]:
    listed = sizes.tolist() if hasattr(sizes, "tolist") else sizes
    try:
        read = [(index(height), index(width)) for height, width in listed]
    except (TypeError, ValueError):
        read = [(0, 0)]
    if any(min(size) < 1 for size in read):
        raise TypeError(
            f"target_sizes must hold (height, width), integers of at least 1, for each image, got {sizes!r}"
        )
    if count is not None and len(read) != count:
        raise ValueError(f"target_sizes must hold a size for each of the {count} images, got {len(read)}")
    return read
