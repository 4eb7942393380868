"""What is built holds what it should, says what is true of it, and asks for versions that are tested."""

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from places import ROOT

import rankseg_plugins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = f"rankseg_plugins-{rankseg_plugins.__version__}"


def build(source, folder, kind):
    """The file that hatchling builds."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel of this checkout, unpacked, and the source distribution."""
    wheel, sdist, unpacked = (tmp_path_factory.mktemp(name) for name in ("wheel", "sdist", "unpacked"))
    found = SimpleNamespace(wheel=build(ROOT, wheel, "wheel"), sdist=build(ROOT, sdist, "sdist"), unpacked=unpacked)
    with zipfile.ZipFile(found.wheel) as archive:
        archive.extractall(unpacked)
    return found


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_wheel_holds_the_package_its_configs_and_nothing_else(built):
    found = files(built.unpacked)
    about = {name for name in found if name.startswith(f"{NAME}.dist-info/")}
    assert found[f"{NAME}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    package = {f"rankseg_plugins/{name}": content for name, content in files(ROOT / "rankseg_plugins").items()}
    configs = {f"rankseg_plugins/.mim/configs/{name}": content for name, content in files(ROOT / "configs").items()}
    assert {name: content for name, content in found.items() if name not in about} == {**package, **configs}
    assert {"rankseg_plugins/py.typed", "rankseg_plugins/report/template.html"} < set(package)


def test_the_source_distribution_holds_what_is_in_the_repository(built):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    expected = {name for name in listed if not name.startswith(".") and (ROOT / name).exists()}
    with tarfile.open(built.sdist) as archive:
        found = {member.name.removeprefix(f"{NAME}/") for member in archive if member.isfile()}
    assert found - {"PKG-INFO", ".gitignore"} == expected


def test_the_source_distribution_builds_the_same_wheel(built, tmp_path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (tmp_path / "wheel").mkdir()
    again = build(tmp_path / "source" / NAME, tmp_path / "wheel", "wheel")
    assert again.read_bytes() == built.wheel.read_bytes()


def test_metadata(built):
    about = built.unpacked / f"{NAME}.dist-info"
    found = message_from_bytes((about / "METADATA").read_bytes())
    assert found["Version"] == rankseg_plugins.__version__ == importlib.metadata.version("rankseg-plugins")
    assert found["License-Expression"] == "BSD-3-Clause"
    assert found["Requires-Python"] == PROJECT["project"]["requires-python"]
    urls = [value.split(", ") for value in found.get_all("Project-URL")]
    assert {name for name, _ in urls} == {"Repository", "Documentation", "Changelog", "Issues"}
    assert len({url.split("/")[4] for _, url in urls}) == 1
    assert "rankseg-plugins = rankseg_plugins.__main__:main" in (about / "entry_points.txt").read_text()


def test_bases_of_the_installed_package_serve_a_config_elsewhere(built, tmp_path):
    config = pytest.importorskip("mmengine.config", reason="MMEngine is not installed").Config
    base = built.unpacked / "rankseg_plugins/.mim/configs/_base_/rankseg_iou.py"
    own = tmp_path / "own.py"
    own.write_text(
        f'_base_ = ["{base.as_posix()}", "mmseg::pspnet/pspnet_r101-d8_4xb4-40k_voc12aug-512x512.py"]\n'
        'model = dict(type="rankseg_plugins.mmseg.RankSEGEncoderDecoder", test_cfg=dict(rankseg=_base_.rankseg))\n'
    )
    model = config.fromfile(own).model
    assert (model.type, model.test_cfg.rankseg) == ("rankseg_plugins.mmseg.RankSEGEncoderDecoder", {"metric": "iou"})
    assert model.decode_head.num_classes == 21


def requirements():
    """The extra, or ``""``, and every package that it asks for."""
    project = PROJECT["project"]
    for extra, lines in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        if extra not in ("all", "dev", "docs"):
            yield from ((extra, Requirement(line)) for line in lines)


def test_the_oldest_version_of_every_package_is_tested():
    """It is the one in the environment of the oldest, or the only one there is a test with."""
    pins = {}
    for path in ROOT.glob("constraints*.txt"):
        for line in path.read_text().split():
            name, _, version = line.lower().replace("_", "-").partition("==")
            pins.setdefault(name, set()).add(Version(version))
    for extra, requirement in requirements():
        (floor,) = (each.version for each in requirement.specifier if each.operator == ">=")
        assert Version(floor) in pins[requirement.name.lower()], f"{requirement} of {extra or 'the package'}"


def test_every_extra_is_tested_from_the_wheel():
    (named,) = re.findall(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    # The original OpenMMLab packages have an environment of their own: make test-stock.
    assert {extra for extra, _ in requirements()} - {""} == {*named.split(), "mmseg-stock"}


def test_pythons():
    """The oldest is one, wherever it is named; classifiers are of those that all tests run on."""
    (oldest,) = re.findall(r"^>=([0-9.]+)$", PROJECT["project"]["requires-python"])
    tools = PROJECT["tool"]
    assert tools["mypy"]["python_version"] == oldest
    assert tools["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"Python {oldest} or newer is needed" in (ROOT / "Makefile").read_text()
    prefix = "Programming Language :: Python :: 3."
    minors = [name.removeprefix(prefix) for name in PROJECT["project"]["classifiers"] if name.startswith(prefix)]
    assert f"3.{minors[0]}" == oldest
    assert all(SpecifierSet(f">={oldest}").contains(f"3.{minor}") for minor in minors)
