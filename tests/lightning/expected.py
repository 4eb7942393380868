"""What a RankSEGCallback must log and tune, from the plain API and plain loops."""

import functools
import warnings

import references
import torch
from lightning_nets import CLASSES, Drawn

from rankseg_plugins import rankseg
from rankseg_plugins.tuning import tune


def scores(decided, target, stage, name="", ignore=None, classes=CLASSES, suffix=""):
    """Dice and IoU of labels at every level, from plain loops."""
    result = {}
    for score in ("dice", "iou"):
        true = references.masks_of(target, classes, ignore)
        levels = references.levels(references.masks_of(decided, classes, ignore, target), true, score)
        result |= {f"{stage}/rankseg/{name}{level}{suffix}": value for level, value in levels.items()}
    return result


def all_scores(probs, target, stage="val", decide=rankseg, **options):
    """Everything that must be logged, from the plain API and plain loops."""
    ours = scores(decide(probs), target, stage, **options)
    argmax = scores(probs.argmax(1), target, stage, "argmax/", **options)
    gains = {
        name.replace("/argmax/", "/gain/"): ours[name.replace("/argmax/", "/")] - value
        for name, value in argmax.items()
    }
    return ours | argmax | gains | {f"{stage}/rankseg/skipped{options.get('suffix', '')}": 0.0}


@torch.no_grad()
def outputs_of(net, data):
    pairs = [(net(image), target) for image, target in data]
    return torch.cat([logits for logits, _ in pairs]).softmax(1), torch.cat([target for _, target in pairs])


def logged(trainer):
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def samples(data, scale=1.0, prefix=""):
    return [(f"{prefix}{i:06d}", (scale * logits).softmax(0), labels) for i, (logits, labels) in enumerate(data)]


def expected_decoder(scale=1.0, data=None, objective="dice_image", **options):
    if data is None and not options:
        return _expected_decoder(scale, objective)
    # The callback sees every image once, and goes without presence.
    return tune(samples(Drawn() if data is None else data, scale), objective, presence=[], **options)


@functools.cache
def _expected_decoder(scale, objective):
    # Whichever test asks first would get the warning.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the probabilities are too unsure")
        return tune(samples(Drawn(), scale), objective, presence=[])


def scores_of(decoder, scale, data, stage):
    return scores(decoder((scale * data.logits).softmax(1)), data.labels, stage)
