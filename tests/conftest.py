"""What all tests share: real probabilities, where the checkout has them beside it; files; how kernels are run."""

import base64
import os

import numpy as np
import pytest
import torch
from places import DATA

# Triton looks at this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

#: A PNG.
ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
)
REAL = {"camvid": DATA / "camvid" / "probs_val.npz", "horses": DATA / "voc21_horses" / "probs.npz"}


@pytest.fixture(scope="session", autouse=True)
def _half_of_the_kernels():
    """Where none is kept on disk yet, two processes that begin at once would each compile all of them."""
    from rankseg_plugins import RankSEG

    if "PYTEST_XDIST_WORKER" in os.environ:
        dtype = (torch.float32, torch.float64)[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % 2]
        for pixels in (10, 10_000):
            probs = torch.rand(1, 2, pixels, dtype=dtype).softmax(1)
            for mode in ("multiclass", "multilabel"):
                RankSEG(output_mode=mode)(probs)


@pytest.fixture(autouse=True)
def _one_thread():
    """The tests run in a process for each core; those about threads set their own number."""
    torch.set_num_threads(1)


def _load(name):
    path = REAL[name]
    if not path.exists():
        pytest.skip(f"the real probabilities of {name} are not beside this checkout")
    with np.load(path) as file:
        return torch.from_numpy(file["probs"][::6]), torch.from_numpy(file["labels"][::6]).long()


@pytest.fixture(scope="session", params=sorted(REAL))
def real_probs(request):
    """Probabilities (B, C, H, W) float16 that a trained network gave for every sixth image."""
    return _load(request.param)[0]


@pytest.fixture
def unpainted(request, monkeypatch):
    """Charts are drawn, but not made into pictures, which takes longer than all else of a short run.

    Tests marked ``painted`` have the pictures.
    """
    from rankseg_plugins.report import charts

    if request.node.get_closest_marker("painted") is None:
        monkeypatch.setattr(charts, "to_png", lambda figure: ONE_PIXEL)


@pytest.fixture
def folders(tmp_path):
    """Twelve made images in ``probs/*.npz`` and their labels in ``labels/*.png``."""
    from image_folders import make_image
    from PIL import Image

    (tmp_path / "probs").mkdir()
    (tmp_path / "labels").mkdir()
    for index in range(12):
        probs, labels = make_image(index)
        np.savez_compressed(tmp_path / f"probs/image{index:02d}.npz", probs=probs)
        Image.fromarray(labels).save(tmp_path / f"labels/image{index:02d}.png")
    return tmp_path


@pytest.fixture
def softened(tmp_path):
    """A folder of files; every name is that of the sample."""
    from softened_images import make_images

    for part, images in zip(("probs", "labels"), make_images(), strict=True):
        (tmp_path / part).mkdir()
        for index, image in enumerate(images):
            np.save(tmp_path / f"{part}/image{index:02d}.npy", image.numpy())
    return tmp_path
