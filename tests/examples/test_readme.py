"""README.md: its snippets run, each with what it takes for granted, and its commands exist."""

import re
from functools import partial

import pytest
import torch
from pages import commands, read_blocks, run_blocks
from places import ROOT
from toolkits import is_installed

from rankseg_plugins import RankSEG

PAGE = "README.md"
USER = "What a user gets"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def toolkit_of(block):
    found = re.search(r"rankseg_plugins\.(\w+)", block.code)
    return found[1] if found else "torch"


SNIPPETS = {toolkit_of(block): block for block in read_blocks(PAGE, "python")}


def lightning():
    import lightning.pytorch as pl

    class Model(pl.LightningModule):
        def validation_step(self, batch, batch_idx):
            return {"loss": torch.zeros(()), "logits": batch[0], "target": batch[1]}

    data = [(torch.randn(4, 8, 8), torch.randint(0, 4, (8, 8))) for _ in range(2)]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer, loader = partial(pl.Trainer, **quiet), torch.utils.data.DataLoader(data)
    return {"Trainer": trainer, "model": Model(), "dataloader": loader}


def transformers():
    import transformers as hf

    widths = {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2]}
    model = hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**widths, decoder_hidden_size=16, num_labels=4))
    processor = hf.SegformerImageProcessorPil(size={"height": 32, "width": 32})
    return {"image_processor": processor, "model": model.eval(), "inputs": {"pixel_values": torch.randn(1, 3, 32, 32)}}


#: What a snippet takes for granted besides logits, probabilities and truth.
GIVEN = {"lightning": lightning, "transformers": transformers}
MODULES = {"lightning": "lightning.pytorch", "nnunet": "nnunetv2"}


def test_every_snippet_is_run():
    assert len(SNIPPETS) == len(read_blocks(PAGE, "python"))


@pytest.mark.filterwarnings("ignore")  # the toolkits, of runs as short as these
@pytest.mark.parametrize("toolkit", [toolkit for toolkit in SNIPPETS if toolkit != "mmseg"])
def test_snippet(toolkit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not is_installed(MODULES.get(toolkit, toolkit)):
        pytest.skip(f"{toolkit} is not installed")
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 8, 8), torch.randint(0, 4, (2, 8, 8))
    given = {"logits": logits, "probs": logits.softmax(1), "target": target} | GIVEN.get(toolkit, dict)()
    found = run_blocks(PAGE, [SNIPPETS[toolkit]], given)
    if toolkit == "torch":
        assert torch.equal(found["labels"], RankSEG("dice")(given["probs"]))


def test_config(tmp_path):
    pytest.importorskip("mmengine", reason="MMSegmentation is not installed")
    from mmengine.config import Config

    (tmp_path / "your_config.py").write_text("model = dict(type='EncoderDecoder', test_cfg=dict(mode='whole'))")
    (tmp_path / "config.py").write_text(SNIPPETS["mmseg"].code)
    assert Config.fromfile(tmp_path / "config.py").model.test_cfg == {"mode": "whole", "rankseg": {"metric": "dice"}}


def first_table(page, section):
    """The rows of the first table of a section."""
    text = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {section}\n")[1]
    (_, *lines) = next(block.splitlines() for block in text.split("\n\n") if block.startswith("| "))
    return [[cell.strip(" *") for cell in line[1:-1].split("|")] for line in lines[1:]]


def numbers(text):
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d\d\b", text)]


def test_table_repeats_the_evidence():
    """What `python -m benchmarks.held_out` printed: gains over argmax, with half of their intervals."""
    measured = {}
    for data, decision, dice, interval, _, _, _, accuracy in first_table("docs/evidence/tuning.md", USER):
        measured.setdefault(decision, {})[data] = dice, interval, accuracy
    data = ("voc21_people", "camvid", "drone_small")
    argmax, told, defaults, accuracy, tuned, tuned_accuracy = first_table(PAGE, "Does it help?")
    assert argmax[1:] == [measured["argmax"][each][0] for each in data]
    shown = {"argmax of the classes of the set": told, "RankSEG": defaults, "`rankseg` 0.0.8": defaults, "tuned": tuned}
    for decision, cells in shown.items():
        for each, cell in zip(data, cells[1:], strict=True):
            (_, gain), (low, high) = map(numbers, measured[decision][each][:2])
            told_gain, half = [*numbers(cell), 0.0][:2]
            assert told_gain == gain
            assert half == pytest.approx((high - low) / 2, abs=0.006)
    for decision, cells in (("RankSEG", accuracy), ("tuned", tuned_accuracy)):
        assert cells[1:] == [f"{numbers(measured[decision][each][2])[1]:+.2f}" for each in data]


@pytest.mark.parametrize("page", [PAGE, "CONTRIBUTING.md"])
def test_commands_exist(page):
    for words in commands(page):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", MAKEFILE, re.MULTILINE), words
        else:
            assert (ROOT / words[0]).is_file() or page == PAGE, words
