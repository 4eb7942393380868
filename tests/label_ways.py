"""The way of every adapter from the output of a network to labels.

Each takes logits (B, 5, H, W), what makes probabilities of them, the file of a tuned decoder and a folder to write to;
it gives int64 labels (B, H, W). What an adapter stands on is imported on its way: no environment has all of it.
"""

import numpy as np
import pytest
import torch
from toolkits import is_installed

from rankseg_plugins.calibration import TunedDecoder

CLASSES = 5


def plainly(logits, activation, file, folder):
    return TunedDecoder.load(file).predict_logits(logits, activation)


def through_torchmetrics(logits, activation, file, folder):
    from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper

    return RankSEGWrapper(MultiLevelScore(CLASSES), file, activation).transform_pred(logits)


def through_lightning(logits, activation, file, folder):
    """By the callback, which puts labels into predictions, and by the writer into files."""
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter

    class Predicting(pl.LightningModule):
        def predict_step(self, batch, batch_idx):
            return {"logits": batch}

    callback = RankSEGCallback(file, num_classes=CLASSES, activation=activation, predict_labels="labels")
    writer = RankSEGPredictionWriter(folder / "labels", file, activation=activation, file_format="npy")
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[writer, callback],
        default_root_dir=folder,
    )
    predicted = torch.cat([each["labels"] for each in trainer.predict(Predicting(), DataLoader(logits, batch_size=2))])
    written = np.stack([np.load(path) for path in sorted((folder / "labels").glob("*.npy"))])
    np.testing.assert_array_equal(written, predicted)
    return predicted


def through_mmseg(logits, activation, file, folder):
    import tiny
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    register_all_modules()
    options = {"activation": activation, "tuned": str(file)}
    network = MODELS.build(tiny.model("rankseg_plugins.mmseg.RankSEGEncoderDecoder", CLASSES, rankseg=options))
    return torch.cat([sample.pred_sem_seg.data for sample in network.postprocess_result(logits)])


def through_monai(logits, activation, file, folder):
    from rankseg_plugins.monai import RankSEG

    transform = RankSEG(file, activation=activation, dtype=torch.int64)
    return torch.cat([transform(image).as_tensor() for image in logits])


def through_transformers(logits, activation, file, folder):
    """With the logits in the output of a SegFormer, at their own size."""
    from transformers import SegformerImageProcessorPil
    from transformers.modeling_outputs import SemanticSegmenterOutput

    from rankseg_plugins.transformers import post_process_semantic_segmentation

    given = {"decoder": file, "activation": activation}
    outputs = SemanticSegmenterOutput(logits=logits)
    return torch.stack(post_process_semantic_segmentation(SegformerImageProcessorPil(), outputs, **given))


def through_nnunet(logits, activation, file, folder):
    """By nnU-Net's own export of a predicted picture; or by what that calls at last, where it takes no such values."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from examples.nnunet_model import CONFIGURATION, make_dataset, make_network, make_plans
    from rankseg_plugins.nnunet import RankSEGPredictor

    if activation not in ("softmax", "identity"):
        pytest.skip(f"nnU-Net makes no label of each pixel by {activation}")
    names = ("background", *(f"class {label}" for label in range(1, CLASSES)))
    plans = PlansManager(make_plans("NaturalImage2DIO", 2))
    dataset = make_dataset({name: label for label, name in enumerate(names)}, ".png")
    predictor = RankSEGPredictor(device=torch.device("cpu"), allow_tqdm=False, decoder=file)
    configuration = plans.get_configuration(CONFIGURATION)
    network = make_network(plans.plans, dataset)
    predictor.manual_initialization(
        network, plans, configuration, [network.state_dict()], dataset, "nnUNetTrainer", None
    )
    # nnU-Net gives pictures a first axis of length 1.
    return torch.cat([_by_nnunet(predictor, image, activation) for image in logits.unsqueeze(2)]).long()


def _by_nnunet(predictor, image, activation):
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    manager = predictor.label_manager
    if activation == "identity":
        return manager.convert_probabilities_to_segmentation(image)
    if image.dtype == torch.bfloat16:  # NumPy has none, and the export goes through it
        return manager.convert_logits_to_segmentation(image)
    size = tuple(image.shape[1:])
    told = {
        "spacing": [999.0, 1.5, 1.5],
        "shape_after_cropping_and_before_resampling": size,
        "shape_before_cropping": size,
        "bbox_used_for_cropping": [[0, each] for each in size],
    }
    parts = predictor.plans_manager, predictor.configuration_manager, manager
    return torch.as_tensor(convert_predicted_logits_to_segmentation_with_correct_shape(image, *parts, told))


#: By toolkit: the module that it stands on, and the way.
WAYS = {
    "plain": ("torch", plainly),
    "TorchMetrics": ("torchmetrics", through_torchmetrics),
    "Lightning": ("lightning", through_lightning),
    "MMSegmentation": ("mmseg", through_mmseg),
    "MONAI": ("monai", through_monai),
    "Transformers": ("transformers", through_transformers),
    "nnU-Net": ("nnunetv2", through_nnunet),
}


def labels_through(toolkit, logits, activation, decoder, folder):
    """Labels of a tuned decoder; skips the test where the toolkit is not installed."""
    module, way = WAYS[toolkit]
    if not is_installed(module):
        pytest.skip(f"{toolkit} is not installed")
    decoder.save(folder / "decoder.json")
    return way(logits, activation, folder / "decoder.json", folder)
