"""MultiLevelIoUMetric against the stock metric, plain loops, and another number of processes."""

import json
import math
import re
from pathlib import Path

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import numpy as np
import tiny
import torch
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from PIL import Image

from rankseg_plugins.mmseg import MultiLevelIoUMetric
from rankseg_plugins.scores import Areas, areas, levels

CLASSES = tiny.CLASSES
META = {"classes": CLASSES}


def samples(count=9, classes=4, seed=0, argmax=False, size=(23, 31)):
    generator = torch.Generator().manual_seed(seed)

    def labels(high):
        return torch.randint(0, high, (1, *size), generator=generator)

    result = []
    for index in range(count):
        truth = labels(classes if index % 3 else 2)
        truth[:, :2] = 255
        right = torch.rand((1, *size), generator=generator)
        sample = {"img_path": f"images/{index}.png", "gt_sem_seg": {"data": truth}}
        sample["pred_sem_seg"] = {"data": torch.where(right < 0.7, truth.clamp(max=classes - 1), labels(classes))}
        if argmax:
            other = torch.where(right < 0.6, truth.clamp(max=classes - 1), labels(classes))
            sample["pred_sem_seg_argmax"] = {"data": other}
        result.append(sample)
    return result


def score(metric, batch, meta=META):
    metric.dataset_meta = meta
    metric.process({}, batch)
    return metric.evaluate(len(batch))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("names", [["mIoU"], ["mDice"], ["mIoU", "mDice"]])
def test_dataset_level_is_stock_to_the_last_digit(seed, names):
    # A class too many is never seen, and sizes grow, so that digits differ.
    meta = {"classes": (*CLASSES, "never")}
    batch = samples(seed=seed, size=(50 + 7 * seed, 31))
    stock = score(IoUMetric(iou_metrics=names), batch, meta)
    ours = score(MultiLevelIoUMetric(iou_metrics=names), batch, meta)
    for name, value in stock.items():
        assert ours[name] == value, name


@pytest.mark.parametrize(("absent", "fill"), [("zero", 0), ("one", 1)])
def test_absent_classes_at_the_dataset_level_are_stock(absent, fill):
    meta = {"classes": (*CLASSES, "never")}
    batch = samples()
    stock = score(IoUMetric(iou_metrics=["mIoU", "mDice"], nan_to_num=fill), batch, meta)
    ours = score(MultiLevelIoUMetric(absent=absent), batch, meta)
    assert {name: ours[name] for name in stock} == stock


def test_dataset_level_is_stock_where_float32_loses_pixels():
    """Half a billion pixels: IoUMetric's sums round every image in the same direction, and its digits are kept."""
    differs = 0
    for seed in (1, 2, 4):
        generator = torch.Generator().manual_seed(seed)
        label, prediction = torch.randint(100_000, 200_000, (2, 5), generator=generator)
        right = (torch.minimum(label, prediction) * torch.rand(5, generator=generator)).long()
        counts = Areas(*(count.expand(4000, -1) for count in (right, prediction, label)))
        stock, ours = IoUMetric(iou_metrics=["mIoU", "mDice"]), MultiLevelIoUMetric()
        stock.dataset_meta = ours.dataset_meta = {"classes": (*CLASSES, "fifth")}
        floats = [count.float() for count in (counts.intersection, counts.union, counts.prediction, counts.label)]
        theirs = stock.compute_metrics(list(zip(*floats, strict=True)))
        figures = ours.compute_metrics([{"decided": image} for image in torch.stack(counts, dim=1)])
        assert {name: figures[name] for name in theirs} == theirs
        for name, function in {"mIoU": levels.iou, "mDice": levels.dice, "mAcc": levels.recall}.items():
            exact = round(100 * levels.dataset_level(counts, function).item(), 2)
            assert figures[name] == pytest.approx(exact, abs=0.02)
            differs += figures[name] != exact
    assert differs > 0


def counts_of(batch):
    each = [areas(s["pred_sem_seg"]["data"], s["gt_sem_seg"]["data"], len(CLASSES), 255) for s in batch]
    return Areas(*map(torch.cat, zip(*each, strict=True)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("present", "absent"), [("union", "skip"), ("label", "skip"), ("union", "one")])
def test_every_figure_is_that_of_the_evaluation(seed, present, absent):
    batch = samples(10, seed=seed)
    ours = score(MultiLevelIoUMetric(present=present, absent=absent, worst_share=0.2), batch)
    counts = counts_of(batch)
    expected = {"aAcc": levels.pixel_accuracy(counts)}
    for name, function in {"mIoU": levels.iou, "mDice": levels.dice, "mAcc": levels.recall}.items():
        held = "label" if name == "mAcc" else present
        pooled_held = "label" if name == "mAcc" else "union"
        expected[name] = levels.dataset_level(counts, function, pooled_held, absent)
        expected[f"image_{name}"] = levels.image_level(counts, function, held, absent)
        expected[f"class_{name}"] = levels.class_level(counts, function, held, absent)
        expected[f"worst_{name}"] = levels.worst(levels.image_scores(counts, function, held, absent), 0.2)
    assert ours == {name: round(100 * value.item(), 2) for name, value in expected.items()}


def entries_by_loops(batch, numerator):
    """Score of every image and class by plain NumPy, NaN where neither side holds the class."""
    table = np.full((len(batch), len(CLASSES)), np.nan)
    for row, sample in enumerate(batch):
        truth, label = (sample[key]["data"].numpy() for key in ("gt_sem_seg", "pred_sem_seg"))
        kept = truth != 255
        for column in range(len(CLASSES)):
            t, p = truth[kept] == column, label[kept] == column
            shared, both = (t & p).sum(), t.sum() + p.sum()
            if both:
                table[row, column] = 2 * shared / both if numerator == "Dice" else shared / (both - shared)
    return table


@pytest.mark.parametrize("name", ["IoU", "Dice"])
def test_image_and_class_level_and_worst_images(name):
    batch = samples(10)
    ours = score(MultiLevelIoUMetric(worst_share=0.3), batch)
    table = entries_by_loops(batch, name)
    images = np.nanmean(table, 1)
    expected = {
        f"image_m{name}": images.mean(),
        f"class_m{name}": np.nanmean(table, 0).mean(),
        f"worst_m{name}": np.sort(images)[:3].mean(),
    }
    for key, value in expected.items():
        assert ours[key] == pytest.approx(100 * value, abs=0.0051), key


def test_absent_classes_count_as_asked():
    batch = samples(6)
    for absent, value in {"zero": 0.0, "one": 1.0}.items():
        ours = score(MultiLevelIoUMetric(absent=absent), batch)
        table = np.nan_to_num(entries_by_loops(batch, "IoU"), nan=value)
        assert ours["image_mIoU"] == pytest.approx(100 * table.mean(), abs=0.0051)


def test_compare_scores_both_decisions_and_their_difference(tmp_path):
    batch = samples(argmax=True)
    MMLogger.get_instance("compare", log_file=str(tmp_path / "log.txt"))
    both = score(MultiLevelIoUMetric(), batch)
    output = (tmp_path / "log.txt").read_text()
    plain = [{key: value for key, value in sample.items() if key != "pred_sem_seg_argmax"} for sample in batch]
    argmax = [{**sample, "pred_sem_seg": sample["pred_sem_seg_argmax"]} for sample in batch]
    argmax = [{key: value for key, value in sample.items() if key != "pred_sem_seg_argmax"} for sample in argmax]
    ours, theirs = score(MultiLevelIoUMetric(), plain), score(MultiLevelIoUMetric(), argmax)
    for name, value in ours.items():
        assert both[name] == value
        assert both[f"argmax_{name}"] == theirs[name]
        assert both[f"difference_{name}"] == pytest.approx(value - theirs[name], abs=1e-4)
    assert both["difference_mIoU"] > 0
    header, row = (next(line for line in output.splitlines() if word in line) for word in ("| images", "image_mIoU"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cell.strip() for cell in header.strip("|").split("|")][1:4] == ["argmax", "RankSEG", "difference"]
    assert cells[1:3] == [f"{both['argmax_image_mIoU']:.2f}", f"{both['image_mIoU']:.2f}"]
    wins = np.nanmean(entries_by_loops(plain, "IoU"), 1) - np.nanmean(entries_by_loops(argmax, "IoU"), 1)
    assert cells[4:6] == [str((wins > 0).sum()), str((wins < 0).sum())]


def test_classes_that_are_left_out_are_logged(tmp_path):
    batch = samples(argmax=True)
    for sample in batch:
        sample["pred_sem_seg"]["data"][sample["pred_sem_seg"]["data"] == 3] = 0
    MMLogger.get_instance("left_out", log_file=str(tmp_path / "log.txt"))
    score(MultiLevelIoUMetric(), batch)
    line = next(line for line in (tmp_path / "log.txt").read_text().splitlines() if "leaves out" in line)
    held = sum(bool((sample["gt_sem_seg"]["data"] == 3).any()) for sample in batch)
    assert "WARNING" in line
    assert (
        f"RankSEG leaves out classes that are there and argmax shows: {CLASSES[3]} in {held} of {held} images" in line
    )


def test_void_predictions_count_for_no_class():
    batch = samples(2)
    batch[0]["pred_sem_seg"]["data"][:] = 255
    ours, stock = score(MultiLevelIoUMetric(), batch), score(IoUMetric(), batch)
    assert ours["mIoU"] == stock["mIoU"]


def test_format_only_writes_files_and_needs_no_truth(tmp_path):
    batch = samples(3)
    for sample in batch:
        del sample["gt_sem_seg"]
        sample["reduce_zero_label"] = True
    metric = MultiLevelIoUMetric(output_dir=str(tmp_path / "out"), format_only=True)
    assert score(metric, batch) == {}
    for index, sample in enumerate(batch):
        written = np.array(Image.open(tmp_path / f"out/{index}.png"))
        assert (written == sample["pred_sem_seg"]["data"][0].numpy() + 1).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fields", [{}, {"reduce_zero_label": True}])
def test_files_of_ordinary_labels_are_stock(tmp_path, fields, dtype):
    labels = torch.randint(0, 4, (7, 9)).to(dtype)
    sample = {"img_path": "images/a.png", "pred_sem_seg": {"data": labels[None]}, **fields}
    for kind, given in (
        (MultiLevelIoUMetric, sample),
        (IoUMetric, {**sample, "pred_sem_seg": {"data": labels.long()}}),
    ):
        metric = kind(output_dir=str(tmp_path / kind.__name__), format_only=True)
        metric.dataset_meta = META
        metric.process({}, [given])
    ours, stock = (Image.open(tmp_path / kind.__name__ / "a.png") for kind in (MultiLevelIoUMetric, IoUMetric))
    assert ours.mode == stock.mode == "L"
    assert np.array_equal(np.array(ours), np.array(stock))


@pytest.mark.parametrize(
    ("labels", "classes", "fields", "mode", "expected"),
    [
        ([[0, 299]], 300, {}, "I;16", [[0, 299]]),  # IoUMetric writes 43
        ([[0, 1]], 300, {}, "I;16", [[0, 1]]),  # all files of a run alike
        ([[0, 255]], 256, {}, "L", [[0, 255]]),
        ([[0, 300]], 4, {}, "I;16", [[0, 300]]),  # void_index=300
        ([[0, 3, 255]], 4, {"reduce_zero_label": True}, "L", [[1, 4, 255]]),  # IoUMetric writes 0
        ([[0, 3, 300]], 4, {"reduce_zero_label": True}, "I;16", [[1, 4, 300]]),
        ([[0, 255]], 256, {"reduce_zero_label": True}, "I;16", [[1, 256]]),
    ],
)
def test_files_hold_every_label(tmp_path, labels, classes, fields, mode, expected):
    sample = {"img_path": "images/a.png", "pred_sem_seg": {"data": torch.tensor([labels])}, **fields}
    metric = MultiLevelIoUMetric(output_dir=str(tmp_path), format_only=True)
    metric.dataset_meta = {"classes": [str(label) for label in range(classes)]}
    metric.process({}, [sample])
    with Image.open(tmp_path / "a.png") as png:
        assert png.mode == mode
        assert np.array(png).tolist() == expected


def test_labels_that_no_file_holds_name_the_image(tmp_path):
    sample = {"img_path": "images/a.png", "pred_sem_seg": {"data": torch.tensor([[[0, -1]]])}}
    metric = MultiLevelIoUMetric(output_dir=str(tmp_path), format_only=True)
    with pytest.raises(ValueError, match=r"images/a\.png: a PNG holds the labels 0 to 65535, got -1 to 0"):
        score(metric, [sample])


def test_two_images_of_one_name_are_refused(tmp_path):
    batch = samples(2)
    batch[0]["img_path"], batch[1]["img_path"] = "siteA/01.png", "siteB/01.jpg"
    metric = MultiLevelIoUMetric(output_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"two images are called '01\.png', siteA/01\.png .* and siteB/01\.jpg .*give other"
    ):
        score(metric, batch)
    assert (np.array(Image.open(tmp_path / "01.png")) == batch[0]["pred_sem_seg"]["data"][0].numpy()).all()
    again = MultiLevelIoUMetric(output_dir=str(tmp_path))
    for _ in range(2):  # another validation replaces the files of the one before
        score(again, batch[1:])
    assert (np.array(Image.open(tmp_path / "01.png")) == batch[1]["pred_sem_seg"]["data"][0].numpy()).all()


def test_files_need_paths(tmp_path):
    (sample,) = samples(1)
    for path in (b"images/07.png", Path("images/08.png")):
        sample["img_path"] = path
        score(MultiLevelIoUMetric(output_dir=str(tmp_path)), [sample])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["07.png", "08.png"]
    del sample["img_path"]
    with pytest.raises(ValueError, match=r"output_dir names files after images, .*meta_keys"):
        score(MultiLevelIoUMetric(output_dir=str(tmp_path)), [sample])


def test_a_data_set_without_classes_is_refused_before_any_image():
    metric = MultiLevelIoUMetric()
    with pytest.raises(ValueError, match="the dataset names no classes"):
        metric.dataset_meta = {"palette": None}


def test_reduce_zero_label_of_the_dataset(tmp_path):
    data = tiny.write_dataset(tmp_path, count=3)
    network = tiny.model("rankseg_plugins.mmseg.RankSEGEncoderDecoder", classes=3, rankseg={"metric": "dice"})
    results = {}
    for metric in ("IoUMetric", "rankseg_plugins.mmseg.MultiLevelIoUMetric"):
        full = tiny.config(network, data, tmp_path, evaluator={"type": metric}, classes=CLASSES[1:])
        full.test_dataloader.dataset.reduce_zero_label = True
        results[metric], kept = tiny.evaluate(full, tiny.build(network).state_dict())
        assert all(sample["reduce_zero_label"] for sample in kept)
    stock, ours = results.values()
    assert all(ours[name] == value or math.isnan(value) for name, value in stock.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iou_metrics": ["mFscore"]}, "iou_metrics must be one of 'mIoU', 'mDice', got 'mFscore'"),
        ({"iou_metrics": []}, "iou_metrics must name at least one"),
        ({"present": "all"}, "present must be one of"),
        ({"absent": "nan"}, "absent must be one of"),
        ({"worst_share": 0.0}, "worst_share must lie in"),
        ({"worst_share": 2}, "worst_share must be in [0, 1], got 2"),
        ({"format_only": True}, "needs output_dir"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        MultiLevelIoUMetric(**options)


def broken(**changes):
    sample = samples(1)[0]
    sample["seg_map_path"] = "labels/0.png"
    for key, value in changes.items():
        sample.pop(key)
        if value is not None:
            sample[key] = {"data": value}
    return sample


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (broken(gt_sem_seg=torch.full((1, 23, 31), 9)), "labels/0.png: .*label 9, allowed are 0 to 3"),
        (broken(gt_sem_seg=torch.zeros(1, 5, 5).long()), "labels/0.png: .*same pixels"),
        (broken(gt_sem_seg=torch.full((1, 23, 31), -1)), "labels/0.png: .*label -1, allowed are 0 to 3"),
        (broken(gt_sem_seg=None), "no ground truth for labels/0.png: .*LoadAnnotations.*format_only"),
    ],
)
def test_bad_ground_truth_names_the_file(sample, words):
    with pytest.raises(ValueError, match=words):
        score(MultiLevelIoUMetric(), [sample])


def test_predicted_classes_that_the_dataset_does_not_name():
    (sample,) = samples(1)
    sample["seg_logits"] = {"data": torch.zeros(6, 23, 31)}
    fine = score(MultiLevelIoUMetric(), [sample])
    sample["pred_sem_seg"]["data"][0, 5, 5] = 255  # void is no class
    assert score(MultiLevelIoUMetric(), [sample])["mIoU"] <= fine["mIoU"]
    sample["pred_sem_seg"]["data"][0, 5, 5] = 5
    with pytest.raises(ValueError, match=r"images/0.png: .*above 3.*model\.decode_head\.num_classes gives 6"):
        score(MultiLevelIoUMetric(), [sample])


def test_a_pipeline_that_loads_no_truth(dataset, tmp_path):
    network = tiny.model("rankseg_plugins.mmseg.RankSEGEncoderDecoder", rankseg={"metric": "dice"})
    evaluator = {"type": "rankseg_plugins.mmseg.MultiLevelIoUMetric"}
    full = tiny.config(network, dataset, tmp_path, evaluator=evaluator)
    full.test_dataloader.dataset.pipeline.pop(2)
    with pytest.raises(ValueError, match=r"no ground truth for .*00\.png: .*LoadAnnotations"):
        tiny.evaluate(full)
    full.test_evaluator.update(format_only=True, output_dir=str(tmp_path / "labels"))
    full.visualizer.name = full.experiment_name = "formatted"
    tiny.evaluate(full)
    assert len(list((tmp_path / "labels").glob("*.png"))) == 7


def test_a_switch_during_the_run_is_refused():
    with pytest.raises(ValueError, match=r"test_cfg\.rankseg changed"):
        score(MultiLevelIoUMetric(), samples(2) + samples(1, argmax=True))


def test_two_processes_give_the_scores_of_one(forks, dataset, tmp_path):
    """Seven images in batches of three on two processes: the last batches are uneven, and one image is there twice."""
    options = {"metric": "dice", "pruning_prob": 0.1, "compare": True}
    network = tiny.model("rankseg_plugins.mmseg.RankSEGEncoderDecoder", rankseg=options)
    evaluator = {"type": "rankseg_plugins.mmseg.MultiLevelIoUMetric", "output_dir": str(tmp_path / "labels")}
    full = tiny.config(network, dataset, tmp_path / "one", batch_size=3, evaluator=evaluator)
    built = tiny.build(network)
    alone, kept = tiny.evaluate(full, built.state_dict())
    assert len(kept) == 7
    checkpoint = tiny.save_checkpoint(built, tmp_path / "weights.pth")
    full.work_dir, full.test_evaluator.output_dir = str(tmp_path / "two"), str(tmp_path / "labels of two")
    full.custom_hooks = [{"type": "rankseg_plugins.mmseg.RankSEGVisualizationHook"}]
    full.dump(str(tmp_path / "config.py"))
    output = tmp_path / "scores.json"
    done = forks.run([tiny.DISTRIBUTED, tmp_path / "config.py", checkpoint, output, "test"], tmp_path, world=2)
    assert done.returncode == 0, done.stderr[-3000:]
    written = json.loads(output.read_text())
    assert written["batches"] == 2  # four images in each process, in threes
    expected = {name: float(value) for name, value in alone.items() if name != "kept/samples"}
    assert written["scores"] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert any(value != 0 for name, value in expected.items() if name.startswith("difference"))
    pictures = (tmp_path / "two").glob("*/vis_data/vis_image/*.png")
    assert sorted(path.name for path in pictures) == [f"test_{index:02d}.png_0.png" for index in (0, 2, 4, 6)]
    written = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("labels", "labels of two")
    ]
    assert written[0] == written[1]
    assert len(written[0]) == 7
