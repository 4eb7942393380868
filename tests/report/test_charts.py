"""The charts of a page: each is drawn once, and shown in two themes."""

import io

import numpy as np
import pytest
import torch
from image_folders import DECODERS, make_image
from PIL import Image

from rankseg_plugins.comparison import compare
from rankseg_plugins.report import charts


@pytest.fixture(scope="module")
def comparison():
    """Six images, of which some gain, some lose, and one keeps its score."""
    images = [map(torch.from_numpy, make_image(index)) for index in range(5)]
    samples = [(f"image{index}", probs, labels.long()) for index, (probs, labels) in enumerate(images)]
    sure = torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 16, 20)
    samples.append(("certain", sure, sure.argmax(0)))
    decoders = [*DECODERS, "rankseg(metric=iou)"]
    with pytest.warns(UserWarning, match="the probabilities are too unsure"):
        return compare(samples, decoders, ignore_index=255, risk_coverage=True)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


@pytest.mark.parametrize(
    "chart",
    [charts.classes, charts.forest, charts.scatter, charts.histogram, charts.reliability, charts.risk_coverage],
)
def test_the_dark_one_is_as_if_drawn_in_the_dark(chart, comparison, monkeypatch):
    decoder = comparison.candidates[0]
    found = charts.in_both_themes(charts.draw(chart, comparison, decoder))
    light, dark = (pixels(found[name]) for name in ("light", "dark"))
    assert light[0, 0].tolist() == [255] * 4
    assert dark[0, 0, 3] == 0
    monkeypatch.setattr(charts, "LIGHT", charts.DARK)
    np.testing.assert_array_equal(dark, pixels(charts.to_png(charts.draw(chart, comparison, decoder))))
    assert not np.array_equal(light, dark)


def test_classes_of_too_few_cases_have_no_line(comparison):
    few = comparison.by_group({name: name for name in comparison.names})["image0"]
    for found, known in ((few, False), (comparison, True)):
        gains = 100 * np.stack([gains[0] for *_, gains in found.tables.classes])
        (lines,) = charts.draw(charts.classes, found, found.candidates[0]).axes[0].collections
        lengths = [np.ptp(segment[:, 0]) for segment in lines.get_segments()]
        assert np.isfinite(gains).all() == known
        np.testing.assert_allclose(sorted(lengths), np.sort(gains[:, 2] - gains[:, 1]) if known else [0, 0, 0])


def test_two_decoders_are_drawn_below_each_other_on_like_axes(comparison):
    two = comparison.candidates[:2]
    pairs = [comparison.paired(name) for name in two]
    assert pairs[0].differences.tolist() != pairs[1].differences.tolist()
    histograms, scatters, classes = (
        charts.draw(chart, comparison, *two).axes for chart in (charts.histogram, charts.scatter, charts.classes)
    )
    for found in (histograms, scatters, classes):
        assert [axes.get_title().replace("\n", "") for axes in found] == list(two)
        assert len({axes.get_xlim() for axes in found}) == 1
    assert len({axes.get_ylim() for axes in (*histograms, scatters[0])}) == 2
    for axes, paired in zip(histograms, pairs, strict=True):
        bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]
        assert sum(height for x, height in bars if x > 0) == paired.wins
        assert sum(height for x, height in bars if x < 0) == paired.losses
    for axes, paired in zip(scatters, pairs, strict=True):
        points = np.column_stack([paired.baseline, paired.scores])
        np.testing.assert_allclose(axes.collections[0].get_offsets(), 100 * points)
    for index, axes in enumerate(classes):
        gains = 100 * comparison.differences.classes[index][:, 0]
        np.testing.assert_allclose(sorted(bar.get_width() for bar in axes.patches), sorted(gains))
