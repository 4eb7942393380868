"""The runner around a hook: its model, where it stands, and whether it will give what the hook needs."""

from __future__ import annotations

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from mmseg.models import SegTTAModel
from torch import nn

from rankseg_plugins._warning import warn
from rankseg_plugins.mmseg.options import KEY
from rankseg_plugins.mmseg.segmentors import RankSEGMixin

NEEDS = "needs argmax's labels beside RankSEG's"
SEGMENTOR = "model.type to a RankSEG segmentor such as 'rankseg_plugins.mmseg.RankSEGEncoderDecoder'"


def model_of(runner: Runner) -> nn.Module:
    """The model without what distributes it."""
    found: nn.Module = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return found


def step_of(runner: Runner) -> int:
    """The iteration of the training, 0 without one."""
    # `runner.iter` would build a training loop that only waits in the config.
    return runner.iter if isinstance(runner._train_loop, BaseLoop) else 0


def require_comparison(runner: Runner, who: str) -> None:
    """Refuse a run whose results will not carry argmax's labels beside RankSEG's.

    Args:
        runner: with its model.
        who: needs them, for the message.

    Raises:
        ValueError: if the model, its wrapper for test-time augmentation, or its options will not give them.
    """
    model = model_of(runner)
    # RankSEGTTAModel and wrappers of other projects merge in a way of their own.
    if isinstance(model, SegTTAModel) and type(model).merge_preds is SegTTAModel.merge_preds:
        raise ValueError(
            f"{who} {NEEDS}, and {type(model).__name__} decides by argmax alone: set "
            "tta_model.type='rankseg_plugins.mmseg.RankSEGTTAModel'"
        )
    segmentor = model.module if isinstance(model, BaseTTAModel) else model
    if not isinstance(segmentor, RankSEGMixin):
        raise ValueError(
            f"{who} {NEEDS}: set {KEY}.compare=True, and {SEGMENTOR}; {type(segmentor).__name__} ignores the key"
        )
    options = segmentor.rankseg_options()
    if options is None or not options.compare:
        raise ValueError(f"{who} {NEEDS}: set {KEY}.compare=True")


def warn_if_ignored(runner: Runner) -> None:
    """Warn of options in ``model.test_cfg.rankseg`` of a model that does not know them."""
    model = model_of(runner)
    segmentor = model.module if isinstance(model, BaseTTAModel) else model
    ignored = (getattr(segmentor, "test_cfg", None) or {}).get("rankseg")
    if ignored is not None and not isinstance(segmentor, RankSEGMixin):
        warn(
            f"{KEY}={dict(ignored) if isinstance(ignored, dict) else ignored!r} has no effect: "
            f"{type(segmentor).__name__} decides by argmax and ignores the key. Set {SEGMENTOR}"
        )
