"""The page about Lightning: its code runs, and does what the text says."""

import re

import pytest
from pages import run_page
from places import ROOT

pytest.importorskip("lightning.pytorch", reason="the page is written for lightning")
pytest.importorskip("matplotlib")

PAGE = "docs/lightning.md"


def scores_of_a_step_that_returns_logits(namespace):
    model = namespace["Model"]()
    model.load_state_dict(namespace["loss_only"].state_dict())
    callback = namespace["RankSEGCallback"](namespace["RankSEG"]("dice"), num_classes=4)
    namespace["pl"].Trainer(callbacks=[callback], logger=False).validate(model, namespace["loader"])
    return callback.scores_of_stage["val"]


@pytest.mark.filterwarnings("ignore")
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text, namespace = (ROOT / PAGE).read_text(encoding="utf-8"), run_page(PAGE)
    for name in re.findall(r"^\| `(val/.*?)` \|", text, re.MULTILINE):
        assert name in namespace["callback" if "tuned" not in name else "tuned"].scores_of_stage["val"]
    for name in re.findall(r"`(val/.*tuned.*?)`", text):
        assert name in namespace["tuned"].scores_of_stage["val"]
    said = re.search(r"# (keep argmax: .*?),", text)[1]
    assert namespace["tuned"].tuned.verdict.startswith(said)
    assert namespace["labels"].shape == (2, 32, 32)
    assert namespace["best"].best_model_score == namespace["stop"].best_score
    assert list(tmp_path.glob("checkpoints/*.ckpt"))
    kept, again = (namespace[name].scores_of_stage["val"] for name in ("kept", "again"))
    assert {name.replace("/rankseg/", "/again/"): value for name, value in kept.items()} == again
    assert kept == scores_of_a_step_that_returns_logits(namespace)
    assert sorted(path.name for path in tmp_path.glob("named/*")) == [f"street{index}.png" for index in range(6)]
    assert b"val/rankseg/image/0" in next(tmp_path.glob("runs/**/events.*")).read_bytes()
    assert sorted(path.name for path in tmp_path.glob("labels/*")) == [f"00000{index}.png" for index in range(6)]
    assert "torch.Size([2, 32, 32])" in capsys.readouterr().out
