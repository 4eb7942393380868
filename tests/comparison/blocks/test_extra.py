"""Extra scores of a comparison, against loops over images, classes and cases."""

import io

import numpy as np
import pytest
import torch
from compared import interval_of
from rich.console import Console

from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Recorder, Sample, Scoring, compare
from rankseg_plugins.comparison.intervals.statistics import UNSEEN
from rankseg_plugins.report.page import read_page
from rankseg_plugins.report.terminal import to_terminal
from rankseg_plugins.report.values import to_dict
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.extra import columns_of
from rankseg_plugins.scores.lesions import Lesions

# The made images are; that this is said is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:the probabilities are too unsure")

IGNORE, CLASSES = 255, 4
BOTH = (Boundaries((1, 2)), Lesions(classes=(1, 2, 3)))
COLUMNS = columns_of(BOTH)
DECODERS = {"argmax": RankSEG("acc"), "dice": RankSEG("dice"), "low": RankSEG("dice", pruning_prob=0.1)}


def make_samples(images=12, seed=0, size=(8, 9), spacing=None):
    """Blurred truths of small pieces, with classes missing from some images, and ignored pixels; two images a case."""
    generator = torch.Generator().manual_seed(seed)
    for index in range(images):
        held = torch.randperm(CLASSES, generator=generator)[: 1 + index % CLASSES]
        labels = held[torch.randint(0, len(held), (4, 3), generator=generator)]
        labels = labels.repeat_interleave(2, 0).repeat_interleave(3, 1)
        logits = 0.7 * torch.randn(CLASSES, *size, generator=generator)
        logits += 2 * torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 0)
        labels[torch.rand(size, generator=generator) < 0.05] = IGNORE
        yield Sample(f"image{index:02d}", logits.softmax(0), labels, f"case{index // 2}", spacing)


def tables(samples, scoring):
    """By decoder and figure, (N, scored classes): what counts, by loops."""
    found = {}
    for name, decoder in DECODERS.items():
        table = np.full((len(COLUMNS), len(samples), CLASSES), np.nan)
        for n, sample in enumerate(samples):
            decided, kept = decoder(sample.probs[None])[0], sample.labels != IGNORE
            for label in range(CLASSES):
                ours, theirs = ((decided == label) & kept).numpy(), (sample.labels == label).numpy()
                counts = theirs.any() or (scoring.present == "union" and ours.any())
                figures = [*BOTH[0].measure(ours, theirs), *(BOTH[1].measure(ours, theirs) if label else [np.nan] * 3)]
                for k, (column, figure) in enumerate(zip(COLUMNS, figures, strict=True)):
                    if not column.is_share:
                        table[k, n, label] = figure if np.isfinite(figure) else np.nan
                    elif label or k < 4:
                        fill = {"skip": np.nan, "one": 1.0}[scoring.absent]
                        table[k, n, label] = np.nan_to_num(figure) if counts else fill
        found[name] = table[..., scoring.kept(CLASSES)]
    return found


def differences(ours, base, column):
    """Of every image, and of every class."""
    if not column.is_share:
        both = ~np.isnan(ours) & ~np.isnan(base)
        ours, base = np.where(both, ours, np.nan), np.where(both, base, np.nan)
    return nanmean(nanmean(ours, 1) - nanmean(base, 1), 0), nanmean(ours, 0) - nanmean(base, 0)


def nanmean(values, axis):
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(RuntimeWarning)
        return np.nanmean(values, axis)


@pytest.mark.parametrize(
    "scoring", [Scoring(), Scoring("iou", "label"), Scoring(absent="one"), Scoring(excluded=(0, 2))]
)
def test_every_figure_without_each_case(scoring):
    samples = list(make_samples())
    options = {"ignore_index": IGNORE, "scoring": scoring, "panels": 0}
    found = compare(samples, DECODERS, extra=BOTH, **options)
    expected, cases = tables(samples, scoring), 6
    left = [[image for image in range(12) if image // 2 != case] for case in range(cases)]
    figures = found.extra_figures
    for d, (name, table) in enumerate(expected.items()):
        np.testing.assert_allclose(figures.means[d], nanmean(nanmean(table, 2), 1), atol=1e-12)
        np.testing.assert_allclose(figures.classes[d], nanmean(table, 1), atol=1e-12)
        assert figures.numbers[d].tolist() == (~np.isnan(table)).sum((1, 2)).tolist()
        for k, column in enumerate(COLUMNS) if name != "argmax" else ():
            ours, base = table[k], expected["argmax"][k]
            value, classes = differences(ours, base, column)
            without = [differences(ours[images], base[images], column) for images in left]
            moved = np.nan_to_num(np.array([(cases - 1) * (value - mean) for mean, _ in without]))
            known = [~np.isnan(each) if column.is_share else ~np.isnan(ours) & ~np.isnan(base) for each in (ours, base)]
            held = np.minimum(*(each.reshape(cases, 2, -1).any(1).sum(0) for each in known)).sum()
            expected_gain = [value, np.nan, np.nan]
            if (known[0] & known[1]).reshape(cases, -1).any(1).sum() >= 5:
                expected_gain[1:] = interval_of(moved, value, UNSEEN * column.is_share * cases / held)
            np.testing.assert_allclose(figures.gains[d - 1, k], expected_gain, atol=1e-12)
            np.testing.assert_allclose(figures.class_gains[d - 1, k, :, 0], classes, atol=1e-12)
    assert found.paired("dice").mean == compare(samples, DECODERS, **options).paired("dice").mean


def test_a_decoder_has_the_same_figures_in_any_company():
    samples = list(make_samples())
    options = {"ignore_index": IGNORE, "extra": BOTH, "panels": 0}
    alone = compare(samples, {name: DECODERS[name] for name in ("argmax", "low")}, **options).extra_figures
    together = compare(samples, DECODERS, **options).extra_figures
    np.testing.assert_equal(alone.gains[0], together.gains[1])
    np.testing.assert_equal(alone.means[1], together.means[2])


def test_decisions_made_elsewhere_and_restored_measurements():
    samples = list(make_samples(spacing=(1, 2)))
    options = {"num_classes": CLASSES, "ignore_index": IGNORE, "extra": Boundaries(2, "mm")}
    whole = compare(samples, DECODERS, **options).extra_figures
    elsewhere, restored = Recorder(DECODERS, **options), Recorder(DECODERS, **options)
    for sample in samples:
        decisions = [decoder(sample.probs[None])[0] for decoder in DECODERS.values()]
        elsewhere.add_decided(sample.name, sample.labels, decisions, case=sample.case, spacing=sample.spacing)
    for measurement in elsewhere.measurements:
        restored.restore(measurement)
    for recorder in (elsewhere, restored):
        recorder.gather()
        for ours, theirs in zip(recorder.comparison().extra_figures, whole, strict=True):
            np.testing.assert_equal(ours, theirs)
    with pytest.raises(ValueError, match="extra scores of 'image00' must be 0 for each class, got"):
        Recorder(DECODERS, num_classes=CLASSES).restore(elsewhere.measurements[0])


def test_masks_that_overlap():
    probs = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0))
    masks = (probs + torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(1))) > 0.8
    found = compare([("a", probs, masks)], ["argmax", "rankseg"], extra=Boundaries(1), panels=0)
    expected = [Boundaries(1).measure((probs[c] > 0.5).numpy(), masks[c].numpy()) for c in range(3)]
    np.testing.assert_allclose(found.extra_figures.means[0], np.mean(expected, 0), atol=1e-12)


def test_rows_and_values():
    found = compare(make_samples(), DECODERS, ignore_index=IGNORE, extra=BOTH, panels=0)
    rows = [row for row in found.to_rows() if row["decoder"] == "dice"]
    expected = nanmean(found.extra_entries[1], -1)
    np.testing.assert_equal([[row[column.name] for row in rows] for column in COLUMNS], expected)


def test_table_on_the_terminal():
    found = compare(make_samples(), DECODERS, ignore_index=IGNORE, extra=BOTH, panels=0)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(to_terminal(read_page(found)))
    lines = console.export_text().splitlines()
    for k, title in ((0, "NSD within 1 px, %"), (2, "HD95, px (lower is better)"), (6, "lesion F1, %")):
        first = next(index for index, line in enumerate(lines) if line.startswith(title))
        scale = 100 if COLUMNS[k].is_share else 1
        assert lines[first + 1].split() == ["argmax", f"{scale * found.extra_figures.means[0, k]:.2f}"]
        for d in (1, 2):
            mean, gain = found.extra_figures.means[d, k], found.extra_figures.gains[d - 1, k, 0]
            expected = [found.decoders[d], f"{scale * mean:.2f}", f"{scale * gain:+.2f}"]
            assert lines[first + 1 + d].split()[:3] == expected


def test_without_them_nothing_is_said():
    found = compare(make_samples(), DECODERS, ignore_index=IGNORE, panels=0)
    assert found.tables.extra == []
    assert "extra" not in to_dict(found)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"extra": "boundaries"}, TypeError, "extra must hold values of type ExtraScore, got 'boundaries'"),
        (
            {"extra": [Lesions(), Lesions(0.5)]},
            ValueError,
            "extra must give every figure once, got lesion_recall twice",
        ),
        ({"extra": Lesions(classes=4)}, ValueError, "classes of lesions must lie in 0 to 3, got 4"),
        ({"extra": Boundaries(1, "mm")}, ValueError, "image00: boundaries in mm need the spacing of the image"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        compare(make_samples(), DECODERS, ignore_index=IGNORE, **options)


@pytest.mark.parametrize(
    ("spacing", "error", "message"),
    [
        ((1, 0), ValueError, r"spacing must be finite numbers above 0, one for each axis, got \(1, 0\)"),
        ("1,1", TypeError, "spacing must hold values of type int or float, got '1,1'"),
        ((1, 1, 1), ValueError, "image00: spacing must have a number for each of 2 axes"),
    ],
)
def test_bad_spacing(spacing, error, message):
    with pytest.raises(error, match=message):
        compare(make_samples(spacing=spacing), DECODERS, ignore_index=IGNORE, extra=BOTH)
