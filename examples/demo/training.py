"""Training with cross-entropy by MMSegmentation's own Runner, with a progress bar and a time limit."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.progress import Progress
from torch import nn

from examples.demo.folder import Folder
from examples.demo.network import build_runner, make_config

CHECKPOINT = "network.pth"
#: Share of the training in which the learning rate rises.
WARM_UP = 0.15


class Trained(NamedTuple):
    """A trained network in evaluation mode, its checkpoint, and how far the training got."""

    network: nn.Module
    checkpoint: Path
    iterations: int
    seconds: float


class OneCycleHook(Hook):
    """Moves a progress bar and the learning rate, and ends the training when the time is up.

    The learning rate rises and falls once, by steps or by the clock, whichever is further: a training that the clock
    cuts short is a short training, not an unfinished one.

    Args:
        progress: the bar's display.
        seconds: time limit.
    """

    def __init__(self, progress: Progress, seconds: float) -> None:
        self.progress, self.seconds = progress, seconds

    def before_train(self, runner: Runner) -> None:
        """Start the clock."""
        self.task = self.progress.add_task("training", total=runner.max_iters, status="")
        self.largest = runner.optim_wrapper.get_lr()["lr"][0]
        self.started = time.monotonic()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the learning rate."""
        by_clock = (time.monotonic() - self.started) / self.seconds
        for group in runner.optim_wrapper.optimizer.param_groups:
            group["lr"] = self.largest * one_cycle(max(runner.iter / runner.max_iters, by_clock))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Show the loss, and look at the clock."""
        loss = float(outputs["loss"].detach()) if outputs else float("nan")
        self.progress.update(self.task, advance=1, status=f"loss {loss:.2f}")
        if time.monotonic() - self.started > self.seconds:
            runner.train_loop.stop_training = True


def one_cycle(done: float) -> float:
    """Factor of the largest learning rate: from 0.04 up to 1, and down to nothing, along cosines.

    Args:
        done: how much of the training is over, from 0 to 1.
    """
    if done < WARM_UP:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / WARM_UP)) / 2
    return (1 + math.cos(math.pi * min((done - WARM_UP) / (1 - WARM_UP), 1.0))) / 2


def train(folder: Folder, out: Path, work_dir: Path, iterations: int, seconds: float, progress: Progress) -> Trained:
    """Train a network from scratch.

    Args:
        folder: the data.
        out: receives the checkpoint.
        work_dir: where the toolkit keeps its log files.
        iterations: number of training steps.
        seconds: the training ends after this time, finished or not.
        progress: where the progress bar appears.
    """
    runner = build_runner(make_config(folder, work_dir, iterations))
    runner.register_hook(OneCycleHook(progress, seconds))
    started = time.monotonic()
    network = runner.train()
    taken = time.monotonic() - started
    runner.save_checkpoint(str(out), CHECKPOINT, save_optimizer=False, save_param_scheduler=False)
    return Trained(network.eval(), out / CHECKPOINT, runner.iter, taken)
