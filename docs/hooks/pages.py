"""Pages of the site that lie outside of docs/, and links that lead out of it.

On GitHub a page is read where it lies, so its links are relative to that, or absolute to the repository (in README.md,
which a package index shows, too). Here each becomes a link within the site, where the site has the page, or else to the
file in the repository; one to a file that does not exist is a warning, which ends a strict build.
"""

import logging
import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
#: Pages of the site by where they lie in the repository.
OUTSIDE = {
    "README.md": "index.md",
    "configs/README.md": "configs.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
#: Pages of the reference, and the modules whose public names they show.
REFERENCE = {
    "core": ("",),
    "scores": tuple(f".scores{end}" for end in ("", ".levels", ".extra", ".boundaries", ".lesions", ".risk_coverage")),
    "calibration": (".calibration",),
    "comparison": (".comparison",),
    "tuning": (".tuning",),
    "report": (".report",),
    "torchmetrics": (".torchmetrics",),
    "lightning": (".lightning",),
    "mmseg": (".mmseg",),
    "transformers": (".transformers",),
    "monai": (".monai",),
    "nnunet": (".nnunet",),
}
#: Where names are wanted in another order than that of the alphabet, or a class is written in two files.
OPTIONS = {
    "core": "    options:\n      members: [RankSEG, rankseg, PresenceRankSEG, GlobalRankSEG]\n",
    "comparison": "    options:\n      inherited_members: true\n",
}
#: A block of code, a link with its target apart, or code in a line; a link may have code in its text.
PARTS = re.compile(
    r"^```.*?^```$|(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?P<target>[^\s)]+)(?P<after>(?:\s[^)]*)?\))|`[^`\n]*`",
    re.MULTILINE | re.DOTALL,
)

log = logging.getLogger("mkdocs.plugins.pages")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/, and those of the reference."""
    for path, name in OUTSIDE.items():
        if (ROOT / path).is_file():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    for room, modules in REFERENCE.items():
        shown = (f"# rankseg_plugins{module}\n\n::: rankseg_plugins{module}\n" for module in modules)
        files.append(File.generated(config, f"api/{room}.md", content="\n#".join(shown) + OPTIONS.get(room, "")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead every link of a page, outside of code, to where it is found from the site."""
    if page.file.src_uri.startswith("api/"):
        return markdown
    places = {name: path for path, name in OUTSIDE.items()}
    here = PurePosixPath(places.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    repository = config.extra["repository"]

    def lead(part: re.Match[str]) -> str:
        if part["target"] is None:
            return part[0]
        return part["before"] + redirect(part["target"], here, page.file.src_uri, repository, files) + part["after"]

    return PARTS.sub(lead, markdown)


def redirect(target: str, here: PurePosixPath, source: str, repository: str, files: Files) -> str:
    """What a link says on the site that says ``target`` on the page that lies ``here`` in the repository."""
    path, hash_, anchor = target.partition("#")
    raw = repository.replace("//github.com/", "//raw.githubusercontent.com/")
    own = re.match(rf"(?:{re.escape(repository)}/(?:blob|tree|raw)|{re.escape(raw)})/main/(.*)", path)
    if not path or ("://" in path and own is None) or path.startswith("mailto:"):
        return target
    found = os.path.normpath(own[1] if own else here.parent / path)
    name = OUTSIDE.get(found, found.removeprefix("docs/"))
    if files.get_file_from_path(name) is not None and (found in OUTSIDE or found.startswith("docs/")):
        return os.path.relpath(name, PurePosixPath(source).parent) + hash_ + anchor
    if not (ROOT / found).exists():
        log.warning("%s: the link %r leads to %r, which does not exist", here, target, found)
        return target
    kind = "tree" if (ROOT / found).is_dir() else "blob"
    return f"{repository}/{kind}/main/{found}{hash_}{anchor}"
