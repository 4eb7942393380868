"""The page about nnU-Net: its code and its commands run, on a model as nnU-Net leaves it."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from pages import commands, run_page
from toolkits import is_installed

if not is_installed("nnunetv2"):
    pytest.skip("nnU-Net is not installed", allow_module_level=True)

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tiny_nnunet import make_image, make_model

PAGE = "docs/nnunet.md"
MODEL = Path("nnUNet_results/Dataset001_Tiny/nnUNetTrainer__nnUNetPlans__3d_fullres")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A model of two folds, the labels of its cases, and an image to predict."""
    monkeypatch.chdir(tmp_path)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, name)
    make_model(MODEL)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(MODEL), (0,))
    labels, rng = Path("nnUNet_raw/Dataset001_Tiny/labelsTr"), np.random.default_rng(0)
    labels.mkdir(parents=True)
    for index in range(4):
        image, out = Path(f"case_{index}_0000.nii.gz"), MODEL / f"fold_{index % 2}" / "validation" / f"case_{index}"
        out.parent.mkdir(parents=True, exist_ok=True)
        affine = make_image(image, index)
        predictor.predict_from_files_sequential([[str(image)]], [str(out)], True, overwrite=True)
        found = np.asarray(nibabel.load(f"{out}.nii.gz").dataobj)
        truth = np.where(rng.random(found.shape) < 0.1, rng.integers(0, 3, found.shape), found).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(truth, affine), labels / f"case_{index}.nii.gz")
    Path("imagesTs").mkdir()
    make_image("imagesTs/case_9_0000.nii.gz")
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_the_code_and_the_commands_run(trained):
    run_page(PAGE)
    assert Path("predictions/case_9.nii.gz").is_file()
    typer = pytest.importorskip("typer.testing", reason="the command is not installed")
    from rankseg_plugins.cli import app

    for command in commands(PAGE):
        done = typer.CliRunner().invoke(app, command[1:])
        assert done.exit_code == 0, done.output
        assert "organ" in Path(command[-1], "report.md").read_text()
    assert Path("tuned/decoder.json").is_file()
