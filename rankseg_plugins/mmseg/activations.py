"""What turns the output of a decode head into probabilities."""

from __future__ import annotations

from collections.abc import Iterable

from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead, SideAdapterCLIPHead, VPDDepthHead
from torch import Tensor, nn

from rankseg_plugins.core.inputs.probabilities import to_probabilities
from rankseg_plugins.mmseg.options import KEY

#: Mask-classification heads sum up class scores of masks: non-negative scores, not logits.
SCORE_HEADS = (MaskFormerHead, Mask2FormerHead, SideAdapterCLIPHead)


def last_head(segmentor: object) -> nn.Module | None:
    """The head that gives the prediction: a cascade's last one, otherwise the head itself, or None without any."""
    head: nn.Module | None = getattr(segmentor, "decode_head", None)
    return head[-1] if isinstance(head, nn.ModuleList) else head


def refuse_depth(head: nn.Module | None) -> None:
    """Raise a ``TypeError`` for a head that predicts depth: no activation makes probabilities of it."""
    if isinstance(head, VPDDepthHead):
        raise TypeError(f"{KEY} cannot be used with model.decode_head {type(head).__name__}: it predicts depth")


def automatic_activation(head: nn.Module | None, channels: int) -> str:
    """Choose the activation by the head.

    ``"normalize"`` for mask-classification heads (MaskFormer, Mask2Former, SAN), ``"sigmoid"`` for one channel and
    for heads whose every loss works on sigmoids, ``"softmax"`` for all others.

    Args:
        head: the decode head whose output is decoded, or None for a segmentor without one.
        channels: number of output channels.
    """
    if isinstance(head, SCORE_HEADS):
        return "normalize"
    return "sigmoid" if channels == 1 or _trained_with_sigmoid(head) else "softmax"


def _trained_with_sigmoid(head: nn.Module | None) -> bool:
    losses = getattr(head, "loss_decode", None)
    listed = list(losses) if isinstance(losses, Iterable) else [losses]
    return bool(listed) and all(getattr(loss, "use_sigmoid", False) is True for loss in listed)


def choose_activation(head: nn.Module | None, channels: int, activation: str) -> str:
    """The activation of the output of a head, ``"auto"`` resolved.

    Args:
        head: the decode head, or None for a segmentor without one.
        channels: number of output channels.
        activation: ``"auto"``, or one of ``rankseg_plugins.core.inputs.probabilities.ACTIVATIONS``.

    Raises:
        TypeError: if the head predicts depth.
    """
    refuse_depth(head)
    return automatic_activation(head, channels) if activation == "auto" else activation


def head_probabilities(logits: Tensor, head: nn.Module | None, activation: str) -> Tensor:
    """Turn the output of a head into probabilities, with errors that name the config key.

    Args:
        logits: (B, C, H, W) floating point output of ``head``, resized or not.
        head: the decode head, or None for a segmentor without one.
        activation: see ``choose_activation``.

    Returns:
        (B, C, H, W) float32, or float64 for float64 input; of ``"identity"`` what it got.

    Raises:
        TypeError: if ``logits`` is not a floating point tensor or the head predicts depth.
        ValueError: if the activation does not fit the values or the number of channels.
    """
    chosen = choose_activation(head, logits.shape[1], activation)
    try:
        return to_probabilities(logits, chosen)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{KEY}.activation={activation!r} with {type(head).__name__}: {error}") from error
