"""Every config loads, builds (without weights) and decodes as its name says; the README lists each one."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import mmseg
import tiny
from mmengine.config import Config
from mmseg.registry import DATASETS, METRICS, MODELS

from rankseg_plugins import RankSEG
from rankseg_plugins.mmseg import RankSEGEncoderDecoder
from rankseg_plugins.mmseg.activations import automatic_activation, last_head

CONFIGS = tiny.ROOT / "configs"
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
def test_config_builds_and_decodes_as_named(path):
    config = load(path)
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
    activation = automatic_activation(last_head(network.decode_head), channels)
    assert activation == ("sigmoid" if channels == 1 else "normalize" if "mask2former" in path else "softmax")
    assert DATASETS.get(config.val_dataloader.dataset.type) is not None
    assert METRICS.get(config.val_evaluator.type) is not None


@pytest.mark.parametrize("path", [path for path in READY if "one-channel" not in path and "camvid" not in path])
def test_stock_checkpoints_fit(path):
    """The model is that of the config it inherits from, apart from the decision; so are the state-dict keys."""
    ours = load(path)
    base = "_".join(Path(path).stem.split("_")[:-1])
    stock = Path(mmseg.__file__).parent / ".mim/configs" / Path(path).parent / f"{base}.py"
    if not stock.exists():
        pytest.skip(f"MMSegmentation has no {base}: there is no stock checkpoint")
    theirs = Config.fromfile(stock).model.to_dict()
    expected = {**theirs, "type": ours.model.type, "test_cfg": {**theirs["test_cfg"], "rankseg": ours.rankseg}}
    assert {key: value for key, value in ours.model.to_dict().items() if key != "_scope_"} == expected


def test_readme_lists_every_config():
    readme = (CONFIGS / "README.md").read_text()
    assert [path for path in READY if path not in readme] == []


def test_bases_find_mmseg_by_its_module(tmp_path):
    """The lookup is changed by the config base alone: importing rankseg_plugins.mmseg leaves it as it was."""
    script = (
        "from mmengine.config.utils import MODULE2PACKAGE; before = dict(MODULE2PACKAGE);"
        "import mmcv_stub.sitecustomize, rankseg_plugins.mmseg; assert MODULE2PACKAGE == before;"
        f"from mmengine.config import Config; c = Config.fromfile({str(CONFIGS / READY[0])!r});"
        "assert MODULE2PACKAGE == {**before, 'mmseg': 'mmseg'}; assert c.default_scope == 'mmseg';"
        "assert 'MODULE2PACKAGE' not in c"
    )
    done = tiny.process([*tiny.tool("test.py")[:1], "-c", script], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_camvid_data_path_by_option(monkeypatch):
    (path,) = [path for path in READY if "camvid" in path]
    assert load(path).train_dataloader.dataset.data_root == "data/camvid"
    monkeypatch.setenv("CAMVID", "/elsewhere")
    assert load(path).test_dataloader.dataset.data_root == "/elsewhere"
