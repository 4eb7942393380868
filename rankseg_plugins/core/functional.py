"""The functional twin of ``RankSEG``."""

from __future__ import annotations

from torch import Tensor

from rankseg_plugins.core.decoder import RankSEG


def rankseg(
    probs: Tensor,
    metric: str = "dice",
    smooth: float = 0.0,
    output_mode: str = "multiclass",
    solver: str | None = None,
    pruning_prob: float = 0.5,
    unassigned_policy: str = "max_score",
    void_index: int = 255,
    eps: float = 1e-4,
    valid_mask: Tensor | None = None,
    active: Tensor | None = None,
    activation: str = "identity",
) -> Tensor:
    """Functional twin of ``RankSEG``: the options and one decision in a single call.

    Args:
        probs: (B, C, *spatial) probabilities; or logits, with their ``activation``.
        metric: see ``RankSEG``, as all that follow.
        smooth: constant in the score, 0 to 1e100.
        output_mode: ``"multiclass"`` or ``"multilabel"``.
        solver: None takes the default of the metric.
        pruning_prob: in [0, 1].
        unassigned_policy: ``"max_score"`` or ``"void"``.
        void_index: label of void pixels.
        eps: in (0, 1); BA and TRNA only.
        valid_mask: optional bool mask of the pixels that hold data; see ``RankSEG.predict``.
        active: optional bool (B, C) or (C,), the classes that are there; see ``RankSEG.predict``.
        activation: what makes probabilities of ``probs``; see ``RankSEG.predict_logits``.

    Returns:
        int64 labels (B, *spatial) or bool masks (B, C, *spatial).

    Raises:
        TypeError: for an option or tensor of the wrong type.
        ValueError: for bad options or probabilities.

    Source: see ``RankSEG``.

    Example:
        >>> import torch
        >>> rankseg(torch.tensor([[[0.9, 0.45, 0.3]]]), output_mode="multilabel")
        tensor([[[True, True, True]]])
    """
    decoder = RankSEG(metric, smooth, output_mode, solver, pruning_prob, unassigned_policy, void_index, eps)
    if activation == "identity":
        return decoder.predict(probs, valid_mask, active)
    return decoder.predict_logits(probs, activation, valid_mask, active)
