"""What RankSEG leaves in a data sample, and how others read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

#: Field of a data sample that holds argmax's labels when ``compare=True``.
ARGMAX_FIELD = "pred_sem_seg_argmax"
#: Meta information of the labels of one decision: the options that it was made with. Whoever decides anew replaces the
#: labels and this with them.
MARK = "rankseg"
#: Likewise: how likely the decision took each class to be there, (C,).
PRESENCE = "rankseg_presence"
#: Likewise: what argmax's decision and this one are expected to score, (name of the score, (2, 2, C)).
EXPECTED = "rankseg_expected"


def leave_decision(
    sample: SegDataSample,
    labels: Tensor,
    options: str,
    argmax: Tensor | None = None,
    known: Mapping[str, Any] | None = None,
) -> None:
    """Write the labels of one decision into a data sample.

    Args:
        sample: receives ``pred_sem_seg`` and ``pred_sem_seg_argmax``.
        labels: (1, H, W).
        options: in words; not empty.
        argmax: (1, H, W) labels of argmax to keep beside them; None keeps none, also none of an earlier decision.
        known: what else is to be kept of the decision, by ``PRESENCE`` and ``EXPECTED``; None is left out.
    """
    forget_argmax(sample)
    told = {name: value for name, value in (known or {}).items() if value is not None}
    sample.set_data({"pred_sem_seg": PixelData(metainfo={MARK: options, **told}, data=labels)})
    if argmax is not None:
        sample.set_data({ARGMAX_FIELD: PixelData(metainfo={MARK: options}, data=argmax)})


def forget_argmax(sample: SegDataSample) -> None:
    """Drop the labels of argmax that an earlier decision on the same data sample left."""
    sample.pop(ARGMAX_FIELD, None)


def argmax_field(sample: SegDataSample | Mapping[str, Any]) -> Any:
    """Argmax's labels beside those of RankSEG, as the sample holds them: with ``data`` (1, H, W); None without any.

    Args:
        sample: a data sample, or the dict of one.

    Raises:
        ValueError: if the prediction beside them was replaced: the two are of different decisions.
    """
    found: Any = sample.get(ARGMAX_FIELD)
    prediction: Any = sample.get("pred_sem_seg")
    if found is not None and found.get(MARK) and not prediction.get(MARK):
        raise ValueError(
            f"{image_path(sample) or 'an image without a path'}: pred_sem_seg is not what RankSEG decided, "
            f"{ARGMAX_FIELD} beside it cannot be compared with it. SegTTAModel replaces it by argmax over all views: "
            "set tta_model.type='rankseg_plugins.mmseg.RankSEGTTAModel'"
        )
    return found


def options_in(sample: Mapping[str, Any]) -> str | None:
    """The options of the decision in a data sample, as a dict; None if it tells none."""
    found: str | None = sample["pred_sem_seg"].get(MARK)
    return found


def presence_in(sample: Mapping[str, Any]) -> Tensor | None:
    """How likely the decision in a data sample, as a dict, took each class to be there, (C,); None if it knew not."""
    found: Tensor | None = sample["pred_sem_seg"].get(PRESENCE)
    return found


def expected_in(sample: Mapping[str, Any]) -> tuple[str, Tensor] | None:
    """Which score both decisions in a data sample, as a dict, are expected to have, and that; None if nobody asked.

    See ``rankseg_plugins.comparison.blocks.expected.expect``; (2, 2, C), argmax first.
    """
    found: tuple[str, Tensor] | None = sample["pred_sem_seg"].get(EXPECTED)
    return found


def image_path(sample: SegDataSample | Mapping[str, Any]) -> str | None:
    """``img_path`` as text, whether the data set gives a string, bytes or a path; None without one.

    Example:
        >>> image_path({"img_path": b"a.png"}), image_path({})
        ('a.png', None)
    """
    path = sample.get("img_path")
    if path is None:
        return None
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else str(path)
