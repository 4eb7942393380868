"""nnU-Net's predictor with RankSEG: all as nnU-Net does it but the decision."""

import nibabel
import numpy as np
import pytest
import torch
from toolkits import is_installed

if not is_installed("nnunetv2"):
    pytest.skip("nnU-Net is not installed", allow_module_level=True)

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling import plans_handler
from tiny_nnunet import REGIONS, make_image, make_model

from rankseg_plugins import PresenceRankSEG, RankSEG, rankseg
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.nnunet import RankSEGPredictor

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet")]


@pytest.fixture
def quiet(monkeypatch, tmp_path):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))


def start(predictor, model):
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    return predictor


def ours(model, decoder=None):
    return start(RankSEGPredictor(device=torch.device("cpu"), allow_tqdm=False, decoder=decoder), model)


def stock(model):
    return start(nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False), model)


def predict(predictor, image, out, save_probabilities=False):
    """The labels that it wrote, and the affine of the file."""
    predictor.predict_from_files_sequential([[str(image)]], [str(out)], save_probabilities, overwrite=True)
    written = nibabel.load(f"{out}.nii.gz")
    return np.asarray(written.dataobj), written.affine


READERS = ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("save_probabilities", [False, True])
def test_the_file_lies_as_the_image(tmp_path, reader, save_probabilities):
    """Whatever class read it; and the labels are those of the core on the probabilities that nnU-Net saves."""
    model, image = make_model(tmp_path / "model", reader=reader), tmp_path / "case_0000.nii.gz"
    affine = make_image(image)
    decoder = RankSEG("dice", pruning_prob=0.1)
    labels, lies = predict(ours(model, decoder), image, tmp_path / "ours", save_probabilities)
    theirs, as_stock = predict(stock(model), image, tmp_path / "theirs", True)
    np.testing.assert_allclose(lies, as_stock)
    np.testing.assert_allclose(lies, affine, atol=1e-5)
    assert labels.shape == theirs.shape == (20, 24, 14)
    assert (labels != theirs).any()

    argmax, _ = predict(ours(model, RankSEG("acc")), image, tmp_path / "argmax", save_probabilities)
    np.testing.assert_array_equal(argmax, theirs)

    # Inside of the crop, which is all that nnU-Net saw, and in the order in which the file lies.
    probs = np.load(tmp_path / "theirs.npz")["probabilities"]
    inside = np.zeros(labels.shape, bool)
    inside[3:18, 2:22, 2:13] = True
    saved = np.stack([_as_file(channel, tmp_path / "theirs.nii.gz", reader) for channel in probs])
    crop = saved[:, 3:18, 2:22, 2:13]
    expected = np.zeros(labels.shape, int)
    expected[3:18, 2:22, 2:13] = rankseg(torch.from_numpy(crop[None]), metric="dice", pruning_prob=0.1)[0].numpy()
    assert (labels != expected).mean() < 1e-3  # ties of probabilities that float32 rounds


def _as_file(channel, path, reader):
    """An array of nnU-Net's as the image on disk lies."""
    if reader.endswith("WithReorient"):
        image = nibabel.load(path)
        turned = nibabel.as_closest_canonical(image)
        back = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(turned.affine), nibabel.io_orientation(image.affine)
        )
        return nibabel.orientations.apply_orientation(channel.transpose(2, 1, 0), back)
    return channel.transpose(2, 1, 0)


@pytest.mark.parametrize("ignore", [False, True])
def test_regions(tmp_path, ignore):
    """Each is decided on, and the later one of their order lies above."""
    model, image = make_model(tmp_path / "model", REGIONS, ignore=ignore), tmp_path / "case_0000.nii.gz"
    make_image(image)
    predictor = ours(model)
    labels, _ = predict(predictor, image, tmp_path / "ours")
    theirs, _ = predict(stock(model), image, tmp_path / "theirs")
    assert set(np.unique(labels)) <= {0, 1, 2}
    assert (labels != theirs).any()
    threshold, _ = predict(ours(model, RankSEG("acc", output_mode="multilabel")), image, tmp_path / "half")
    np.testing.assert_array_equal(threshold, theirs)

    logits = torch.randn(2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    masks = RankSEG(output_mode="multilabel")(logits.sigmoid()[None])[0]
    expected = torch.where(masks[1], 2, masks[0].long())
    manager = predictor.label_manager
    assert torch.equal(manager.convert_logits_to_segmentation(logits).long(), expected)
    found = manager.convert_logits_to_segmentation(logits.half().numpy())
    assert isinstance(found, np.ndarray)
    assert (found != expected.numpy()).mean() < 0.01


def test_every_decoder_and_the_processes_that_export(tmp_path):
    model, image = make_model(tmp_path / "model", ignore=True), tmp_path / "case_0000.nii.gz"
    make_image(image)
    path = tmp_path / "decoder.json"
    TunedDecoder(PresenceRankSEG(3, frequencies=[1.0, 1.0, 0.6]), 3, temperature=0.8).save(path)
    predictor = ours(model, path)
    labels, _ = predict(predictor, image, tmp_path / "ours")
    predictor.predict_from_files([[str(image)]], [str(tmp_path / "spawned")], False, True, 1, 1)
    np.testing.assert_array_equal(np.asarray(nibabel.load(tmp_path / "spawned.nii.gz").dataobj), labels)
    logits = torch.randn(3, 8, 9, 10, generator=torch.Generator().manual_seed(0))
    expected = TunedDecoder.load(path).predict_logits(logits[None])[0]
    assert torch.equal(predictor.label_manager.convert_logits_to_segmentation(logits), expected)


def test_another_activation(tmp_path):
    """Of nnU-Net's; the result is of the kind of the input all the same."""
    logits = torch.randn(3, 6, 7, generator=torch.Generator().manual_seed(0))
    manager = ours(make_model(tmp_path / "model")).label_manager
    manager.inference_nonlin = lambda given: (2 * given).softmax(0)
    expected = rankseg((2 * logits).softmax(0)[None])[0]
    assert torch.equal(manager.convert_logits_to_segmentation(logits), expected)
    np.testing.assert_array_equal(manager.convert_logits_to_segmentation(logits.numpy()), expected)


def test_two_folds_are_averaged_first(tmp_path):
    model, image = make_model(tmp_path / "model"), tmp_path / "case_0000.nii.gz"
    make_image(image)
    (model / "fold_1").mkdir()
    weights = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    weights["network_weights"] = {name: -value for name, value in weights["network_weights"].items()}
    torch.save(weights, model / "fold_1" / "checkpoint_final.pth")
    found = []
    for predictor in (
        RankSEGPredictor(device=torch.device("cpu"), allow_tqdm=False, decoder=RankSEG("acc")),
        nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False),
    ):
        predictor.initialize_from_trained_model_folder(str(model), (0, 1))
        found.append(predict(predictor, image, tmp_path / f"out_{len(found)}")[0])
    np.testing.assert_array_equal(*found)


def write_picture(path, values):
    pytest.importorskip("PIL.Image").fromarray(values).save(path)


def write_stack(path, values):
    pytest.importorskip("tifffile").imwrite(path, values)


def read_labels(path):
    if path.suffix == ".png":
        return np.array(pytest.importorskip("PIL.Image").open(path))
    return pytest.importorskip("tifffile").imread(path)


@pytest.mark.parametrize(
    ("reader", "ending", "shape", "write"),
    [("NaturalImage2DIO", ".png", (21, 26), write_picture), ("Tiff3DIO", ".tif", (12, 21, 26), write_stack)],
)
def test_files_without_an_orientation(tmp_path, reader, ending, shape, write):
    """Pictures, which nnU-Net gives a first axis of length 1, and stacks: they lie as they were read."""
    model, image = make_model(tmp_path / "model", reader=reader, file_ending=ending), tmp_path / f"case_0000{ending}"
    write(image, (np.random.default_rng(0).random(shape) * 250 + 1).astype(np.uint8))
    found, decoder = {}, RankSEG("dice", pruning_prob=0.1)
    for name, predictor in (
        ("ours", ours(model, decoder)),
        ("argmax", ours(model, RankSEG("acc"))),
        ("theirs", stock(model)),
    ):
        out = [str(tmp_path / name)]
        predictor.predict_from_files_sequential(
            [[str(image)]], out, save_probabilities=name == "theirs", overwrite=True
        )
        found[name] = read_labels(tmp_path / f"{name}{ending}")
    np.testing.assert_array_equal(found["argmax"], found["theirs"])
    assert (found["ours"] != found["theirs"]).any()
    probs = torch.from_numpy(np.load(tmp_path / "theirs.npz")["probabilities"])
    expected = rankseg(probs[None], metric="dice", pruning_prob=0.1)[0].numpy()
    assert (found["ours"].reshape(expected.shape) != expected).mean() < 1e-3  # ties that float32 rounds


def test_what_is_refused(tmp_path):
    model = make_model(tmp_path / "labels")
    regions = make_model(tmp_path / "regions", REGIONS)
    with pytest.raises(TypeError, match="decoder must be a RankSEG"):
        RankSEGPredictor(device=torch.device("cpu"), decoder=3)
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        RankSEGPredictor(device=torch.device("cpu"), decoder=tmp_path / "gone.json")
    with pytest.raises(ValueError, match="regions, which overlap: decoder must have output_mode='multilabel'"):
        ours(regions, RankSEG())
    with pytest.raises(ValueError, match="do not overlap: decoder must have output_mode='multiclass'"):
        ours(model, RankSEG(output_mode="multilabel"))
    with pytest.raises(ValueError, match="no label for pixels without a class"):
        ours(model, RankSEG(unassigned_policy="void"))
    with pytest.raises(ValueError, match="num_classes=4, got num_classes=3"):
        ours(model, TunedDecoder(RankSEG(), 4))


def test_a_label_manager_of_its_own_is_refused(tmp_path, monkeypatch):
    class Own(LabelManager):
        pass

    monkeypatch.setattr(plans_handler, "get_labelmanager_class_from_plans", lambda plans: Own)
    with pytest.raises(ValueError, match="a label manager of their own, Own"):
        ours(make_model(tmp_path / "model"))
