"""RankSEG in a MONAI pipeline: sliding windows, decided on the whole volume, and compared while an evaluator runs.

A small 3D U-Net is trained on generated scans; a decoder is tuned on some others, and argmax, RankSEG and that decoder
are scored on the rest. Run it from the checkout, under a minute on a CPU; it needs Ignite (``pip install
pytorch-ignite``), as MONAI's engines do::

    python -m examples.monai_volume_3d

For a network from the model zoo, replace ``UNet(...)`` by ``monai.bundle.load("spleen_ct_segmentation")``, which
downloads it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from monai.transforms import Activationsd, Compose, SaveImaged
from monai.utils import set_determinism

from examples.scans import CLASSES, SIZE, Scans
from rankseg_plugins.monai import RankSEGCompareHandler, RankSEGd
from rankseg_plugins.tuning import tune

INFERER = SlidingWindowInferer((20, 32, 32), sw_batch_size=2, overlap=0.25)


def train(network: torch.nn.Module, scans: list[dict], steps: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    loader = DataLoader(scans, batch_size=2, shuffle=True)
    step = 0
    while step < steps:
        for batch in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(batch["image"]), batch["label"][:, 0]).backward()
            optimizer.step()
            step += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/monai"), help="folder for decoder and labels")
    parser.add_argument("--steps", type=int, default=120, help="training steps, of two scans each")
    parser.add_argument("--scans", type=int, default=24, help="scans to train on, as many to tune on, and to score")
    options = parser.parse_args()

    set_determinism(0)
    sets = []
    for seed in range(3):
        items = list(Scans(options.scans, seed))
        sets.append([{"name": s["name"], "image": s["image"], "label": s["labels"][None]} for s in items])
    network = UNet(3, 1, len(CLASSES), channels=(8, 16, 32), strides=(2, 2))
    train(network, sets[0], options.steps)

    # Chosen on scans that were not trained on. Any list of (name, probabilities, labels) will do.
    samples = []
    with torch.no_grad():
        network.eval()
        for scan in sets[1]:
            logits = INFERER(scan["image"][None], network)
            samples.append((scan["name"], logits.softmax(1)[0], scan["label"][0]))
    options.out.mkdir(parents=True, exist_ok=True)
    decoder = options.out / "decoder.json"
    tune(samples).decoder.save(decoder)

    # Measured on others, in the evaluator that is there already.
    handler = RankSEGCompareHandler(
        ["argmax", "rankseg(metric=dice)", str(decoder)],
        num_classes=len(CLASSES),
        class_names=CLASSES,
        output_transform=from_engine(["pred", "label"]),
    )
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(sets[2], batch_size=2),
        network=network,
        inferer=INFERER,
        postprocessing=Activationsd("pred", softmax=True),
        val_handlers=[handler],
    ).run()
    print(f"{len(sets[2])} scans of {' x '.join(map(str, SIZE))} voxels:")
    print(handler.comparison)

    # In use: the transform decides where AsDiscrete did.
    finish = Compose(
        [
            RankSEGd("pred", decoder, activation="softmax"),
            SaveImaged("pred", output_dir=options.out / "labels", output_postfix="", print_log=False),
        ]
    )
    with torch.no_grad():
        finish({"pred": INFERER(sets[2][0]["image"][None], network)[0]})
    print(f"labels of the first: {next(iter((options.out / 'labels').rglob('*.nii.gz')))}")


if __name__ == "__main__":
    main()
