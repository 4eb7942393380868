"""Docstrings as the site shows them: examples and literal blocks as code, names of the package as links."""

import re
from functools import cache
from typing import Any

from griffe import AliasResolutionError, Extension, GriffeLoader, Module, ModulesCollection, NameResolutionError, Object

#: A name, perhaps with arguments.
NAME = re.compile(r"``([A-Za-z_][\w.]*)(\([^`\n]*\))?``")
#: In Google's style a section of this name is prose, and one of examples is called otherwise.
EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
LITERAL = re.compile(r"::$", re.MULTILINE)
#: The fields of a named tuple are told like arguments.
FIELDS = re.compile(r"^Args:$", re.MULTILINE)


class Readable(Extension):
    """Rewrites every docstring as Markdown, before it is parsed."""

    def on_object(self, *, obj: Object, loader: GriffeLoader, **kwargs: Any) -> None:
        """The docstring of an object, if it has one."""
        if obj.docstring is not None:
            text = LITERAL.sub(":", EXAMPLE.sub("Examples:", obj.docstring.value))
            if obj.is_class and "NamedTuple" in map(str, obj.bases):
                text = FIELDS.sub("Attributes:", text)
            obj.docstring.value = NAME.sub(lambda found: link(obj, found, loader.modules_collection), text)


@cache
def public_classes(module: Module) -> dict[str, str]:
    """The classes that a module and those within make public, and where; of two of a name, the one further up."""
    found: dict[str, str] = {}
    for each in module.modules.values():
        found = public_classes(each) | found
    return found | {name: f"{module.path}.{name}" for name in module.exports or () if str(name)[:1].isupper()}


def link(place: Object, found: re.Match[str], tree: ModulesCollection) -> str:
    """A name as a link to what it means, if the site shows that; the page that says it needs none."""
    path = meaning(place, found[1], tree)
    if path in (None, place.canonical_path):
        return found[0]
    return f'<autoref identifier="{path}" optional><code>{found[0].strip("`")}</code></autoref>'


def meaning(place: Object, name: str, tree: ModulesCollection) -> str | None:
    """Where it is defined: what it is in the code around the docstring, or the public class of that name, or a path."""
    first, dot, rest = name.partition(".")
    if first in {each.name for each in getattr(place, "parameters", ())}:
        return None
    try:
        path = place.resolve(first)
    except NameResolutionError:
        path = public_classes(tree["rankseg_plugins"]).get(first, first)
    try:
        return tree[f"{path}{dot}{rest}"].canonical_path
    except (KeyError, AliasResolutionError):  # an option, a word, or of another package
        return None
