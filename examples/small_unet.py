"""A small U-Net for the examples on images of one channel."""

import torch
from torch import Tensor, nn


class SmallUnet(nn.Module):
    """Encoder, decoder and segmentation head, as segmentation_models_pytorch names them.

    Args:
        classes: channels of the logits (B, classes, H, W) for images (B, 1, H, W).
        width: channels of the finest features.
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.stem = _block(1, width)
        self.encoder = nn.Sequential(nn.MaxPool2d(2), _block(width, 2 * width), nn.MaxPool2d(2), _block(2 * width, 32))
        self.decoder = nn.Upsample(scale_factor=4, mode="bilinear")
        self.segmentation_head = nn.Sequential(_block(32 + width, width), nn.Conv2d(width, classes, 1))

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        fine = self.stem(image)
        return self.segmentation_head(torch.cat([fine, self.decoder(self.encoder(fine))], dim=1))


def _block(channels: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
