"""What a decision takes where nnU-Net makes it: no more than nnU-Net's own."""

import peaks
import pytest
from toolkits import is_installed

if not is_installed("nnunetv2"):
    pytest.skip("nnU-Net is not installed", allow_module_level=True)

from tiny_nnunet import LABELS, REGIONS, make_model

pytestmark = [peaks.needed, pytest.mark.filterwarnings("ignore")]

#: What exports a prediction, of the size of the logits: nnU-Net's function with its predictor or ours.
EXPORT = """
import contextlib, io
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from rankseg_plugins import RankSEG
from rankseg_plugins.nnunet import RankSEGPredictor

torch.set_num_threads(1)

def export(who, probabilities):
    made = {"device": torch.device("cpu"), "allow_tqdm": False}
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(**made) if who == "stock" else RankSEGPredictor(**made)
        predictor.initialize_from_trained_model_folder(sys.argv[1], (0,))
    found = []
    for size in ((10, 20, 30), (60, 160, 160)):  # the first loads what is needed
        logits = torch.randn(predictor.label_manager.num_segmentation_heads, *size).mul_(3)
        told = {
            "spacing": [1.5] * 3,
            "shape_after_cropping_and_before_resampling": size,
            "shape_before_cropping": size,
            "bbox_used_for_cropping": [[0, each] for each in size],
        }
        parts = predictor.plans_manager, predictor.configuration_manager, predictor.label_manager
        found.append(peak(lambda: convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, *parts, told, probabilities == "saved", num_threads_torch=1
        )))
    return found[-1] / logits.nbytes

print(json.dumps(each_apart(export, ["stock-unsaved", "ours-unsaved", "stock-saved", "ours-saved"])))
"""


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
def test_an_export_takes_no_more_than_that_of_nnunet(labels, tmp_path):
    found = peaks.run(EXPORT, str(make_model(tmp_path / "model", labels)))
    assert found["ours-unsaved"] < found["stock-unsaved"]
    assert found["ours-saved"] < found["stock-saved"] + 0.15
    # Probabilities of the whole image would take as much as the logits, and are felt where they are saved.
    assert found["ours-unsaved"] < 1 < found["ours-saved"]
