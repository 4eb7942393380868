"""RankSEGPredictionWriter under the real Trainer; its files read back by independent readers."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

from lightning_nets import CLASSES, Blobs, loader, network

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.comparison.pictures.colours import class_colours
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter

DECODER = RankSEG(metric="dice")


def read_png(path):
    return np.array(pytest.importorskip("PIL.Image").open(path))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@torch.no_grad()
def decide(model, data):
    return torch.cat([rankseg(model(batch[0]).softmax(1)) for batch in data]).numpy()


def test_writes_palette_pngs_named_by_index(segmenter, make_trainer, tmp_path):
    image = pytest.importorskip("PIL.Image")
    model, data = segmenter(), loader(batch_size=3)
    predictions = make_trainer(callbacks=[RankSEGPredictionWriter(tmp_path / "out", DECODER)]).predict(model, data)
    assert [set(prediction) for prediction in predictions] == [{"logits"}] * 3
    assert files(tmp_path / "out") == [f"{index:06d}.png" for index in range(7)]
    for index, labels in enumerate(decide(model, data)):
        with image.open(tmp_path / "out" / f"{index:06d}.png") as png:
            assert png.mode == "P"
            assert np.array_equal(np.array(png), labels)
            assert np.array_equal(np.array(png.convert("RGB")), class_colours(CLASSES)[labels])


def test_own_palette_and_cv2(segmenter, make_trainer, tmp_path):
    cv2 = pytest.importorskip("cv2")
    palette = [(1, 2, 3), (40, 50, 60), (255, 0, 128)]
    model, data = segmenter(), loader()
    make_trainer(callbacks=[RankSEGPredictionWriter(tmp_path, DECODER, palette=palette)]).predict(model, data)
    for index, labels in enumerate(decide(model, data)):
        rgb = cv2.imread(str(tmp_path / f"{index:06d}.png"), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.array_equal(rgb, np.array(palette, dtype=np.uint8)[labels])


def test_sixteen_bits_above_255_classes(segmenter, make_trainer, tmp_path):
    class Many(segmenter):
        def predict_step(self, batch, batch_idx):
            logits = torch.zeros(len(batch[0]), 300, 16, 12)
            logits[:, 7] = 5.0
            logits[1:, 299] = 9.0
            return {"logits": logits}

    make_trainer(callbacks=[RankSEGPredictionWriter(tmp_path)]).predict(Many(), loader(items=2, batch_size=2))
    image = pytest.importorskip("PIL.Image")
    for index, label in enumerate((7, 299)):
        with image.open(tmp_path / f"{index:06d}.png") as png:
            assert png.mode == "I;16"
            assert np.unique(np.array(png)).tolist() == [label]


def test_volumes_become_npy(segmenter, make_trainer, tmp_path):
    model, data = segmenter(network(dims=3)), loader(size=(5, 6, 7), items=3)
    make_trainer(callbacks=[RankSEGPredictionWriter(tmp_path, DECODER)]).predict(model, data)
    assert files(tmp_path) == ["000000.npy", "000001.npy", "000002.npy"]
    for index, labels in enumerate(decide(model, data)):
        assert np.array_equal(np.load(tmp_path / f"{index:06d}.npy"), labels)


@pytest.mark.parametrize(("classes", "extension"), [(1, "png"), (3, "npy")])
def test_masks(segmenter, make_trainer, tmp_path, classes, extension):
    decoder = RankSEG(output_mode="multilabel")
    model, data = segmenter(network(classes=classes, seed=5)), loader(items=2)
    writer = RankSEGPredictionWriter(tmp_path, decoder, activation="sigmoid")
    make_trainer(callbacks=[writer]).predict(model, data)
    with torch.no_grad():
        masks = torch.cat([decoder(model(image).sigmoid()) for image, _ in data]).numpy()
    for index, mask in enumerate(masks):
        path = tmp_path / f"{index:06d}.{extension}"
        read = read_png(path) if extension == "png" else np.load(path)
        assert np.array_equal(read, mask[0] if classes == 1 else mask)
        assert classes == 1 or read.dtype == bool


def test_void_labels(segmenter, make_trainer, tmp_path):
    model, data = segmenter(), loader()
    for void_index, extension in ((255, "png"), (-1, "npy")):
        decoder = RankSEG(unassigned_policy="void", void_index=void_index, pruning_prob=0.95)
        folder = tmp_path / extension
        make_trainer(callbacks=[RankSEGPredictionWriter(folder, decoder)]).predict(model, data)
        with torch.no_grad():
            labels = torch.cat([decoder(model(image).softmax(1)) for image, _ in data]).numpy()
        assert (labels == void_index).any()
        read = read_png if extension == "png" else np.load
        assert all(np.array_equal(read(folder / f"{i:06d}.{extension}"), expected) for i, expected in enumerate(labels))


def test_names_from_the_batch_and_several_dataloaders(segmenter, make_trainer, tmp_path):
    class Named(segmenter):
        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return self(batch["image"])  # a bare tensor, as the default predict_step gives

    def named(prefix):
        items = [{"image": image, "path": f"some/{prefix}.{i}.jpg"} for i, (image, _) in enumerate(Blobs(items=3))]
        return DataLoader(items, batch_size=2)

    model = Named()
    writer = RankSEGPredictionWriter(tmp_path, DECODER, names="path")
    make_trainer(callbacks=[writer]).predict(model, [named("a"), named("b")])
    expected = [f"dataloader_idx_{n}/{name}.{i}.png" for n, name in enumerate("ab") for i in range(3)]
    assert files(tmp_path) == expected
    with torch.no_grad():
        labels = rankseg(model(torch.stack([image for image, _ in Blobs(items=3)])).softmax(1)).numpy()
    for path in expected:
        assert np.array_equal(read_png(tmp_path / path), labels[int(path[-5])])


def test_shuffled_images_keep_their_index(segmenter, make_trainer, tmp_path):
    data = DataLoader(Blobs(), batch_size=2, sampler=[4, 2, 6, 0])
    model = segmenter()
    make_trainer(callbacks=[RankSEGPredictionWriter(tmp_path, DECODER)]).predict(model, data)
    labels = decide(model, loader())
    assert files(tmp_path) == ["000000.png", "000002.png", "000004.png", "000006.png"]
    for index in (0, 2, 4, 6):
        assert np.array_equal(read_png(tmp_path / f"{index:06d}.png"), labels[index])


def test_labels_that_the_callback_put_there(segmenter, make_trainer, tmp_path):
    callbacks = [
        RankSEGCallback(DECODER, num_classes=CLASSES, predict_labels="labels"),
        RankSEGPredictionWriter(tmp_path, labels="labels", file_format="npy"),
    ]
    model, data = segmenter(), loader()
    make_trainer(callbacks=callbacks).predict(model, data, return_predictions=False)
    for index, labels in enumerate(decide(model, data)):
        assert np.array_equal(np.load(tmp_path / f"{index:06d}.npy"), labels)


def test_the_truth_of_the_batch_is_not_written_as_labels(segmenter, make_trainer, tmp_path):
    """The callback that decides comes too late."""

    class Mapped(segmenter):
        def predict_step(self, batch, batch_idx):
            return {"logits": self(batch["image"])}

    items = [{"image": image, "labels": labels} for image, labels in Blobs(items=3)]
    callbacks = [
        RankSEGPredictionWriter(tmp_path, labels="labels"),
        RankSEGCallback(DECODER, num_classes=CLASSES, predict_labels="labels"),
    ]
    with pytest.raises(KeyError, match="labels='labels' is not in what predict_step returned"):
        make_trainer(callbacks=callbacks).predict(Mapped(), DataLoader(items, batch_size=2))
    assert files(tmp_path) == []


def test_an_index_of_names_that_fits_both(segmenter, make_trainer, tmp_path):
    class Listed(segmenter):
        def predict_step(self, batch, batch_idx):
            return [self(batch[0]), ["a", "b", "c"][: len(batch[0])]]

    items = [(image, f"{index}.png") for index, (image, _) in enumerate(Blobs(items=3))]
    data = DataLoader(items, batch_size=3)
    with pytest.raises(ValueError, match="names=1 fits both what predict_step returned"):
        make_trainer(callbacks=[RankSEGPredictionWriter(tmp_path, logits=0, names=1)]).predict(Listed(), data)
    writer = RankSEGPredictionWriter(tmp_path, logits=0, names=("batch", 1))
    make_trainer(callbacks=[writer]).predict(Listed(), data)
    assert files(tmp_path) == ["0.png", "1.png", "2.png"]


def test_two_writers_need_two_folders(segmenter, make_trainer, tmp_path):
    writers = [
        RankSEGPredictionWriter(tmp_path / name, RankSEG(metric)) for name, metric in (("a", "dice"), ("b/../a", "iou"))
    ]
    with pytest.raises(ValueError, match="two RankSEGPredictionWriters need two folders"):
        make_trainer(callbacks=writers).predict(segmenter(), loader())


def test_a_second_run_replaces_the_files(segmenter, make_trainer, tmp_path):
    writer, data = RankSEGPredictionWriter(tmp_path, DECODER), loader()
    trainer, model = make_trainer(callbacks=[writer]), segmenter(network(seed=1))
    trainer.predict(segmenter(network(seed=0)), data)
    trainer.predict(model, data)
    for index, labels in enumerate(decide(model, data)):
        assert np.array_equal(read_png(tmp_path / f"{index:06d}.png"), labels)
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(names=lambda o, b: ["same"] * len(b[0])), ValueError, "3 images need 3 different names"),
        (dict(names=lambda o, b: ["a", "b"]), ValueError, r"3 images need 3 different names, got \['a', 'b'\]"),
        (dict(names=lambda o, b: list("xyz"[: len(b[0])])), ValueError, "two images are called 'x.png'"),
        (dict(names=lambda o, b: [1, 2, 3]), TypeError, "must lead to a list of strings or paths, got a list of a int"),
        (dict(names=lambda o, b: "abc"), TypeError, "must lead to a list of strings or paths, got a str"),
        (dict(logits="scores"), KeyError, "logits='scores' is not in what predict_step returned"),
        (dict(labels="logits"), TypeError, "labels must be integer labels or bool masks, got"),
        (dict(activation="identity"), ValueError, "turn logits into probabilities first"),
    ],
)
def test_bad_predictions(segmenter, make_trainer, tmp_path, options, error, message):
    trainer = make_trainer(callbacks=[RankSEGPredictionWriter(tmp_path, **options)])
    with pytest.raises(error, match=message):
        trainer.predict(segmenter(), loader())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(output_dir=None), TypeError, "output_dir must be a path, got None"),
        (dict(output_dir=__file__), ValueError, "output_dir must be a folder, .* is a file"),
        (dict(decoder=3), TypeError, "decoder must be a RankSEG"),
        (dict(decoder=DECODER, labels="labels"), ValueError, "give either labels or a decoder"),
        (dict(logits=None), TypeError, "logits must be a key"),
        (dict(names=1.0), TypeError, "names must be a key"),
        (dict(activation="relu"), ValueError, "activation must be one of"),
        (dict(file_format="jpg"), ValueError, "file_format must be one of 'auto', 'png', 'npy'"),
        (dict(palette=[(0, 0)]), ValueError, r"palette must hold 1 to 256 colours.*got \[\(0, 0\)\]"),
        (dict(palette=[(0, 0, 300)]), ValueError, "palette must hold values from 0 to 255, got 0 to 300"),
    ],
)
def test_bad_options(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        RankSEGPredictionWriter(**{"output_dir": tmp_path, **options})
