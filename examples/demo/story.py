"""What the demo does once its data is there: train, evaluate through three toolkits, compare, report."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.demo import picture, table, through_lightning, through_mmseg, through_torchmetrics
from examples.demo.agreement import Outcomes, disagreements
from examples.demo.decisions import DECISIONS, DICE
from examples.demo.folder import Folder
from examples.demo.network import LARGEST, needs_resize
from examples.demo.training import Trained, train

MMSEG, LIGHTNING, TORCHMETRICS = "MMSegmentation", "Lightning", "TorchMetrics"


def tell(options: argparse.Namespace, folder: Folder, console: Console) -> int:
    """Run everything after the data is checked; return the exit status."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(2)
    options.out.mkdir(parents=True, exist_ok=True)
    # MMEngine prints and logs much that says nothing here.
    with tempfile.TemporaryDirectory() as work_dir, contextlib.redirect_stdout(io.StringIO()):
        return _tell(options, folder, Path(work_dir), console)


def _tell(options: argparse.Namespace, folder: Folder, work_dir: Path, console: Console) -> int:
    console.print(f"\n[bold]1  Data[/bold]  {_describe(folder)}")
    for note in folder.notes:
        console.print(f"   Note: {note}.")
    if needs_resize(folder):
        console.print(f"   The network sees images resized to fit {LARGEST} pixels; they are scored at their own size.")
    console.print(f"\n[bold]2  Training[/bold]  a small U-Net by MMSegmentation, at most {options.seconds} seconds")
    with _progress(console) as progress:
        trained = train(folder, options.out, work_dir, options.iterations, options.seconds, progress)
    if trained.iterations < options.iterations:
        console.print(f"   The time was up after {trained.iterations} of {options.iterations} steps: a weaker network.")
    console.print(f"\n[bold]3  Evaluation[/bold]  the same network through three toolkits, {len(DECISIONS)} decisions")
    with _progress(console) as progress:
        outcomes = evaluate(folder, trained, work_dir, progress)
    return report(options, folder, trained, outcomes, console)


def evaluate(folder: Folder, trained: Trained, work_dir: Path, progress: Progress) -> Outcomes:
    """Evaluate the trained network through each toolkit."""
    return {
        MMSEG: through_mmseg.evaluate(folder, trained.checkpoint, work_dir, progress),
        LIGHTNING: through_lightning.evaluate(folder, trained.network, progress),
        TORCHMETRICS: through_torchmetrics.evaluate(folder, trained.network, progress),
    }


def report(options: argparse.Namespace, folder: Folder, trained: Trained, outcomes: Outcomes, console: Console) -> int:
    """Print table and verdict, write the files; return 1 if the adapters disagree, else 0."""
    scores = table.make_scores(outcomes[MMSEG], folder.classes)
    console.print()
    console.print(table.to_terminal(scores))
    console.print()
    console.print(f"{table.EXPLANATION}\n", style="dim")
    console.print(f"{_balance(scores)}\n")
    found = disagreements(outcomes)
    verdict = _verdict(found, len(folder.val))
    console.print(verdict, style="bold red" if found else "bold green")
    for line in found:
        console.print(f"   {line}")
    facts = (_describe(folder), _describe_training(trained), _balance(scores), verdict, *found)
    for name, path in _write(options, folder, outcomes, scores, facts).items():
        console.print(f"{name:8} {path}", soft_wrap=True)
    return 1 if found else 0


def _write(
    options: argparse.Namespace, folder: Folder, outcomes: Outcomes, scores: table.Scores, facts: Sequence[str]
) -> dict[str, Path]:
    paths = {"table": options.out / "table.md", "picture": options.out / "picture.png"}
    paths["table"].write_text(table.to_markdown(scores, facts), encoding="utf-8")
    ours = outcomes[MMSEG]
    picture.draw(paths["picture"], folder, DICE, ours, table.image_gains(ours, DICE).tolist())
    return paths


def _describe(folder: Folder) -> str:
    classes = f"{len(folder.classes)} classes"
    return f"{len(folder.train)} training and {len(folder.val)} validation images, {classes}, from {folder.root}"


def _describe_training(trained: Trained) -> str:
    return f"trained with cross-entropy for {trained.iterations} steps, {trained.seconds:.0f} seconds"


def _balance(scores: table.Scores) -> str:
    """Gains and losses of the default decision in one line."""
    column = scores.decisions.index(DICE)
    gains = {row.name: round(row.values[column] - row.values[0], 2) for row in scores.overall}
    parts = []
    for word, names in (
        ("above", [name for name, gain in gains.items() if gain > 0]),
        ("below", [name for name, gain in gains.items() if gain < 0]),
    ):
        if names:
            parts.append(f"{word} argmax in {len(names)} of {len(gains)} scores ({', '.join(names)})")
    return f"{DICE.title}, at its defaults, is {' and '.join(parts) or 'level with argmax in all scores'}."


def _verdict(found: Sequence[str], images: int) -> str:
    if found:
        return f"The adapters DISAGREE ({len(found)} differences):"
    return (
        f"{MMSEG}, {LIGHTNING} and {TORCHMETRICS} agree: the same labels in every pixel of {images} images "
        f"for all {len(DECISIONS)} decisions, and the same scores."
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("   {task.description:15}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}"),
        console=console,
        redirect_stdout=False,
    )
