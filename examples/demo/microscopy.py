"""A generated data set of small noisy images that look like fluorescence microscopy.

Large bodies, small nuclei and thin filaments on a dark background. Blur, low contrast and noise, different in every
image, hide part of what the masks hold: no network can be certain of the small and thin classes, as on real data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("background", "body", "nucleus", "filament")
SIZE = 128
#: Shapes are drawn larger and then reduced, so that thin lines get soft borders.
OVERSAMPLING = 4


def generate(root: Path, train: int = 160, val: int = 64, seed: int = 0) -> None:
    """Write images ``img_dir/{train,val}/*.png`` and masks ``ann_dir/{train,val}/*.png``, as MMSegmentation expects.

    Args:
        root: folder to write into; created, and PNG files in these four folders replaced.
        train: number of training images.
        val: number of validation images.
        seed: the same seed gives the same files.
    """
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        folders = [root / kind / split for kind in ("img_dir", "ann_dir")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("*.png"):
                old.unlink()
        for index in range(count):
            picture, mask = draw(np.random.default_rng([seed, number, index]))
            for folder, pixels in zip(folders, (picture, mask), strict=True):
                Image.fromarray(pixels).save(folder / f"{index:03d}.png")


def draw(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image, (SIZE, SIZE, 3) uint8, and its mask, (SIZE, SIZE) uint8."""
    bodies, nuclei = _cells(rng)
    filaments = _filaments(rng)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for label, cover in enumerate((bodies, nuclei, filaments), start=1):
        mask[cover > 0.5] = label
    # Brightness of each class above the background; low values drown in the noise.
    body, nucleus, filament = rng.uniform((0.12, 0.12, 0.14), (0.28, 0.34, 0.40))
    light = 0.18 + body * bodies + nucleus * nuclei + filament * filaments + _uneven_light(rng)
    light = _blurred(light, rng.uniform(0.6, 1.6))
    noisy = light + rng.normal(0.0, rng.uniform(0.06, 0.13), light.shape)
    grey = (255 * noisy.clip(0, 1)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2), mask


def _cells(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    bodies, nuclei = _canvas(), _canvas()
    for _ in range(rng.integers(2, 5)):
        centre, radius = rng.uniform(0, SIZE, 2), rng.uniform(14, 26)
        ImageDraw.Draw(bodies).polygon(_outline(rng, centre, radius, roughness=0.18), fill=255)
        for _ in range(rng.integers(0, 6)):
            inside = centre + rng.normal(0, radius / 3, 2)
            ImageDraw.Draw(nuclei).polygon(_outline(rng, inside, rng.uniform(2.5, 5.5), roughness=0.12), fill=255)
    return _cover(bodies), _cover(nuclei)


def _filaments(rng: Generator) -> np.ndarray:
    canvas = _canvas()
    for _ in range(rng.integers(0, 7)):
        steps = 60
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, steps))
        path = rng.uniform(0, SIZE, 2) + np.cumsum(1.6 * np.stack([np.cos(heading), np.sin(heading)], 1), axis=0)
        width = round(rng.uniform(1.4, 2.6) * OVERSAMPLING)
        ImageDraw.Draw(canvas).line([tuple(point * OVERSAMPLING) for point in path], fill=255, width=width)
    return _cover(canvas)


def _outline(rng: Generator, centre: np.ndarray, radius: float, roughness: float) -> list[tuple[float, float]]:
    """A closed outline around a centre: a circle, bent by a few waves."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = sum(rng.normal(0, roughness / order) * np.cos(order * angles + rng.uniform(0, 6.3)) for order in (2, 3, 4))
    points = centre + radius * (1 + waves)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return [tuple(point * OVERSAMPLING) for point in points]


def _uneven_light(rng: Generator) -> np.ndarray:
    coarse = rng.normal(0, 0.04, (4, 4)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _blurred(light: np.ndarray, radius: float) -> np.ndarray:
    image = Image.fromarray((255 * light.clip(0, 1)).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _canvas() -> Image.Image:
    return Image.new("L", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING))


def _cover(canvas: Image.Image) -> np.ndarray:
    """Share of every pixel that is covered, (SIZE, SIZE) in [0, 1]."""
    return np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255
