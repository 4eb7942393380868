"""Images to fit decisions for a whole data set to."""

import torch

from rankseg_plugins import GlobalRankSEG

ANY_SPREAD = 1e6
#: Without a guard.
FREE = {"min_images": 0, "min_dice": 0, "max_spread": ANY_SPREAD}


def network(classes=3, images=8, pixels=400, seed=0):
    """Probabilities that are neither sharp nor even, and labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, pixels, generator=generator)
    logits -= torch.arange(classes).view(1, -1, 1)  # some classes are rare
    probs = logits.softmax(1)
    drawn = torch.multinomial(probs.movedim(1, -1).flatten(0, 1), 1, generator=generator)
    return probs, drawn.view(images, pixels)


def fitted(probs, labels=None, ignore_index=None, min_gain=0, **options):
    """However little there is to gain, as on images whose probabilities are right."""
    decoder = GlobalRankSEG(probs.shape[1], min_gain=min_gain, **options)
    decoder.update(probs, labels, ignore_index=ignore_index)
    return decoder, decoder.fit()
