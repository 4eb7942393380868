"""Test-time augmentation: average probabilities over the views, then decide once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from rankseg_plugins.mmseg.segmentors import RankSEGMixin


@MODELS.register_module()
class RankSEGTTAModel(SegTTAModel):
    """Replaces ``SegTTAModel``, which decides by argmax whatever its segmentor would do.

    Every view is turned into probabilities at the original image size by the segmentor's own activation, the
    probabilities are averaged, and RankSEG decides once per image. With ``test_cfg.rankseg`` off, models with
    several channels are left to ``SegTTAModel``. One channel is always averaged here, because ``SegTTAModel`` applies
    the sigmoid a second time, which lifts every probability above 0.5.

    Args:
        module: config or instance of a RankSEG segmentor.
        data_preprocessor: config or instance; set for the segmentor if ``module`` is a config.

    Raises:
        TypeError: if ``module`` is not a RankSEG segmentor.

    Example:
        With a stock config, ``tools/test.py CONFIG CHECKPOINT --tta --cfg-options
        model.type=rankseg_plugins.mmseg.RankSEGEncoderDecoder model.test_cfg.rankseg.metric=dice
        tta_model.type=rankseg_plugins.mmseg.RankSEGTTAModel``
    """

    def __init__(self, module: Any, data_preprocessor: Any = None) -> None:
        super().__init__(module, data_preprocessor)
        if not isinstance(self.module, RankSEGMixin):
            raise TypeError(
                f"RankSEGTTAModel needs a RankSEG segmentor, got {type(self.module).__name__}; set model.type, for "
                "example to 'rankseg_plugins.mmseg.RankSEGEncoderDecoder'"
            )

    def test_step(self, data: Any) -> list[SegDataSample]:
        """Predict the views of a batch, and merge them, one after the other.

        Args:
            data: batch of the loader; every entry holds one value per view.

        Returns:
            One data sample per image: ``pred_sem_seg`` (1, H, W), ``seg_logits`` (C, H, W) with the averaged
            probabilities, the first view's meta information and ground truth, and, with ``compare``,
            ``pred_sem_seg_argmax``.
        """
        if self._left_to_toolkit():
            found: list[SegDataSample] = super().test_step(data)
            return found
        means: list[Mean] = []
        for view in _views(data):
            self._add(means, view)
        return [self._decide(mean) for mean in means]

    def merge_preds(self, data_samples_list: Sequence[Sequence[SegDataSample]]) -> list[SegDataSample]:
        """Average the probabilities of the views of each image, and decide.

        Args:
            data_samples_list: for each image its views, whose ``seg_logits`` (C, H, W) hold probabilities, as the
                segmentor gives them in ``RankSEGMixin.probabilities_only``.

        Returns:
            One data sample per image.
        """
        if self._left_to_toolkit():
            found: list[SegDataSample] = super().merge_preds(data_samples_list)
            return found
        merged = []
        for views in data_samples_list:
            mean = Mean(views[0])
            for view in views[1:]:
                mean.add(view)
            merged.append(self._decide(mean))
        return merged

    def _left_to_toolkit(self) -> bool:
        return self.module.rankseg_options() is None and getattr(self.module, "out_channels", 2) > 1

    def _add(self, means: list[Mean], view: Any) -> None:
        """Predict a view of every image, and let go of it."""
        with self.module.probabilities_only():
            samples = self.module.test_step(view)
        if not means:
            means += map(Mean, samples)
            return
        for mean, sample in zip(means, samples, strict=True):
            mean.add(sample)

    def _decide(self, mean: Mean) -> SegDataSample:
        mean.total /= mean.count
        self.module.decide(mean.sample, mean.total)
        return mean.sample


class Mean:
    """The mean probabilities of the views of one image.

    Added up one by one, so that those of a single view lie beside them; in float32, where the activation "identity"
    keeps half precision.

    Args:
        sample: the first view, which gets the sum as ``seg_logits``, and then the decision.
    """

    def __init__(self, sample: SegDataSample) -> None:
        first = sample.seg_logits.data
        self.total = first.to(torch.promote_types(first.dtype, torch.float32), copy=True)
        self.sample, self.count = sample, 1
        sample.set_data({"seg_logits": PixelData(data=self.total)})

    def add(self, view: SegDataSample) -> None:
        """Take up another view."""
        self.total += view.seg_logits.data
        self.count += 1


def _views(data: Any) -> list[Any]:
    """The views of a batch, one after the other, as ``BaseTTAModel`` takes them apart."""
    if isinstance(data, Mapping):
        return [{key: value[view] for key, value in data.items()} for view in range(len(next(iter(data.values()))))]
    return [[value[view] for value in data] for view in range(len(data[0]))]
