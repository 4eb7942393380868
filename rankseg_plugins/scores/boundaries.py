"""How far the boundary of a decision is from that of the truth: surface Dice, HD95 and ASSD of one image and class.

The *surface* of a mask is its pixels that have a neighbour outside of it, where neighbours share a side (4 in 2-D, 6 in
3-D), and what lies beyond the image is outside. Distances are Euclidean, from the middle of each surface pixel to that
of the nearest one of the other surface, in both directions. MONAI's metrics take the same surfaces, and have the same
figures. Any number of dimensions, 1-D included.

Where one mask is empty, the other one's surface is infinitely far from it: surface Dice 0, distances infinite. Where
both are, there is nothing to measure: NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.checks import as_tuple
from rankseg_plugins.scores.extra import Column, ExtraScore, Spacing, box_around, read_masks

__all__ = ["Boundaries", "average_surface_distance", "hausdorff95", "surface", "surface_dice", "surface_distances"]

UNITS = ("px", "mm")
#: What rounding may add to a distance: 3 steps of 0.1 are to lie within 0.3.
ROUNDING = 1e-9


def surface(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask with a neighbour outside, which lie along its boundary.

    Args:
        mask: bool (*spatial).

    Returns:
        bool, the same shape.

    Raises:
        ImportError: if SciPy is not installed.

    Example:
        >>> surface(np.array([False, True, True, True, True]))
        array([False,  True, False, False,  True])
    """
    ndimage = require("scipy.ndimage", extra="report")
    found: np.ndarray = mask & ~ndimage.binary_erosion(mask)
    return found


def surface_distances(
    prediction: np.ndarray, target: np.ndarray, spacing: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every surface pixel of each mask to the surface of the other.

    Args:
        prediction: bool mask (*spatial); what does not count is False in both.
        target: likewise.
        spacing: size of a pixel along every axis; None is 1.

    Returns:
        Of the prediction's surface and of the truth's, float64 in no particular order; infinite to an empty mask.

    Raises:
        TypeError: if one is no bool mask.
        ValueError: if their shapes differ, or the spacing does not fit them.
        ImportError: if SciPy is not installed.

    Example:
        >>> prediction = np.array([False, True, True, True, True, True])
        >>> target = np.array([False, True, True, True, False, False])
        >>> surface_distances(prediction, target, spacing=(0.5,))
        (array([0., 1.]), array([0., 1.]))
    """
    prediction, target = read_masks(prediction, target)
    steps = _steps(prediction.ndim, spacing)
    box = box_around(prediction | target)
    if box is None:
        return np.zeros(0), np.zeros(0)
    ours, theirs = surface(prediction[box]), surface(target[box])
    return _distances(ours, theirs, steps), _distances(theirs, ours, steps)


def surface_dice(
    prediction: np.ndarray, target: np.ndarray, tolerance: float, spacing: Sequence[float] | None = None
) -> float:
    """Normalised surface Dice (NSD): share of both surfaces that lies within a tolerance of the other.

    Args:
        prediction: bool mask (*spatial).
        target: likewise.
        tolerance: largest distance that is none, in the unit of ``spacing``, at least 0.
        spacing: see ``surface_distances``.

    Returns:
        In [0, 1]; 0 if one mask is empty, NaN if both are.

    Raises:
        TypeError: if a mask or the tolerance is of the wrong type.
        ValueError: if shapes or spacing do not fit, or the tolerance is negative or not finite.

    Source: Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", JMIR 23
    (2021), on surface pixels, each of which counts as 1.

    Example:
        >>> prediction = np.array([False, True, True, True, True, True])
        >>> target = np.array([False, True, True, True, False, False])
        >>> surface_dice(prediction, target, tolerance=1), surface_dice(prediction, target, tolerance=2)
        (0.5, 1.0)
    """
    (tolerance,) = _read_tolerances(tolerance)
    return _share_within(np.concatenate(surface_distances(prediction, target, spacing)), tolerance)


def hausdorff95(prediction: np.ndarray, target: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """The 95th percentile of the distances of each surface, the larger of the two (HD95).

    Args:
        prediction: bool mask (*spatial).
        target: likewise.
        spacing: see ``surface_distances``.

    Returns:
        In the unit of ``spacing``; infinite if one mask is empty, NaN if both are. Percentiles are interpolated.

    Raises:
        TypeError: if one is no bool mask.
        ValueError: if shapes or spacing do not fit.

    Source: Huttenlocher et al., "Comparing images using the Hausdorff distance", TPAMI 15 (1993), at a percentile.

    Example:
        >>> hausdorff95(np.array([True, False, False, True]), np.array([True, False, False, False]))
        2.8499999999999996
    """
    return _hausdorff95(*surface_distances(prediction, target, spacing))


def average_surface_distance(
    prediction: np.ndarray, target: np.ndarray, spacing: Sequence[float] | None = None
) -> float:
    """Average symmetric surface distance (ASSD): the mean of the distances of all pixels of both surfaces.

    Args:
        prediction: bool mask (*spatial).
        target: likewise.
        spacing: see ``surface_distances``.

    Returns:
        In the unit of ``spacing``; infinite if one mask is empty, NaN if both are.

    Raises:
        TypeError: if one is no bool mask.
        ValueError: if shapes or spacing do not fit.

    Source: Heimann et al., "Comparison and evaluation of methods for liver segmentation from CT datasets", TMI 28
    (2009).

    Example:
        >>> average_surface_distance(np.array([True, False, False, True]), np.array([True, False, False, False]))
        1.0
    """
    return _mean(np.concatenate(surface_distances(prediction, target, spacing)))


@dataclass(frozen=True)
class Boundaries(ExtraScore):
    """Surface Dice, HD95 and ASSD as an extra score.

    A class that truth or decision lack has a surface Dice of 0 where it counts, and no distance: a decoder that leaves
    out a class is not to look the better for the distances that it is spared.

    Args:
        tolerances: largest distance that is none, or several.
        unit: ``"px"`` counts in pixels, whatever their size; ``"mm"`` needs the spacing of every image.
        classes: the classes that are measured; None is all.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for a tolerance below 0, no tolerance or the same one twice, an unknown unit, or bad classes.

    Source: see ``surface_dice``, ``hausdorff95`` and ``average_surface_distance``.

    Example:
        >>> boundaries = Boundaries(1)
        >>> mask = np.zeros((5, 5), dtype=bool)
        >>> mask[1:4, 1:4] = True
        >>> dict(zip([column.name for column in boundaries.columns], boundaries.measure(mask, mask), strict=True))
        {'nsd_1px': 1.0, 'hd95_px': 0.0, 'assd_px': 0.0}
    """

    tolerances: Any = field(kw_only=False)
    unit: str = field(default="px", kw_only=False)
    name: ClassVar[str] = "boundaries"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tolerances", _read_tolerances(self.tolerances))
        check_choice("unit", self.unit, UNITS)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Surface Dice at every tolerance, HD95, ASSD."""
        unit = self.unit
        within = (Column(f"nsd_{each:g}{unit}", f"NSD within {each:g} {unit}") for each in self.tolerances)
        return (*within, *(Column(f"{name.lower()}_{unit}", name, unit, False) for name in ("HD95", "ASSD")))

    @property
    def explanation(self) -> str:
        """How boundaries are measured."""
        return (
            "NSD: share of both surfaces (pixels with a neighbour outside of the class) within the tolerance of the "
            "other; 0 where only one of truth and decision holds a class that counts. HD95 and ASSD: 95th percentile "
            "and mean of the surface distances, of classes that truth and decision both hold; two decoders are "
            "compared where both have a distance, so that their difference is not that of the means."
        )

    def measure(self, prediction: np.ndarray, target: np.ndarray, spacing: Spacing | None = None) -> tuple[float, ...]:
        """Measure one class of one image, see ``ExtraScore``.

        Raises:
            ValueError: if the spacing is needed and not known, or the masks do not fit.

        Example:
            >>> prediction = np.array([False, True, True, True, True, True])
            >>> target = np.array([False, True, True, True, False, False])
            >>> Boundaries(1).measure(prediction, target)  # surface Dice, HD95, ASSD
            (0.5, 1.9, 1.0)
        """
        if self.unit == "mm" and spacing is None:
            raise ValueError("boundaries in mm need the spacing of the image, which is not known")
        ours, theirs = surface_distances(prediction, target, spacing if self.unit == "mm" else None)
        both = np.concatenate([ours, theirs])
        within = (_share_within(both, tolerance) for tolerance in self.tolerances)
        return (*within, _hausdorff95(ours, theirs), _mean(both))


def parse_boundaries(text: str) -> Boundaries:
    """Boundaries from a text: one tolerance or several, and perhaps the unit.

    Raises:
        ValueError: if it is none.

    Example:
        >>> parse_boundaries("1,2mm")
        Boundaries(classes=None, tolerances=(1.0, 2.0), unit='mm')
    """
    found = re.fullmatch(r"\s*([\d.,\s]+?)\s*(px|mm)?\s*", text)
    try:
        if found is None:
            raise ValueError
        tolerances = tuple(map(float, found[1].split(",")))
    except ValueError:
        raise ValueError(f"a boundary must be a tolerance such as '2', '2mm' or '1,2px', got {text!r}") from None
    return Boundaries(tolerances, found[2] or "px")


def _read_tolerances(given: Any) -> tuple[float, ...]:
    tolerances = tuple(map(float, as_tuple("tolerances", given, (int, float))))
    if not tolerances or len(set(tolerances)) < len(tolerances):
        raise ValueError(f"tolerances must name each distance once and at least one, got {given!r}")
    if not all(math.isfinite(each) and each >= 0 for each in tolerances):
        raise ValueError(f"tolerances must be finite numbers of at least 0, got {given!r}")
    return tolerances


def _steps(dimensions: int, spacing: Sequence[float] | None) -> np.ndarray:
    steps = np.ones(dimensions) if spacing is None else np.asarray(spacing, dtype=np.float64)
    if steps.shape != (dimensions,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"spacing must be {dimensions} finite numbers above 0, one for each axis, got {spacing}")
    return steps


def _distances(ours: np.ndarray, theirs: np.ndarray, steps: np.ndarray) -> np.ndarray:
    # Pixels of both surfaces need no search; a tree of the few others is faster than a map of all distances.
    if not theirs.any():
        return np.full(int(ours.sum()), math.inf)
    apart = np.argwhere(ours & ~theirs)
    tree = require("scipy.spatial", extra="report").KDTree(np.argwhere(theirs) * steps)
    return np.concatenate([np.zeros(int((ours & theirs).sum())), tree.query(apart * steps)[0]])


def _share_within(distances: np.ndarray, tolerance: float) -> float:
    return float((distances * (1 - ROUNDING) <= tolerance).mean()) if len(distances) else math.nan


def _hausdorff95(ours: np.ndarray, theirs: np.ndarray) -> float:
    both = len(ours) and len(theirs)
    if not both:
        return math.inf if len(ours) or len(theirs) else math.nan
    return max(float(np.quantile(each, 0.95)) for each in (ours, theirs))


def _mean(distances: np.ndarray) -> float:
    return float(distances.mean()) if len(distances) else math.nan
