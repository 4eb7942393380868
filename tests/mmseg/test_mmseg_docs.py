"""The page about configs: its code runs, and what its commands set is there."""

import re
from pathlib import Path

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
import torch
from mmengine.config import Config, DictAction
from mmseg.registry import HOOKS, METRICS, MODELS, VISUALIZERS
from pages import commands, read_blocks, run_blocks
from PIL import Image

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.mmseg import RankSEGEncoderDecoder, RankSEGTuningHook

PAGE = "configs/README.md"
CONFIGS = tiny.ROOT / "configs"


@pytest.fixture
def files(dataset, tmp_path, monkeypatch):
    """A stock config and its checkpoint, where the page has CONFIG and CHECKPOINT, and what else it names."""
    monkeypatch.chdir(tmp_path)
    full = tiny.config(tiny.model(), dataset, tmp_path / "run", batch_size=1)
    full.update(val_dataloader=full.test_dataloader, val_evaluator=full.test_evaluator, val_cfg={"type": "ValLoop"})
    full.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 1, "save_best": "mIoU"}
    full.dump("stock.py")
    tiny.save_checkpoint(tiny.build(tiny.model()), "stock.pth")
    Path("images").symlink_to(dataset / "img_dir/val")
    Path("work_dirs/run").mkdir(parents=True)
    TunedDecoder(RankSEG(), 4, 0.7).save("work_dirs/run/iter_1000.rankseg.json")
    return tmp_path


def blocks(word):
    """The one block of Python that holds a word, with the files of this test."""
    (block,) = (block for block in read_blocks(PAGE, "python") if word in block.code)
    code = block.code.replace("<folder>", str(CONFIGS))
    for name in ("CONFIG", "CHECKPOINT"):
        code = code.replace(f'"{name}"', repr({"CONFIG": "stock.py", "CHECKPOINT": "stock.pth"}[name]))
    return [block._replace(code=code)]


def test_every_block_has_a_test():
    assert len(read_blocks(PAGE, "python")) == 4


@pytest.mark.filterwarnings("ignore:Failed to add")  # MMEngine's visualizer, where the inferencer has no folder for it
def test_the_inferencer(files):
    run_blocks(PAGE, blocks("MMSegInferencer"))
    assert len(list(Path("out/pred").iterdir())) == 7
    with Image.open("out/vis/00.png") as panels:
        assert panels.width >= 4 * 240  # image, argmax, RankSEG, difference


def test_the_hook():
    (hook,) = run_blocks(PAGE, blocks("objective="))["custom_hooks"]
    assert isinstance(HOOKS.build(hook), RankSEGTuningHook)


def test_tuning_without_training(files):
    run_blocks(PAGE, blocks("Runner.from_cfg"))
    assert Path("tuned/stock.rankseg.json").is_file()


def test_a_config_of_ones_own(files):
    (block,) = blocks("<folder>")
    Path("own.py").write_text(block.code)
    assert MODELS.get(Config.fromfile("own.py").model.type) is RankSEGEncoderDecoder


def with_options(path, options):
    """The config, as the toolkit's scripts read it with these `--cfg-options`."""
    full = Config.fromfile(path)
    full.merge_from_dict({key: DictAction._parse_iterable(value) for key, value in options})
    return full


def test_the_commands(files, monkeypatch):
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, *_, **__: tensor)
    found = [words for words in commands(PAGE) if "--cfg-options" in words]
    assert len(found) == 5
    (camvid,) = (words[0].removeprefix("config=") for words in commands(PAGE) if words[0].startswith("config="))
    for words in found:
        assert words[1] in ("tools/test.py", "tools/train.py")
        options = [word.split("=", 1) for word in words[words.index("--cfg-options") + 1 :]]
        network = MODELS.build(
            with_options(CONFIGS.parent / camvid if "$config" in words else "stock.py", options).model
        )
        assert type(network) is RankSEGEncoderDecoder
        assert network.rankseg_options() is not None


def test_the_options(files):
    """All that the page names, in its table and elsewhere, are of classes that there are."""
    text = (tiny.ROOT / PAGE).read_text(encoding="utf-8")
    options = re.findall(r"\b((?:model|test_evaluator|visualizer|tta_model)\.[\w.]+)=([\w./]+)", text)
    kinds = {"model": MODELS, "test_evaluator": METRICS, "visualizer": VISUALIZERS, "tta_model": MODELS}
    assert {key.split(".")[0] for key, _ in options} == set(kinds)
    for key, value in options:
        kind, name = key.split(".")[0], key.split(".")[1]
        if name == "type" and value.startswith("rankseg_plugins."):
            assert kinds[kind].get(value) is not None
        elif key.startswith("model.test_cfg.rankseg.") and "tuned" not in key and "_delete_" not in key:
            beside = [("model.test_cfg.rankseg.compare", "True")] if key.endswith(".expected_score") else []
            switched = [("model.type", "rankseg_plugins.mmseg.RankSEGEncoderDecoder"), *beside, (key, value)]
            assert MODELS.build(with_options("stock.py", switched).model).rankseg_options() is not None
