"""RankSEGTuningHook: what it writes is what plain `tune()` finds on the same probabilities."""

import itertools
import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison import Sample, Scoring
from rankseg_plugins.mmseg import RankSEGTuningHook
from rankseg_plugins.tuning import tune

PATH = "rankseg_plugins.mmseg."
DOTTED = PATH + "RankSEGEncoderDecoder"
ON = {"metric": "iou", "pruning_prob": 0.1}
pytestmark = pytest.mark.filterwarnings(
    # Of networks that were trained for four steps.
    "ignore:the probabilities are too unsure",
    "ignore:the probabilities look as if",
)
# Seven images are too few for the default of min_cases.
FEW = {"min_cases": 0, "folds": 3}


def with_hook(full, **options):
    """Validation on the test data with the hook."""
    full.val_dataloader, full.val_evaluator = full.test_dataloader, full.test_evaluator
    full.val_cfg = {"type": "ValLoop"}
    full.custom_hooks = [{"type": PATH + "RankSEGTuningHook", **FEW, **options}]
    return full


def with_training(full, by_epoch=False):
    pipeline = [{"type": name} for name in ("LoadImageFromFile", "LoadAnnotations")]
    pipeline += [{"type": "Resize", "scale": tiny.SCALE, "keep_ratio": False}, {"type": "PackSegInputs"}]
    full.train_dataloader = full.test_dataloader.copy()
    full.train_dataloader.dataset = {**full.test_dataloader.dataset, "pipeline": pipeline}
    if by_epoch:
        full.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": 1}
    else:
        full.train_dataloader.sampler = {"type": "InfiniteSampler", "shuffle": False}
        full.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": 4, "val_interval": 2}
    full.optim_wrapper = {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 3e-3}}
    full.default_hooks.checkpoint = {"type": "CheckpointHook", "by_epoch": by_epoch, "interval": 1 if by_epoch else 2}
    return full


def samples_of(dataset, folder, weights, classes=4, channels=None, edit=lambda full: None):
    """Probabilities and truth of the stock model, computed here from what its evaluator receives."""
    full = tiny.config(tiny.model("EncoderDecoder", classes, channels), dataset, folder, classes=tiny.CLASSES[:classes])
    edit(full)
    _, kept = tiny.evaluate(full, weights)
    result = []
    for sample in kept:
        given = sample["seg_logits"]["data"]
        probs = given if channels == 1 else given[None].softmax(1)[0]
        result.append(Sample(sample["img_path"], probs, sample["gt_sem_seg"]["data"][0]))
    return result


def plain(samples, **options):
    # The hook sees every image once, and goes without presence.
    return tune(samples, ignore_index=255, presence=[], **{**FEW, **options}).decoder.to_dict()


def read(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    network = tiny.build(tiny.model())
    return tiny.save_checkpoint(network, tmp_path_factory.mktemp("weights") / "zoo_model.pth")


def validate(full, checkpoint=None):
    """Runner.val, which loads a checkpoint as `load_from` says."""
    full.load_from = checkpoint
    runner = Runner.from_cfg(full)
    return runner.val(), runner


@pytest.mark.parametrize("kind", ["EncoderDecoder", DOTTED])
def test_training_writes_what_tune_finds(dataset, tmp_path, kind):
    network = tiny.model(kind, rankseg=None if kind == "EncoderDecoder" else ON)
    full = with_training(with_hook(tiny.config(network, dataset, tmp_path)))
    Runner.from_cfg(full).train()
    for step in (2, 4):
        state = torch.load(tmp_path / f"iter_{step}.pth", map_location="cpu", weights_only=False)["state_dict"]
        assert read(tmp_path / f"iter_{step}.rankseg.json") == plain(samples_of(dataset, tmp_path / "plain", state))
    assert read(tmp_path / "rankseg.json") == read(tmp_path / "iter_4.rankseg.json")
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "iter_2.rankseg.json",
        "iter_4.rankseg.json",
        "rankseg.json",
    ]


@pytest.mark.parametrize("broken", [(1, 4), range(7)])
def test_images_without_probabilities_are_left_out(dataset, tmp_path, checkpoint, broken):
    full = with_hook(tiny.config(tiny.model(DOTTED, rankseg=ON), dataset, tmp_path, batch_size=1))
    full.load_from = checkpoint
    runner, calls = Runner.from_cfg(full), itertools.count()

    def fail(backbone, given, found):
        return [each * torch.nan for each in found] if next(calls) in broken else found

    runner.model.backbone.register_forward_hook(fail)
    said = []
    runner.logger.warning = said.append
    with pytest.warns(UserWarning, match="such images keep MMSegmentation's own labels"):
        assert "mIoU" in runner.val()
    first = f"leaves {len(broken)} images out of the tuning: .*{broken[0]:02d}.png: the network gives NaN"
    assert re.search(first, said[0])
    if len(broken) == 7:
        assert not list(tmp_path.glob("*.json"))
        return
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    kept = [each for i, each in enumerate(samples_of(dataset, tmp_path / "plain", state)) if i not in broken]
    assert read(tmp_path / "rankseg.json") == plain(kept)


def test_epochs_name_the_file(dataset, tmp_path):
    Runner.from_cfg(with_training(with_hook(tiny.config(tiny.model(), dataset, tmp_path)), by_epoch=True)).train()
    assert (tmp_path / "epoch_1.pth").exists()
    assert read(tmp_path / "epoch_1.rankseg.json") == read(tmp_path / "rankseg.json")


@pytest.mark.parametrize("by_epoch", [False, True])
def test_the_file_is_beside_the_checkpoint_in_another_folder(dataset, tmp_path, by_epoch):
    full = with_training(with_hook(tiny.config(tiny.model(), dataset, tmp_path / "run")), by_epoch)
    full.default_hooks.checkpoint["out_dir"] = str(tmp_path / "elsewhere")
    Runner.from_cfg(full).train()
    checkpoints = sorted((tmp_path / "elsewhere/run").glob("*.pth"))
    assert [path.name for path in checkpoints] == (["epoch_1.pth"] if by_epoch else ["iter_2.pth", "iter_4.pth"])
    for path in checkpoints:
        assert path.with_suffix(".rankseg.json").exists()
    latest = checkpoints[-1].with_suffix(".rankseg.json")
    assert [path.name for path in (tmp_path / "run").glob("*.json")] == ["rankseg.json"]
    assert read(tmp_path / "run/rankseg.json") == read(latest)


@pytest.mark.parametrize("template", [None, "weights_{}.pth"])
def test_iterations_name_the_file_also_where_checkpoints_count_epochs(dataset, tmp_path, template):
    full = with_training(with_hook(tiny.config(tiny.model(), dataset, tmp_path)))
    full.default_hooks.checkpoint = {"type": "CheckpointHook", "filename_tmpl": template}
    Runner.from_cfg(full).train()
    start = "weights" if template else "iter"
    names = [f"{start}_2.rankseg.json", f"{start}_4.rankseg.json", "rankseg.json"]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == sorted(names)


def test_validation_alone_is_named_after_the_checkpoint_and_reports_as_before(dataset, tmp_path, checkpoint):
    full = with_training(with_hook(tiny.config(tiny.model(), dataset, tmp_path / "tuned")))
    full.log_level = "INFO"
    metrics, runner = validate(full, checkpoint)
    assert isinstance(runner._train_loop, dict)  # no training loop was built for the sake of a step
    found = read(tmp_path / "tuned/rankseg.json")
    assert found == read(tmp_path / "tuned/zoo_model.rankseg.json")
    evidence = found["evidence"]
    assert evidence["images"] == 7
    (log,) = (tmp_path / "tuned").glob("*/*.log")
    assert f"RankSEG tuned on 7 images: {evidence['verdict']}" in log.read_text()
    assert f"model.test_cfg.rankseg.tuned={tmp_path / 'tuned/zoo_model.rankseg.json'}" in log.read_text()
    (scalars,) = (tmp_path / "tuned").glob("*/vis_data/scalars.json")
    first = json.loads(scalars.read_text().splitlines()[0])
    assert [first[f"rankseg/{name}"] for name in ("gain", "gain_low", "gain_high")] == [
        evidence["gain"],
        *evidence["interval"],
    ]
    untuned = with_hook(tiny.config(tiny.model(), dataset, tmp_path / "untuned"))
    untuned.custom_hooks = []
    assert validate(untuned, checkpoint)[0] == metrics
    assert not list((tmp_path / "untuned").glob("*.json"))


def test_the_file_then_decides(dataset, tmp_path, checkpoint):
    """Not argmax, so that it shows."""
    validate(with_hook(tiny.config(tiny.model(), dataset, tmp_path)), checkpoint)
    path = str(tmp_path / "rankseg.json")
    decoder = TunedDecoder.load(path)
    assert not decoder.is_argmax
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    _, samples = tiny.evaluate(tiny.config(tiny.model(DOTTED, rankseg={"tuned": path}), dataset, tmp_path), state)
    changed = 0
    for sample in samples:
        logits, labels = sample["seg_logits"]["data"], sample["pred_sem_seg"]["data"]
        assert torch.equal(labels, decoder(logits[None].softmax(1)))
        changed += (labels != logits.argmax(0)).sum()
    assert changed > 0


@pytest.mark.parametrize("kind", ["EncoderDecoder", DOTTED])
def test_one_channel(tmp_path, kind):
    data = tiny.write_dataset(tmp_path, classes=2)
    network = tiny.model(kind, 2, 1, None if kind == "EncoderDecoder" else {"metric": "dice", "activation": "sigmoid"})
    state = tiny.build(tiny.model("EncoderDecoder", 2, 1)).state_dict()
    weights = tmp_path / "one.pth"
    torch.save({"meta": {}, "state_dict": state}, weights)
    full = with_hook(tiny.config(network, data, tmp_path / "run", classes=tiny.CLASSES[:2]), objective="iou_dataset")
    validate(full, str(weights))
    expected = plain(samples_of(data, tmp_path / "plain", state, 2, 1), objective="iou_dataset")
    assert expected["options"]["output_mode"] == "multilabel"
    assert read(tmp_path / "run/one.rankseg.json") == expected


def test_reduce_zero_label_and_every_option(tmp_path):
    """Labels as the pipeline made them; cases by a pattern; scoring and candidates as asked."""
    data = tiny.write_dataset(tmp_path, count=12)
    state = tiny.build(tiny.model(classes=3)).state_dict()
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "three.pth")

    def reduce_zero_label(full):
        full.test_dataloader.dataset.reduce_zero_label = True

    full = tiny.config(tiny.model(classes=3), data, tmp_path / "run", classes=tiny.CLASSES[:3])
    reduce_zero_label(full)
    search = {"temperatures": [0.5, 1.0], "pruning_probs": [0.2], "metrics": ["dice", "iou"], "solvers": ["exact"]}
    finish = {"confidence": 0.5, "seed": 3}
    scoring = {"present": "label", "absent": "zero", "excluded": [0]}
    full = with_hook(full, group_by="[0-9](?=[.]png)", **search, **finish, **scoring)  # 00 and 10, 01 and 11
    validate(full, str(tmp_path / "three.pth"))
    samples = samples_of(data, tmp_path / "plain", state, 3, edit=reduce_zero_label)
    assert all((sample.labels == 255).any() for sample in samples)
    cases = [Sample(each.name, each.probs, each.labels, Path(each.name).stem[-1]) for each in samples]
    assert len({each.case for each in cases}) == 10
    expected = plain(cases, **search, **finish, scoring=Scoring("dice", "label", "zero", (0,)))
    assert read(tmp_path / "run/rankseg.json") == expected


def test_windows_of_one_file_count_each_with_any_number_of_processes(forks, dataset, tmp_path, checkpoint):
    """21 windows of seven files on two processes: one is shown to both. Windows of one file are one case."""
    full = with_hook(tiny.in_windows(tiny.config(tiny.model(), dataset, tmp_path / "one", batch_size=1)))
    validate(full, checkpoint)
    state = torch.load(checkpoint, weights_only=False)["state_dict"]
    samples = samples_of(dataset, tmp_path / "plain", state, edit=tiny.in_windows)
    numbered = [
        Sample(f"{each.name} ({index % 3})", each.probs, each.labels, case=each.name)
        for index, each in enumerate(samples)
    ]
    found = read(tmp_path / "one/rankseg.json")
    assert found["evidence"]["images"] == len({each.name for each in numbered}) == 21
    assert found == plain(numbered)

    full.work_dir = str(tmp_path / "two")
    full.dump(str(tmp_path / "config.py"))
    output = tmp_path / "scores.json"
    done = forks.run([tiny.DISTRIBUTED, tmp_path / "config.py", checkpoint, output, "val"], tmp_path, world=2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert read(output)["batches"] == 11
    assert read(tmp_path / "two/rankseg.json") == found


def test_each_validation_begins_anew(dataset, tmp_path, checkpoint):
    full = with_hook(tiny.config(tiny.model(), dataset, tmp_path))
    _, runner = validate(full, checkpoint)
    first = read(tmp_path / "rankseg.json")
    (tmp_path / "rankseg.json").unlink()
    runner.val_loop.run()
    assert read(tmp_path / "rankseg.json") == first


def test_reached_by_its_dotted_path():
    assert HOOKS.get(PATH + "RankSEGTuningHook") is RankSEGTuningHook is HOOKS.get("RankSEGTuningHook")
    assert ROOT_HOOKS.get(PATH + "RankSEGTuningHook") is RankSEGTuningHook
    assert issubclass(RankSEGTuningHook, Hook)


def begin_training(full):
    runner = Runner.from_cfg(full)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, RankSEGTuningHook))
    hook.before_train(runner)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objectiv": "dice_image"}, "option of RankSEGTuningHook must be one of 'temperatures', .*got 'objectiv'"),
        ({"num_classes": 4}, "got 'num_classes'"),
        ({"aggregation_levels": ["global"]}, "got 'aggregation_levels'"),
        ({"group_by": "("}, "group_by must be a regular expression, got '\\('"),
        ({"present": "truth"}, "present must be one of"),
        ({"objective": "f1_image"}, "objective must be one of .*'iou_dataset'.*got 'f1_image'"),
        ({"pruning_probs": [2.0]}, "pruning_probs must be in"),
        ({"temperatures": []}, "temperatures must hold at least one value"),
        ({"folds": 1}, "folds must be an integer of at least 2"),
        ({"excluded": [4]}, "excluded classes must lie in 0 to 3, got 4"),
    ],
)
def test_bad_options_are_refused_before_any_work(dataset, tmp_path, options, words):
    full = with_hook(tiny.config(tiny.model(), dataset, tmp_path), **options)
    full.val_dataloader.dataset.data_root = "/nowhere"  # never read
    with pytest.raises(ValueError, match=words):
        begin_training(full)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"confidence": 95}, ValueError, "confidence must be in"),
        ({"confidence": "a"}, TypeError, "confidence must be a real number, got str"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_options_of_the_intervals_are_refused_when_it_is_built(options, kind, words):
    with pytest.raises(kind, match=words):
        RankSEGTuningHook(**options)


def test_scipy_is_missed_when_it_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ImportError, match=r"needs 'scipy\.stats'"):
        RankSEGTuningHook()


def test_testing_is_left_alone(dataset, tmp_path):
    """A config with the hook is tested as ever, also by the wrapper of test-time augmentation."""
    views = [[{"type": "Resize", "scale": tiny.SCALE}], [{"type": "LoadAnnotations"}], [{"type": "PackSegInputs"}]]
    module = tiny.model(DOTTED, rankseg=ON)
    full = with_hook(tiny.config({"type": PATH + "RankSEGTTAModel", "module": module}, dataset, tmp_path, batch_size=1))
    augmented = [{"type": "LoadImageFromFile"}, {"type": "TestTimeAug", "transforms": views}]
    full.test_dataloader.dataset.pipeline = augmented
    _, samples = tiny.evaluate(full)
    assert len(samples) == 7
    assert not list(tmp_path.glob("*.json"))


def test_a_training_without_validation_is_refused(dataset, tmp_path):
    full = with_training(with_hook(tiny.config(tiny.model(), dataset, tmp_path)))
    full.val_dataloader = full.val_evaluator = full.val_cfg = None
    with pytest.raises(ValueError, match="tunes when a run validates, and the config has no val_dataloader"):
        Runner.from_cfg(full).train()


def test_images_without_truth_are_refused(dataset, tmp_path):
    full = with_hook(tiny.config(tiny.model(), dataset, tmp_path, evaluator={"type": "KeepSamples"}))
    full.val_dataloader.dataset.pipeline.pop(2)
    with pytest.raises(ValueError, match=r"no ground truth for .*00\.png: RankSEGTuningHook needs LoadAnnotations"):
        validate(full)


def test_images_without_a_path_are_refused(dataset, tmp_path):
    full = with_hook(tiny.config(tiny.model(), dataset, tmp_path, evaluator={"type": "KeepSamples"}))
    full.val_dataloader.dataset.pipeline[3]["meta_keys"] = ("ori_shape", "img_shape")
    with pytest.raises(ValueError, match="names images and cases by img_path"):
        validate(full)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda loading: loading.pop(2), "no ground truth for .*00\\.png: RankSEGTuningHook needs LoadAnnotations"),
        (lambda loading: loading[3].update(meta_keys=("ori_shape",)), "names images and cases by img_path"),
        (
            lambda loading: loading.insert(1, loading.pop(2)),
            r"00\.png: the ground truth must have the size of the image",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused_before_a_training(dataset, tmp_path, edit, words):
    full = with_training(with_hook(tiny.config(tiny.model(), dataset, tmp_path)))
    edit(full.val_dataloader.dataset.pipeline)
    with pytest.raises(ValueError, match=words):
        Runner.from_cfg(full).train()
    assert not list(tmp_path.glob("*.pth"))


def test_a_pattern_that_does_not_match_a_later_image_is_refused_before_a_training(dataset, tmp_path):
    full = with_training(with_hook(tiny.config(tiny.model(), dataset, tmp_path), group_by="0[0-5][.]png"))
    with pytest.raises(ValueError, match=r"group_by '0\[0-5\]\[\.\]png' does not match the name .*06\.png"):
        Runner.from_cfg(full).train()


def test_options_that_a_stock_model_ignores_are_told(dataset, tmp_path, checkpoint):
    full = with_hook(tiny.config(tiny.model(rankseg=ON), dataset, tmp_path))
    words = r"model\.test_cfg\.rankseg=.* has no effect: EncoderDecoder .*Set model\.type to a RankSEG segmentor"
    with pytest.warns(UserWarning, match=words):
        validate(full, checkpoint)


@pytest.mark.parametrize("kind", [bytes, Path])
def test_paths_of_any_kind(dataset, tmp_path, checkpoint, kind):
    full = with_hook(tiny.config(tiny.model(), dataset, tmp_path), group_by="0[0-9]")
    full.val_dataloader.dataset.pipeline.insert(3, {"type": "PathsAs", "kind": kind.__name__})
    validate(full, checkpoint)
    assert read(tmp_path / "rankseg.json")["evidence"]["images"] == 7


@pytest.mark.parametrize(("pattern", "how"), [("drive[0-9]+", "does not match"), ("[0-9]*", "has an empty match in")])
def test_a_pattern_that_does_not_match_names_the_image(dataset, tmp_path, pattern, how):
    full = with_hook(tiny.config(tiny.model(), dataset, tmp_path), group_by=pattern)
    with pytest.raises(ValueError, match=re.escape(f"group_by {pattern!r} {how} the name") + r".*00\.png"):
        validate(full)


def test_truth_of_another_size_names_the_image(dataset, tmp_path):
    full = with_hook(tiny.config(tiny.model(), dataset, tmp_path, evaluator={"type": "KeepSamples"}))
    loading = full.val_dataloader.dataset.pipeline
    loading[1], loading[2] = loading[2], loading[1]  # labels are resized like the image
    with pytest.raises(ValueError, match=r"00\.png \(no\. 0+\): "):
        validate(full)


def test_a_training_that_names_the_file_it_is_to_write_is_told_so(dataset, tmp_path):
    """The model reads it when it is built. Without the key the same config trains and writes it."""
    network = tiny.model(DOTTED, rankseg={"tuned": str(tmp_path / "rankseg.json")})
    full = with_training(with_hook(tiny.config(network, dataset, tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"tuned='.*rankseg\.json': no such file .* leave the key out to train"):
        Runner.from_cfg(full)
    del full.model.test_cfg.rankseg
    full.experiment_name = full.visualizer.name = "without the key"
    Runner.from_cfg(full).train()
    assert (tmp_path / "rankseg.json").exists()
