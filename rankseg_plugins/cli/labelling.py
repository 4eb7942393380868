"""Labels of every image, continued where an earlier run stopped, in one process or in several."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import typer

from rankseg_plugins._version import __version__
from rankseg_plugins.cli.console import note_for_all
from rankseg_plugins.cli.processes import Steps, from_first, meet
from rankseg_plugins.cli.running import check_out, contents_of
from rankseg_plugins.core.fits.processes import gather, number, rank, share
from rankseg_plugins.files.decoding.images import Image
from rankseg_plugins.files.decoding.run import Labelling, LabelsFile, check_free, is_done, remove, run, written
from rankseg_plugins.files.errors import InputError, NoImageError
from rankseg_plugins.files.lines import collect, head_of, share_of, shares_of
from rankseg_plugins.files.progress import progress_bar

RUN = "decode.jsonl"
VERSION = 1
#: What the first line of the file calls the format of the labels.
FORMAT = "file format"


class Asked(NamedTuple):
    """What was asked for, beside what is done to every image.

    Args:
        decoder: its name.
        probs: where the images are.
        reference: folder of their references.
        palette: as it was given.
        overwrite: whether to begin anew.
        keep_going: whether images that cannot be read are passed over.
    """

    decoder: str
    probs: Path
    reference: Path | None
    palette: str | None
    overwrite: bool
    keep_going: bool


def check_folder(out: Path, probs: Path, reference: Path | None) -> None:
    """Make the folder for the labels; refuse one that cannot be written, or from which is read.

    Raises:
        InputError: for such a folder.
    """
    for option, folder in (("--probs", probs), ("--reference", reference)):
        if folder is not None and folder.resolve() == out.resolve():
            raise InputError(out, f"is the folder of {option}; choose another --out")
    check_out(out)


def label(
    images: Sequence[Image], labelling: Labelling, asked: Asked
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Write the labels of every image of which an earlier run did not; of several processes, only the first returns.

    Args:
        images: to be decided on.
        labelling: what is done to each of them.
        asked: what was asked for.

    Returns:
        What is known of each image whose labels are written, and why others were passed over, by name.

    Raises:
        InputError: if an image cannot be read, unless such are passed over, or none can; if the folder holds labels of
            another run, or other files of these names.
        OSError: if labels cannot be written.
    """
    path, head = labelling.out / RUN, _head(labelling, asked)
    known = {image.name: image for image in images}
    with progress_bar("decoding", len(images)) as step:
        steps = Steps("decoding", step)
        left = from_first(lambda: _left(images, labelling, path, head, asked.overwrite))
        steps.look(len(images) - len(left) if rank() == 0 else 0)
        for name in left:
            if name not in known:
                raise InputError(asked.probs, f"must hold the same images for all processes: one lacks {name!r}")
        file = LabelsFile(path if number() == 1 else share_of(path, rank()), head)
        own = [known[name] for name in left[share()]]
        skipped = run(own, labelling, file, asked.keep_going, steps)
        file.close()
        meet(steps.look)
    skipped = {name: problem for part in gather(skipped) for name, problem in part.items()}
    note_for_all()
    if rank():
        raise typer.Exit
    return _finished(images, skipped, path, asked.probs)


def _left(images: Sequence[Image], labelling: Labelling, path: Path, head: Mapping[str, Any], anew: bool) -> list[str]:
    """Names of the images whose labels are not written; what an earlier run left is checked before others are."""
    is_begun = head_of(path).get(FORMAT) == labelling.form.file_format
    if anew:
        for file in (path, *shares_of(path)):
            remove(file, labelling.out)
    collect(path)
    if not is_begun:
        check_free(images, labelling)
    LabelsFile(path, head).close()
    rows = written(path)
    return [image.name for image in images if not is_done(image, rows.get(image.name), labelling)]


def _finished(
    images: Sequence[Image], skipped: Mapping[str, str], path: Path, probs: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    for each in range(number() if number() > 1 else 0):
        if not share_of(path, each).exists():
            raise InputError(path.parent, f"must be one folder for all processes, and does not hold what {each} wrote")
    collect(path)
    rows, names = written(path), [image.name for image in images]
    if len(skipped) == len(names):
        raise NoImageError(probs, "no image could be decided on", (skipped[name] for name in names))
    found = {name: rows[name] for name in names if name not in skipped}
    return found, {name: skipped[name] for name in names if name in skipped}


def _head(labelling: Labelling, asked: Asked) -> dict[str, Any]:
    """What changes the labels, or what is known of them."""
    source, form = labelling.source, labelling.form
    return {
        "format": f"labels {VERSION}",
        "version of rankseg_plugins": __version__,
        "decoder": asked.decoder,
        **contents_of({asked.decoder: labelling.decoder}),
        "probs": str(asked.probs.resolve()),
        "classes": labelling.classes,
        "activation": source.activation,
        "one_vs_rest": source.one_vs_rest,
        "orientation": source.orientation,
        "reference": None if asked.reference is None else str(asked.reference.resolve()),
        FORMAT: form.file_format,
        "palette": None if form.palette is None else _digest(form.palette),
        "expected score": labelling.expected,
    }


def _digest(palette: np.ndarray) -> str:
    return hashlib.sha256(palette.tobytes()).hexdigest()
