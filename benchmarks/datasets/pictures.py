"""PASCAL VOC 2012, SBD, Cityscapes and ADE20K."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from benchmarks.datasets.truth import IGNORE, Dataset, LayoutError, Truth, read_picture, require

VOC_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
CITYSCAPES_CLASSES = (
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, "
    "rider, car, truck, bus, train, motorcycle, bicycle"
)
#: The ids of these 19 classes among all labels of Cityscapes; the others do not count.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
ADE_CLASSES = 150

VOC_LAYOUT = "VOC2012/ImageSets/Segmentation/SPLIT.txt and VOC2012/SegmentationClass/*.png"
SBD_LAYOUT = "SPLIT.txt and cls/*.mat in the folder `dataset` of the archive"
CITYSCAPES_LAYOUT = "gtFine/SPLIT/*/*_gtFine_labelIds.png"
ADE_LAYOUT = "ADEChallengeData2016/annotations/SPLIT/*.png"


def voc2012(root: Path, split: str) -> Iterator[Truth]:
    """PASCAL VOC 2012: index 255, the white line around objects, does not count."""
    root = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    names = require(root / f"ImageSets/Segmentation/{split}.txt", VOC_LAYOUT).read_text().split()
    for name in names:
        yield Truth(name, read_picture(require(root / f"SegmentationClass/{name}.png", VOC_LAYOUT)))


def sbd(root: Path, split: str) -> Iterator[Truth]:
    """The Semantic Boundaries Dataset, with which VOC 2012 is trained as "aug": no pixel is left out."""
    names = require(root / f"{split}.txt", SBD_LAYOUT).read_text().split()
    for name in names:
        path = require(root / f"cls/{name}.mat", SBD_LAYOUT)
        yield Truth(name, loadmat(path)["GTcls"][0, 0]["Segmentation"].astype(np.uint8))


def cityscapes(root: Path, split: str) -> Iterator[Truth]:
    """Cityscapes, finely annotated: 34 labels become 19 classes, the others do not count."""
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[list(CITYSCAPES_IDS)] = np.arange(len(CITYSCAPES_IDS))
    paths = sorted(require(root / f"gtFine/{split}", CITYSCAPES_LAYOUT).glob("*/*_gtFine_labelIds.png"))
    for path in paths:
        yield Truth(path.name.replace("_gtFine_labelIds.png", "_leftImg8bit"), table[read_picture(path)])


def ade20k(root: Path, split: str) -> Iterator[Truth]:
    """ADE20K, 150 classes of the scene parsing challenge: 0 (other) does not count, and class 1 becomes 0."""
    root = root / "ADEChallengeData2016" if (root / "ADEChallengeData2016").is_dir() else root
    for path in sorted(require(root / f"annotations/{split}", ADE_LAYOUT).glob("*.png")):
        labels = read_picture(path)
        if labels.max(initial=0) > ADE_CLASSES:
            raise LayoutError(f"{path} holds the label {labels.max()}, allowed are 0 to {ADE_CLASSES}")
        yield Truth(path.stem, (labels - 1).astype(np.uint8))  # 0 wraps around to 255


def ade20k_classes(root: Path) -> tuple[str, ...]:
    """Names of the 150 classes from ``objectInfo150.txt`` of the data set, or their numbers without it."""
    for path in (root / "objectInfo150.txt", root / "ADEChallengeData2016/objectInfo150.txt"):
        if path.exists():
            return tuple(line.split("\t")[-1].strip() for line in path.read_text().splitlines()[1:] if line.strip())
    return tuple(f"class {label}" for label in range(ADE_CLASSES))


VOC2012 = Dataset(voc2012, tuple(VOC_CLASSES.split()), "val", VOC_LAYOUT)
SBD = Dataset(sbd, tuple(VOC_CLASSES.split()), "val", SBD_LAYOUT)
CITYSCAPES = Dataset(cityscapes, tuple(CITYSCAPES_CLASSES.split(", ")), "val", CITYSCAPES_LAYOUT)
ADE20K = Dataset(ade20k, ade20k_classes, "validation", ADE_LAYOUT)
