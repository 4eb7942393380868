"""The site: it shows every public name, docstrings as they are meant, and fetches nothing."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import PurePosixPath

import pytest
from places import ROOT

pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")

import griffe
from mkdocs.structure.files import Files
from mkdocstrings import Inventory

REPOSITORY = "https://example.com/them/package"

spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs/hooks/pages.py")
hook = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hook)


#: What `make docs` runs.
BUILD = re.search(r"-m (mkdocs build.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))[1].split()


def build(out, *options):
    command = [sys.executable, "-m", *BUILD, "--site-dir", str(out), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    out = tmp_path_factory.mktemp("site")
    done = build(out)
    assert done.returncode == 0, done.stderr
    return out


#: Adds links to a page of docs/ and to one outside of it.
BROKEN = """
def on_page_markdown(markdown, page, config, files):
    added = {"decision.md": "[a](none.md) [b](tuning.md#nowhere)", "index.md": "[c](docs/none.md)"}
    return markdown + added.get(page.file.src_uri, "")
"""


def test_links_that_lead_nowhere_end_the_build(tmp_path):
    """All pages but the reference, which would take most of the time."""
    (tmp_path / "broken.py").write_text(BROKEN)
    hooks = [str(tmp_path / "broken.py"), str(ROOT / "docs/hooks/pages.py")]
    config = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": str(ROOT / "docs"), "hooks": hooks, "plugins": []}
    (tmp_path / "mkdocs.yml").write_text(json.dumps(config))
    done = build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    assert "Aborted with 5 warnings" in done.stdout + done.stderr
    for words in ("docs/decision.md: the link 'none.md'", "README.md: the link 'docs/none.md'", "anchor '#nowhere'"):
        assert words in done.stderr


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def public():
    """Every module that exports names, and those of its classes and functions."""
    package = griffe.load("rankseg_plugins", search_paths=[ROOT])
    for module in (package, *(each for each in package.modules.values() if each.exports)):
        kept = (name for name in module.exports if (module[name].is_function or module[name].is_class))
        yield module.path, [f"{module.path}.{name}" for name in kept]


def test_reference_shows_every_public_name(site):
    with (site / "objects.inv").open("rb") as file:
        shown = set(Inventory.parse_sphinx(file))
    rooms = {f"rankseg_plugins{module}" for modules in hook.REFERENCE.values() for module in modules}
    found = dict(public())
    found.pop("rankseg_plugins.core")  # the same as those of the package
    assert set(found) <= rooms
    missing = {name for names in found.values() for name in names} - shown
    assert not missing


def test_docstrings_are_read_as_they_are_meant(pages):
    """No role, no escaped star, no colons of a literal block, no star of a shape taken for emphasis."""
    for name, text in pages.items():
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r":(class|func|meth|attr|mod|data):|\\\*|::</p>|``", text), name
        assert not re.search(r"<em>[^<]*spatial", text), name
        assert "&gt;&gt;&gt;" not in text, name


@pytest.mark.parametrize(
    ("page", "name", "anchor"),
    [
        ("core", "predict", "#rankseg_plugins.RankSEG.predict"),  # of the class itself
        ("calibration", "RankSEG.predict", "../core/#rankseg_plugins.RankSEG.predict"),
        ("lightning", "TunedDecoder", "../calibration/#rankseg_plugins.calibration.TunedDecoder"),
        ("torchmetrics", "Lesions()", "../scores/#rankseg_plugins.scores.lesions.Lesions"),
        ("nnunet", "rankseg_plugins.tuning.tune", "../tuning/#rankseg_plugins.tuning.tune"),
        ("monai", "RankSEG", "#rankseg_plugins.monai.RankSEG"),
        ("monai", "rankseg_plugins.RankSEG()", "../core/#rankseg_plugins.RankSEG"),
        ("mmseg", "compare", None),  # an option of the name of a public function
        ("core", "metric", None),  # an argument of the name of an attribute
        ("tuning", "Sequence", None),
    ],
)
def test_names_lead_to_what_they_mean(pages, page, name, anchor):
    links = re.findall(
        rf'<a [^>]*href="?([^" >]*)"?[^>]*><code>{re.escape(name)}</code></a>', pages[f"api/{page}/index.html"]
    )
    assert (anchor in links) if anchor else not links


def test_nothing_is_fetched_from_elsewhere(pages):
    for name, text in pages.items():
        assert not re.search(r'<(?:script|img|iframe)[^>]* src="?(?:https?:)?//', text), name
        assert not re.search(r'<link[^>]*rel="?(?:stylesheet|preconnect|icon)"?[^>]* href="?(?:https?:)?//', text), name
        assert 'data-md-component="source"' not in text, name  # which asks GitHub for stars


@pytest.mark.parametrize(
    ("page", "target", "led"),
    [
        ("docs/tuning.md", "compare.md#in-python", f"{REPOSITORY}/blob/main/docs/compare.md#in-python"),
        ("docs/decoding.md", "../benchmarks/RESULTS.md", f"{REPOSITORY}/blob/main/benchmarks/RESULTS.md"),
        ("README.md", "configs", f"{REPOSITORY}/tree/main/configs"),
        ("README.md", f"{REPOSITORY}/blob/main/docs/none.md", None),
        ("docs/evidence/README.md", "../none.md", None),
        ("docs/tuning.md", "https://example.org/none.md", "https://example.org/none.md"),
    ],
)
def test_links_that_leave_the_site(page, target, led, caplog):
    """Here it has no page at all: what exists is in the repository, and what does not is a warning."""
    found = hook.redirect(target, PurePosixPath(page), "page.md", REPOSITORY, Files([]))
    assert found == (led or target)
    assert ("does not exist" in caplog.text) == (led is None)


def test_links_within_the_site(pages):
    """From a page outside of docs/, one in a folder of it, and back."""
    assert 'href="compare/' in pages["index.html"]
    assert "blob/main/docs/" not in pages["index.html"]
    assert 'href="../../compare/#boundaries-and-lesions"' in pages["evidence/boundaries/index.html"]
    assert 'href="../benchmarks/"' in pages["decoding/index.html"]
