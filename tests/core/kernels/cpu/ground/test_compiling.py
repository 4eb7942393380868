"""What is kept of compiled kernels."""

import sys
import textwrap
import types

import numba
from places import ROOT

from rankseg_plugins.core.kernels.cpu.ground import compiling

KERNEL = """
    from typing import NamedTuple
    import numpy as np
    from rankseg_plugins.core.kernels.cpu.ground.compiling import kernel
    class {name}(NamedTuple):
        values: np.ndarray
    @kernel
    def double(given):
        given.values[0] *= 2
    given = {name}(np.ones(1))
    double(given)
"""


def test_what_was_compiled_is_loaded_and_that_for_other_types_is_not(tmp_path, monkeypatch):
    """An update in place may have renamed what kernels had been compiled for."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    file = tmp_path / "kernels.py"
    for name, hits in (("Given", 0), ("Given", 1), ("Other", 0), ("Other", 1)):
        module = types.ModuleType("kernels")
        monkeypatch.setitem(sys.modules, "kernels", module)
        file.write_text(textwrap.dedent(KERNEL).format(name=name))
        exec(compile(file.read_text(), str(file), "exec"), vars(module))
        assert module.given.values[0] == 2
        assert sum(module.double.stats.cache_hits.values()) == hits


def test_a_change_in_any_kernel_counts():
    """numba looks at the file of the function alone, and kernels call functions of other files."""
    kernels = {str(file) for file in (ROOT / "rankseg_plugins/core/kernels/cpu").rglob("*.py")}
    assert {name for name, *_ in compiling._STAMP} == kernels
