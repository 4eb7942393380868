"""Kernels in several threads and processes, without numba, and where nothing can be written."""

import os
import subprocess
import sys
import textwrap

import pytest
from places import ROOT
from sweeps import sweep

MAKE = """
    import torch
    from rankseg_plugins import RankSEG
    def make(seed):
        coarse = torch.randn(1, 6, 9, 9, generator=torch.Generator().manual_seed(seed))
        return torch.nn.functional.interpolate(6 * coarse, (300, 320), mode="bicubic").softmax(1)
"""


def run(script, **environment):
    lines = textwrap.dedent(MAKE) + textwrap.dedent(script)
    found = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", lines], env=found, capture_output=True, text=True, timeout=120)


def passes(script, **environment):
    found = run(script, **environment)
    assert found.returncode == 0, found.stderr
    return found


def test_several_threads_decide_at_once():
    passes("""
        from concurrent.futures import ThreadPoolExecutor
        torch.set_num_threads(3)
        images = [make(seed) for seed in range(12)]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(RankSEG(), images))
        torch.set_num_threads(1)
        assert all(torch.equal(each, RankSEG()(image)) for each, image in zip(found, images))
    """)


@sweep("method", ["fork", "spawn"], lambda method: method == "fork")
def test_a_worker_decides(method, tmp_path):
    """One that was forked after its parent had decided finds no threads left."""
    file = tmp_path / "workers.py"
    # PyTorch's own threads do not outlive a fork: the workers get what they decide on.
    lines = textwrap.dedent(MAKE) + textwrap.dedent(f"""
        import multiprocessing
        def work(probs):
            assert torch.get_num_threads() > 1
            return RankSEG()(torch.from_numpy(probs)).numpy()
        if __name__ == "__main__":
            images = [make(seed).numpy() for seed in range(4)]
            expected = [work(each) for each in images]
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                found = pool.map_async(work, images).get(60)
            assert all((one == other).all() for one, other in zip(found, expected))
    """)
    file.write_text(lines)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    found = subprocess.run([sys.executable, file], env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr


def test_an_interrupt_ends_a_decision():
    found = run("""
        import _thread, signal, threading
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
        torch.set_num_threads(2)
        probs = torch.rand(400, 6, 200, 200)
        RankSEG()(make(0))
        threading.Timer(0.05, _thread.interrupt_main).start()
        try:
            for _ in range(200):
                RankSEG(pruning_prob=0.0)(probs)
        except KeyboardInterrupt:
            labels = RankSEG()(make(0))  # and leaves nothing behind
            print("interrupted", labels.shape[0])
    """)
    assert found.stdout == "interrupted 1\n", found.stderr


def test_numba_is_imported_by_a_decision_alone_and_without_it_the_graph_decides_and_says_so_once():
    found = passes("""
        import sys, warnings
        assert "numba" not in sys.modules
        RankSEG("acc")(make(0))
        assert "numba" not in sys.modules
        RankSEG()(make(0))
        assert "numba" in sys.modules
        expected = [decoder(make(0)) for decoder in (RankSEG(), RankSEG("iou", output_mode="multilabel"))]
        logits = make(0).log()
        expected.append(RankSEG(smooth=1.0).predict_logits(logits))
        from rankseg_plugins.core.kernels import has_numba
        has_numba.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "numba"]:
            del sys.modules[name]
        sys.modules["numba"] = None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = [decoder(make(0)) for decoder in (RankSEG(), RankSEG("iou", output_mode="multilabel"))]
            found.append(RankSEG(smooth=1.0).predict_logits(logits))
        assert [str(each.message).split(" (")[0] for each in said] == ["numba cannot be imported"], said
        assert all(torch.equal(*each) for each in zip(found, expected))
        for values in (float("nan"), 2.0):
            try:
                RankSEG()(torch.full((1, 2, 4), values))
            except ValueError as error:
                assert "probs must" in str(error)
            else:
                raise AssertionError(values)
    """)
    assert found.stdout == ""


def test_processes_that_compile_at_once_for_other_types_do_not_take_each_others_code(tmp_path, monkeypatch):
    from rankseg_plugins.core.kernels.cpu.ground.compiling import _Files

    first, second = (_Files(str(tmp_path), "kernel", 0) for _ in range(2))
    first.save("float32", "code for float32")
    known = first._load_index()
    monkeypatch.setattr(second, "_load_index", dict)  # it looked before the first had saved
    second.save("float64", "code for float64")
    assert first._load_data(known["float32"]) == "code for float32"
    assert second.load("float32") is None
    monkeypatch.undo()
    assert second.load("float64") == "code for float64"


NOWHERE = """
    from numba.core import caching
    def nowhere(*_):
        raise RuntimeError("cannot cache function: no locator available")
    caching.FunctionCache.__init__ = nowhere
"""


def test_where_no_compiled_code_can_be_kept():
    """All kernels are there; one of them is compiled, as all would take long."""
    passes(
        NOWHERE
        + """
    from rankseg_plugins.core.kernels.cpu import counts, steps
    from rankseg_plugins.core.kernels.cpu.ground.compiling import _Kept
    number, _ = counts.binned(torch.tensor([[0.1, 0.2, 0.9]]), torch.tensor([[True] * 3]), 2)
    assert number.tolist() == [[2, 1]]
    assert len(counts._add.signatures) == 1 and not isinstance(counts._add._cache, _Kept)
"""
    )


@pytest.mark.exhaustive
def test_a_decision_where_no_compiled_code_can_be_kept():
    passes(NOWHERE + "    assert RankSEG()(make(0)).shape == (1, 300, 320)\n")
