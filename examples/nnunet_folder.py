"""RankSEG on the folder of a trained nnU-Net: tuned on what its validation left behind, then used to predict.

A tiny network of nnU-Net's is trained on generated scans and put into a folder as nnU-Net's training leaves it. Its
validation cases are predicted with their probabilities, as ``--npz`` keeps them; a decoder is tuned on these; and
other scans are predicted by argmax, by RankSEG and by that decoder. Run it from the checkout, under a minute on a CPU;
it needs the extra ``nnunet``::

    python -m examples.nnunet_folder

With a model of yours only the lines with ``RankSEGPredictor`` are needed, and the command does the tuning::

    rankseg-plugins tune --probs nnUNet_results/Dataset.../nnUNetTrainer__nnUNetPlans__3d_fullres --labels labelsTr ...
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor

from examples.nnunet_model import make_dataset, make_network, make_plans, write_model
from examples.scans import CLASSES, SIZE, Scans
from examples.score_table import print_decisions
from rankseg_plugins import RankSEG
from rankseg_plugins.nnunet import RankSEGPredictor
from rankseg_plugins.tuning import tune


def train(network: torch.nn.Module, scans: Scans, steps: int) -> None:
    images = torch.stack([scan["image"] for scan in scans])
    images = (images - images.mean((1, 2, 3, 4), keepdim=True)) / images.std((1, 2, 3, 4), keepdim=True)  # as planned
    labels = torch.stack([scan["labels"] for scan in scans])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(steps):
        batch = torch.randint(len(images), (2,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()


def make_model(folder: Path, scans: Scans, steps: int) -> None:
    """Train a network and write the folder of the model."""
    plans = make_plans("SimpleITKIO", 3, (8, 16), patch_size=list(SIZE), spacing=[1.0] * 3)
    plans |= {"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}
    dataset = make_dataset({name: label for label, name in enumerate(CLASSES)})
    network = make_network(plans, dataset)
    train(network, scans, steps)
    write_model(folder, plans, dataset, network)


def write_scans(folder: Path, scans: Scans) -> list[list[str]]:
    """Write images as nnU-Net wants them: a list of its channels for each."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for scan in scans:
        files.append([str(folder / f"{scan['name']}_0000.nii.gz")])
        # NIfTI has (x, y, z), nnU-Net and the labels (z, y, x).
        nibabel.save(nibabel.Nifti1Image(scan["image"][0].numpy().T, np.eye(4)), files[-1][0])
    return files


def predict(
    model: Path, files: Sequence[Sequence[str]], out: Path, decoder: RankSEG | Path | None = None, **options: bool
) -> Tensor:
    """The labels (N, z, y, x) that are written to ``out``, of nnU-Net's own predictor without a ``decoder``."""
    out.mkdir(parents=True, exist_ok=True)
    names = [str(out / Path(channels[0]).name.removesuffix("_0000.nii.gz")) for channels in files]
    here = {"device": torch.device("cpu"), "allow_tqdm": False}
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net says much
        predictor = nnUNetPredictor(**here) if decoder is None else RankSEGPredictor(**here, decoder=decoder)
        predictor.initialize_from_trained_model_folder(str(model), (0,))
        predictor.predict_from_files_sequential(files, names, **options)
    written = [np.asarray(nibabel.load(f"{each}.nii.gz").dataobj).T.astype(np.int64) for each in names]
    return torch.from_numpy(np.stack(written))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/nnunet"), help="folder for what is written")
    parser.add_argument("--steps", type=int, default=60, help="training steps, of two scans each")
    parser.add_argument("--scans", type=int, default=24, help="scans to train on, as many to tune on, and to score")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = options.out / "nnUNet_results/Dataset001_Tiny/nnUNetTrainer__nnUNetPlans__tiny"
    make_model(model, Scans(options.scans, seed=0), options.steps)

    scans, validation = Scans(options.scans, seed=1), model / "fold_0/validation"
    files = write_scans(options.out / "imagesTr", scans)
    predict(model, files, validation, save_probabilities=True)
    samples = []
    for scan in scans:
        with np.load(validation / f"{scan['name']}.npz") as saved:
            samples.append((scan["name"], torch.from_numpy(saved["probabilities"]), scan["labels"]))
    found = tune(samples)
    print(f"\nOn {options.scans} validation scans: {found.verdict}\n")
    decoder = options.out / "decoder.json"
    found.decoder.save(decoder)

    scans = Scans(options.scans, seed=2)
    files = write_scans(options.out / "imagesTs", scans)
    decoders = {"argmax": None, "RankSEG": RankSEG("dice"), "tuned": decoder}
    decisions = {name: predict(model, files, options.out / name, each) for name, each in decoders.items()}
    print_decisions(decisions, torch.stack([scan["labels"] for scan in scans]), len(CLASSES))
    print(f"labels of the first: {options.out / 'tuned' / scans[0]['name']}.nii.gz")


if __name__ == "__main__":
    main()
