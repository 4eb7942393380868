"""Every way in: validation while training, the toolkit's own scripts, init_model, the inferencer, mixed precision."""

import json
from pathlib import Path

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import numpy as np
import tiny
import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, inference_model, init_model
from PIL import Image

from rankseg_plugins import rankseg

PATH = "rankseg_plugins.mmseg."
DOTTED = PATH + "RankSEGEncoderDecoder"
ON = {"metric": "iou", "pruning_prob": 0.1}
METRIC = {"type": PATH + "MultiLevelIoUMetric"}


@pytest.fixture(scope="module")
def stock(dataset, tmp_path_factory):
    """A config file and a checkpoint that know nothing of RankSEG, and RankSEG's own results on them."""
    folder = tmp_path_factory.mktemp("stock")
    network = tiny.build(tiny.model())
    full = tiny.config(tiny.model(), dataset, folder)
    full.dump(str(folder / "stock.py"))
    checkpoint = tiny.save_checkpoint(network, folder / "stock.pth")
    ours = tiny.config(tiny.model(DOTTED, rankseg=ON), dataset, folder)
    scores, samples = tiny.evaluate(ours, network.state_dict())
    return {"config": str(folder / "stock.py"), "checkpoint": checkpoint, "scores": scores, "samples": samples}


def written_scores(folder):
    (path,) = Path(folder).glob("*/*.json")
    return json.loads(path.read_text().splitlines()[-1])


def test_script_with_only_cfg_options(forks, stock, dataset, tmp_path):
    options = [f"model.type={DOTTED}", "model.test_cfg.rankseg.metric=iou"]
    command = [*tiny.tool("test.py"), stock["config"], stock["checkpoint"], "--work-dir", tmp_path / "work"]
    done = forks.run([*command, "--cfg-options", *options], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = written_scores(tmp_path / "work")
    weights = tiny.build(tiny.model()).state_dict()
    expected, argmax = (
        tiny.evaluate(tiny.config(tiny.model(DOTTED, rankseg=switch), dataset, tmp_path / "here"), weights)[0]
        for switch in ({"metric": "iou"}, None)
    )
    for name in ("aAcc", "mIoU", "mAcc"):
        assert scores[name] == pytest.approx(float(expected[name]), abs=1e-4)
    assert scores["mIoU"] != pytest.approx(float(argmax["mIoU"]), abs=1e-4)


def test_the_switch_back_on_the_command_line(stock):
    """`--cfg-options model.test_cfg.rankseg=None` turns a config's RankSEG off."""
    full = Config.fromfile(stock["config"])
    full.merge_from_dict({"model.type": DOTTED, "model.test_cfg.rankseg": ON})
    parsed = DictAction._parse_iterable("None")
    full.merge_from_dict({"model.test_cfg.rankseg": parsed})
    assert init_model(full, stock["checkpoint"], device="cpu").rankseg_options() is None


def test_script_with_everything(forks, stock, dataset, tmp_path):
    """Test-time augmentation, comparison, files of labels and panels, all from the command line."""
    views = [[{"type": "RandomFlip", "prob": prob, "direction": "vertical"} for prob in (0.0, 1.0)]]
    views += [[{"type": "Resize", "scale": tiny.SCALE}], [{"type": "LoadAnnotations"}], [{"type": "PackSegInputs"}]]
    full = tiny.config(tiny.model(), dataset, tmp_path, batch_size=1)
    full.tta_pipeline = [{"type": "LoadImageFromFile"}, {"type": "TestTimeAug", "transforms": views}]
    full.dump(str(tmp_path / "config.py"))
    options = [
        f"model.type={DOTTED}",
        "model.test_cfg.rankseg.metric=dice",
        "model.test_cfg.rankseg.compare=True",
        f"tta_model.type={PATH}RankSEGTTAModel",
        f"test_evaluator.type={PATH}MultiLevelIoUMetric",
        f"visualizer.type={PATH}RankSEGVisualizer",
        "default_hooks.visualization.interval=1",
    ]
    command = [*tiny.tool("test.py"), tmp_path / "config.py", stock["checkpoint"], "--work-dir", tmp_path / "work"]
    command += ["--tta", "--out", tmp_path / "labels", "--show-dir", tmp_path / "shown", "--cfg-options", *options]
    done = forks.run(command, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = written_scores(tmp_path / "work")
    assert {"mIoU", "argmax_mIoU", "difference_mIoU", "image_mDice"} <= scores.keys()
    assert len(list((tmp_path / "labels").glob("*.png"))) == 7
    assert list((tmp_path / "shown").rglob("*.png"))


@pytest.mark.filterwarnings("ignore:the probabilities look as if")  # a network that is hardly trained
def test_validation_while_training_saves_the_best(dataset, tmp_path):
    full = tiny.config(tiny.model(DOTTED, rankseg={**ON, "compare": True}), dataset, tmp_path, evaluator=METRIC)
    full.custom_hooks = [{"type": PATH + "RankSEGVisualizationHook", "interval": 5}]
    pipeline = [{"type": name} for name in ("LoadImageFromFile", "LoadAnnotations")]
    pipeline += [{"type": "Resize", "scale": tiny.SCALE, "keep_ratio": False}, {"type": "PackSegInputs"}]
    full.train_dataloader = full.test_dataloader.copy()
    full.train_dataloader.sampler = {"type": "InfiniteSampler", "shuffle": False}
    full.train_dataloader.dataset = {**full.test_dataloader.dataset, "pipeline": pipeline}
    full.val_dataloader, full.val_evaluator = full.test_dataloader, full.test_evaluator
    full.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": 4, "val_interval": 2}
    full.val_cfg = {"type": "ValLoop"}
    full.optim_wrapper = {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 3e-3}}
    full.default_hooks.checkpoint = {"type": "CheckpointHook", "by_epoch": False, "save_best": "image_mDice"}
    runner = Runner.from_cfg(full)
    runner.train()
    pictures = sorted(path.name for path in tmp_path.glob("*/vis_data/vis_image/val_*.png"))
    assert pictures == [f"val_{image}.png_{step}.png" for image in ("00", "05") for step in (2, 4)]
    (best,) = tmp_path.glob("best_image_mDice_iter_*.pth")
    saved = torch.load(best, map_location="cpu", weights_only=False)
    full.experiment_name = full.visualizer.name = "best"
    scores, _ = tiny.evaluate(full, saved["state_dict"])
    assert scores["image_mDice"] == runner.message_hub.get_info("best_score")
    assert saved["state_dict"].keys() == tiny.build(tiny.model()).state_dict().keys()


def expected_labels(logits):
    return rankseg(logits[None].softmax(1), **ON)


def test_init_model_and_inference_model(stock, dataset):
    options = {"model.type": DOTTED, "model.test_cfg.rankseg": ON}
    model = init_model(stock["config"], stock["checkpoint"], device="cpu", cfg_options=options)
    paths = sorted(str(path) for path in (dataset / "img_dir/val").glob("*.png"))[:3]
    single = inference_model(model, paths[0])
    listed = inference_model(model, paths)
    assert [sample.img_path for sample in listed] == paths
    for sample, kept in zip([single, *listed], [stock["samples"][i] for i in (0, 0, 1, 2)], strict=True):
        label = sample.pred_sem_seg.data
        assert torch.equal(label, expected_labels(sample.seg_logits.data))
        assert (label == kept["pred_sem_seg"]["data"]).float().mean() > 0.99  # batches round differently
    array = np.array(Image.open(paths[0]))[:, :, ::-1].copy()
    from_array = inference_model(model, array)
    assert torch.equal(from_array.pred_sem_seg.data, single.pred_sem_seg.data)
    model.test_cfg.rankseg = None
    off = inference_model(model, array)
    assert torch.equal(off.pred_sem_seg.data, off.seg_logits.data.argmax(0, keepdim=True))
    assert not torch.equal(off.pred_sem_seg.data, single.pred_sem_seg.data)


@pytest.mark.filterwarnings("ignore:Failed to add")  # a backend that needs a folder
def test_inferencer_writes_labels_and_panels(stock, dataset, tmp_path):
    switch = {"model.type": DOTTED, "model.test_cfg.rankseg": {**ON, "compare": True}}
    config = Config.fromfile(stock["config"])
    config.merge_from_dict({**switch, "visualizer.type": PATH + "RankSEGVisualizer"})
    inferencer = MMSegInferencer(config, stock["checkpoint"], device="cpu")
    paths = sorted(str(path) for path in (dataset / "img_dir/val").glob("*.png"))[:2]
    results = inferencer(paths, out_dir=str(tmp_path / "out"), return_vis=True)
    for index, path in enumerate(paths):
        predicted = np.array(Image.open(tmp_path / f"out/pred/{index:08d}_pred.png"))
        assert (predicted == results["predictions"][index]).all()
        assert (predicted == stock["samples"][index]["pred_sem_seg"]["data"][0].numpy()).mean() > 0.99
        panels = np.array(Image.open(tmp_path / "out/vis" / Path(path).name))
        assert panels.shape == results["visualization"][index].shape
        assert panels.shape[1] >= 4 * 240  # image, argmax, RankSEG, difference


def test_mixed_precision(dataset, tmp_path):
    full = tiny.config(tiny.model(DOTTED, rankseg=ON), dataset, tmp_path)
    full.test_cfg = {"type": "TestLoop", "fp16": True}
    _, samples = tiny.evaluate(full, tiny.build(tiny.model()).state_dict())
    for sample in samples:
        logits = sample["seg_logits"]["data"]
        assert logits.dtype in (torch.float16, torch.bfloat16)
        assert torch.equal(sample["pred_sem_seg"]["data"], expected_labels(logits.float()))
