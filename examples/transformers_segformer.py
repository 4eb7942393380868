"""RankSEG behind a SegFormer of Hugging Face Transformers.

Train a small SegFormer on generated images, choose a decoder on half of the validation images, and score argmax,
RankSEG and the chosen decoder on the other half. Run it from the checkout, half a minute on a CPU::

    python -m examples.transformers_segformer

RankSEG's are the lines with ``RankSEGSemanticPostProcessor``; all else is training as usual. ``--pretrained
nvidia/mit-b0`` begins with the weights of that name instead of random ones: it needs the hub, or a folder of this name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

from examples.demo import microscopy
from examples.score_table import print_decisions
from rankseg_plugins import RankSEG
from rankseg_plugins.transformers import RankSEGSemanticPostProcessor
from rankseg_plugins.tuning import tune

CLASSES = microscopy.CLASSES


def draw(count: int, seed: int) -> tuple[list[np.ndarray], list[Tensor]]:
    """Microscopy-like images (128, 128, 3) uint8, and their masks (128, 128) int64."""
    drawn = [microscopy.draw(np.random.default_rng([seed, index])) for index in range(count)]
    return [image for image, _ in drawn], [torch.from_numpy(mask).long() for _, mask in drawn]


def make_model(pretrained: str | None) -> SegformerForSemanticSegmentation:
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: label for label, name in enumerate(CLASSES)}}
    if pretrained is not None:
        return SegformerForSemanticSegmentation.from_pretrained(pretrained, **names)
    config = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[16, 32, 48, 64], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=64, **names
    )
    return SegformerForSemanticSegmentation(config)


def train(model: SegformerForSemanticSegmentation, pixels: Tensor, masks: Tensor, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(pixels), (8,))
        model(pixel_values=pixels[batch], labels=masks[batch]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/segformer"), help="folder for decoder.json")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--images", type=int, default=80, help="for validation: half to tune on, half to score")
    parser.add_argument("--pretrained", help="weights to begin with: a name on the hub, or a folder")
    options = parser.parse_args()

    torch.manual_seed(0)
    processor = SegformerImageProcessorPil(size={"height": microscopy.SIZE, "width": microscopy.SIZE})
    images, masks = draw(96, seed=0)
    model = make_model(options.pretrained)
    train(model, processor(images, return_tensors="pt").pixel_values, torch.stack(masks), options.steps)

    images, masks = draw(options.images, seed=1)
    sizes, half = [mask.shape for mask in masks], options.images // 2
    with torch.no_grad():
        outputs = model(**processor(images, return_tensors="pt"))
    rankseg = RankSEGSemanticPostProcessor(processor, RankSEG("dice"))
    probs = rankseg.probabilities(outputs, sizes)
    samples = [(f"image{index}", probs[index], masks[index]) for index in range(half)]
    found = tune(samples, "dice_image")
    print(f"\nOn {half} validation images: {found.verdict}")
    options.out.mkdir(parents=True, exist_ok=True)
    found.decoder.save(options.out / "decoder.json")

    # The other half.
    tuned = RankSEGSemanticPostProcessor(processor, options.out / "decoder.json")
    labels = {
        "argmax": processor.post_process_semantic_segmentation(outputs, target_sizes=sizes),
        "RankSEG": rankseg(outputs, sizes),
        "tuned": tuned(outputs, sizes),
    }
    print()
    decided = {name: torch.stack(each[half:]) for name, each in labels.items()}
    print_decisions(decided, torch.stack(masks[half:]), len(CLASSES))


if __name__ == "__main__":
    main()
