"""What is kept of compiled kernels."""

import sys
import textwrap
import types

import numba

KERNEL = """
    from typing import NamedTuple
    import numpy as np
    from rankseg_plugins.core.kernels.cpu.compiling import kernel
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
