"""Segmentors of MMSegmentation that decode with RankSEG, switched by ``model.test_cfg.rankseg``."""

from __future__ import annotations

import copyreg
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor
from mmseg.models.segmentors import (
    CascadeEncoderDecoder,
    DepthEstimator,
    EncoderDecoder,
    MultimodalEncoderDecoder,
)
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from rankseg_plugins._warning import warn
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.calibration.deciding import decide_knowing
from rankseg_plugins.calibration.temperature import warn_if_softened
from rankseg_plugins.comparison.blocks.expected import expect
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.inputs.probabilities import to_probabilities
from rankseg_plugins.mmseg.activations import choose_activation, head_probabilities, last_head, refuse_depth
from rankseg_plugins.mmseg.options import KEY, Options, TunedFile, read_options
from rankseg_plugins.mmseg.samples import EXPECTED, PRESENCE, forget_argmax, image_path, leave_decision


class RankSEGMixin:
    """Replaces the last step of a segmentor, argmax over its logits, by RankSEG.

    Put it before the segmentor among the bases of a class, or let ``make_rankseg`` do so. It adds no parameter and no
    buffer: checkpoints fit both ways. Padding, flips and the resize to the original size stay the segmentor's own work;
    every image is decoded alone, from its logits at its original size: no probabilities lie beside them, and half
    precision is computed with in float32.

    The options stand in ``test_cfg.rankseg`` and are read at every batch, so they can be changed at run time. None,
    or no such key, leaves the segmentor's own result as it is, bit for bit. The keys are those of
    ``RankSEG`` (``output_mode`` follows from the number of channels), and:

    * ``activation``: ``"softmax"``, ``"sigmoid"``, ``"normalize"``, ``"identity"``, or ``"auto"`` (default), which
      chooses by the head, see ``rankseg_plugins.mmseg.activations.automatic_activation``;
    * ``compare``: True keeps argmax's labels (one channel: those of ``decode_head.threshold``) beside RankSEG's, in
      the data sample's field ``pred_sem_seg_argmax``;
    * ``expected_score``: ``"dice"`` or ``"iou"``, with ``compare``: what both are expected to score on each image is
      worked out, for the report of ``MultiLevelIoUMetric``, in several times the work;
    * ``tuned``: file of a ``TunedDecoder``, such as ``RankSEGTuningHook`` writes, instead of all options of the
      decoder. It is read again when it changes.

    The first image that RankSEG decides is checked: a warning tells if softmax seems to have been applied twice. An
    image for which the network gives NaN keeps the toolkit's own labels, and a warning, once, names the first one.

    Results have the toolkit's own form. ``pred_sem_seg`` is (1, H, W): int64 labels, or for one channel a 0/1 mask
    in the dtype of the logits. ``seg_logits`` is (C, H, W): logits, or for one channel probabilities.

    Args:
        args: those of the segmentor.
        kwargs: likewise.

    Raises:
        TypeError: if a depth estimator is to be subclassed or the head predicts depth, or an option has the wrong type.
        ValueError: for an unknown option or a file that does not fit (already at construction), or a head that gives no
            probabilities.
        OSError: if the file cannot be read.

    Example:
        >>> class MySegmentor(RankSEGMixin, EncoderDecoder):
        ...     pass
    """

    test_cfg: Any
    out_channels: int

    #: While True, data samples receive probabilities and no decision; see ``probabilities_only``.
    _probabilities_only = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if issubclass(cls, DepthEstimator):
            raise TypeError("RankSEG decodes class probabilities; DepthEstimator predicts depth and has none")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tuned_file, self._checked = TunedFile(), False
        self._views: list[tuple[tuple[str | None, str], str]] = []
        self._warned = self._told = not is_main_process()  # one process warns for all
        options = self.rankseg_options()
        if options is not None:
            refuse_depth(last_head(self))
            options.build(getattr(self, "out_channels", None), self._tuned_file)

    def rankseg_options(self) -> Options | None:
        """Read ``test_cfg.rankseg`` as it is now; None when RankSEG is off.

        Raises:
            TypeError: if it is neither None nor a dict.
            ValueError: for an unknown key, naming the nearest valid one.
        """
        return read_options((self.test_cfg or {}).get("rankseg"))

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Turn the network's output into data samples at the original image sizes.

        Args:
            seg_logits: (B, C, H, W) output of the network, floating point.
            data_samples: B samples whose meta information tells padding, flip and original size; None takes the
                output as it is.

        Returns:
            B samples with ``pred_sem_seg``, ``seg_logits`` and, with ``compare``, ``pred_sem_seg_argmax``.

        Raises:
            TypeError: if the segmentor does not give class labels.
            ValueError: if the output cannot be turned into probabilities, or a key in ``test_cfg.rankseg`` is wrong.
        """
        options = self.rankseg_options()
        for sample in data_samples or ():
            forget_argmax(sample)
        if options is None and not self._probabilities_only:
            found: list[SegDataSample] = super().postprocess_result(seg_logits, data_samples)  # type: ignore[misc]
            return found
        if not self._probabilities_only:
            self._warn_of_views(data_samples or [])
        samples = self._at_original_size(seg_logits, data_samples)
        for sample in samples:
            self._decode_sample(sample, seg_logits.shape[1], options)
        return samples

    def decide(
        self, sample: SegDataSample, logits: Tensor, activation: str = "identity", argmax: Tensor | None = None
    ) -> None:
        """Write the decision on one image into its data sample.

        Args:
            sample: receives ``pred_sem_seg`` and, with ``compare``, ``pred_sem_seg_argmax``. Its ``seg_logits`` give
                the dtype of one-channel masks.
            logits: (C, H, W) output of the network.
            activation: what makes probabilities of it; see ``RankSEG``. By default it holds them.
            argmax: (1, H, W) labels of plain argmax where they are known already.

        Raises:
            TypeError: if ``logits`` is not a floating point tensor.
            ValueError: if ``logits`` are finite, but give no probabilities; the message names the config key and the
                image.
        """
        options = self.rankseg_options()
        compare = options is not None and options.compare
        labels, presence = (None, None) if options is None else self._decided(options, sample, logits, activation)
        if labels is None or compare:
            argmax = self._argmax(sample.seg_logits.data) if argmax is None else argmax
            labels = argmax if labels is None else labels
        if options is None or not compare or argmax is None:
            leave_decision(sample, labels, str(options))
            return
        expected = self._expected(options, logits, activation, (argmax, labels))
        known = {PRESENCE: None if presence is None else presence.cpu(), EXPECTED: expected}
        leave_decision(sample, labels, str(options), argmax, known)

    def _decided(
        self, options: Options, sample: SegDataSample, logits: Tensor, activation: str
    ) -> tuple[Tensor | None, Tensor | None]:
        """RankSEG's labels, and how likely it took each class to be there, if it knows of that.

        No labels where argmax decides, as on an image on which nothing else can be decided.
        """
        decoder = options.build(len(logits), self._tuned_file).to(logits.device)
        plain = decoder.is_argmax if isinstance(decoder, TunedDecoder) else decoder.metric == "acc"
        if plain and len(logits) > 1:
            return None, None
        # Built anew for each image. What a head's own activation gives is no mistake of anybody.
        decoder.check_sums = options.activation == "identity" and not self._checked
        image = image_path(sample) or "an image given as an array"
        try:
            labels, presence = decide_knowing(decoder, logits[None], activation)
        except (TypeError, ValueError) as error:
            if not logits.is_floating_point() or logits.isfinite().all():
                raise type(error)(f"{KEY} (activation={options.activation!r}), {image}: {error}") from error
            self._warn_of_nan(image)
            return None, None
        if not (plain or self._checked):
            self._checked = True
            warn_if_softened(logits[None], activation)
        labels = labels[0].to(sample.seg_logits.data.dtype) if len(logits) == 1 else labels
        return labels, None if presence is None else presence[0]

    def _expected(
        self, options: Options, logits: Tensor, activation: str, decisions: tuple[Tensor, Tensor]
    ) -> tuple[str, Tensor] | None:
        """What both decisions are expected to score, NaN where nothing can be decided; None if nobody asked.

        Of one channel there are two classes: MMSegmentation scores the background, too.
        """
        if options.expected_score is None:
            return None
        if not logits.isfinite().all():
            return options.expected_score, torch.full((2, 2, max(2, len(logits))), torch.nan, dtype=torch.float64)
        probs = to_probabilities(logits[None], activation)[0]
        probs = torch.cat([1 - probs, probs]) if len(probs) == 1 else probs
        decoder = options.build(len(logits), self._tuned_file).to(logits.device)
        found = expect(options.expected_score, (RankSEG("acc"), decoder), [each[0].long() for each in decisions], probs)
        return options.expected_score, torch.from_numpy(found)

    def _warn_of_nan(self, image: str) -> None:
        """Say, once, that the network gives nothing to decide on. No training of hours is to end by its scores."""
        if not self._told:
            self._told = True
            warn(
                f"{KEY}: the network gives NaN or infinite values for {image}, on which nothing can be decided: such "
                "images keep MMSegmentation's own labels, in all scores alike. Look at its logits, which may overflow "
                "in half precision"
            )

    @contextmanager
    def probabilities_only(self) -> Iterator[None]:
        """Context in which ``seg_logits`` of the results holds (C, H, W) probabilities and nothing is decided.

        Test-time augmentation averages probabilities over views before it decides.
        """
        before, self._probabilities_only = self._probabilities_only, True
        try:
            yield
        finally:
            self._probabilities_only = before

    def _at_original_size(self, seg_logits: Tensor, samples: list[SegDataSample] | None) -> list[SegDataSample]:
        # One channel is shown to the segmentor twice: of a single channel it would keep the sigmoid alone, and
        # compare it with `decode_head.threshold`, which the head list of a cascade does not have.
        shown = seg_logits.expand(-1, 2, -1, -1) if seg_logits.shape[1] == 1 else seg_logits
        results: list[SegDataSample] = super().postprocess_result(shown, samples)  # type: ignore[misc]
        if not all("seg_logits" in sample and "pred_sem_seg" in sample for sample in results):
            raise TypeError(f"{KEY}: {type(self).__name__} gives no seg_logits and pred_sem_seg to decode")
        return results

    def _warn_of_views(self, samples: list[SegDataSample]) -> None:
        """Warn, once, if somebody else merges what is decided here.

        A wrapper for test-time augmentation cannot be seen from below, but for its asking for the same images again,
        flipped or scaled another way.
        """
        before, self._views = self._views, [_view(sample) for sample in samples]
        images, same = ([image for image, _ in views] for views in (self._views, before))
        told = self._warned or any(path is None for path, _ in images)
        if not told and images == same and self._views != before:
            self._warned = True
            warn(
                f"{KEY} may have no effect: {images[0][0]} came twice in a row, flipped or scaled another way, as "
                "SegTTAModel asks for its views, which then decides by argmax. For test-time augmentation set "
                "tta_model.type='rankseg_plugins.mmseg.RankSEGTTAModel'"
            )

    def _decode_sample(self, sample: SegDataSample, channels: int, options: Options | None) -> None:
        logits, head = sample.seg_logits.data[:channels], last_head(self)
        configured = "auto" if options is None else options.activation
        if self._probabilities_only or channels == 1:
            probs = head_probabilities(logits[None], head, configured)[0]
            # Of one channel the toolkit hands on probabilities.
            kept = probs if self._probabilities_only else probs.to(logits.dtype)
            sample.set_data({"seg_logits": PixelData(data=kept)})
        if not self._probabilities_only:
            # The toolkit's labels would only take memory while others are found, but where they are to be kept.
            compare = options is not None and options.compare and channels > 1
            argmax = sample.pred_sem_seg.data if compare else None
            del sample.pred_sem_seg
            self.decide(sample, logits, choose_activation(head, channels, configured), argmax)

    def _argmax(self, probs: Tensor) -> Tensor:
        if len(probs) > 1:
            return probs.max(0, keepdim=True).indices
        head: Any = last_head(self)
        found: Tensor = (probs > head.threshold).to(probs.dtype)
        return found


def _view(sample: SegDataSample) -> tuple[tuple[str | None, str], str]:
    """The image of a data sample (of windows of one file the size may differ), and how it is shown."""
    shown = [sample.get(key) for key in ("flip", "flip_direction", "scale_factor")]
    return (image_path(sample), str(sample.get("ori_shape"))), str(shown)


@MODELS.register_module()
class RankSEGEncoderDecoder(RankSEGMixin, EncoderDecoder):
    """``EncoderDecoder`` with RankSEG's decision; see ``RankSEGMixin``.

    Example:
        In a config, no ``custom_imports`` needed::

            model = dict(
                type='rankseg_plugins.mmseg.RankSEGEncoderDecoder',
                test_cfg=dict(rankseg=dict(metric='dice')))
    """


@MODELS.register_module()
class RankSEGCascadeEncoderDecoder(RankSEGMixin, CascadeEncoderDecoder):
    """``CascadeEncoderDecoder`` with RankSEG's decision on its last head; see ``RankSEGMixin``.

    Example:
        ``model = dict(type='rankseg_plugins.mmseg.RankSEGCascadeEncoderDecoder', ...)``
    """


@MODELS.register_module()
class RankSEGMultimodalEncoderDecoder(RankSEGMixin, MultimodalEncoderDecoder):
    """``MultimodalEncoderDecoder`` with RankSEG's decision; see ``RankSEGMixin``.

    Example:
        ``model = dict(type='rankseg_plugins.mmseg.RankSEGMultimodalEncoderDecoder', ...)``
    """


READY_MADE = {
    EncoderDecoder: RankSEGEncoderDecoder,
    CascadeEncoderDecoder: RankSEGCascadeEncoderDecoder,
    MultimodalEncoderDecoder: RankSEGMultimodalEncoderDecoder,
}


@cache
def make_rankseg(segmentor: type) -> type:
    """Give a segmentor class RankSEG's decision, see ``RankSEGMixin``.

    Args:
        segmentor: a subclass of ``mmseg.models.BaseSegmentor`` that predicts classes.

    Returns:
        The class ``RankSEG<name>``; always the same one for the same segmentor. It is in no registry: pass the class
        itself as ``type``, or register it under a name of your own. The class and its instances can be pickled as
        long as ``segmentor`` can.

    Raises:
        TypeError: if ``segmentor`` is no segmentor class, or predicts depth.

    Example:
        >>> make_rankseg(EncoderDecoder).__name__
        'RankSEGEncoderDecoder'
    """
    if not (isinstance(segmentor, type) and issubclass(segmentor, BaseSegmentor)):
        raise TypeError(f"make_rankseg needs a subclass of mmseg.models.BaseSegmentor, got {segmentor!r}")
    if issubclass(segmentor, RankSEGMixin):
        return segmentor
    if segmentor in READY_MADE:
        return READY_MADE[segmentor]
    # A metaclass of its own tells pickle how to find a class that stands in no module.
    maker = type("RankSEGMeta", (type(segmentor),), {})
    made: type = maker(f"RankSEG{segmentor.__name__}", (RankSEGMixin, segmentor), {"__doc__": RankSEGMixin.__doc__})
    copyreg.pickle(maker, lambda _: (make_rankseg, (segmentor,)))
    return made
