"""What ``help()`` shows of every public name: arguments, errors, where a formula comes from, and an example."""

import ast
import importlib
import inspect
import re
import textwrap
from functools import cached_property

import pytest
from places import ROOT
from test_public_names import NEEDS, PACKAGE, PUBLIC
from toolkits import is_installed

from rankseg_plugins.comparison import Comparison
from rankseg_plugins.comparison.figures import Figures

#: Classes of MMSegmentation's registry that take what their base takes: its page lists it.
AS_ITS_BASE = {
    *("RankSEGEncoderDecoder", "RankSEGCascadeEncoderDecoder", "RankSEGMultimodalEncoderDecoder", "RankSEGVisualizer"),
}
#: What rests on a formula: itself, or its module, says where that is from.
FORMULAS = {
    *(
        "GlobalRankSEG",
        "PresenceRankSEG",
        "RankSEG",
        "rankseg",
        "TemperatureScaling",
        "Calibration",
        "tune",
        "iou",
        "dice",
    ),
    *("class_level", "dataset_level", "image_level", "risk_coverage", "RiskCoverage", "average_surface_distance"),
    *("Boundaries", "hausdorff95", "surface_dice", "Lesions", "LesionCounts"),
}
#: Public methods that no line or two can show, and why.
WITHOUT_EXAMPLE = {
    "a run of the engine calls it": {f"RankSEGCompareHandler.{name}" for name in ("start", "update", "finish")},
    "a segmentor has to be built around it": {
        f"RankSEGMixin.{name}" for name in ("rankseg_options", "postprocess_result", "decide", "probabilities_only")
    },
}
#: Functions whose errors pass through; of others only a ``raise`` is seen.
CHECKS = re.compile(r"(check|read|as_decoder|require)(_\w+)?$")


def public_objects():
    for module, names in PUBLIC.items():
        missing = [each for each in NEEDS.get(module.rpartition(".")[2], []) if not is_installed(each)]
        for name in names:
            if name != "__version__":
                skip = [pytest.mark.skip(reason=f"needs {' and '.join(missing)}")] if missing else []
                yield pytest.param(module, name, id=f"{module}.{name}", marks=skip)


def sections(text):
    """Of a docstring by title; what stands before them is the section ""."""
    parts = re.split(
        r"^(Args|Attributes|Returns|Raises|Shape|Source|Example):", inspect.cleandoc(text), flags=re.MULTILINE
    )
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def raises(function):
    """Whether a function raises something itself, or by one of the checks."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = (ast.unparse(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree)) or any(map(CHECKS.match, calls))


def written(found):
    """What stands in its body; that of ``Comparison`` is in two files."""
    return [*vars(found).items(), *(vars(Figures).items() if found is Comparison else ())]


def own_functions(found):
    """Its public methods, as far as they are written here."""
    for name, value in written(found):
        function = getattr(value, "__func__", value)
        if (
            not name.startswith("_")
            and inspect.isfunction(function)
            and function.__module__.startswith("rankseg_plugins")
        ):
            yield name, function


def own_properties(found):
    """Its public properties that no base has."""
    for name, value in written(found):
        own = not any(name in vars(base) for base in found.__mro__[1:] if base is not Figures)
        if own and not name.startswith("_") and isinstance(value, property | cached_property):
            yield name, value


def is_as_agreed(found, name):
    """Whether a base says what the method is for: one of a toolkit, or of this package that is not public."""
    shown = {each for names in PUBLIC.values() for each in names}
    return any(name in vars(base) for base in found.__mro__[1:] if base.__name__ not in {*shown, "Figures"})


def makers(found):
    """The functions that check the arguments of a class; what a dataclass makes of itself checks nothing."""
    made = (vars(found).get(name) for name in ("__init__", "__post_init__"))
    return [each for each in made if inspect.isfunction(each) and each.__code__.co_filename != "<string>"]


@pytest.mark.parametrize(("module", "name"), public_objects())
def test_docstring(module, name):
    found = getattr(importlib.import_module(module), name)
    told = sections(found.__doc__)
    given = set(inspect.signature(found).parameters)
    if name not in AS_ITS_BASE:
        described = set(re.findall(r"^ {4}\*{0,2}(\w+):", told.get("Args", ""), flags=re.MULTILINE))
        assert given <= described, given - described
        assert described <= given | {"options", "kwargs"}, described - given
    assert "Example" in told
    assert ">>>" in told["Example"] or module == "rankseg_plugins.mmseg"
    if name in FORMULAS and module.rpartition(".")[2] not in NEEDS:
        assert "Source" in told or "Wang et al." in inspect.getmodule(found).__doc__
    functions = makers(found) if inspect.isclass(found) else [found]
    if any(raises(each) for each in map(inspect.unwrap, functions) if each.__module__.startswith("rankseg_plugins")):
        assert "Raises" in told


@pytest.mark.parametrize(("module", "name"), public_objects())
def test_help_is_plain_and_methods_say_what_they_raise(module, name):
    found = getattr(importlib.import_module(module), name)
    functions = dict(own_functions(found)) if inspect.isclass(found) else {}
    for each in (found, *functions.values()):
        assert each.__doc__, each
        assert "\\" not in inspect.getdoc(each), each
    for each in functions.values():
        own = ast.parse(textwrap.dedent(inspect.getsource(each)))
        if any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(own)):
            assert "Raises" in sections(each.__doc__), each


def docstrings(path):
    """All of a file, also those of what is not public."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_help_shows_what_is_written():
    """No role of Sphinx, which ``help()`` does not read, and no escaped star."""
    marks = {
        f"{path.relative_to(PACKAGE)}: {found[0]}"
        for path in PACKAGE.rglob("*.py")
        for text in docstrings(path)
        for found in re.finditer(r":[a-z:]+:`[^`]*|\\\*", text)
    }
    assert not marks


def test_paths_in_docstrings_lead_somewhere():
    """What is called by its whole path is a module, or a name that is bound at the top of one."""
    known, told = set(), set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        bound = re.findall(
            r"^(?:class |def |async def )?(\w+)(?=[(:]| =)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        known |= {module, *(f"{module}.{name}" for name in bound)}
        told |= {name for text in docstrings(path) for name in re.findall(r"``(rankseg_plugins\.[\w.]+)[(`]", text)}
    known |= {f"{module}.{name}" for module, names in PUBLIC.items() for name in names}
    assert told <= known, told - known
    assert len(told) > 20


@pytest.mark.parametrize(("module", "name"), public_objects())
def test_methods_have_an_example(module, name):
    """One of its own, which shows what the method is for; that of the class shows how a few go together."""
    found = getattr(importlib.import_module(module), name)
    functions = dict(own_functions(found)) if inspect.isclass(found) else {}
    excepted = set().union(*WITHOUT_EXAMPLE.values())
    own = {each: text.__doc__ for each, text in functions.items() if not is_as_agreed(found, each)}
    examples = {each: sections(text).get("Example", "").strip() for each, text in own.items()}
    assert {f"{name}.{each}" for each, example in examples.items() if ">>>" not in example} == {
        each for each in excepted if each.startswith(f"{name}.")
    }
    whole = sections(found.__doc__)["Example"]
    assert not [each for each, example in examples.items() if example and example in whole]


@pytest.mark.parametrize(("module", "name"), public_objects())
def test_properties_are_seen(module, name):
    """In an example, their own or that of the class, or among what the class lists: what was given, or is in force."""
    found = getattr(importlib.import_module(module), name)
    told = sections(found.__doc__)
    for each, value in own_properties(found) if inspect.isclass(found) else ():
        listed = re.search(rf"^ {{4}}{each}:", told.get("Args", "") + told.get("Attributes", ""), flags=re.MULTILINE)
        shown = re.search(rf"\.{each}\b", told["Example"])
        assert listed or shown or ">>>" in sections(value.__doc__).get("Example", ""), each


def test_what_is_named_here_is_public():
    excepted = {each.partition(".")[0] for each in set().union(*WITHOUT_EXAMPLE.values())}
    assert {name for names in PUBLIC.values() for name in names} >= FORMULAS | AS_ITS_BASE | excepted
