"""Candidates that know which classes are there, each judged only on images that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.calibration.temperature import probs_at
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.decoders import ByCase
from rankseg_plugins.comparison.measuring import prepare
from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.core import PresenceRankSEG
from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.core.inputs.options import fold, read_integer, read_mode, read_real
from rankseg_plugins.core.presence.curve import Evidence
from rankseg_plugins.core.presence.rule import LEVELS, SCORE
from rankseg_plugins.scores.levels import SCORES
from rankseg_plugins.scores.truth import count_known, known_pixels
from rankseg_plugins.tuning.candidates import (
    TEMPERATURES,
    at_temperature,
    check_names,
    read_list,
    read_metrics,
    read_solvers,
    read_temperatures,
)
from rankseg_plugins.tuning.choosing import deal, read_folds

#: What the names of these candidates begin with.
PRESENCE = "presence("
#: Where the score says what a false class costs; and where it does not, as it takes pixels from others: thresholds.
BY_SCORE: tuple[str | float, ...] = (SCORE,)
BY_THRESHOLD: tuple[str | float, ...] = (0.2, 0.5)


class _Held(NamedTuple):
    """What is kept of an image: its number, its case, the classes that it holds (1, C), and evidence of the grid."""

    number: int
    case: str
    there: Tensor
    evidence: list[Evidence]


def usual_rules(scoring: Scoring, level: str) -> tuple[str | float, ...]:
    """The rules that race unless others are given.

    Example:
        >>> usual_rules(Scoring(), "image"), usual_rules(Scoring(), "dataset")
        (('score',), (0.2, 0.5))
    """
    says = scoring.present == "union" and scoring.absent != "zero" and level != "dataset"
    return BY_SCORE if says else BY_THRESHOLD


def read_rules(values: object) -> list[str | float]:
    """The option ``presence``: none, or rules of ``PresenceRankSEG``.

    Raises:
        TypeError: if it is no list, or holds anything else.
        ValueError: for an unknown rule.

    Example:
        >>> read_rules(["score", 0.2])
        ['score', 0.2]
    """

    def read(name: str, value: object) -> str | float:
        if isinstance(value, str) and fold(value) != SCORE:
            raise ValueError(f"{name} must be {SCORE!r} or a number in [0, 1], got {value!r}")
        return SCORE if isinstance(value, str) else read_real(name, value, 0.0, 1.0)

    return [] if isinstance(values, (list, tuple)) and not values else read_list("presence", values, read)


class PresenceCandidates:
    """A ``PresenceRankSEG`` for every temperature, metric and rule, fitted to labelled images.

    For the race, the images are split into folds, those of one case together, and each of them is decided with what was
    fitted to the other folds. What is tuned in the end is fitted to all.

    Args:
        num_classes: C.
        temperatures: in [0.001, 1000].
        metrics: ``"dice"``, ``"iou"``.
        rules: see ``PresenceRankSEG``; None takes ``usual_rules``.
        solvers: likewise.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the number of channels.
        scoring: which classes count, as the rule ``"score"`` asks.
        level: ``"image"`` or ``"class"``, likewise; ``"dataset"`` is taken for the first.
        ignore_index: label of the truth whose pixels do not count.
        folds: at least 2; with fewer cases there are as many as cases.
        seed: of the folds.

    Attributes:
        names: of the candidates.
        conditions: what else than the images decides what is fitted, as values that JSON holds.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for one that is empty, unknown or out of range, or if two candidates have one name.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> candidates = PresenceCandidates(3, temperatures=[1.0], rules=["score", 0.2])
        >>> for index in range(8):
        ...     probs = (3 * torch.randn(3, 50, generator=generator)).softmax(0)
        ...     candidates.update(Sample(str(index), probs, probs.argmax(0) % 2))
        >>> list(candidates.fit())
        ['presence(metric=dice,rule=score)', 'presence(metric=dice,rule=0.2)']
    """

    def __init__(
        self,
        num_classes: int,
        temperatures: Sequence[float] = TEMPERATURES,
        metrics: Sequence[str] = ("dice",),
        rules: Sequence[str | float] | None = None,
        solvers: Sequence[str] = ("RMA",),
        output_mode: str | None = None,
        scoring: Scoring | None = None,
        level: str = "image",
        ignore_index: int | None = None,
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        mode, scoring = read_mode(output_mode, num_classes), scoring or Scoring()
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self._folds, self._seed = read_folds(folds), read_integer("seed", seed)
        self._grid = [(each, metric) for each in read_temperatures(temperatures) for metric in read_metrics(metrics)]
        union = scoring.present == "union"
        skips = union and scoring.absent == "skip"
        # Of the rule "score"; of the options of a scoring, those that make a difference to it.
        self._counting: dict[str, Any] = {
            "present": scoring.present,
            "absent": scoring.absent if union else "skip",
            "excluded": scoring.excluded,
            "level": level if skips and level in LEVELS else LEVELS[0],
        }
        self._mode = mode
        self.conditions = {
            **self._counting,
            "excluded": list(scoring.excluded),
            "folds": self._folds,
            "seed": self._seed,
        }
        self._looking = [PresenceRankSEG(num_classes, metric, output_mode=mode) for _, metric in self._grid]
        rules = usual_rules(scoring, level) if rules is None else read_rules(rules)
        self._ways = [(rule, solver) for rule in rules for solver in read_solvers(solvers)]
        self.names = tuple(self._name(*each, *way) for each in self._grid for way in self._ways)
        check_names(self.names)
        self._held: list[_Held] = []

    def update(self, sample: Sample, number: int | None = None) -> None:
        """Take note of an image.

        Args:
            sample: the image.
            number: among the images of all processes; None counts those of this one.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if probabilities or labels are not valid or do not fit.
        """
        probs, truth = prepare(sample, self.num_classes, self.ignore_index, output_mode=self._mode)
        known = known_pixels(truth, self.ignore_index)
        if known is not None and not known.any():
            return
        evidence = []
        for looking, (temperature, _) in zip(self._looking, self._grid, strict=True):
            found, masks = looking.look(probs_at(probs, temperature, self._mode))
            areas = count_known(masks, truth, self.num_classes, self.ignore_index)
            there = areas.label > 0
            evidence.append(found._replace(score=SCORES[looking.metric](areas).masked_fill(~there, torch.nan)))
        number = len(self._held) if number is None else number
        self._held.append(_Held(number, sample.case_name, there, evidence))

    def gather(self) -> None:
        """Bring the images of all processes together on each of them, in the order of their numbers."""
        together = [each for part in gather(self._held) for each in part]
        self._held = sorted(together, key=lambda each: each.number)

    def fit(self) -> dict[str, ByCase]:
        """The fitted decoders by name.

        Raises:
            ValueError: without an image of which a class is known.
        """
        if not self._held:
            raise ValueError(
                "presence cannot be learnt, as no image holds a pixel whose class is known: leave it out by presence=[]"
            )
        number = deal([each.case for each in self._held], self._folds, self._seed)
        fold = torch.tensor([number[each.case] for each in self._held])
        there = torch.cat([each.there for each in self._held])
        found: dict[str, ByCase] = {}
        everywhere = torch.ones(len(there), dtype=torch.bool)
        # With a single case there are no others to fit to.
        left = [fold == each for each in range(max(number.values()) + 1)] if len(number) > 1 else []
        for index, (temperature, metric) in enumerate(self._grid):
            parts = zip(*(each.evidence[index] for each in self._held), strict=True)
            evidence = Evidence(*(torch.cat(part) for part in parts))
            whole, *apart = (
                self._fitted(metric, evidence.only(kept), there[kept])
                for kept in (everywhere, *(~each for each in left))
            )
            for way in self._ways:
                final, *others = (
                    TunedDecoder(self._going(*way, each), self.num_classes, temperature) for each in (whole, *apart)
                )
                found[self._name(temperature, metric, *way)] = ByCase(final, others, number if others else {})
        return found

    def _fitted(self, metric: str, evidence: Evidence, there: Tensor) -> PresenceRankSEG:
        decoder = PresenceRankSEG(self.num_classes, metric, output_mode=self._mode, **self._counting)
        decoder.fit_to(evidence, there)
        return decoder

    def _going(self, rule: str | float, solver: str, fitted: PresenceRankSEG) -> PresenceRankSEG:
        """One of another rule and solver, with what was fitted."""
        counting = self._counting if rule == SCORE else {}
        options = {"solver": solver, "output_mode": self._mode, **counting}
        decoder = PresenceRankSEG(self.num_classes, fitted.metric, rule, **options)
        decoder.load_state_dict(fitted.state_dict())
        return decoder

    def _name(self, temperature: float, metric: str, rule: str | float, solver: str) -> str:
        written = rule if isinstance(rule, str) else f"{rule:g}"
        how = f",solver={solver}" if len({each for _, each in self._ways}) > 1 else ""
        return at_temperature(f"{PRESENCE}metric={metric},rule={written}{how})", temperature)
