import numpy as np
import pytest
from softened_images import make_images


@pytest.fixture
def softened(tmp_path):
    """A folder of files; every name is that of the sample."""
    for part, images in zip(("probs", "labels"), make_images(), strict=True):
        (tmp_path / part).mkdir()
        for index, image in enumerate(images):
            np.save(tmp_path / f"{part}/image{index:02d}.npy", image.numpy())
    return tmp_path
