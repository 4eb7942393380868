"""The candidates of a tuning: every combination of the options, and rules for the whole data set."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from rankseg_plugins._warning import warn
from rankseg_plugins.calibration.temperature import probs_at, read_temperature
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.decoders import ByCase
from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.core import GlobalRankSEG, RankSEG
from rankseg_plugins.core.decoder import SOLVERS
from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.core.inputs.options import read_choice, read_mode, read_real
from rankseg_plugins.core.inputs.probabilities import check_floating
from rankseg_plugins.core.pooled.guards import told
from rankseg_plugins.tuning.choosing import ARGMAX

AGGREGATION_LEVELS = ("samplewise", "global")
METRICS = ("dice", "iou")
TEMPERATURES = (0.7, 1.0, 1.4)
PRUNING_PROBS = (0.5, 0.3, 0.1)
#: What the names of rules for the whole data set begin with.
GLOBAL = "global("

#: What races: a decoder, or one for each case that knew nothing of it.
Candidate = TunedDecoder | ByCase

T = TypeVar("T")


def read_list(name: str, values: object, read: Callable[[str, object], T]) -> list[T]:
    """An option that holds several values, each brought into one form.

    Args:
        name: of the option.
        values: a list, tuple or other iterable, not a string.
        read: gets a name for messages and a value.

    Raises:
        TypeError: if ``values`` is not such, or one is of the wrong type.
        ValueError: if it is empty, or a value is out of range.

    Example:
        >>> read_list("temperatures", 0.7, read_temperature)
        Traceback (most recent call last):
            ...
        TypeError: temperatures must be a list, got 0.7
    """
    try:
        given = None if isinstance(values, (str, bytes, Mapping)) else list(values)  # type: ignore[call-overload]
    except TypeError:
        given = None
    if given is None:
        raise TypeError(f"{name} must be a list, got {values!r}")
    if not given:
        raise ValueError(f"{name} must hold at least one value, got none")
    return [read(f"each of {name}", value) for value in given]


def read_temperatures(values: object) -> list[float]:
    """The option ``temperatures``; see ``read_list``."""
    return read_list("temperatures", values, read_temperature)


def read_metrics(values: object) -> list[str]:
    """The option ``metrics``; see ``read_list``."""
    return read_list("metrics", values, lambda name, value: read_choice(name, value, METRICS))


def read_solvers(values: object) -> list[str]:
    """The option ``solvers``; see ``read_list``."""
    known = tuple(dict.fromkeys(each for (metric, _), names in SOLVERS.items() if metric in METRICS for each in names))
    return read_list("solvers", values, lambda name, value: read_choice(name, value, known))


def read_aggregation_levels(values: object) -> list[str]:
    """The option ``aggregation_levels``; see ``read_list``."""
    return read_list("aggregation_levels", values, lambda name, value: read_choice(name, value, AGGREGATION_LEVELS))


def samplewise_candidates(
    num_classes: int,
    mode: str,
    temperatures: object,
    metrics: object,
    pruning_probs: object,
    solvers: object,
) -> dict[str, TunedDecoder]:
    """A ``RankSEG`` for every combination; the options are those of ``Tuner``.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for one that is empty, unknown or out of range, or if two candidates have one name.
    """
    pruning = read_list("pruning_probs", pruning_probs, lambda name, value: read_real(name, value, 0.0, 1.0))
    solving = read_solvers(solvers)
    grid = itertools.product(read_temperatures(temperatures), read_metrics(metrics), pruning, solving)
    found: list[tuple[str, TunedDecoder]] = []
    for temperature, metric, pruning_prob, solver in grid:
        decoder = RankSEG(metric, output_mode=mode, pruning_prob=pruning_prob, solver=solver)
        how = f",solver={solver}" if len(solving) > 1 else ""
        name = at_temperature(f"rankseg(metric={metric},pruning_prob={pruning_prob:g}{how})", temperature)
        found.append((name, TunedDecoder(decoder, num_classes, temperature)))
    check_names([name for name, _ in found])
    return dict(found)


def check_names(names: Sequence[str]) -> None:
    """Raise a ``ValueError`` if two candidates have one name."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(
                f"two candidates are called {name!r}: the values of an option must differ within six digits"
            )


def read_others(others: object, num_classes: int, mode: str) -> dict[str, Candidate]:
    """The option ``others`` of ``Tuner``.

    Raises:
        TypeError: unless it is a dict of tuned decoders by name.
        ValueError: if one is for other classes or another output mode.
    """
    if not isinstance(others, Mapping):
        raise TypeError(f"others must be a dict of TunedDecoder by name, got {others!r}")
    for name, given in others.items():
        each = final(given)
        if not isinstance(each, TunedDecoder):
            raise TypeError(f"others must hold TunedDecoder, got {each!r} for {name!r}")
        found, wanted = (each.num_classes, each.output_mode), (num_classes, mode)
        if found != wanted:
            raise ValueError(f"others must decode {wanted[0]} classes, {mode}; {name!r} is for {found[0]}, {found[1]}")
    return dict(others)


class GlobalCandidates:
    """A ``GlobalRankSEG`` for every temperature and metric, fitted to images without labels.

    Args:
        num_classes: C.
        temperatures: in [0.001, 1000].
        metrics: ``"dice"``, ``"iou"``.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the number of channels.

    Attributes:
        names: of the candidates.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for one that is empty, unknown or out of range, or if two candidates have one name.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> candidates = GlobalCandidates(2, temperatures=[0.7, 1.0], metrics=["iou"])
        >>> for index in range(8):
        ...     probs = (torch.randn(2, 50, generator=generator) + torch.tensor([[1.0], [0.0]])).softmax(0)
        ...     candidates.update(Sample(str(index), probs, probs.argmax(0)))
        >>> list(candidates.fit())
        ['global(metric=iou) at temperature 0.7', 'global(metric=iou)']
    """

    def __init__(
        self,
        num_classes: int,
        temperatures: Sequence[float] = TEMPERATURES,
        metrics: Sequence[str] = ("dice",),
        output_mode: str | None = None,
    ) -> None:
        mode = read_mode(output_mode, num_classes)
        self.num_classes, self._images = num_classes, 0
        found, of_metrics = read_temperatures(temperatures), read_metrics(metrics)
        self.names = tuple(_name(metric, temperature) for temperature in found for metric in of_metrics)
        check_names(self.names)
        self._mode = mode
        self._fitting = {each: [GlobalRankSEG(num_classes, metric, mode) for metric in of_metrics] for each in found}

    def check_number(self, images: int) -> None:
        """Raise a ``ValueError`` unless there are enough images to fit to."""
        least = max(each.min_images for decoders in self._fitting.values() for each in decoders)
        if images < least:
            raise ValueError(
                f"aggregation_levels 'global' needs at least {least:g} images to fit its rule to, got {images}: add "
                "images, or leave 'global' out"
            )

    def update(self, sample: Sample, number: int | None = None) -> None:
        """Add an image to all samples of pixels; its truth is not looked at.

        Args:
            sample: the image.
            number: among the images of all processes; None counts those of this one.

        Raises:
            TypeError: if its probabilities are no tensor.
            ValueError: if they are not valid.
        """
        number = self._images if number is None else number
        check_floating("probs", sample.probs)
        probs = sample.probs.unsqueeze(0)
        for temperature, decoders in self._fitting.items():
            scaled = probs_at(probs, temperature, self._mode)
            for decoder in decoders:
                decoder.update(scaled, number=number)
        self._images += 1

    def gather(self) -> None:
        """Count the images of all processes; their pixels are brought together by the fit."""
        self._images = sum(gather(self._images))

    def fit(self) -> dict[str, TunedDecoder]:
        """The fitted decoders by name. Warns once of those that decide as argmax or the threshold 1/2 does.

        Raises:
            ValueError: if there were too few images.
        """
        self.check_number(self._images)
        found: dict[str, TunedDecoder] = {}
        reasons: dict[str, str] = {}
        for temperature, decoders in self._fitting.items():
            for decoder in decoders:
                name = _name(decoder.metric, temperature)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="GlobalRankSEG pursues no class")
                    fit = decoder.fit()
                if not fit.pursued.any():
                    reasons[name] = told(fit.left_out)
                found[name] = TunedDecoder(decoder, self.num_classes, temperature)
        if reasons:
            name, reason = next(iter(reasons.items()))
            plainly = "argmax" if self._mode == "multiclass" else "the threshold 1/2"
            warn(
                f"{len(reasons)} of {len(found)} rules for the whole data set pursue no class and decide as {plainly} "
                f"does, such as {name}. {reason}"
            )
        return found


def final(candidate: Candidate) -> TunedDecoder:
    """What is tuned in the end, of a candidate that is another for some cases."""
    return cast(TunedDecoder, candidate.decoder if isinstance(candidate, ByCase) else candidate)


def argmax_candidate(num_classes: int, mode: str) -> dict[str, TunedDecoder]:
    """What every other candidate has to beat."""
    return {ARGMAX: TunedDecoder(RankSEG("acc", output_mode=mode), num_classes)}


def _name(metric: str, temperature: float) -> str:
    return at_temperature(f"{GLOBAL}metric={metric})", temperature)


def at_temperature(name: str, temperature: float) -> str:
    """The name of a candidate at a temperature."""
    return name if temperature == 1 else f"{name} at temperature {temperature:g}"
