"""Test-time augmentation: average probabilities over the views, then decide once."""

from __future__ import annotations

from collections.abc import Sequence
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
        """Predict the views of a batch, and merge them.

        Args:
            data: batch of the loader; every entry holds one value per view.

        Returns:
            One data sample per image: ``pred_sem_seg`` (1, H, W), ``seg_logits`` (C, H, W) with the averaged
            probabilities, the first view's meta information and ground truth, and, with ``compare``,
            ``pred_sem_seg_argmax``.
        """
        if self._left_to_toolkit():
            return super().test_step(data)
        with self.module.probabilities_only():
            return super().test_step(data)

    def merge_preds(self, data_samples_list: Sequence[Sequence[SegDataSample]]) -> list[SegDataSample]:
        """Average the probabilities of the views of each image, and decide.

        Args:
            data_samples_list: for each image its views, whose ``seg_logits`` (C, H, W) hold probabilities, as the
                segmentor gives them in :meth:`~rankseg_plugins.mmseg.RankSEGMixin.probabilities_only`.

        Returns:
            One data sample per image.
        """
        if self._left_to_toolkit():
            return super().merge_preds(data_samples_list)
        return [self._merge(views) for views in data_samples_list]

    def _left_to_toolkit(self) -> bool:
        return self.module.rankseg_options() is None and getattr(self.module, "out_channels", 2) > 1

    def _merge(self, views: Sequence[SegDataSample]) -> SegDataSample:
        merged = views[0]
        # Added up one by one: stacking would hold all views of an image at once, a second time. In float32, where the
        # activation "identity" keeps half precision.
        first = merged.seg_logits.data
        total = first.to(torch.promote_types(first.dtype, torch.float32), copy=True)
        for view in views[1:]:
            total += view.seg_logits.data
        total /= len(views)
        merged.set_data({"seg_logits": PixelData(data=total)})
        self.module.decide(merged, total)
        return merged
