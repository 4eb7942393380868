"""How a comparison was made: versions, options, inputs."""

from __future__ import annotations

import datetime
import hashlib
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rankseg_plugins._version import __version__

PACKAGES = ("torch", "numpy", "scipy")


def collect_facts(
    arguments: Sequence[str] = (), hashes: Mapping[str, str] | None = None, unmatched: Sequence[str] = ()
) -> dict[str, Any]:
    """Facts for :class:`~rankseg_plugins.comparison.Comparison`.

    Args:
        arguments: of the command line.
        hashes: hash of the inputs of each image by name.
        unmatched: files without a partner.

    Returns:
        By title, words or a list of words.
    """
    facts: dict[str, Any] = {"rankseg_plugins": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    facts["date"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    if arguments:
        facts["command"] = shlex.join(["rankseg-plugins", *arguments])
    if hashes:
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
        facts["SHA-256 of all inputs"] = hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()
    if unmatched:
        facts["without partner"] = list(unmatched)
    return facts
