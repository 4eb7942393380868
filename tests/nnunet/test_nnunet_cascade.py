"""A second stage of nnU-Net's, which is given what the first one decided."""

import nibabel
import numpy as np
import pytest
import torch
from toolkits import is_installed

if not is_installed("nnunetv2"):
    pytest.skip("nnU-Net is not installed", allow_module_level=True)

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tiny_nnunet import LABELS, REGIONS, make_image, make_model

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.nnunet import RankSEGPredictor

pytestmark = pytest.mark.filterwarnings("ignore")
CROP = np.s_[3:18, 2:22, 2:13]


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """Two images."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "images").mkdir()
    for index in range(2):
        make_image(tmp_path / f"images/case_{index}_0000.nii.gz", index)
    return tmp_path / "images"


def predict(predictor, model, cases, out, before=None, save_probabilities=False, spawned=False):
    """The labels (2, x, y, z) that are written to a folder."""
    out.mkdir()
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    options = {"save_probabilities": save_probabilities}
    if before is not None:
        options["folder_with_segs_from_prev_stage"] = str(before)
    if spawned:
        predictor.predict_from_files(
            str(cases), str(out), num_processes_preprocessing=1, num_processes_segmentation_export=1, **options
        )
    else:
        predictor.predict_from_files_sequential(str(cases), str(out), **options)
    return np.stack([np.asarray(nibabel.load(out / f"case_{index}.nii.gz").dataobj) for index in range(2)])


def ours(decoder=None):
    return RankSEGPredictor(device=torch.device("cpu"), allow_tqdm=False, decoder=decoder)


def stock():
    return nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
def test_a_second_stage(tmp_path, cases, labels):
    """It is given the first one's labels as nnU-Net gives them, and decides on its own probabilities."""
    first = make_model(tmp_path / "lowres", labels)
    second = make_model(tmp_path / "cascade", labels, previous_stage="lowres")
    mode = "multilabel" if labels is REGIONS else "multiclass"
    before = predict(stock(), first, cases, tmp_path / "before")
    theirs = predict(stock(), second, cases, tmp_path / "theirs", tmp_path / "before", save_probabilities=True)
    argmax = ours(RankSEG("acc", output_mode=mode))
    np.testing.assert_array_equal(predict(argmax, second, cases, tmp_path / "argmax", tmp_path / "before"), theirs)

    found = predict(ours(), second, cases, tmp_path / "ours", tmp_path / "before")
    assert (found != theirs).any()
    for index in range(2):
        with np.load(tmp_path / f"theirs/case_{index}.npz") as saved:
            probs = torch.from_numpy(saved["probabilities"].transpose(0, 3, 2, 1)[(slice(None), *CROP)].copy())
        decided = rankseg(probs[None], output_mode=mode)[0]
        expected = torch.where(decided[1], 2, decided[0].long()) if mode == "multilabel" else decided
        assert (found[index][CROP] != expected.numpy()).mean() < 1e-3  # probabilities that float32 rounds

    # It looks at them: of other labels before it makes others.
    other = predict(ours(), first, cases, tmp_path / "before_too")
    assert (other != before).any()
    assert (predict(ours(), second, cases, tmp_path / "too", tmp_path / "before_too") != found).any()
    if labels is LABELS:
        spawned = predict(ours(), second, cases, tmp_path / "spawned", tmp_path / "before", spawned=True)
        np.testing.assert_array_equal(spawned, found)


def test_without_the_first_one(tmp_path, cases):
    """nnU-Net says what is missing."""
    second = make_model(tmp_path / "cascade", previous_stage="lowres")
    with pytest.raises(AssertionError, match="requires the segmentations of the previous stage"):
        predict(ours(), second, cases, tmp_path / "out")
