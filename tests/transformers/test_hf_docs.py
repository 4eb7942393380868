"""The page about Transformers: its code runs, with a tiny SegFormer in the folder that the page loads from."""

import re

import pytest
import torch
from pages import run_page
from places import ROOT
from toolkits import is_installed

if not is_installed("transformers"):
    pytest.skip("Transformers is not installed", allow_module_level=True)

import hf_networks
import transformers as hf

from rankseg_plugins.calibration import TunedDecoder

PAGE = "docs/transformers.md"


@pytest.mark.filterwarnings("ignore:the probabilities")
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / re.search(r'name = "(.*)"', (ROOT / PAGE).read_text(encoding="utf-8"))[1]
    torch.manual_seed(0)
    network = hf_networks.segformer()[0]
    # As sure as a trained one: all classes would be equally probable to the last digits.
    network.decode_head.classifier.weight.data *= 3000
    network.save_pretrained(folder)
    hf.SegformerImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    namespace = run_page(PAGE)
    resized = torch.nn.functional.interpolate(namespace["outputs"].logits.double(), (60, 80), mode="bilinear")
    (labels,) = namespace["labels"]
    assert torch.equal(labels, TunedDecoder.load("decoder.json")(resized.softmax(1))[0])
    (plain,) = namespace["post_process"](namespace["outputs"], namespace["sizes"])
    parts, verdict = capsys.readouterr().out.splitlines()
    assert parts == str([f"LABEL_{label}" for label in plain.unique()])
    assert verdict == namespace["found"].verdict
