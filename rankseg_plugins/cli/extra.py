"""Extra scores as options of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rankseg_plugins.cli.reading import Images
from rankseg_plugins.scores.boundaries import parse_boundaries
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.scores.extra import ExtraScore, read_spacing
from rankseg_plugins.scores.lesions import Lesions


def read_extra_options(
    boundary: str | None,
    spacing: str | None,
    lesions: bool,
    lesion_classes: Sequence[int],
    lesion_overlap: float | None,
) -> tuple[ExtraScore, ...]:
    """The extra scores that are asked for.

    Raises:
        ValueError: for a value that is not valid, or one that would have no effect.
    """
    found: list[ExtraScore] = []
    if boundary is not None:
        with naming("--boundary"):
            found.append(parse_boundaries(boundary))
    if spacing is not None and (boundary is None or not boundary.strip().endswith("mm")):
        raise ValueError("--spacing has an effect only on distances in mm: give --boundary in mm, such as 2mm")
    if lesions:
        found.append(Lesions(lesion_overlap or 0.0, classes=tuple(lesion_classes) or None))
    elif lesion_classes or lesion_overlap is not None:
        raise ValueError("--lesion-class and --lesion-overlap have an effect only with --lesions")
    return tuple(found)


def with_spacing(images: Images, spacing: str | None) -> Images:
    """The images with another spacing than their files tell; None leaves it.

    Raises:
        ValueError: if it is none.
    """
    if spacing is None:
        return images
    try:
        sizes = [float(size) for size in spacing.split(",")]
    except ValueError:
        raise ValueError(f"--spacing must be numbers such as 1,1,3, got {spacing!r}") from None
    known = read_spacing("--spacing", sizes)
    return images._replace(cases=[replace(case, spacing=known) for case in images.cases])
