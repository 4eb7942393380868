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
    with pytest.warns(UserWarning, match="the probabilities are too unsure"):
        return compare(samples, [*DECODERS, "rankseg(metric=iou)"], ignore_index=255)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


@pytest.mark.parametrize("chart", [charts.classes, charts.forest, charts.scatter, charts.histogram, charts.reliability])
def test_the_dark_one_is_as_if_drawn_in_the_dark(chart, comparison, monkeypatch):
    decoder = comparison.candidates[0]
    found = charts.in_both_themes(charts.draw(chart, comparison, decoder))
    light, dark = (pixels(found[name]) for name in ("light", "dark"))
    assert light[0, 0].tolist() == [255] * 4
    assert dark[0, 0, 3] == 0
    monkeypatch.setattr(charts, "LIGHT", charts.DARK)
    np.testing.assert_array_equal(dark, pixels(charts.to_png(charts.draw(chart, comparison, decoder))))
    assert not np.array_equal(light, dark)
