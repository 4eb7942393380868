"""How far what decisions are expected to score tells which images can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rankseg_plugins.comparison.intervals.statistics import mean_of_known
from rankseg_plugins.comparison.phrases import percent
from rankseg_plugins.scores.risk_coverage import RiskCoverage

if TYPE_CHECKING:
    from rankseg_plugins.comparison.figures import Figures


class TrustRow(NamedTuple):
    """How far what is expected of a decoder tells which images can be trusted.

    Args:
        name: of the decoder.
        expected: mean expected score of the images of the curve.
        curve: risk against coverage.
    """

    name: str
    expected: float
    curve: RiskCoverage


def trust_rows(comparison: Figures) -> list[TrustRow]:
    """Of each decoder; empty where nothing was measured."""
    if comparison.expected_scores is None:
        return []
    rows = []
    for name, expected in zip(comparison.decoders, comparison.expected_scores, strict=True):
        reached = comparison.scoring.image_scores(comparison.areas(name))
        mean = mean_of_known(np.where(np.isnan(reached), np.nan, expected), -1)
        rows.append(TrustRow(name, float(mean), comparison.risk_coverage(name)))
    return rows


def describe_trust(comparison: Figures, decoder: str) -> str | None:
    """The areas under the risk-coverage curves of a decoder in one sentence, for a log; None where none was asked for.

    Args:
        comparison: with the decoder.
        decoder: one of its decoders.
    """
    if comparison.expected_scores is None:
        return None
    curve = comparison.risk_coverage(decoder)
    return (
        f"Accepted in the order of what {decoder} is expected to score, images have an area under the risk-coverage "
        f"curve of {percent(curve.area)} % (ideal order {percent(curve.ideal)} %, random order {percent(curve.random)} "
        "%)."
    )
