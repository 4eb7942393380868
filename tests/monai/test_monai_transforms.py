"""RankSEG as a transform of MONAI: labels of the core, meta data kept, chains that end in files."""

import numpy as np
import pytest
import torch
from toolkits import is_installed

if not is_installed("monai"):
    pytest.skip("MONAI is not installed", allow_module_level=True)

from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import sliding_window_inference
from monai.metrics import DiceMetric
from monai.transforms import (
    Activationsd,
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    ScaleIntensityd,
    Spacingd,
)

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, rankseg
from rankseg_plugins import RankSEG as Plain
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.monai import RankSEG, RankSEGD, RankSEGd, RankSEGDict
from rankseg_plugins.scores import areas, levels


def draw(*shape, seed=0, classes=3):
    """Logits of one image that are unsure, so that decisions differ."""
    return torch.randn(classes, *shape, generator=torch.Generator().manual_seed(seed)) * 1.5


def tuned(tmp_path, classes=3):
    path = tmp_path / "decoder.json"
    TunedDecoder(Plain("iou", pruning_prob=0.1), classes, temperature=0.7).save(path)
    return path


@pytest.mark.parametrize("shape", [(9,), (12, 10), (5, 6, 7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_labels_of_the_core(shape, dtype):
    logits = draw(*shape).to(dtype)
    probs = logits.unsqueeze(0).to(torch.float64 if dtype == torch.float64 else torch.float32).softmax(1)
    expected = rankseg(probs)
    assert not torch.equal(expected, probs.argmax(1))
    for found in (RankSEG(activation="softmax")(logits), RankSEG()(probs[0])):
        assert found.dtype == torch.float32
        assert found.shape == (1, *shape)
        torch.testing.assert_close(found.as_tensor(), expected.float(), rtol=0, atol=0)


def test_every_decoder(tmp_path):
    logits = draw(16, 16)
    batch = logits.unsqueeze(0)
    pooled = GlobalRankSEG(3, min_images=0, min_gain=0)
    pooled.update(batch.softmax(1))
    pooled.fit()
    presence = PresenceRankSEG(3, frequencies=[1.0, 0.9, 0.2])
    file = tuned(tmp_path)
    for decoder, expected in (
        (Plain("iou"), Plain("iou").predict_logits(batch)),
        (pooled, pooled.predict_logits(batch)),
        (presence, presence.predict_logits(batch)),
        (file, TunedDecoder.load(file).predict_logits(batch)),
        (lambda probs: probs.argmax(1), batch.argmax(1)),
    ):
        found = RankSEG(decoder, activation="softmax")(logits)
        torch.testing.assert_close(found.as_tensor(), expected.float(), rtol=0, atol=0)


def test_masks():
    """Of labels, as DiceMetric takes them; of channels that overlap; and of one channel."""
    logits = draw(8, 9)
    labels = rankseg(logits.softmax(0)[None])[0]
    found = RankSEG(activation="softmax", to_onehot=3, dtype=torch.uint8)(logits)
    assert found.dtype == torch.uint8
    assert torch.equal(found.as_tensor(), AsDiscrete(to_onehot=3, dtype=torch.uint8)(labels[None]).as_tensor())

    void, unsure = Plain(unassigned_policy="void", void_index=255), draw(16, 16) * 5
    unsure[:, :2, :2] = 0
    nowhere = RankSEG(void, activation="softmax")(unsure)[0] == 255
    assert nowhere.any()
    assert torch.equal(RankSEG(void, activation="softmax", to_onehot=3)(unsure).sum(0) == 0, nowhere)

    for channels in (3, 1):
        overlapping = Plain(output_mode="multilabel")
        found = RankSEG(overlapping, activation="sigmoid")(logits[:channels])
        assert torch.equal(found.as_tensor().bool(), overlapping(logits[None, :channels].sigmoid())[0])


def test_arrays_and_meta_data():
    """As AsDiscrete hands them on, which MONAI's other transforms rely on."""
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    image = MetaTensor(draw(4, 5, 6), affine=affine, meta={"filename_or_obj": "a.nii.gz"})
    found = RankSEG(activation="softmax")(image)
    assert isinstance(found, MetaTensor)
    assert torch.equal(found.affine, affine)
    assert found.meta["filename_or_obj"] == "a.nii.gz"
    assert image.shape == (3, 4, 5, 6), "the image that was given is left as it was"

    array = draw(4, 5).softmax(0).numpy()
    found, theirs = RankSEG()(array), AsDiscrete(argmax=True)(array)
    assert type(found) is type(theirs)
    assert found.dtype == theirs.dtype
    assert found.shape == theirs.shape


def test_dictionaries():
    first, second = draw(6, 6, seed=1), draw(6, 6, seed=2).softmax(0)
    data = {"a": first, "b": second, "image": 3}
    found = RankSEGd(["a", "b"], [Plain("iou"), None], activation=["softmax", "identity"], to_onehot=[None, 3])(data)
    assert torch.equal(found["a"].as_tensor(), rankseg(first.softmax(0)[None], metric="iou").float())
    assert found["b"].shape == (3, 6, 6)
    assert found["image"] == 3
    assert data["a"] is first
    assert RankSEGD is RankSEGd is RankSEGDict
    assert RankSEGd(["a", "c"], allow_missing_keys=True, activation="softmax")(data)["b"] is second
    with pytest.raises(KeyError, match="c"):
        RankSEGd("c")(data)


def make_volume(tmp_path, nibabel):
    """An image on disk in another orientation and spacing than the network sees it in."""
    values = np.random.default_rng(0).random((18, 14, 10)).astype(np.float32)
    affine = np.array([[0, -1.5, 0, 10], [2.0, 0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    path = tmp_path / "patient_7.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path, affine


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI's and nibabel's own
@pytest.mark.parametrize("order", ["probabilities inverted", "labels inverted"])
def test_a_chain_from_file_to_file(tmp_path, order):
    """Sliding windows, decollated, inverted to the grid of the file, decided, saved: the labels of the core."""
    nibabel = pytest.importorskip("nibabel", reason="files of volumes need NiBabel")
    path, affine = make_volume(tmp_path, nibabel)
    prepare = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(2.0, 2.0, 2.0)),
            ScaleIntensityd("image"),
        ]
    )
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 3, 3, padding=1)
    network.weight.data *= 8
    batch = list_data_collate([prepare({"image": str(path)})])
    with torch.no_grad():
        batch["pred"] = sliding_window_inference(batch["image"], (8, 8, 8), 2, network, overlap=0.25)
    decide = RankSEGd("pred", Plain("iou"))
    invert = Invertd("pred", prepare, orig_keys="image", nearest_interp=order == "labels inverted", to_tensor=True)
    middle = [invert, decide] if order == "probabilities inverted" else [decide, invert]
    seen = {}

    def remember(data):
        seen["probs"] = data["pred"].clone()
        return data

    finish = Compose(
        [
            Activationsd("pred", softmax=True),
            *(middle[:1] if order == "probabilities inverted" else []),
            remember,
            *(middle[1:] if order == "probabilities inverted" else middle),
            SaveImaged(
                "pred", output_dir=tmp_path / "out", output_postfix="seg", separate_folder=False, print_log=False
            ),
        ]
    )
    (result,) = [finish(each) for each in decollate_batch(batch)]
    saved = nibabel.load(tmp_path / "out" / "patient_7_seg.nii.gz")
    np.testing.assert_allclose(saved.affine, affine, atol=1e-5)
    assert saved.shape == (18, 14, 10)
    np.testing.assert_array_equal(np.asarray(saved.dataobj), result["pred"][0].numpy())
    decided = rankseg(seen["probs"].as_tensor().unsqueeze(0), metric="iou")
    assert len(decided.unique()) > 1
    assert (decided != seen["probs"].as_tensor().argmax(0)).any()
    if order == "probabilities inverted":
        np.testing.assert_array_equal(np.asarray(saved.dataobj), decided[0].numpy())
    else:
        assert set(np.unique(np.asarray(saved.dataobj))) <= {0, 1, 2}


def test_dice_of_monai_is_ours():
    images = [draw(16, 16, seed=seed) for seed in range(4)]
    truth = [draw(16, 16, seed=10 + seed).argmax(0, keepdim=True) for seed in range(4)]
    decide, to_masks = RankSEG(activation="softmax", to_onehot=3), AsDiscrete(to_onehot=3)
    metric = DiceMetric(reduction="none")
    metric([decide(each) for each in images], [to_masks(each) for each in truth])
    decided = torch.cat([rankseg(each.softmax(0)[None]) for each in images])
    counts = areas(decided, torch.cat(truth), 3)
    np.testing.assert_allclose(levels.entries(counts, levels.dice), metric.aggregate(), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"activation": "relu"}, "activation must be one of"),
        ({"to_onehot": 0}, "to_onehot must be"),
        ({"to_onehot": True}, "to_onehot must be"),
        ({"dtype": "float"}, r"dtype must be a torch.dtype, got 'float'"),
        ({"decoder": 3}, "decoder must be a RankSEG"),
        ({"decoder": Plain(output_mode="multilabel"), "to_onehot": 3}, "leave it out"),
        ({"decoder": TunedDecoder(Plain(), 4), "to_onehot": 3}, "num_classes=4, got num_classes=3"),
    ],
    ids=str,
)
def test_options_that_are_refused(options, problem):
    with pytest.raises((TypeError, ValueError), match=problem):
        RankSEG(**options)
    with pytest.raises((TypeError, ValueError), match=problem):
        RankSEGd("pred", **options)


def test_images_that_are_refused(tmp_path):
    batch = list_data_collate([{"pred": MetaTensor(draw(4, 4).softmax(0))} for _ in range(2)])
    with pytest.raises(ValueError, match=r"key 'pred': transforms take one image, got a batch \(2, 3, 4, 4\)"):
        RankSEGd("pred")(batch)
    with pytest.raises(TypeError, match="not the transform"):
        RankSEGd("pred", RankSEG())
    with pytest.raises(TypeError, match="must be float16"):
        RankSEG()(torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        RankSEG()(draw(4, 4))
    with pytest.raises(ValueError, match="to_onehot=4, but the image has 3 channels"):
        RankSEG(activation="softmax", to_onehot=4)(draw(4, 4))
    with pytest.raises(ValueError, match=r"key 'pred': .*3"):
        RankSEGd("pred", tuned(tmp_path, classes=4), activation="softmax")({"pred": draw(4, 4)})
    with pytest.raises(ValueError, match="activation must be one for all keys or one for each of 2, got 3"):
        RankSEGd(["a", "b"], activation=["softmax"] * 3)
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        RankSEGd("pred", tmp_path / "gone.json")
