"""The public names of every room: what is not listed here may change without notice."""

import ast
import importlib
import re

import pytest
from places import ROOT
from toolkits import is_installed

PUBLIC = {
    "rankseg_plugins": ["GlobalRankSEG", "PresenceRankSEG", "RankSEG", "__version__", "rankseg"],
    "rankseg_plugins.core": ["GlobalRankSEG", "PresenceRankSEG", "RankSEG", "rankseg"],
    "rankseg_plugins.scores": ["Areas", "areas"],
    "rankseg_plugins.scores.boundaries": [
        *("Boundaries", "average_surface_distance", "hausdorff95", "surface", "surface_dice", "surface_distances"),
    ],
    "rankseg_plugins.scores.extra": ["Column", "ExtraScore"],
    "rankseg_plugins.scores.lesions": ["LesionCounts", "Lesions", "count_lesions"],
    "rankseg_plugins.scores.levels": [
        *("accuracy", "class_level", "class_scores", "class_table", "dataset_level", "dice", "entries"),
        *("image_accuracies", "image_level", "image_scores", "iou", "lowest", "pixel_accuracy", "pooled", "precision"),
        *("recall", "worst"),
    ],
    "rankseg_plugins.scores.risk_coverage": ["RiskCoverage", "risk_coverage"],
    "rankseg_plugins.calibration": ["Calibration", "TemperatureScaling", "TunedDecoder"],
    "rankseg_plugins.comparison": ["Comparison", "Recorder", "Sample", "Scoring", "compare"],
    "rankseg_plugins.tuning": ["Sample", "Scoring", "Tuned", "TunedDecoder", "Tuner", "tune"],
    "rankseg_plugins.report": ["write_report"],
    "rankseg_plugins.torchmetrics": ["ExtraScores", "MultiLevelScore", "RankSEGWrapper", "multi_level_score"],
    "rankseg_plugins.lightning": ["RankSEGCallback", "RankSEGPredictionWriter"],
    "rankseg_plugins.mmseg": [
        *("MultiLevelIoUMetric", "RankSEGCascadeEncoderDecoder", "RankSEGEncoderDecoder", "RankSEGMixin"),
        *("RankSEGMultimodalEncoderDecoder", "RankSEGTTAModel", "RankSEGTuningHook", "RankSEGVisualizationHook"),
        *("RankSEGVisualizer", "config_path", "make_rankseg"),
    ],
    "rankseg_plugins.monai": ["RankSEG", "RankSEGCompareHandler", "RankSEGD", "RankSEGDict", "RankSEGd"],
    "rankseg_plugins.nnunet": ["RankSEGPredictor"],
    "rankseg_plugins.transformers": ["RankSEGSemanticPostProcessor", "post_process_semantic_segmentation"],
}
#: What a room of an adapter, or the report, cannot be imported without.
NEEDS = {
    "report": ["jinja2", "matplotlib"],
    "torchmetrics": ["torchmetrics"],
    "lightning": ["torchmetrics", "lightning"],
    "mmseg": ["mmseg"],
    "monai": ["monai", "ignite"],
    "nnunet": ["nnunetv2"],
    "transformers": ["transformers"],
}
#: What a page shows to explain a rule, and nobody is to build on.
SHOWN = {("rankseg_plugins.core.presence.rule", "best_set"), ("rankseg_plugins.core.presence.rule", "gauss")}
PACKAGE = ROOT / "rankseg_plugins"


def module_or_skip(name):
    missing = [each for each in NEEDS.get(name.rpartition(".")[2], []) if not is_installed(each)]
    if missing:
        pytest.skip(f"{name} needs {' and '.join(missing)}")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name):
    module = module_or_skip(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name])
    assert all(getattr(module, each) is not None for each in module.__all__)


def test_every_list_of_names_is_held():
    """Also of rooms whose toolkit is absent here; names that begin with an underscore are nobody's."""
    lists = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" and "._" not in name:
                lists[name] = sorted(ast.literal_eval(node.value))
    assert lists == {name: sorted(names) for name, names in PUBLIC.items()}


def test_pages_and_examples_use_public_names():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py"), *ROOT.glob("configs/**/*.py")]
    used = set()
    for path in texts:
        text = path.read_text(encoding="utf-8")
        for module, names in re.findall(r"^from (rankseg_plugins[\w.]*) import (.*)$", text, flags=re.MULTILINE):
            used |= {(module, name.split(" as ")[0].strip()) for name in names.partition("#")[0].split(",")}
        for dotted in re.findall(r"['\"`](rankseg_plugins[\w.]*\.\w+)['\"`(]", text):
            used.add((dotted.rpartition(".")[0], dotted.rpartition(".")[2]))
    known = {(module, name) for module, names in PUBLIC.items() for name in names}
    known |= {tuple(name.rsplit(".", 1)) for name in PUBLIC if "." in name}
    assert used - known <= SHOWN
    assert len(used) > 20
