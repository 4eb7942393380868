"""The scores of a RankSEGCallback as a small table: a row per score, argmax beside RankSEG."""

from __future__ import annotations

from rankseg_plugins.lightning import RankSEGCallback


def print_scores(callback: RankSEGCallback, stage: str) -> None:
    """Print the last scores of a stage (``"val"`` or ``"test"``) of one dataloader, in percent."""
    scores = callback.scores_of_stage[stage]
    start = f"{stage}/{callback.prefix}/"
    print(f"{'score, %':24}{'argmax':>8}{'RankSEG':>9}{'gain':>8}")
    for name, ours in scores.items():
        score = name.removeprefix(start)
        argmax, gain = scores.get(f"{start}argmax/{score}"), scores.get(f"{start}gain/{score}")
        if argmax is not None and gain is not None:  # others are no scores, such as the number of images left out
            print(f"{score:24}{100 * argmax:8.2f}{100 * ours:9.2f}{100 * gain:+8.2f}")
