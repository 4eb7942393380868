"""The code on the pages runs: here what needs no toolkit, and elsewhere what ``RUN`` says."""

import pytest
import torch
import typer
from pages import SHELL, read_blocks, run_blocks, run_page
from places import ROOT
from toolkits import is_installed

import rankseg_plugins
from rankseg_plugins.cli import app
from rankseg_plugins.tuning.choosing import OBJECTIVES

HERE, COMMANDS = "tests/test_pages.py", "tests/cli/test_docs.py"
#: Which test runs the code on a page, by its kind.
RUN = {
    "CONTRIBUTING.md": {"shell": "tests/examples/test_readme.py"},
    "README.md": {"python": "tests/examples/test_readme.py", "shell": COMMANDS},
    "configs/README.md": {"python": "tests/mmseg/test_mmseg_docs.py", "shell": "tests/mmseg/test_mmseg_docs.py"},
    "docs/compare.md": {"python": HERE, "shell": COMMANDS, "csv": COMMANDS},
    "docs/decision.md": {"python": HERE},
    "docs/decode.md": {"shell": COMMANDS},
    "docs/decoding.md": {"python": HERE},
    "docs/deploy.md": {"python": HERE},
    "docs/evidence/reproduce.md": {"shell": COMMANDS},
    "docs/lightning.md": {"python": "tests/lightning/test_lightning_docs.py"},
    "docs/migration.md": {"python": "tests/core/test_reference.py"},
    "docs/monai.md": {"python": "tests/monai/test_monai_docs.py", "json": "tests/monai/test_monai_docs.py"},
    "docs/nnunet.md": {"python": "tests/nnunet/test_nnunet_docs.py", "shell": "tests/nnunet/test_nnunet_docs.py"},
    "docs/segmentation_models_pytorch.md": {"python": "tests/examples/test_smp.py"},
    "docs/torchgeo.md": {"python": "tests/examples/test_torchgeo.py", "shell": "tests/examples/test_torchgeo.py"},
    "docs/torchmetrics.md": {"python": "tests/torchmetrics/test_tm_table.py"},
    "docs/transformers.md": {"python": "tests/transformers/test_hf_docs.py"},
    "docs/tuning.md": {"python": HERE, "shell": COMMANDS},
}
#: Pages that repeat what a command measured; it may run for hours.
MEASURED = {
    f"docs/evidence/{name}.md": {"shell": COMMANDS} for name in ("assignment", "boundaries", "intervals", "tuning")
}


def test_all_code_is_run():
    """Of every page of the repository: none holds code of a kind that no test runs."""
    found = {}
    for path in (*ROOT.glob("*.md"), *(ROOT / "configs").rglob("*.md"), *(ROOT / "docs").rglob("*.md")):
        page = path.relative_to(ROOT).as_posix()
        kinds = {"shell" if block.language in SHELL else block.language for block in read_blocks(page)}
        found |= {page: kinds} if kinds else {}
    assert found == {page: set(tests) for page, tests in {**RUN, **MEASURED}.items()}
    for page, tests in RUN.items():
        for test in tests.values():
            assert f'"{page}"' in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.parametrize("page", ["docs/decision.md", "docs/decoding.md", "docs/tuning.md"])
def test_code_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_code_of_the_page_on_comparing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = run_page("docs/compare.md")
    assert (tmp_path / "report/report.html").is_file()
    assert len(names["rows"]) == 2 * 30
    printed = capsys.readouterr().out
    assert "Comparison of 30 images" in printed
    assert "'frequency': [1.0, 1.0, 1.0]" in printed


@pytest.mark.filterwarnings("ignore")  # PyTorch's exporters, of themselves
def test_code_of_deploying(tmp_path, monkeypatch):
    """All of it, where ONNX is installed; the labels are those of torch."""
    monkeypatch.chdir(tmp_path)
    blocks = read_blocks("docs/deploy.md", "python")
    if not (is_installed("onnxscript") and is_installed("onnxruntime")):
        blocks = [block for block in blocks if "onnx" not in block.code]
    found = run_blocks("docs/deploy.md", blocks)
    images = torch.randn(3, 3, 40, 56)
    expected = found["labeller"](images)
    assert torch.equal(torch.export.load("labeller.pt2").module()(images), expected)
    assert torch.equal(found["traced"](images), expected)
    if "session" in found:
        assert found["labels"].shape == (1, 80, 56)
        assert torch.equal(torch.from_numpy(found["session"].run(None, {"images": images.numpy()})[0]), expected)


def test_decoders_to_choose_from(tmp_path):
    """Each of the table can be made, and the command knows what tunes it."""
    page = (ROOT / "docs/choosing.md").read_text(encoding="utf-8")
    rows = [[cell.split("`") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 12
    command = typer.main.get_command(app).commands["tune"]
    for _, (_, decoder, *_), _, options in rows[2:]:
        made = eval(decoder, {**vars(rankseg_plugins), "C": 5})
        if len(options) > 1:
            words = ["--probs", str(tmp_path), *options[1].split()]
            objective = command.make_context("tune", words).params["objective"]
            assert objective in OBJECTIVES
            assert objective.startswith(made.metric)
