"""The learning rate rises and falls once, also where the clock ends the training."""

import pytest
from rich.progress import Progress

from examples.demo import training
from examples.demo.folder import read_folder


def test_one_cycle():
    rates = [training.one_cycle(step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == training.one_cycle(1.3) == pytest.approx(0.0)


@pytest.mark.parametrize(("step_takes", "iterations", "steps"), [(0.0, 14, 14), (1.0, 40, 11)])
def test_by_steps_or_by_the_clock(folder, tmp_path, monkeypatch, step_takes, iterations, steps):
    """Ten seconds: with steps of a second the clock ends it after eleven of forty, the rate close to zero."""
    now, rates = [0.0], []

    class Clock(training.OneCycleHook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            rates.append(runner.optim_wrapper.get_lr()["lr"][0])
            now[0] += step_takes
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    monkeypatch.setattr(training, "OneCycleHook", Clock)
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    with Progress(disable=True) as progress:
        trained = training.train(read_folder(folder), tmp_path, tmp_path, iterations, seconds=10, progress=progress)
    assert trained.iterations == len(rates) == steps
    assert max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates[-1] < 0.02 * max(rates)
