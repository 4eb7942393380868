"""Panels that show what RankSEG changes: image | truth | argmax | RankSEG | difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dist import is_main_process, master_only
from mmengine.fileio import get, get_file_backend
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import HOOKS, VISUALIZERS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from rankseg_plugins._warning import warn
from rankseg_plugins.comparison.pictures.colours import ARGMAX_RIGHT, RANKSEG_RIGHT, difference
from rankseg_plugins.core.inputs.options import read_integer
from rankseg_plugins.mmseg.options import KEY
from rankseg_plugins.mmseg.running import require_comparison, step_of
from rankseg_plugins.mmseg.samples import ARGMAX_FIELD, argmax_field, image_path

#: Panels are enlarged to this width at least, in pixels, so that their captions can be read.
PANEL_WIDTH = 240
#: In place of a photograph that cannot be shown.
GREY = 128


def draw_panels(
    visualizer: SegLocalVisualizer,
    image: np.ndarray | None,
    sample: SegDataSample,
    draw_gt: bool = True,
    with_labels: bool = False,
) -> np.ndarray:
    """Draw image, truth where it is known, argmax, RankSEG and their difference side by side, with captions.

    Args:
        visualizer: draws the labels, in its own colours and opacity.
        image: (H, W, 3) RGB or (H, W) grey, uint8; other numbers are stretched to the range of the image. None, or one
            that is no photograph of the labels (other bands, another size), is left out: the panels are then on grey.
        sample: result of a RankSEG segmentor with ``compare=True``.
        draw_gt: whether the truth is drawn, and used to colour the difference, where the sample has it.
        with_labels: whether class names are written into the labels.

    Returns:
        (height, width, 3) RGB, uint8.

    Raises:
        ValueError: if the sample carries no labels of argmax, or those of another decision.
    """
    argmax = argmax_field(sample)
    if argmax is None:
        raise ValueError(
            f"panels need argmax's labels beside RankSEG's: set {KEY}.compare=True, got a data sample with "
            f"{', '.join(sample.keys())}"
        )
    size = tuple(argmax.data.shape[-2:])
    drawable = None if image is None or describe_image(image, size) else to_picture(image)
    image = np.full((*size, 3), GREY, np.uint8) if drawable is None else drawable
    fields = {"argmax": argmax, "RankSEG": sample.pred_sem_seg}
    if draw_gt and "gt_sem_seg" in sample:
        fields = {"truth": sample.gt_sem_seg, **fields}
    meta = visualizer.dataset_meta
    labels = {title: field.data[0].long().cpu().numpy() for title, field in fields.items()}
    panels = {"image" if drawable is not None else "no image": image}
    for title, each in labels.items():
        # Void may be below 0, where the toolkit would count classes from their end.
        shown = PixelData(data=np.where(each < 0, len(meta["classes"]), each)[None])
        panels[title] = visualizer._draw_sem_seg(image, shown, meta["classes"], meta["palette"], with_labels)
    panels["difference"] = difference(image, labels.get("truth"), labels["argmax"], labels["RankSEG"])
    share = (labels["argmax"] != labels["RankSEG"]).mean()
    captioned = [_captioned(panel, title) for title, panel in panels.items() if title != "difference"]
    legend = {"gain": RANKSEG_RIGHT, "loss": ARGMAX_RIGHT} if "truth" in labels else {}
    captioned.append(_captioned(panels["difference"], f"difference {share:.1%}", legend))
    return np.concatenate(captioned, axis=1)


def read_photograph(path: str, size: tuple[int, int], backend_args: dict[str, Any] | None = None) -> np.ndarray | str:
    """Read the image of labels of a size (H, W), RGB or of one band; the problem, where there is none to draw.

    Args:
        path: of its file.
        size: of the labels.
        backend_args: where it is read from, as for ``LoadImageFromFile``.
    """
    try:
        image: np.ndarray = mmcv.imfrombytes(get(path, backend_args=backend_args), channel_order="rgb")
        return describe_image(image, size) or image
    except Exception as error:  # of any file, backend and decoder
        return f"{type(error).__name__}: {error}"


def describe_image(image: np.ndarray, size: tuple[int, int]) -> str | None:
    """Why an image cannot be drawn under labels of a size (H, W); None if it can.

    Example:
        >>> describe_image(np.zeros((8, 8, 4)), (8, 8))
        'shape (8, 8, 4), not (8, 8) with 1 or 3 bands'
    """
    shape = tuple(image.shape)
    fits = shape[:2] == tuple(size) and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))
    return None if fits else f"shape {shape}, not {tuple(size)} with 1 or 3 bands"


def to_picture(image: np.ndarray) -> np.ndarray:
    """Bring an image of 1 or 3 bands into the form (H, W, 3) uint8; what is not uint8 is stretched to its range.

    Example:
        >>> to_picture(np.array([[0.0, 0.5, 1.0]]))[0, :, 0].tolist()
        [0, 127, 255]
    """
    if image.dtype != np.uint8:
        known = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        low, high = known.min(), known.max()
        image = ((known - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    bands = image if image.ndim == 3 else image[..., None]
    return np.ascontiguousarray(np.broadcast_to(bands, (*bands.shape[:2], 3)))


def _captioned(panel: np.ndarray, caption: str, legend: dict[str, tuple[int, int, int]] | None = None) -> np.ndarray:
    enlarge = -(-PANEL_WIDTH // panel.shape[1])
    panel = panel.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    scale = panel.shape[1] / 480
    strip = np.full((round(40 * scale), panel.shape[1], 3), 255, np.uint8)
    font, thickness, left = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale)), round(8 * scale)
    for text, colour in {caption: (0, 0, 0), **(legend or {})}.items():
        cv2.putText(strip, text, (left, round(28 * scale)), font, scale, colour, thickness, cv2.LINE_AA)
        left += cv2.getTextSize(text, font, scale, thickness)[0][0] + round(14 * scale)
    framed = np.concatenate([strip, panel])
    framed[:, -2:] = 255
    return framed


@VISUALIZERS.register_module()
class RankSEGVisualizer(SegLocalVisualizer):
    """``SegLocalVisualizer`` that draws panels for results with ``model.test_cfg.rankseg.compare=True``.

    Other results it draws as ``SegLocalVisualizer`` does. It is how ``MMSegInferencer`` and ``tools/test.py
    --show-dir`` show what RankSEG changes. Arguments are those of ``SegLocalVisualizer``.

    Example:
        In a config: ``visualizer = dict(type='rankseg_plugins.mmseg.RankSEGVisualizer')``
    """

    #: Whether it has said that it leaves photographs out.
    _warned = False

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        with_labels: bool = True,
        **options: Any,
    ) -> None:
        """Draw one result and show it, write it to a file, or hand it to the backends.

        Args:
            name: identifier of the image.
            image: (H, W, 3) RGB, uint8; for panels see ``draw_panels``.
            data_sample: the result, with or without ground truth.
            draw_gt: whether the truth is drawn where it is known.
            draw_pred: whether predictions are drawn; without them there are no panels.
            show: whether a window opens.
            wait_time: seconds that the window stays.
            out_file: path of the picture; None hands it to the backends.
            step: step recorded with the picture.
            with_labels: whether class names are written into the labels.
            options: further options of ``SegLocalVisualizer``, for results that it draws.

        Raises:
            TypeError: if ``options`` are given for panels.
        """
        if not draw_pred or data_sample is None or ARGMAX_FIELD not in data_sample:
            options.update(show=show, wait_time=wait_time, out_file=out_file, step=step, with_labels=with_labels)
            super().add_datasample(name, image, data_sample, draw_gt, draw_pred, **options)
            return
        if options:
            raise TypeError(f"panels do not use {', '.join(options)}")
        problem = describe_image(image, tuple(data_sample.pred_sem_seg.data.shape[-2:]))
        if problem:
            _warn_without_image(self, name, problem)
        panels = draw_panels(self, image, data_sample, draw_gt, with_labels)
        self.set_image(panels)
        if show:
            self.show(panels, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(mmcv.rgb2bgr(panels), out_file)
        else:
            self.add_image(name, panels, step)
        return None


@HOOKS.register_module()
class RankSEGVisualizationHook(Hook):
    """Hands panels of validation and test images to the visualizer's backends.

    Needs ``model.test_cfg.rankseg.compare=True`` and a visualizer of the type ``SegLocalVisualizer``. With
    ``LocalVisBackend`` the pictures are in ``vis_data/vis_image`` of the run's folder. Of several processes the first
    one draws, from its own share of the images, as all of MMEngine's visualizers do. Images that cannot be read or
    drawn, such as those of four bands, are left out of their panels, with a warning.

    Args:
        interval: every ``interval``-th image is drawn, from the first on; at least 1.
        with_labels: whether class names are written into the labels.
        backend_args: where images are read from, as for ``LoadImageFromFile``.

    Raises:
        TypeError: if ``interval`` is no integer; when the run begins, if its visualizer is no ``SegLocalVisualizer``.
        ValueError: if ``interval`` is smaller than 1, or for ``backend_args`` of no file backend; when the run begins,
            if its results will carry no labels of argmax.

    Example:
        In a config: ``custom_hooks = [dict(type='rankseg_plugins.mmseg.RankSEGVisualizationHook', interval=10)]``
    """

    def __init__(
        self, interval: int = 1, with_labels: bool = False, backend_args: dict[str, Any] | None = None
    ) -> None:
        self.interval = read_integer("interval", interval, least=1)
        try:  # the first image would be too late to refuse it
            get_file_backend("image.png", backend_args=None if backend_args is None else dict(backend_args))
        except Exception as error:  # of any backend
            raise ValueError(f"backend_args={backend_args!r}: {type(error).__name__}: {error}") from error
        self.with_labels, self.backend_args = with_labels, backend_args
        self._names: Counter[str] = Counter()
        self._seen, self._warned = 0, False

    def before_run(self, runner: Runner) -> None:
        """Refuse a visualizer that cannot draw labels, and a model that gives nothing to compare.

        Raises:
            TypeError: for such a visualizer, or a model that does not know RankSEG.
            ValueError: for a model whose options do not ask for a comparison.
        """
        if not isinstance(runner.visualizer, SegLocalVisualizer):
            raise TypeError(
                "RankSEGVisualizationHook needs visualizer.type='SegLocalVisualizer' or a class built on it, got "
                f"{type(runner.visualizer).__name__}"
            )
        require_comparison(runner, "RankSEGVisualizationHook")

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to count images anew, so that every validation draws the same ones."""
        self._seen, self._names = 0, Counter()

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin to count images anew."""
        self._seen, self._names = 0, Counter()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        """Draw the images of a validation batch whose turn it is."""
        self._draw(runner, outputs or (), "val", step_of(runner))

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        """Draw the images of a test batch whose turn it is."""
        self._draw(runner, outputs or (), "test", 0)

    def _draw(self, runner: Runner, outputs: Sequence[SegDataSample], phase: str, step: int) -> None:
        if not is_main_process():
            return  # MMEngine keeps the names and colours of the classes in the first process alone
        for sample in outputs:
            if self._seen % self.interval == 0:
                path = image_path(sample) or "image"
                panels = draw_panels(runner.visualizer, self._read(sample, path), sample, with_labels=self.with_labels)
                runner.visualizer.add_image(self._name(f"{phase}_{PurePath(path).name}"), panels, step)
            self._seen += 1

    def _name(self, name: str) -> str:
        """Backends put a picture in the place of one of the same name: further ones are numbered."""
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name} ({self._names[name]})"

    def _read(self, sample: SegDataSample, path: str) -> np.ndarray | None:
        """The image, or None with a warning if there is none to draw: no picture is worth the run."""
        image = read_photograph(path, tuple(sample.pred_sem_seg.data.shape[-2:]), self.backend_args)
        if isinstance(image, str):
            _warn_without_image(self, path, image)
            return None
        return image


def _warn_without_image(drawing: RankSEGVisualizer | RankSEGVisualizationHook, name: str, problem: str) -> None:
    if not drawing._warned:
        drawing._warned = True
        warn(f"panels are drawn without the photograph of {name}: {problem}")
