"""The report of a real Runner: the printed figures, and those of a comparison of the same probabilities."""

import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")
pytest.importorskip("jinja2", reason="the extra 'report' is not installed")
pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
pytest.importorskip("scipy", reason="the extra 'report' is not installed")

import numpy as np
import tiny
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison import Scoring, compare
from rankseg_plugins.mmseg import MultiLevelIoUMetric
from rankseg_plugins.mmseg.options import read_options
from rankseg_plugins.report.values import to_dict

pytestmark = pytest.mark.usefixtures("unpainted")

SEGMENTOR = "rankseg_plugins.mmseg.RankSEGEncoderDecoder"
OPTIONS = {"metric": "dice", "pruning_prob": 0.1}


def make_config(data, folder, report, batch_size=2, rankseg=None, **options):
    network = tiny.model(SEGMENTOR, rankseg={**OPTIONS, "compare": True} if rankseg is None else rankseg)
    evaluator = {"type": "rankseg_plugins.mmseg.MultiLevelIoUMetric", "report": str(report), **options}
    return tiny.config(network, data, folder, batch_size, evaluator), tiny.build(network)


def read(folder):
    return json.loads((folder / "report.json").read_text())


def comparable(figures):
    """Neither how it was made, nor what only a comparison of probabilities takes: decode times and calibration."""
    decoders = {name: {**each, "milliseconds": None} for name, each in figures["decoders"].items()}
    return {**figures, "facts": None, "calibration": None, "decoders": decoders}


@pytest.mark.parametrize("names", [["mIoU", "mDice"], ["mIoU"]])
@pytest.mark.painted
def test_figures_are_the_printed_ones_and_those_of_compare(dataset, tmp_path, names):
    full, built = make_config(dataset, tmp_path, tmp_path / "report", iou_metrics=names, present="label", absent="one")
    full.log_level = "INFO"
    printed, kept = tiny.evaluate(full, built.state_dict())
    found = read(tmp_path / "report")
    score = "dice" if "mDice" in names else "iou"
    for prefix, level in {"": "dataset", "image_": "image", "class_": "class"}.items():
        for decoder, start in {"RankSEG": "", "argmax": "argmax_"}.items():
            share = found["decoders"][decoder]["levels"][f"{score}_{level}"]
            name = f"{start}{prefix}m{'Dice' if score == 'dice' else 'IoU'}"
            assert printed[name] == pytest.approx(100 * share, abs=0.0051), name
    probs = [sample["seg_logits"]["data"].softmax(0) for sample in kept]
    truths = [sample["gt_sem_seg"]["data"][0].long() for sample in kept]
    stems = [Path(sample["img_path"]).stem for sample in kept]
    decoders = {"argmax": RankSEG("acc"), "RankSEG": RankSEG(**OPTIONS)}
    options = {"class_names": tiny.CLASSES, "palette": tiny.PALETTE, "scoring": Scoring(score, "label", "one")}
    samples = zip(stems, probs, truths, strict=True)
    expected = json.loads(json.dumps(to_dict(compare(samples, decoders, ignore_index=255, **options))))
    assert comparable(found) == comparable(expected)
    paired = found["decoders"]["RankSEG"]["paired"]
    assert paired["wins"] > 0 or paired["losses"] > 0
    assert found["calibration"] is None
    log = "\n".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert log.count(found["decoders"]["RankSEG"]["verdict"]) == 1
    page = (tmp_path / "report" / "report.html").read_text()
    assert all(name in page for name in (*tiny.CLASSES, *stems))


@pytest.mark.parametrize("tuned", [False, True])
def test_which_images_can_be_trusted(dataset, tmp_path, tuned):
    """As ``compare`` finds it, also of a decoder that has a temperature; the log has the areas."""
    decoder, asked = RankSEG("iou"), {"metric": "iou"}
    if tuned:
        decoder, asked = TunedDecoder(RankSEG("iou"), len(tiny.CLASSES), 0.5), {"tuned": str(tmp_path / "it.json")}
        decoder.save(tmp_path / "it.json")
    asked |= {"compare": True, "expected_score": "iou"}
    full, built = make_config(dataset, tmp_path, tmp_path / "report", rankseg=asked, iou_metrics="mIoU")
    full.log_level = "INFO"
    _, kept = tiny.evaluate(full, built.state_dict())
    samples = [
        (Path(each["img_path"]).stem, each["seg_logits"]["data"].softmax(0), each["gt_sem_seg"]["data"][0].long())
        for each in kept
    ]
    options = {"scoring": Scoring("iou"), "risk_coverage": True, "ignore_index": 255, "panels": 0}
    expected = to_dict(compare(samples, {"argmax": RankSEG("acc"), "RankSEG": decoder}, **options))
    found = read(tmp_path / "report")
    for name, figures in expected["risk_coverage"].items():
        assert found["risk_coverage"][name] == pytest.approx(figures, abs=1e-6)
    area = found["risk_coverage"]["RankSEG"]["aurc"]
    log = "\n".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert f"curve of {100 * area:.2f} % (ideal order" in log


def test_another_expected_score_than_that_of_the_report_is_refused(dataset, tmp_path):
    rankseg = {**OPTIONS, "compare": True, "expected_score": "iou"}
    full, built = make_config(dataset, tmp_path, tmp_path / "report", rankseg=rankseg)
    with pytest.raises(ValueError, match=r"rankseg\.expected_score must be 'dice', the score of the report, got 'iou'"):
        tiny.evaluate(full, built.state_dict())
    for wrong, message in (
        ({"compare": True, "expected_score": "recall"}, "expected_score must be one of"),
        ({"expected_score": "dice"}, r"expected_score has no effect without .*compare=True"),
    ):
        with pytest.raises(ValueError, match=message):
            read_options(wrong)


def test_a_decision_that_is_argmax_s_is_called_so(dataset, tmp_path):
    rankseg = {"metric": "acc", "compare": True}
    full, built = make_config(dataset, tmp_path, tmp_path / "report", rankseg=rankseg)
    tiny.evaluate(full, built.state_dict())
    decoder = read(tmp_path / "report")["decoders"]["RankSEG"]
    assert decoder["verdict"].startswith("RankSEG decides as argmax does in each of ")


def test_it_names_options_config_and_checkpoint(dataset, tmp_path):
    """Of a config in a file, as ``tools/test.py`` runs it; without one, and while training, what there is to name."""
    full, built = make_config(dataset, tmp_path / "run", tmp_path / "report")
    full.load_from, full.experiment_name = tiny.save_checkpoint(built, tmp_path / "we'ights.pth"), None
    full.dump(str(tmp_path / "fcn_tiny.py"))
    Runner.from_cfg(Config.fromfile(tmp_path / "fcn_tiny.py")).test()
    facts = read(tmp_path / "report")["facts"]
    assert facts["model.test_cfg.rankseg"] == "dict(metric='dice', pruning_prob=0.1)"
    assert facts["checkpoint"] == full.load_from
    assert facts["config"] == str(tmp_path / "run" / "fcn_tiny.py")
    assert Config.fromfile(facts["config"]).model.test_cfg.rankseg == full.model.test_cfg.rankseg
    full, built = make_config(dataset, tmp_path / "other", tmp_path / "report")
    runner = Runner.from_cfg(full)
    runner.model.load_state_dict(built.state_dict())
    runner.message_hub.update_info("iter", 7)
    runner.test()
    facts = read(tmp_path / "report")["facts"]
    assert facts["config"].startswith(full.experiment_name)
    assert facts["evaluated"] == "test, iteration 7 of a training"
    assert "checkpoint" not in facts


def test_pictures_have_photographs_and_the_palette_of_the_data_set(dataset, tmp_path):
    full, built = make_config(dataset, tmp_path, tmp_path / "report")
    tiny.evaluate(full, built.state_dict())
    found = panels(tmp_path / "report")
    assert found
    own = np.array(tiny.PALETTE)
    for panel in found:
        name = re.search(r"<h4>(\d+)", panel)[1]
        shown = {
            title: np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
            for data, title in re.findall(r'src="data:image/png;base64,([^"]*)"[^>]*alt="(\S+) of', panel)
        }
        photograph = np.asarray(Image.open(dataset / f"img_dir/val/{name}.png").convert("RGB")).astype(int)
        truth = np.asarray(Image.open(dataset / f"ann_dir/val/{name}.png"))
        assert list(shown) == ["image", "truth", "argmax", "RankSEG", "difference"]
        assert np.abs(shown["image"] - photograph).mean() < 12  # of 256 colours
        assert (shown["truth"][truth != 255] == own[truth[truth != 255]]).all()


def test_a_photograph_that_is_not_there_is_named_in_the_log(dataset, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(dataset, data)
    full, built = make_config(data, tmp_path, tmp_path / "report")
    runner = Runner.from_cfg(full)
    runner.model.load_state_dict(built.state_dict())
    (metric,) = runner.test_loop.evaluator.metrics
    evaluate = metric.evaluate
    metric.evaluate = lambda size: (shutil.rmtree(data / "img_dir"), evaluate(size))[1]
    runner.test()
    assert all('alt="image of' not in panel for panel in panels(tmp_path / "report"))
    log = "\n".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert "without its photograph: FileNotFoundError" in log


def knowing(path):
    """The file of a decoder that knows which classes are there from what it sees."""
    decoder, there = PresenceRankSEG(4), torch.arange(12)[:, None] % 5 != torch.arange(4)
    logits = 2 * torch.randn(12, 4, 9, 9, generator=torch.Generator().manual_seed(0)) - 2.0 * ~there[..., None, None]
    decoder.update(logits.softmax(1), there)
    decoder.fit()
    TunedDecoder(decoder, 4, temperature=1.4).save(path)
    return str(path)


@pytest.mark.filterwarnings("ignore:RankSEG was tuned with")
def test_two_processes_write_what_one_writes(forks, dataset, tmp_path):
    """Seven images in threes on two processes: the first image is there twice. One writes what a comparison finds."""
    rankseg = {"tuned": knowing(tmp_path / "decoder.json"), "compare": True}
    full, built = make_config(dataset, tmp_path / "one", tmp_path / "one" / "report", batch_size=3, rankseg=rankseg)
    _, kept = tiny.evaluate(full, built.state_dict())
    checkpoint = tiny.save_checkpoint(built, tmp_path / "weights.pth")
    full.work_dir, full.test_evaluator.report = str(tmp_path / "two"), str(tmp_path / "two" / "report")
    done = two_processes(forks, full, checkpoint, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (tmp_path / name / "report" for name in ("one", "two"))
    assert comparable(read(two)) == comparable(read(one))
    assert read(two)["images"] == 7
    decoders = {"argmax": RankSEG("acc"), "RankSEG": TunedDecoder.load(tmp_path / "decoder.json")}
    samples = [
        (str(index), sample["seg_logits"]["data"].softmax(0), sample["gt_sem_seg"]["data"][0].long())
        for index, sample in enumerate(kept)
    ]
    expected = compare(samples, decoders, ignore_index=255).presence_of("RankSEG")
    about = read(one)["decoders"]["RankSEG"]["presence"]
    assert about["frequency"] == expected["frequency"]
    np.testing.assert_allclose(about["bins"], expected["bins"], atol=1e-5)
    assert sum(number for _, _, number in about["bins"]) == 7 * 4
    assert (two / "images.csv").read_text() == (one / "images.csv").read_text()
    assert panels(two) == panels(one) != []


def two_processes(forks, full, checkpoint, folder):
    full.dump(str(folder / "config.py"))
    command = [tiny.DISTRIBUTED, folder / "config.py", checkpoint, folder / "scores.json", "test"]
    return forks.run(command, folder, world=2)


def panels(folder):
    """The pictures of single images in a page: truth, argmax, RankSEG and difference beside each other."""
    return re.findall(r'<figure class="example">.*?</figure>', (folder / "report.html").read_text(), re.DOTALL)


@pytest.mark.parametrize("processes", [1, 2])
def test_without_compare_it_is_refused_at_the_first_image(forks, dataset, tmp_path, processes):
    full, built = make_config(dataset, tmp_path, tmp_path / "report", rankseg=OPTIONS)
    words = "report needs argmax's labels beside RankSEG's: set model.test_cfg.rankseg.compare=True"
    if processes == 1:
        with pytest.raises(ValueError, match=re.escape(words)):
            tiny.evaluate(full, built.state_dict())
        return
    done = two_processes(forks, full, tiny.save_checkpoint(built, tmp_path / "weights.pth"), tmp_path)
    assert done.returncode != 0
    assert words in done.stderr


def test_without_compare_a_validation_goes_on_without_a_report(dataset, tmp_path):
    """The metric sees its first image after hours of training."""
    full, built = make_config(dataset, tmp_path, tmp_path / "report", rankseg=OPTIONS)
    full.val_dataloader, full.val_evaluator, full.val_cfg = (
        full.test_dataloader,
        full.test_evaluator,
        {"type": "ValLoop"},
    )
    runner = Runner.from_cfg(full)
    runner.model.load_state_dict(built.state_dict())
    with pytest.warns(
        UserWarning, match=r"00\.png: report needs argmax's .*compare=True.*No report is written"
    ) as told:
        scores = runner.val()
    assert sum("No report" in str(each.message) for each in told) == 1
    assert not list((tmp_path / "report").iterdir())
    full.val_evaluator = full.test_evaluator = {"type": "IoUMetric", "iou_metrics": ["mIoU", "mDice"]}
    full.experiment_name = full.visualizer.name = "plain"
    stock, _ = tiny.evaluate(full, built.state_dict())
    assert {name: scores[name] for name in ("mIoU", "mDice")} == {name: stock[name] for name in ("mIoU", "mDice")}


def test_windows_of_one_file_have_pictures_of_their_own(dataset, tmp_path):
    full, built = make_config(dataset, tmp_path, tmp_path / "report")
    _, kept = tiny.evaluate(tiny.in_windows(full, 2), built.state_dict())
    found = read(tmp_path / "report")
    assert found["images"] == 14
    decoders = {"argmax": RankSEG("acc"), "RankSEG": RankSEG(**OPTIONS)}
    names = [f"{index // 2:02d}" + " (2)" * (index % 2) for index in range(14)]
    samples = [
        (name, sample["seg_logits"]["data"].softmax(0), sample["gt_sem_seg"]["data"][0].long())
        for name, sample in zip(names, kept, strict=True)
    ]
    expected = compare(samples, decoders, ignore_index=255, class_names=tiny.CLASSES, palette=tiny.PALETTE)
    assert comparable(found) == comparable(json.loads(json.dumps(to_dict(expected))))
    expected.report(tmp_path / "expected")
    assert panels(tmp_path / "report") == panels(tmp_path / "expected") != []


def test_images_of_the_same_name_in_two_folders(tmp_path):
    data = tiny.write_dataset(tmp_path / "data", count=4)
    for folder in ("img_dir/val", "ann_dir/val"):
        for index, drive in enumerate(("east", "east", "west", "west")):
            target = data / folder / drive / f"{index % 2:02d}.png"
            target.parent.mkdir(exist_ok=True)
            (data / folder / f"{index:02d}.png").rename(target)
    full, built = make_config(data, tmp_path, tmp_path / "report")
    tiny.evaluate(full, built.state_dict())
    rows = (tmp_path / "report" / "images.csv").read_text().splitlines()[1:]
    assert sorted({row.split(",")[0] for row in rows}) == ["east/00", "east/01", "west/00", "west/01"]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"report": True}, TypeError, "report must be the path of a folder, got True"),
        ({"report": __file__}, ValueError, "report must be a folder"),
        ({"report": "r", "format_only": True, "output_dir": "o"}, ValueError, "format_only=True scores nothing"),
    ],
)
def test_bad_options(tmp_path, monkeypatch, options, kind, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=words):
        MultiLevelIoUMetric(**options)


def test_a_missing_package_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"needs 'jinja2': install its extra, rankseg-plugins\[report\]"):
        MultiLevelIoUMetric(report=str(tmp_path / "report"))
    MultiLevelIoUMetric()
