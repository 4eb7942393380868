"""The pictures of the callback, and the loggers they go to."""

import importlib
import io
import struct
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("matplotlib")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

from lightning_nets import CLASSES, loader, network
from PIL import Image

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.comparison.pictures.colours import LEGEND, VOID_COLOUR
from rankseg_plugins.lightning import RankSEGCallback
from rankseg_plugins.lightning import figures as module

DECODER = RankSEG(metric="dice")


def callback(**options):
    return RankSEGCallback(DECODER, **{"num_classes": CLASSES, "log_images": 2, **options})


def bare_logger(package, **members):
    """A logger of the user that takes numbers; more by ``members``."""
    base = importlib.import_module(f"{package}.loggers").Logger
    members = {"name": "mine", "version": "0", "log_metrics": _nothing, "log_hyperparams": _nothing, **members}
    return type("Mine", (base,), members)()


def _nothing(self, *args, **kwargs):
    return None


def test_the_most_changed_images_are_drawn(segmenter, make_trainer, package, monkeypatch):
    drawn = []
    monkeypatch.setattr("rankseg_plugins.lightning.figures.draw", lambda example: drawn.append(example))
    model, data = segmenter(), loader(batch_size=2)
    logger = bare_logger(package, log_image=_nothing)
    monkeypatch.setattr("rankseg_plugins.lightning.figures.log_figure", lambda *args: True)
    make_trainer(callbacks=[callback(log_images=3)], logger=logger).validate(model, data, verbose=False)
    with torch.no_grad():
        probs = torch.cat([model(image).softmax(1) for image, _ in data])
    ours, argmax = rankseg(probs), probs.argmax(1)
    shares = (ours != argmax).double().flatten(1).mean(1)
    order = sorted(range(len(shares)), key=lambda index: (-shares[index], index))[:3]
    images = torch.cat([image for image, _ in data])
    truth = torch.cat([target for _, target in data])
    assert [example.changed for example in drawn] == pytest.approx([float(shares[index]) for index in order])
    for example, index in zip(drawn, order, strict=True):
        assert np.array_equal(example.rankseg, ours[index])
        assert np.array_equal(example.argmax, argmax[index])
        assert np.array_equal(example.truth, truth[index])
        grey = example.image[..., 0].astype(float)
        assert np.corrcoef(grey.ravel(), images[index, 0].ravel())[0, 1] > 0.999


def test_images_without_change_are_not_kept():
    most = module.MostChanged(3)
    same = torch.zeros(2, 4, 4, dtype=torch.long)
    most.add(torch.rand(2, 1, 4, 4), same, same, same)
    assert most.best() == []


def test_the_figure_has_five_panels():
    truth = np.array([[0, -1, 1, 1], [0, 0, 0, 0]])
    argmax, ours = np.array([[0, 0, 0, 1], [0, 0, 1, 0]]), np.array([[0, 1, 1, 0], [0, 0, 2, 0]])
    figure = module.draw(module.Example(0.5, np.full((2, 4, 3), 100, np.uint8), truth, argmax, ours))
    assert [axes.get_title() for axes in figure.axes] == ["image", "truth", "argmax", "RankSEG", "difference"]
    assert "50.00 % of the pixels changed" in figure.get_suptitle()
    array = module.as_array(figure)
    assert array.shape[2:] == (3,)
    for colour in (VOID_COLOUR, *LEGEND.values()):
        assert (array == colour).all(2).any()


def test_void_and_ignored_pixels_have_no_label(segmenter, make_trainer, package, monkeypatch):
    drawn = []
    monkeypatch.setattr("rankseg_plugins.lightning.figures.draw", lambda example: drawn.append(example))
    monkeypatch.setattr("rankseg_plugins.lightning.figures.log_figure", lambda *args: True)
    decoder = RankSEG(unassigned_policy="void", void_index=17, pruning_prob=0.9)
    one = RankSEGCallback(decoder, num_classes=CLASSES, ignore_index=0, log_images=1)
    model, data = segmenter(), loader(items=1)
    logger = bare_logger(package, log_image=_nothing)
    make_trainer(callbacks=[one], logger=logger).validate(model, data, verbose=False)
    (image, target), (shown,) = next(iter(data)), drawn
    with torch.no_grad():
        decided = decoder(model(image).softmax(1))[0].numpy()
    assert (decided == 17).any()
    assert np.array_equal(shown.rankseg, np.where(decided == 17, -1, decided))
    assert np.array_equal(shown.truth, np.where(target[0] == 0, -1, target[0]))


@pytest.mark.parametrize("size", [(14,), (4, 9, 10)])
def test_signals_and_the_plane_of_a_volume_with_most_changes(segmenter, make_trainer, package, monkeypatch, size):
    drawn = []
    monkeypatch.setattr("rankseg_plugins.lightning.figures.draw", lambda example: drawn.append(example))
    monkeypatch.setattr("rankseg_plugins.lightning.figures.log_figure", lambda *args: True)
    model, data = segmenter(network(dims=len(size))), loader(size=size, items=3)
    logger = bare_logger(package, log_image=_nothing)
    make_trainer(callbacks=[callback(log_images=1)], logger=logger).validate(model, data, verbose=False)
    (shown,) = drawn
    with torch.no_grad():
        probs = torch.cat([model(image).softmax(1) for image, _ in data])
    differ = rankseg(probs) != probs.argmax(1)
    most = int(differ.flatten(1).sum(1).argmax())
    expected = differ[most].unsqueeze(0) if len(size) == 1 else differ[most][differ[most].flatten(1).sum(1).argmax()]
    assert np.array_equal(shown.argmax != shown.rankseg, expected)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_of_any_number_of_channels_and_another_size(channels):
    most = module.MostChanged(1)
    zeros = torch.zeros(1, 6, 8, dtype=torch.long)
    most.add(torch.randn(1, channels, 12, 16), zeros, zeros, zeros + 1)
    (kept,) = most.best()
    assert kept.image.shape == (6, 8, 3)
    assert (kept.image[..., 0] == kept.image[..., 1]).all() == (channels != 3)
    assert (kept.image.min(), kept.image.max()) == (0, 255)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_images_that_hold_no_numbers_somewhere(odd):
    """The others keep their contrast."""
    most, image = module.MostChanged(2), torch.arange(6.0).view(1, 1, 2, 3)
    image[0, 0, 0, 1] = odd
    zeros = torch.zeros(1, 2, 3, dtype=torch.long)
    for each in (image, torch.full_like(image, odd)):
        most.add(each, zeros, zeros, zeros + 1)
    shown, blank = most.best()
    assert shown.image[..., 0].tolist() == [[0, 0, 102], [153, 204, 255]]
    assert not blank.image.any()


@pytest.mark.parametrize("decided_as", ["labels", "masks"])
@pytest.mark.parametrize("truth_as", ["labels", "masks"])
def test_labels_and_masks_are_drawn_alike(segmenter, make_trainer, package, monkeypatch, decided_as, truth_as):
    """Logits that say the truth in all pixels but one half: there argmax and the truth look the same."""
    drawn = []
    monkeypatch.setattr("rankseg_plugins.lightning.figures.draw", lambda example: drawn.append(example))
    monkeypatch.setattr("rankseg_plugins.lightning.figures.log_figure", lambda *args: True)

    def masks(batch):
        return torch.stack([batch[1] == c for c in range(CLASSES)], 1)

    def logits(outputs, batch):
        sure = torch.where(masks(batch), 4.0, -4.0)
        return torch.cat([sure[..., :6], 0.0 * sure[..., 6:] - torch.arange(CLASSES).view(-1, 1, 1) / 9], -1)

    one = RankSEGCallback(
        RankSEG(output_mode="multilabel" if decided_as == "masks" else "multiclass", pruning_prob=0.2),
        num_classes=CLASSES,
        logits=logits,
        target=lambda outputs, batch: masks(batch) if truth_as == "masks" else batch[1],
        activation="sigmoid" if decided_as == "masks" else "softmax",
        log_images=1,
    )
    trainer = make_trainer(callbacks=[one], logger=bare_logger(package, log_image=_nothing))
    overlap = (truth_as, decided_as) == ("labels", "masks")
    with pytest.warns(UserWarning, match="masks are decided, the truth is labels") if overlap else nullcontext():
        trainer.validate(segmenter(), loader(items=2), verbose=False)
    (shown,) = drawn
    assert len(np.unique(shown.truth[:, :6])) > 1
    assert np.array_equal(shown.truth[:, :6], shown.argmax[:, :6])
    assert (shown.argmax != shown.rankseg).any()


def test_pixels_that_a_mask_ignores_show_what_the_others_know():
    truth = torch.tensor([[[1, 1, 255, 255], [0, 255, 1, 0]]])  # 1 image, 2 masks, 4 pixels
    decided = torch.tensor([[[True, False, True, False], [False, True, True, True]]])
    maps = module.label_maps(truth, decided, decided, 2, 255)
    assert [each.tolist() for each in maps] == [[[1, 1, 2, -1]], [[1, 2, 3, 2]], [[1, 2, 3, 2]]]


def test_multilabel_and_binary(segmenter, make_trainer, package):
    received = []
    logger = bare_logger(package, log_image=lambda self, key, images, step: received.append(key))
    for classes, target in ((1, lambda o, b: (b[1] > 0).long()), (3, lambda o, b: torch.ones(len(b[1]), 3, 16, 12))):
        one = RankSEGCallback(
            RankSEG(output_mode="multilabel"), num_classes=classes, target=target, activation="sigmoid", log_images=1
        )
        model = segmenter(network(classes=classes, seed=5))
        make_trainer(callbacks=[one], logger=logger).test(model, loader(), verbose=False)
    assert received == ["test/rankseg/image/0"] * 2


# Loggers.


def test_weights_and_biases_style(segmenter, make_trainer, package):
    received = []

    def log_image(self, key, images, step=None):
        received.append((key, [image.shape[2] for image in images], images[0].dtype, step))

    logger = bare_logger(package, log_image=log_image)
    make_trainer(callbacks=[callback()], logger=logger).validate(segmenter(), loader(), verbose=False)
    assert received == [(f"val/rankseg/image/{index}", [3], np.uint8, 0) for index in (0, 1)]


def test_mlflow_style(segmenter, make_trainer, package):
    received = []

    class Client:
        def log_figure(self, run_id, figure, artifact_file):
            received.append((run_id, len(figure.axes), artifact_file))

    logger = bare_logger(package, run_id="r1", experiment=Client())
    make_trainer(callbacks=[callback(log_images=1)], logger=logger).validate(segmenter(), loader(), verbose=False)
    assert received == [("r1", 5, "val/rankseg/image/0_0.png")]


def test_comet_style(segmenter, make_trainer, package):
    received = []

    class Experiment:
        def log_figure(self, figure_name=None, figure=None, overwrite=False, step=None):
            received.append((figure_name, len(figure.axes), step))

    logger = bare_logger(package, experiment=Experiment())
    make_trainer(callbacks=[callback(log_images=1)], logger=logger).validate(segmenter(), loader(), verbose=False)
    assert received == [("val/rankseg/image/0", 5, 0)]


def images_in(folder):
    """What TensorBoard shows: (tag, step, RGB pixels) of every image in the event files below a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.rglob("events.*")):
        data = path.read_bytes()
        while data:
            # A record: length, its checksum, the event, its checksum.
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            for value in event.summary.value:
                if value.HasField("image"):
                    pixels = np.array(Image.open(io.BytesIO(value.image.encoded_image_string)).convert("RGB"))
                    found.append((value.tag, event.step, pixels))
    return found


def test_tensorboard(segmenter, make_trainer, package, tmp_path):
    logger = importlib.import_module(f"{package}.loggers").TensorBoardLogger(tmp_path)
    options = dict(max_epochs=2, num_sanity_val_steps=1, log_every_n_steps=1)
    trainer = make_trainer(callbacks=[callback(log_images=1)], logger=logger, **options)
    trainer.fit(segmenter(), loader(), loader())
    logger.finalize("success")
    shown = images_in(tmp_path)
    # One image for each epoch: after three batches, and after three more. None of the sanity check.
    assert [(tag, step) for tag, step, _ in shown] == [("val/rankseg/image/0", 3), ("val/rankseg/image/0", 6)]
    for *_, pixels in shown:
        assert any((pixels == colour).all(2).any() for colour in LEGEND.values())


def test_a_logger_without_images_is_no_reason_to_fail(segmenter, make_trainer, package, tmp_path):
    loggers = importlib.import_module(f"{package}.loggers")
    trainer = make_trainer(callbacks=[callback()], logger=loggers.CSVLogger(tmp_path))
    with pytest.warns(UserWarning, match=r"log_images=2, but no logger takes images \(loggers: CSVLogger\)"):
        trainer.validate(segmenter(), loader(), verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="log_images")
        trainer.validate(segmenter(), loader(), verbose=False)  # said once
    assert "val/rankseg/dice_image" in trainer.callback_metrics


def test_a_logger_that_stumbles_is_no_reason_to_fail(segmenter, make_trainer, package):
    def log_image(self, key, pictures):
        """A logger with another idea of the arguments."""

    trainer = make_trainer(callbacks=[callback()], logger=bare_logger(package, log_image=log_image))
    with pytest.warns(UserWarning, match=r"Mine did not take an image: TypeError: .*unexpected keyword"):
        trainer.validate(segmenter(), loader(), verbose=False)
    assert "val/rankseg/dice_image" in trainer.callback_metrics


def test_an_image_that_is_not_there(segmenter, make_trainer):
    trainer = make_trainer(callbacks=[callback(image="picture")])
    with pytest.raises(KeyError, match="image='picture' is in neither"):
        trainer.validate(segmenter(), loader(), verbose=False)
