"""Label maps as files, read back by an independent reader; which image wrote which file."""

import threading

import numpy as np
import processes
import pytest
import torch

from rankseg_plugins._writing import write_atomically
from rankseg_plugins.comparison.pictures.colours import class_colours
from rankseg_plugins.files.label_files import LabelFiles, encode_npy, encode_png


def read_png(path):
    return np.array(pytest.importorskip("PIL.Image").open(path))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 33)])
@pytest.mark.parametrize("high", [1, 255, 256, 65535])
def test_png_round_trip(tmp_path, shape, high):
    labels = np.random.default_rng(0).integers(0, high + 1, shape)
    labels.flat[0] = high
    (tmp_path / "a.png").write_bytes(encode_png(labels, class_colours(256)))
    assert np.array_equal(read_png(tmp_path / "a.png"), labels)


def test_png_limits():
    for labels, message in ((np.array([[-1]]), "got -1 to -1"), (np.array([[65536]]), "got 65536 to 65536")):
        with pytest.raises(ValueError, match=message):
            encode_png(labels, class_colours(2))
    with pytest.raises(ValueError, match=r"labels of a PNG must have shape \(H, W\), got \(2, 2, 2\)"):
        encode_png(np.zeros((2, 2, 2), int), class_colours(2))


def test_a_reader_never_sees_half_a_file(tmp_path):
    """Several writers of one name, and a reader that never meets anything but a whole version."""
    path, versions = tmp_path / "sub" / "a.npy", [np.full((200, 200), value) for value in range(3)]
    write_atomically(path, encode_npy(versions[0]))
    stop = threading.Event()

    def write(version):
        while not stop.is_set():
            write_atomically(path, encode_npy(version))

    writers = [threading.Thread(target=write, args=(version,)) for version in versions]
    for thread in writers:
        thread.start()
    try:
        for _ in range(200):
            read = np.load(path)
            assert any(np.array_equal(read, version) for version in versions)
    finally:
        stop.set()
        for thread in writers:
            thread.join()
    assert files(tmp_path) == ["sub/a.npy"]


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OSError, match=r"taken\.png"):
        write_atomically(tmp_path / "taken.png", b"data")
    assert files(tmp_path) == []


@pytest.mark.parametrize(("high", "mode"), [(255, "L"), (256, "I;16")])
def test_png_without_a_palette_is_grey(tmp_path, high, mode):
    labels = np.arange(high + 1).reshape(1, -1)
    (tmp_path / "a.png").write_bytes(encode_png(labels))
    with pytest.importorskip("PIL.Image").open(tmp_path / "a.png") as png:
        assert png.mode == mode
        assert np.array_equal(np.array(png), labels)


# Which image wrote which file.


def test_no_image_takes_the_file_of_another(tmp_path):
    run = LabelFiles(tmp_path)
    run.write("a.png", b"first", "east/a")
    run.write("b.png", b"other", "east/b")
    with pytest.raises(ValueError, match=r"two images are called 'a\.png', east/a and west/a: .*give other names"):
        run.write("a.png", b"second", "west/a")
    assert (tmp_path / "a.png").read_bytes() == b"first"
    run.finish()
    run.write("a.png", b"next run", "west/a")
    assert (tmp_path / "a.png").read_bytes() == b"next run"


#: Images of each process, how many of them are no repetitions, and whether they are refused.
TOGETHER = [
    ([["east/a", "east/b"], ["west/a"]], None, True),  # two images
    ([["east/a", "east/b"], ["east/a"]], None, False),  # the same image, which a sampler repeats
    ([["east/a", "east/b"], ["west/c", "west/a"]], 1, False),  # known to be a repetition, whatever it is called
]


def _write_together(rank, folder):
    for number, (images, count, refused) in enumerate(TOGETHER):
        run = LabelFiles(folder / str(number))
        for image in images[rank]:
            run.write(f"{image[-1]}.png", image.encode(), image)
        if refused:
            with pytest.raises(ValueError, match=r"two images are called 'a\.png', east/a and west/a"):
                run.finish()
        else:
            run.finish(count)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_names_are_compared_across_processes(tmp_path):
    processes.run(_write_together, 2, tmp_path)
