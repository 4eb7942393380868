"""Which toolkits are installed."""

from importlib.util import find_spec


def is_installed(name):
    """Whether there is such a module, with a file.

    The folders of tests are called as the toolkits are, and where a toolkit is absent, Python takes its folder here for
    a package without files.
    """
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None
