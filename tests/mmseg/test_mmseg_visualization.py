"""Panels: the right pixels in the right colours, from the hook and from the visualizer."""

import warnings

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import mmcv
import numpy as np
import tiny
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from rankseg_plugins.comparison.pictures.colours import ARGMAX_RIGHT, NEITHER, RANKSEG_RIGHT
from rankseg_plugins.mmseg import RankSEGVisualizationHook, RankSEGVisualizer
from rankseg_plugins.mmseg.visualization import (
    GREY,
    PANEL_WIDTH,
    draw_panels,
    to_picture,
)

DOTTED = "rankseg_plugins.mmseg.RankSEGEncoderDecoder"
HEIGHT, WIDTH = 60, PANEL_WIDTH


def sample(truth=True, argmax=True):
    """Labels of three rectangles: RankSEG is right, argmax is right, neither is; the void label is there, too."""
    labels = {name: torch.zeros(1, HEIGHT, WIDTH).long() for name in ("truth", "argmax", "decided")}
    labels["decided"][:, :20, :50] = labels["truth"][:, :20, :50] = 1
    labels["argmax"][:, 20:40, :50] = labels["truth"][:, 20:40, :50] = 2
    labels["decided"][:, 40:, :50] = 255
    labels["truth"][:, 40:, :50] = 3
    result = SegDataSample(metainfo={"img_path": "a.png"})
    result.pred_sem_seg = PixelData(data=labels["decided"])
    if truth:
        result.gt_sem_seg = PixelData(data=labels["truth"])
    if argmax:
        result.set_data({"pred_sem_seg_argmax": PixelData(data=labels["argmax"])})
    return result


def visualizer(kind=RankSEGVisualizer, **options):
    made = kind(alpha=1.0, **options)
    made.set_dataset_meta(tiny.CLASSES, tiny.PALETTE)
    return made


def pixel(panels, column, row):
    """Colour in the middle of a rectangle of panel `column`; the captions are above all panels."""
    top = panels.shape[0] - HEIGHT
    return tuple(int(value) for value in panels[top + 10 + 20 * row, column * WIDTH + 25])


def test_panels_show_labels_and_difference():
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    panels = draw_panels(visualizer(), image, sample())
    assert panels.shape[1] == 5 * WIDTH
    assert pixel(panels, 0, 0) == (200, 200, 200)
    for row, (truth, argmax, decided) in enumerate([(1, 0, 1), (2, 2, 0), (3, 0, None)]):
        colours = [tuple(tiny.PALETTE[label]) if label is not None else (0, 0, 0) for label in (truth, argmax, decided)]
        assert [pixel(panels, column, row) for column in (1, 2, 3)] == colours
    assert [pixel(panels, 4, row) for row in range(3)] == [RANKSEG_RIGHT, ARGMAX_RIGHT, NEITHER]
    unchanged = panels[-HEIGHT // 2, 4 * WIDTH + 150]
    assert (unchanged == 214).all()  # an image of one grey, paled


def test_without_truth_there_is_no_truth_panel():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for shown in (
        draw_panels(visualizer(), image, sample(truth=False)),
        draw_panels(visualizer(), image, sample(), False),
    ):
        assert shown.shape[1] == 4 * WIDTH
        assert [pixel(shown, 3, row) for row in range(3)] == [NEITHER] * 3


def test_small_images_are_enlarged_until_captions_can_be_read():
    result = SegDataSample()
    for field in ("pred_sem_seg", "pred_sem_seg_argmax"):
        result.set_data({field: PixelData(data=torch.zeros(1, 33, 61))})
    panels = draw_panels(visualizer(), np.zeros((33, 61, 3), np.uint8), result)
    assert panels.shape[1] == 4 * 61 * 4
    assert panels.shape[0] > 33 * 4


def test_missing_comparison_names_the_key():
    with pytest.raises(ValueError, match=r"model\.test_cfg\.rankseg\.compare=True"):
        draw_panels(visualizer(), np.zeros((HEIGHT, WIDTH, 3), np.uint8), sample(argmax=False))


def test_visualizer_draws_other_results_as_stock(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for kind in (SegLocalVisualizer, RankSEGVisualizer):
        out = str(tmp_path / f"{kind.__name__}.png")
        visualizer(kind).add_datasample("a", image, sample(argmax=False), out_file=out)
    stock, ours = (mmcv.imread(str(path)) for path in sorted(tmp_path.glob("*.png")))
    assert (stock == ours).all()


def test_visualizer_writes_panels_and_refuses_what_they_do_not_use(tmp_path):
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    drawing = visualizer()
    drawing.add_datasample("a", image, sample(), out_file=str(tmp_path / "a.png"), with_labels=False)
    assert (mmcv.imread(str(tmp_path / "a.png"), channel_order="rgb") == draw_panels(drawing, image, sample())).all()
    with pytest.raises(TypeError, match="with_image"):
        drawing.add_datasample("a", image, sample(), with_image=True)


@pytest.mark.parametrize("channels", [None, 1])
def test_hook_hands_panels_to_the_backends(tmp_path, channels):
    classes = 2 if channels else 4
    data = tiny.write_dataset(tmp_path, classes=classes)
    network = tiny.model(DOTTED, classes, channels, {"metric": "dice", "compare": True})
    full = tiny.config(network, data, tmp_path, classes=tiny.CLASSES[:classes])
    full.custom_hooks = [{"type": "rankseg_plugins.mmseg.RankSEGVisualizationHook", "interval": 3}]
    _, samples = tiny.evaluate(full, tiny.build(tiny.model("EncoderDecoder", classes, channels)).state_dict())
    pictures = sorted(tmp_path.glob("*/vis_data/vis_image/test_*.png"))
    assert [path.name for path in pictures] == ["test_00.png_0.png", "test_03.png_0.png", "test_06.png_0.png"]
    for path, kept in zip(pictures, samples[::3], strict=True):
        picture = mmcv.imread(str(path))
        height, width = kept["ori_shape"]
        enlarged = -(-PANEL_WIDTH // width)
        assert picture.shape[1] == 5 * width * enlarged
        assert picture.shape[0] > height * enlarged


def test_hook_refuses_a_visualizer_that_draws_no_labels(dataset, tmp_path):
    full = tiny.config(tiny.model(DOTTED, rankseg={"metric": "dice", "compare": True}), dataset, tmp_path)
    full.custom_hooks = [{"type": "rankseg_plugins.mmseg.RankSEGVisualizationHook"}]
    full.visualizer.type = "Visualizer"
    with pytest.raises(TypeError, match=r"needs visualizer\.type='SegLocalVisualizer'.*got Visualizer"):
        tiny.evaluate(full)


@pytest.mark.parametrize(
    ("kind", "rankseg", "words"),
    [
        (DOTTED, {"metric": "dice"}, r"set model\.test_cfg\.rankseg\.compare=True"),
        (DOTTED, None, r"set model\.test_cfg\.rankseg\.compare=True"),
        ("EncoderDecoder", {"metric": "dice", "compare": True}, r"model\.type to a RankSEG .*EncoderDecoder ignores"),
    ],
)
def test_hook_without_comparison_is_refused_before_any_image(dataset, tmp_path, kind, rankseg, words):
    full = tiny.config(tiny.model(kind, rankseg=rankseg), dataset, tmp_path)
    full.custom_hooks = [{"type": "rankseg_plugins.mmseg.RankSEGVisualizationHook"}]
    full.test_dataloader.dataset.pipeline = [{"type": "LoadImageFromFile", "imdecode_backend": "none"}]
    with pytest.raises(ValueError, match=words):
        tiny.evaluate(full)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"interval": 0}, ValueError, "interval must be at least 1, got 0"),
        ({"interval": 0.5}, TypeError, "interval must be an integer, got float"),
        ({"backend_args": {"backend": "nowhere"}}, ValueError, "nowhere"),
    ],
)
def test_bad_options_of_the_hook(options, error, words):
    with pytest.raises(error, match=words):
        RankSEGVisualizationHook(**options)


@pytest.mark.parametrize("bands", [4, 2, 12])
def test_other_bands_are_left_out_of_panels_with_a_warning(tmp_path, bands):
    drawing, image = visualizer(), np.full((HEIGHT, WIDTH, bands), 200, np.uint8)
    words = rf"without the photograph of a: shape \(60, 240, {bands}\), not \(60, 240\)"
    options = {"data_sample": sample(), "with_labels": False}
    with pytest.warns(UserWarning, match=words):
        drawing.add_datasample("a", image, out_file=str(tmp_path / "a.png"), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing.add_datasample("b", image, out_file=str(tmp_path / "b.png"), **options)
    for name in ("a", "b"):
        panels = mmcv.imread(str(tmp_path / f"{name}.png"), channel_order="rgb")
        assert pixel(panels, 0, 0) == (GREY, GREY, GREY)
        assert pixel(panels, 1, 0) == tuple(tiny.PALETTE[1])
        assert [pixel(panels, 4, row) for row in range(3)] == [RANKSEG_RIGHT, ARGMAX_RIGHT, NEITHER]


@pytest.mark.parametrize(
    "image",
    [
        np.full((HEIGHT, WIDTH), 200, np.uint8),
        np.full((HEIGHT, WIDTH, 1), 200, np.uint8),
        np.pad(np.full((HEIGHT, WIDTH - 2), 200 * 256, np.uint16), ((0, 0), (1, 0))),
        np.pad(
            np.full((HEIGHT, WIDTH - 2, 3), 0.2), ((0, 0), (1, 1), (0, 0)), constant_values=((0, 0), (0, 0.255), (0, 0))
        ),
    ],
)
def test_grey_and_other_numbers_are_drawn(image):
    if image.dtype == np.uint16:
        image = np.pad(image, ((0, 0), (0, 1)), constant_values=255 * 256)
    assert pixel(draw_panels(visualizer(), image, sample()), 0, 0) == pytest.approx((200, 200, 200), abs=1)


def test_an_image_that_is_nowhere_known_is_black():
    assert (to_picture(np.full((2, 3), np.nan)) == 0).all()


def test_void_below_zero_has_no_colour():
    result, image = sample(), np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    result.pred_sem_seg.data[:, 40:, :50] = -1
    assert pixel(draw_panels(visualizer(), image, result), 3, 2) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["missing", "bands", "size"])
def test_a_run_goes_on_where_images_cannot_be_drawn(tmp_path, fault):
    """The pipeline reads something else than the picture that the hook would."""
    data = tiny.write_dataset(tmp_path, count=3)
    full = tiny.config(tiny.model(DOTTED, rankseg={"metric": "dice", "compare": True}), data, tmp_path)
    full.custom_hooks = [{"type": "rankseg_plugins.mmseg.RankSEGVisualizationHook"}]
    full.test_dataloader.dataset.pipeline.insert(3, {"type": "OtherPicture", "fault": fault, "folder": str(tmp_path)})
    with pytest.warns(UserWarning, match=r"panels are drawn without the photograph of .*odd") as told:
        tiny.evaluate(full, tiny.build(tiny.model()).state_dict())
    assert len([each for each in told if "photograph" in str(each.message)]) == 1
    # Three images of one name.
    pictures = sorted(path.name for path in tmp_path.glob("*/vis_data/vis_image/test_*.png"))
    assert pictures == [f"test_odd{name}_0.png" for name in (".tif (2)", ".tif (3)", ".tif")]
