"""What decisions are expected to score.

For an image, a decision and class c let e_c be the exact expected Dice or IoU of its mask S_c, were pixels independent
with the probabilities that the decoder decides by (at its temperature, if it has one); and q_c how likely the class
counts: 1 where it is shown, otherwise the largest probability that a pixel has of it. With a the value of ``absent``,
over the C classes that are scored, the expected score of the image is

    absent="skip":           sum_c e_c / sum_c q_c
    absent="zero", "one":    sum_c (e_c + a (1 - q_c)) / C

Where nothing is shown and absent classes are skipped it is 0: if such an image has a score, it is that. Two things
cannot be known without labels, and are taken as they are above. A class that is shown is taken to be there: it counts,
under ``present="label"`` too. A class that is not shown is taken to be there as likely as its most probable pixel is of
it: independent pixels would make a certainty of the haze of many small probabilities. Pixels that the truth ignores
take part, as labels alone tell which those are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.inputs.options import ABSENT
from rankseg_plugins.core.inputs.probabilities import check_choice, class_masks

#: Scores whose exact expectation is known.
EXPECTED = ("dice", "iou")


def check_expected(asked: object, scoring: Scoring) -> str | None:
    """The option ``risk_coverage``: the score that is expected; None where nothing is asked for.

    Raises:
        TypeError: if it is no bool.
        ValueError: if the expectation of the score that decides is not known.

    Example:
        >>> check_expected(True, Scoring("iou")), check_expected(False, Scoring("recall"))
        ('iou', None)
    """
    if not isinstance(asked, bool):
        raise TypeError(f"risk_coverage must be True or False, got {asked!r}")
    if asked:
        check_choice("the score of risk_coverage", scoring.score, EXPECTED)
    return scoring.score if asked else None


def expect(score: str, decoders: Iterable[Decoder], decisions: Sequence[Tensor], probs: Tensor) -> np.ndarray:
    """What decisions on one image are expected to score, class by class.

    Args:
        score: one of ``EXPECTED``.
        decoders: who decided, in the order of ``decisions``.
        decisions: labels (*spatial) of any integers, or bool masks (C, *spatial). With C = 1 label 1 is the
            foreground.
        probs: (C, *spatial) probabilities.

    Returns:
        (decoders, 2, C) float64 in [0, 1]: e_c, 0 where a class is not shown, and q_c; see the module.

    Example:
        >>> probs = torch.tensor([[0.5, 0.75], [0.5, 0.25]], dtype=torch.float64)
        >>> expect("dice", [RankSEG("acc")], [torch.tensor([0, 0])], probs).round(4)  # e_0: 1/8 2/3 + 3/8 2/3 + 3/8 1
        array([[[0.7083, 0.    ],
                [1.    , 0.5   ]]])
    """
    # Decisions that are one, at one temperature, and the probabilities at each.
    found: dict[tuple[int, object], np.ndarray] = {}
    scaled: dict[object, Tensor] = {}
    rows = []
    for decoder, decision in zip(decoders, decisions, strict=True):
        tuned = decoder if isinstance(decoder, TunedDecoder) else None
        at = None if tuned is None else (tuned.temperature, tuned.output_mode)
        if at not in scaled:
            scaled[at] = probs if tuned is None else tuned.scaling(probs[None])[0]
        key = decision.data_ptr(), at
        if key not in found:
            found[key] = expect_one(score, decision, scaled[at])
        rows.append(found[key])
    return np.stack(rows)


def expect_one(score: str, decision: Tensor, probs: Tensor) -> np.ndarray:
    """(2, C) of one decision; see ``expect``."""
    classes = len(probs)
    masks = decision if decision.dtype == torch.bool else class_masks(decision[None], classes, int(classes == 1))[0]
    masks, shown = masks.to(probs.device), masks.flatten(1).any(1).cpu()
    expected, likely = torch.zeros(2, classes, dtype=torch.float64, device="cpu")
    likely.copy_(probs.flatten(1).amax(1)).clamp_(0, 1).masked_fill_(shown, 1)
    if shown.any():
        some = shown.to(probs.device)
        # Classes one by one: whether they overlap makes no difference.
        whole = RankSEG(score, output_mode="multilabel").expected_score(probs[None, some], masks[None, some])
        expected[shown] = whole[0].cpu()
    return torch.stack([expected, likely]).numpy()


def expected_image_scores(found: np.ndarray, scoring: Scoring) -> np.ndarray:
    """What images are expected to score, see the module.

    Args:
        found: (..., 2, C) what ``expect`` gave.
        scoring: which classes count.

    Returns:
        (...) float64 in [0, 1]; NaN where ``found`` is.
    """
    expected, likely = np.moveaxis(found[..., scoring.kept(found.shape[-1])], -2, 0)
    if scoring.absent == "skip":
        total = likely.sum(-1)
        scores: np.ndarray = expected.sum(-1) / np.where(total == 0, 1.0, total)
    else:
        scores = (expected + ABSENT[scoring.absent] * (1 - likely)).mean(-1)
    return scores
