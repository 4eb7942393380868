"""The plan of the package: every room imports only what lies below it; see docs/architecture.md."""

import ast

import pytest
from places import ROOT

PACKAGE = ROOT / "rankseg_plugins"
GROUND = ["_imports", "_strict_json", "_version", "_warning", "_writing"]
#: The rooms from the ground up, each with those that it may stand on: all before it, if none are named.
BELOW = ["core", "scores", "calibration", "comparison", "files", "tuning", "report"]
ADAPTERS = {
    "torchmetrics": BELOW[: BELOW.index("comparison") + 1],
    "lightning": [*BELOW, "torchmetrics"],
    "monai": BELOW[: BELOW.index("comparison") + 1],
    "nnunet": BELOW[: BELOW.index("calibration") + 1],
    "mmseg": BELOW,
    "transformers": BELOW[: BELOW.index("calibration") + 1],
    "cli": BELOW,
}
#: Rooms inside of core; its own files lie on the ground, but for the decoders that stand on all of them.
WINGS = {
    "inputs": [],
    "fits": ["inputs"],
    "core": ["inputs", "fits"],
    "kernels": [],
    "kernels/cpu/ground": ["core", "inputs"],
    "kernels/cpu/solvers": ["core", "inputs", "kernels/cpu/ground"],
    "kernels/cpu": ["core", "inputs", "kernels/cpu/ground", "kernels/cpu/solvers"],
    "kernels/cuda": ["core", "inputs"],
    "pooled": ["core", "inputs", "fits", "kernels", "kernels/cpu", "kernels/cpu/ground"],
    "solvers": ["core", "inputs", "kernels/cpu", "kernels/cpu/solvers", "kernels/cpu/ground"],
    "presence": ["core", "inputs", "fits", "kernels", "kernels/cpu", "kernels/cpu/ground"],
}
#: Rooms inside of comparison, each with those that it may stand on; its own files stand among all of them,
#: but for those that stand on them.
BLOCKS = {"intervals": [], "pictures": [], "blocks": ["intervals"], "telling": ["intervals", "blocks"]}
ANSWERS = ["comparison/__init__.py", "comparison/comparison.py", "comparison/recording.py", "comparison/comparing.py"]
TOP = ["core/__init__.py", "core/paths.py", "core/decoder.py", "core/functional.py", "core/presence/decoder.py"]
#: Convenience methods: what they need lies above, and they are one line each.
UPWARD = {
    ("comparison/comparison.py", "rankseg_plugins.report"),
    ("comparison/comparison.py", "rankseg_plugins.report.charts"),
    ("tuning/tuner.py", "rankseg_plugins.report.tuning"),
}
FILES = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def module_of(name):
    """The module of a file, and the file of a module."""
    return ".".join(
        ["rankseg_plugins", *name.removesuffix(".py").removesuffix("__init__").strip("/").split("/")]
    ).rstrip(".")


MODULES = {module_of(name): name for name in FILES}


def imports(tree):
    """Modules of this package that a file imports anywhere: at its head, in functions, for types."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "require", "__import__")):
            values = [*node.args, *(each.value for each in node.keywords)]
            yield from (each.value for each in values if isinstance(each, ast.Constant) and each.value in MODULES)


def arrows():
    return [(name, found) for name, tree in FILES.items() for found in imports(tree) if found in MODULES]


def room_of(name):
    return name.split("/")[0].removesuffix(".py")


def wing_of(name):
    return "/".join(name.split("/")[1:-1]) or "core"


def is_allowed(name, target):
    room, other = room_of(name), room_of(target)
    if other in GROUND:
        return True
    if room == "core" and other == "core" and name not in TOP:
        return target not in TOP and wing_of(target) in [*WINGS[wing_of(name)], wing_of(name)]
    if room == other == "comparison" and wing_of(name) in BLOCKS:
        inside = [*BLOCKS[wing_of(name)], wing_of(name)]
        return wing_of(target) in inside if wing_of(target) in BLOCKS else target not in ANSWERS
    if room == other:
        return True
    if room in BELOW:
        return other in BELOW[: BELOW.index(room)]
    if room in ADAPTERS:
        return other in ADAPTERS[room]
    return {"__init__": "core", "__main__": "cli"}.get(room) == other  # nothing stands on the face of the package


def test_every_arrow_points_down():
    upward = {(name, found) for name, found in arrows() if not is_allowed(name, MODULES[found])}
    assert upward == UPWARD


def test_every_room_is_on_the_plan():
    assert {room_of(name) for name in FILES} == {*GROUND, *BELOW, *ADAPTERS, "__init__", "__main__"}
    assert {wing_of(name) for name in FILES if room_of(name) == "core"} == set(WINGS)
    assert {wing_of(name) for name in FILES if name.count("/") > 1 and room_of(name) == "comparison"} == set(BLOCKS)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("core/objectives.py", "scores/areas.py"),
        ("core/dense.py", "core/kernels/cpu/steps.py"),
        ("core/kernels/cpu/steps.py", "core/solvers/exact.py"),
        ("scores/areas.py", "cli/tune.py"),
        ("comparison/intervals/levels.py", "comparison/blocks/extra.py"),
        ("comparison/blocks/groups.py", "comparison/telling/tables.py"),
        ("comparison/telling/tables.py", "comparison/comparison.py"),
        ("torchmetrics/wrapper.py", "tuning/tuner.py"),
        ("mmseg/metric.py", "lightning/callback.py"),
        ("_imports.py", "core/inputs/options.py"),
        ("core/objectives.py", "__init__.py"),
        ("scores/levels.py", "__init__.py"),
    ],
)
def test_an_arrow_upward_is_found(source, target):
    assert {source, target} <= set(FILES)
    assert not is_allowed(source, target)


def test_lazy_imports_are_seen():
    lazy = "def f():\n    from rankseg_plugins.report import write_report\n    import_module('rankseg_plugins.cli')\n"
    assert list(imports(ast.parse(lazy))) == ["rankseg_plugins.report", "rankseg_plugins.cli"]


def test_names_of_imported_modules_stand_in_the_code():
    """But for those of toolkits, in two places."""
    found = set()
    for name, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                found |= {name} if not isinstance(node.args[0], ast.Constant) else set()
    assert found == {"_imports.py", "lightning/_toolkit.py"}


def test_no_file_imports_itself_by_way_of_others():
    """Imports for types apart, which do not run."""
    graph = {name: [] for name in FILES}
    for name, tree in FILES.items():
        types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
        for_types = {found for node in types for found in imports(node)}
        # The convenience methods reach up, and all that they reach stands on them.
        allowed = {found for source, found in UPWARD if source == name}
        graph[name] = [
            MODULES[found] for found in imports(tree) if found in MODULES and found not in for_types | allowed
        ]
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            path.append(name)
            for each in graph[name]:
                visit(each)
            path.pop()
            done.add(name)

    for name in graph:
        visit(name)
