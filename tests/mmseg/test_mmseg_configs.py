"""Every config loads, builds (without weights) and decodes as its name says; the README lists each one."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import mmseg
import torch
from mmengine.config import Config
from mmseg.registry import DATASETS, METRICS, MODELS
from mmseg.structures import SegDataSample

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.mmseg import RankSEGEncoderDecoder, config_path
from rankseg_plugins.mmseg.activations import automatic_activation, last_head

CONFIGS = Path(config_path("."))
INSTALLED = Path(mmseg.__file__).parent / ".mim/configs"
READY = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("[!_]*/*.py"))
CLASSES = {"voc12aug": 21, "cityscapes": 19, "ade20k": 150, "drive": 2, "chase-db1": 2, "camvid": 11}


def named(choices, path):
    (found,) = [choice for choice in choices if choice in path]
    return found


def load(path):
    if "mask2former" in path and importlib.util.find_spec("mmdet") is None:
        pytest.skip("Mask2Former needs mmdet, which is not installed")
    return Config.fromfile(CONFIGS / path)


@pytest.mark.parametrize("path", READY)
def test_config_builds_and_decodes_as_named(path, monkeypatch):
    config = load(path)
    # Millions of random numbers, which nothing here looks at.
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, *_, **__: tensor)
    network = MODELS.build(config.model)  # weights would be loaded by init_weights, which is not called
    assert type(network) is RankSEGEncoderDecoder
    assert network.num_classes == CLASSES[named(CLASSES, path)]
    channels = 1 if "one-channel" in path else network.num_classes
    assert network.out_channels == channels
    options = network.rankseg_options()
    assert options.compare == ("compare" in path)
    decoder = options.build(channels)
    assert isinstance(decoder, RankSEG)
    assert decoder.metric == ("iou" if "rankseg-iou" in path else "dice")
    assert decoder.output_mode == ("multilabel" if channels == 1 else "multiclass")
    activation = automatic_activation(last_head(network), channels)
    assert activation == ("sigmoid" if channels == 1 else "normalize" if "mask2former" in path else "softmax")
    assert DATASETS.get(config.val_dataloader.dataset.type) is not None
    assert METRICS.get(config.val_evaluator.type) is not None


def stock_twin(path):
    """The config of the model zoo whose checkpoints fit; some of ours have none."""
    return INSTALLED / Path(path).parent / ("_".join(Path(path).stem.split("_")[:-1]) + ".py")


@pytest.mark.parametrize("path", [path for path in READY if stock_twin(path).exists()])
def test_stock_checkpoints_fit(path):
    """The model is that of the config it inherits from, apart from the decision; so are the state-dict keys."""
    ours = load(path)
    theirs = Config.fromfile(stock_twin(path)).model.to_dict()
    expected = {**theirs, "type": ours.model.type, "test_cfg": {**theirs["test_cfg"], "rankseg": ours.rankseg}}
    assert {key: value for key, value in ours.model.to_dict().items() if key != "_scope_"} == expected


def test_mask2former_decodes_its_normalized_scores():
    config = load("mask2former/mask2former_r50_8xb2-160k_ade20k-512x512_rankseg-dice.py")
    config.model.backbone.init_cfg = None
    network = MODELS.build(config.model).eval()
    sample = SegDataSample(metainfo={"ori_shape": (60, 90), "img_shape": (64, 96), "pad_shape": (64, 96)})
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        (result,) = network.test_step({"inputs": [image], "data_samples": [sample]})
    scores = result.seg_logits.data
    assert scores.shape == (150, 60, 90)
    assert scores.amin() >= 0
    assert torch.equal(result.pred_sem_seg.data, rankseg((scores / scores.sum(0))[None]))


def test_readme_names_what_exists():
    """One row for each config: its base, the checkpoint that the model zoo lists for that base, and the command."""
    zoo = {}
    for metafile in INSTALLED.glob("*/metafile.yaml"):
        for entry in yaml.safe_load(metafile.read_text())["Models"]:
            zoo[entry["Config"].removeprefix("configs/")] = Path(entry.get("Weights") or "").name
    rows = [line.split("|")[1:5] for line in (CONFIGS / "README.md").read_text().splitlines() if line[:3] == "| ["]
    paths = [re.fullmatch(r" \[`(.+)`\]\(\1\) ", row[0])[1] for row in rows]
    assert sorted(paths) == READY
    for path, (_, base, checkpoint, command) in zip(paths, rows, strict=True):
        base = re.search(r"`mmseg::(.+)`", base)[1]
        assert (INSTALLED / base).exists()
        assert f'"mmseg::{base}"' in (CONFIGS / path).read_text()
        assert stock_twin(path).exists() == ("none" not in checkpoint)
        if "none" in checkpoint:
            assert command.strip() == f"`python tools/train.py configs/{path}`"
            assert base not in zoo or "one channel" in checkpoint
        else:
            assert checkpoint.strip() == f"`{zoo[base]}`"
            assert command.strip() == f"`python tools/test.py configs/{path} CHECKPOINT`"


def test_bases_find_mmseg_by_its_module(forks, tmp_path):
    """The lookup is changed by the config base alone: importing rankseg_plugins.mmseg leaves it as it was."""
    script = tmp_path / "script.py"
    script.write_text(
        "from mmengine.config.utils import MODULE2PACKAGE; before = dict(MODULE2PACKAGE);"
        "import mmcv_stub.sitecustomize, rankseg_plugins.mmseg; assert MODULE2PACKAGE == before;"
        f"from mmengine.config import Config; c = Config.fromfile({str(CONFIGS / READY[0])!r});"
        "assert MODULE2PACKAGE == {**before, 'mmseg': 'mmseg'}; assert c.default_scope == 'mmseg';"
        "assert 'MODULE2PACKAGE' not in c"
    )
    done = forks.run([script], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_camvid_data_path_by_option(monkeypatch):
    (path,) = [path for path in READY if "camvid" in path]
    assert load(path).train_dataloader.dataset.data_root == "data/camvid"
    monkeypatch.setenv("CAMVID", "/elsewhere")
    assert load(path).test_dataloader.dataset.data_root == "/elsewhere"
