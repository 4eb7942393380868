"""A folder of probabilities and one of labels."""

import numpy as np
import pytest
from image_folders import make_image
from PIL import Image


@pytest.fixture
def folders(tmp_path):
    """Twelve images in ``probs/*.npz`` and ``labels/*.png``."""
    (tmp_path / "probs").mkdir()
    (tmp_path / "labels").mkdir()
    for index in range(12):
        probs, labels = make_image(index)
        np.savez_compressed(tmp_path / f"probs/image{index:02d}.npz", probs=probs)
        Image.fromarray(labels).save(tmp_path / f"labels/image{index:02d}.png")
    return tmp_path
