"""The comparison beside an evaluator of MONAI: that of the core on the same images."""

import logging

import pytest
import torch
from toolkits import is_installed

if not (is_installed("monai") and is_installed("ignite")):
    pytest.skip("MONAI, or Ignite, is not installed", allow_module_level=True)

from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.transforms import Activationsd, Compose

from rankseg_plugins.comparison import compare
from rankseg_plugins.monai import RankSEGCompareHandler, RankSEGd
from rankseg_plugins.scores.boundaries import Boundaries

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:monai", "ignore:.*leaves out classes")
PAIR = from_engine(["pred", "label"])


def make_data(count=6):
    generator = torch.Generator().manual_seed(0)
    affine = torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0], dtype=torch.float64))
    return [
        {
            "image": MetaTensor(
                torch.rand(1, 12, 10, generator=generator),
                affine=affine,
                meta={"filename_or_obj": f"/in/case_{index}.nii"},
            ),
            "label": torch.randint(0, 3, (1, 12, 10), generator=generator).float(),
        }
        for index in range(count)
    ]


def make_network():
    torch.manual_seed(1)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    network.weight.data *= 12
    return network


def evaluate(handler, data, postprocessing=None):
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=4),
        network=make_network(),
        postprocessing=postprocessing,
        val_handlers=[handler],
    )
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("where", ["logits", "probabilities"])
def test_figures_are_those_of_compare(where, tmp_path, caplog):
    data, network = make_data(), make_network()
    extra = Boundaries(1, "mm")
    options = dict(num_classes=3, output_transform=PAIR, extra=extra, report=tmp_path / "report")
    softmax = Compose([Activationsd("pred", softmax=True)]) if where == "probabilities" else None
    handler = RankSEGCompareHandler(activation="identity" if softmax else "softmax", **options)
    with caplog.at_level(logging.INFO):
        evaluator = evaluate(handler, data, softmax)
    with torch.no_grad():
        probs = [network(each["image"][None].as_tensor()).softmax(1)[0] for each in data]
    expected = compare(
        [
            (f"/in/case_{i}.nii", p, each["label"][0].long(), None, (0.5, 2.0))
            for i, (p, each) in enumerate(zip(probs, data, strict=True))
        ],
        extra=extra,
    )
    found = handler.comparison
    assert found.names == expected.names
    for decoder in expected.decoders:
        for level in ("dataset", "image", "class"):
            assert found.level(decoder, "dice", level) == expected.level(decoder, "dice", level)
            assert evaluator.state.metrics[f"{decoder}/dice_{level}"] == expected.level(decoder, "dice", level)
    torch.testing.assert_close(found.extra_entries, expected.extra_entries, equal_nan=True)
    assert found.verdict().sentence in caplog.text
    assert (tmp_path / "report" / "report.html").exists()


def test_each_run_begins_anew():
    handler = RankSEGCompareHandler(num_classes=3, output_transform=PAIR, activation="softmax")
    evaluator = evaluate(handler, make_data())
    evaluator.run()
    assert len(handler.comparison.names) == 6


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="activation must be one of"):
        RankSEGCompareHandler(num_classes=3, activation="relu")
    with pytest.raises(TypeError, match="unexpected keyword argument 'smooth'"):
        RankSEGCompareHandler(num_classes=3, smooth=1)
    with pytest.raises(TypeError, match=r"output_transform must give two lists"):
        evaluate(RankSEGCompareHandler(num_classes=3), make_data())
    twice = [make_data(1)[0], make_data(1)[0]]
    with pytest.raises(ValueError, match=r"case_0\.nii: two images are called '/in/case_0\.nii'"):
        evaluate(RankSEGCompareHandler(num_classes=3, output_transform=PAIR, activation="softmax"), twice)
    decided = RankSEGd("pred", activation="softmax", to_onehot=3)
    with pytest.raises(ValueError, match=r"case_0\.nii: is decided already"):
        evaluate(RankSEGCompareHandler(num_classes=3, output_transform=PAIR), make_data(), decided)
    decided = RankSEGd("pred", activation="softmax")
    with pytest.raises(ValueError, match=r"case_0\.nii: "):
        evaluate(RankSEGCompareHandler(num_classes=3, output_transform=PAIR), make_data(), decided)
