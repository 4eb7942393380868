"""Docstrings as the site shows them: examples and literal blocks as code, roles as links."""

import re
from contextlib import suppress
from typing import Any

from griffe import Extension, NameResolutionError, Object

ROLE = re.compile(r":(?:class|func|meth|attr|mod|data):`(?:([^`<]+) <([\w.]+)>|(~?)([\w.]+))`")
#: In Google's style a section of this name is prose, and one of examples is called otherwise.
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
LITERAL = re.compile(r"::$", re.MULTILINE)
#: The fields of a named tuple are told like arguments.
FIELDS = re.compile(r"^Args:$", re.MULTILINE)


class Readable(Extension):
    """Rewrites every docstring as Markdown, before it is parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """The docstring of an object, if it has one."""
        if obj.docstring is not None:
            text = LITERAL.sub(":", EXAMPLE.sub("Examples:", obj.docstring.value))
            if obj.is_class and "NamedTuple" in map(str, obj.bases):
                text = FIELDS.sub("Attributes:", text)
            obj.docstring.value = ROLE.sub(lambda role: link(obj, *role.groups()), text)


def link(place: Object, title: str | None, target: str | None, short: str | None, name: str | None) -> str:
    """What a role says, as a link to that if the site shows it."""
    path = target or str(name)
    title = title or (path.rpartition(".")[2] if short else path.removeprefix("rankseg_plugins."))
    with suppress(NameResolutionError):  # a full path, or a name of a base class
        path = place.resolve(path)
    return f'<autoref identifier="{path}" optional><code>{title}</code></autoref>'
