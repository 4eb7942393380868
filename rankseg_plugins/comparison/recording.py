"""From probabilities to a comparison: images stream by, each is decoded once by each decoder, and its counts stay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins._warning import warn
from rankseg_plugins.calibration.deciding import as_decoder
from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.calibration.temperature import warn_if_softened, warn_if_unsure
from rankseg_plugins.comparison.blocks.expected import check_expected, expect
from rankseg_plugins.comparison.blocks.presence import Presence, judged, presence_of, together
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import Decoder, NamedDecoder, common_mode, named_decoders, of_case
from rankseg_plugins.comparison.facts import collect_facts, describe_tuned
from rankseg_plugins.comparison.measuring import (
    Measurement,
    calibrate,
    measure,
    measure_decisions,
    prepare,
    same_decisions,
    to_areas,
)
from rankseg_plugins.comparison.pictures.examples import Extremes
from rankseg_plugins.comparison.sample import Sample, check_exclusive, read_name
from rankseg_plugins.comparison.scoring import Scoring, check_class_names, read_scoring
from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.core.inputs.options import read_index, read_mode
from rankseg_plugins.core.inputs.probabilities import plain
from rankseg_plugins.scores.checks import read_device
from rankseg_plugins.scores.extra import ExtraScore, Spacing, columns_of, read_extra, read_spacing
from rankseg_plugins.scores.truth import count, to_truth

DECODERS = ("argmax", "rankseg(metric=dice)")


class Recorder:
    """Collects measurements image by image, for callers who cannot hand over a loop.

    Others have ``compare``.

    Args:
        decoders: texts such as ``"rankseg(metric=dice)"`` or ``"decoder.json"``, or callables by name; the first is the
            baseline. One alone is compared with argmax.
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.
        scoring: what counts as better.
        extra: one extra score or several, such as
            ``Boundaries(2)``, that are measured beside.
        risk_coverage: whether to work out what every decision is expected to score, for
            ``Comparison.risk_coverage``; of Dice or IoU, and several times the work of the decisions.
        panels: pictures to keep of the most improved images, and of the most damaged.
        device: where to decode.
        output_mode: of the decoders that do not say: ``"multiclass"``, or ``"multilabel"``, in which argmax is the
            threshold 0.5; None is what fits the number of channels.
        warn: whether to warn, once, of probabilities on which RankSEG loses, and of decoders that were tuned for other
            classes than those that count; may be changed later.

    Raises:
        TypeError: for a decoder or an option of the wrong type.
        ValueError: for an option out of range, or a decoder that does not fit.

    Example:
        >>> recorder = Recorder(["argmax", "rankseg"], num_classes=2)
        >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> recorder.add(Sample("a", probs, torch.tensor([0, 1, 1]))).counts[:, 0].tolist()  # intersections
        [[1, 1], [1, 1]]
        >>> recorder.comparison().names
        ('a',)
    """

    def __init__(
        self,
        decoders: Iterable[str] | Mapping[str, Decoder] = DECODERS,
        *,
        num_classes: int,
        ignore_index: int | None = None,
        scoring: Scoring | None = None,
        extra: ExtraScore | Sequence[ExtraScore] = (),
        risk_coverage: bool = False,
        panels: int = 5,
        device: str | torch.device = "cpu",
        output_mode: str | None = None,
        warn: bool = True,
    ) -> None:
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes must be an integer of at least 1, got {num_classes!r}")
        if isinstance(panels, bool) or not isinstance(panels, int) or panels < 0:
            raise ValueError(f"panels must be an integer of at least 0, got {panels!r}")
        device = read_device("device", device)
        named = named_decoders(decoders)
        asked = common_mode(named) or output_mode
        self.output_mode = read_mode(asked, num_classes)
        self.decoders: dict[str, Decoder] = {}
        for name, each in named.items():
            if isinstance(each, NamedDecoder):
                self.decoders[name] = each.build(num_classes, asked).to(device)
            else:
                self.decoders[name] = as_decoder(each, num_classes)
        self.num_classes, self.device = num_classes, device
        self.ignore_index = read_index("ignore_index", ignore_index)
        self.scoring = read_scoring(scoring)
        self.extra = read_extra(extra, num_classes)
        self.expected = check_expected(risk_coverage, self.scoring)
        self._kept = self.scoring.kept(num_classes)
        self.extremes = Extremes(panels, num_classes, ignore_index)
        self.measurements: list[Measurement] = []
        self._names: set[str] = set()
        self.calibration: Calibration | None = None
        self.presence: Presence = {}
        self.skipped: dict[str, str] = {}
        self.warn = warn
        # Which of the occasions are over: the first image, doubt of the probabilities, labels beside overlapping
        # channels, and the first comparison.
        self._looked = self._warned = self._told = self._compared = False

    def add(self, sample: Sample) -> Measurement:
        """Decode one image with every decoder and keep what it scored.

        Warns once if the probabilities look as if softmax was applied twice.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if probabilities or labels are not valid or do not fit, or for a second image of a name.

        Example:
            >>> recorder = Recorder(num_classes=2)
            >>> measured = recorder.add(Sample("a", torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1])))
            >>> measured.name, measured.counts.shape  # decoders; intersection, decision and truth; classes
            ('a', (2, 3, 2))
        """
        measurement = self._measure(sample)
        self._remember(measurement)
        self._look_at(sample.probs)
        self._look_at_form(sample)
        return measurement

    def check(self, sample: Sample) -> None:
        """Raise what ``add`` would about the image, without decoding it.

        Example:
            >>> Recorder(num_classes=2).check(Sample("a", torch.tensor([[0.9], [0.1]]), torch.tensor([2])))
            Traceback (most recent call last):
                ...
            ValueError: target holds the label 2, allowed are 0 to 1 (no ignore_index was given)
        """
        prepare(sample, self.num_classes, self.ignore_index, output_mode=self.output_mode)

    def _measure(self, sample: Sample) -> Measurement:
        options = (self.num_classes, self.ignore_index, self.device, self.output_mode, self.extra, self.expected)
        measurement, truth, decisions = measure(sample, self.decoders, *options)
        self._offer(measurement, truth, decisions)
        return measurement

    def add_decided(
        self,
        name: str,
        labels: Tensor,
        decisions: Sequence[Tensor],
        probs: Tensor | None = None,
        case: str | None = None,
        calibration: Calibration | None = None,
        presence: Sequence[Tensor | None] | None = None,
        spacing: Spacing | None = None,
    ) -> None:
        """Keep what an image scored that was decoded elsewhere.

        Args:
            name: of the image.
            labels: truth (*spatial), or masks (C, *spatial).
            decisions: of every decoder, likewise, in the order of ``decoders``.
            probs: (C, *spatial) probabilities, for the calibration, unless that is given, and for what decisions are
                expected to score; None where neither is needed.
            case: see ``Sample``.
            calibration: of the probabilities, where it was measured already.
            presence: of every decoder (C,), how likely it took each class to be there; None of one that knows nothing
                of it. None: of none.
            spacing: see ``Sample``.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if they do not fit, probabilities are needed and absent, or for a second image of a name.

        Example:
            >>> recorder = Recorder(["argmax", "rankseg"], num_classes=2)
            >>> recorder.add_decided("a", torch.tensor([0, 1, 1]), [torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])])
            >>> recorder.comparison().level("rankseg", "dice", "image")
            1.0
        """
        if self.expected is not None and probs is None:
            raise ValueError(f"probs of {name!r} must be given, as risk_coverage=True needs them")
        if len(decisions) != len(self.decoders):
            raise ValueError(f"decisions must be one for each of {list(self.decoders)}, got {len(decisions)}")
        labels, decisions = plain(labels), [plain(each) for each in decisions]
        name, case = read_name("name", name), None if case is None else read_name("case", case)
        counted = [count(each[None], labels[None], self.num_classes, self.ignore_index) for each in decisions]
        counts = np.stack([torch.cat(list(each)).cpu().numpy() for each in counted])
        unknown = np.full(len(decisions), np.nan)
        found = calibration
        if found is None and probs is not None:
            found = calibrate(probs.detach(), labels, self.ignore_index)
        spatial = tuple(decisions[0].shape[decisions[0].dtype == torch.bool :])
        truth = to_truth(labels[None], self.num_classes, spatial, self.ignore_index)[0]
        told = judged(presence or [None], truth, len(spatial), self.ignore_index)
        extra = measure_decisions(
            self.extra, decisions, truth, self.num_classes, self.ignore_index, read_spacing("spacing", spacing)
        )
        case_name, expected = name if case is None else case, None
        if self.expected is not None and probs is not None:
            deciding = of_case(self.decoders, case_name).values()
            expected = expect(self.expected, deciding, decisions, plain(probs).detach())
        same = same_decisions(decisions, counts)
        measurement = Measurement(name, case_name, counts, unknown, found, told, extra, expected, same)
        self._remember(measurement)
        self._offer(measurement, truth, decisions)
        if probs is not None:
            self._look_at(probs)

    def begin_pictures(self) -> list[str]:
        """Forget all pictures, to keep those of the extremes of all images; return the names of these images.

        Example:
            >>> recorder = Recorder(num_classes=2)
            >>> truth = torch.tensor([[0, 1]])
            >>> recorder.add_decided("a", truth, [torch.tensor([[0, 0]]), torch.tensor([[0, 1]])])
            >>> recorder.add_decided("b", truth, [truth, truth])
            >>> recorder.begin_pictures()  # the second decoder improves this one
            ['a']
        """
        self.extremes = Extremes(self.extremes.count, self.num_classes, self.ignore_index)
        gains = [(self.gain(each), each.name) for each in self.measurements] if self.extremes.count else []
        # Earlier images win ties, as while they stream by.
        improved = sorted((each for each in gains if each[0] > 0), key=lambda each: -each[0])
        damaged = sorted((each for each in gains if each[0] < 0), key=lambda each: each[0])
        return [name for side in (improved, damaged) for _, name in side[: self.extremes.count]]

    def picture(self, sample: Sample) -> None:
        """Decode an image that was measured by an earlier run once more, for its picture only.

        Example:
            >>> recorder = Recorder(num_classes=2)
            >>> sample = Sample("a", torch.tensor([[[0.9, 0.6, 0.6]], [[0.1, 0.4, 0.4]]]), torch.tensor([[0, 1, 1]]))
            >>> recorder.picture(sample)
            >>> recorder.measurements
            []
        """
        self._measure(sample)

    def restore(self, measurement: Measurement) -> None:
        """Take over what an earlier run measured.

        Raises:
            ValueError: if it was measured for other decoders, classes, extra or expected scores, or for a second image
                of a name.

        Example:
            >>> sample = Sample("a", torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1]))
            >>> measured = Recorder(num_classes=2).add(sample)
            >>> recorder = Recorder(num_classes=2)
            >>> recorder.restore(measured)
            >>> recorder.comparison().names
            ('a',)
        """
        shape = (len(self.decoders), 3, self.num_classes)
        if measurement.counts.shape != shape:
            raise ValueError(f"counts of {measurement.name!r} must have shape {shape}, got {measurement.counts.shape}")
        if measurement.seconds.shape != shape[:1]:
            raise ValueError(f"seconds of {measurement.name!r} must be {shape[0]}, got {measurement.seconds.tolist()}")
        q = measurement.presence
        if q is not None and q.shape != shape[::2]:
            raise ValueError(f"presence of {measurement.name!r} must have shape {shape[::2]}, got {q.shape}")
        columns = len(columns_of(self.extra))
        found = None if measurement.extra is None else measurement.extra.shape
        if found != ((len(self.decoders), columns, self.num_classes) if columns else None):
            raise ValueError(f"extra scores of {measurement.name!r} must be {columns} for each class, got {found}")
        found = None if measurement.expected is None else measurement.expected.shape
        if found != (None if self.expected is None else (len(self.decoders), 2, self.num_classes)):
            raise ValueError(f"expected scores of {measurement.name!r} must be two for each class, got {found}")
        same = measurement.same
        if same is not None and same.shape != shape[:1]:
            raise ValueError(f"same decisions of {measurement.name!r} must be {shape[0]}, got {same.tolist()}")
        self._remember(measurement)

    def forget(self) -> None:
        """Let go of what was measured, to restore it from where it was written to; pictures stay.

        Example:
            >>> recorder = Recorder(num_classes=2)
            >>> measured = recorder.add(Sample("a", torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1])))
            >>> recorder.forget()
            >>> recorder.measurements
            []
        """
        self.measurements, self._names, self.calibration, self.presence = [], set(), None, {}

    def gather(self) -> None:
        """Bring the images of all processes together on each of them, sorted by name; in one process only sort.

        Every image must have been measured by one process.

        Example:
            >>> recorder = Recorder(num_classes=2)
            >>> for name in ("b", "a"):
            ...     measured = recorder.add(Sample(name, torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1])))
            >>> recorder.gather()
            >>> recorder.comparison().names
            ('a', 'b')
        """
        parts = gather((self.measurements, self.calibration, self.presence, self.extremes.all(), self.skipped))
        self.measurements, self.calibration, self.skipped = [], None, {}
        self.presence = together(presence for _, _, presence, _, _ in parts)
        self.extremes = Extremes(self.extremes.count, self.num_classes, self.ignore_index)
        for measurements, calibration, _, examples, skipped in parts:
            self.measurements += measurements
            self._pool(calibration)
            self.skipped |= skipped
            for example in examples:
                self.extremes.keep(example)
        self.measurements.sort(key=lambda measurement: measurement.name)

    def _look_at_form(self, sample: Sample) -> None:
        """Warn, once, of overlapping channels with labels as truth; multiclass decoders warn themselves."""
        if self.output_mode == "multilabel" and self.warn and not self._told:
            try:
                check_exclusive(sample, self.output_mode)
            except ValueError as error:
                self._told = True
                warn(f"{sample.name}: {error}")

    def _look_at(self, probs: Tensor) -> None:
        """Warn, by the first image, of probabilities on which RankSEG loses."""
        if self.warn and not self._looked:
            self._looked, self._warned = True, warn_if_softened(probs.unsqueeze(0))

    def _cautions(self) -> tuple[str, ...]:
        """Sentences on decoders that were tuned where other classes count or on these images; warns of them once."""
        found = describe_tuned(self.decoders, self.scoring, self.measurements)
        if self.warn and not self._compared:
            self._compared = True
            for sentence in found:
                warn(sentence)
        return tuple(found)

    def _remember(self, measurement: Measurement) -> None:
        if measurement.name in self._names:
            raise ValueError(f"two images are called {measurement.name!r}: names must differ")
        self._names.add(measurement.name)
        # The bins of thousands of images would outweigh all else; their sum is enough.
        self._pool(measurement.calibration)
        found = presence_of(self.decoders, measurement.presence, measurement.counts[0, 2] > 0)
        self.presence = together([self.presence, found])
        self.measurements.append(replace(measurement, calibration=None, presence=None))

    def _pool(self, found: Calibration | None) -> None:
        if found is not None:
            found, so_far = found.rounded(), self.calibration
            self.calibration = found if so_far is None else so_far + found

    def gain(self, measurement: Measurement) -> float:
        """Score of an image with the second decoder minus that with the baseline; NaN where one has none.

        Example:
            >>> recorder = Recorder(num_classes=2)
            >>> recorder.add_decided("a", torch.tensor([0, 1]), [torch.tensor([0, 0]), torch.tensor([0, 1])])
            >>> round(recorder.gain(recorder.measurements[0]), 4)  # Dice 1 instead of (2/3 + 0) / 2
            0.6667
        """
        return self.scoring.gain(*(to_areas(counts[:, None, self._kept]) for counts in measurement.counts[:2]))

    def _offer(self, measurement: Measurement, truth: Tensor, decisions: Sequence[Tensor]) -> None:
        if self.extremes.count:
            gain = self.gain(measurement)
            self.extremes.offer(measurement.name, gain, truth, decisions)

    def comparison(self, class_names: Sequence[str] | None = None, **options: Any) -> Comparison:
        """Everything collected so far.

        Warns once if the probabilities are too unsure, where RankSEG loses, and of decoders that were tuned where other
        classes count, or on the very images.

        Args:
            class_names: C names; None numbers the classes.
            **options: ``facts`` (None: versions of the packages), ``confidence``, ``groups`` and ``palette`` of
                ``Comparison``.

        Raises:
            TypeError: for groups of another form.
            ValueError: without any image, with two of the same name, if the class names do not fit, or if an image is
                in no group.

        Example:
            >>> recorder = Recorder(num_classes=2)
            >>> measured = recorder.add(Sample("a", torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1])))
            >>> recorder.comparison(["background", "road"], confidence=0.9).classes
            ('background', 'road')
        """
        if self.warn and self.calibration is not None and not self._warned:
            self._warned = warn_if_unsure(self.calibration, self.num_classes)
        facts = options.pop("facts", None)
        facts = {**(collect_facts() if facts is None else facts), "ignore_index": self.ignore_index}
        return Comparison(
            tuple(self.decoders),
            check_class_names(class_names, self.num_classes),
            tuple(self.measurements),
            self.scoring,
            self.calibration,
            self.extremes.improved(),
            self.extremes.damaged(),
            dict(self.skipped),
            facts,
            self._cautions(),
            presence=self.presence,
            extra=self.extra,
            **options,
        )
