"""The report of a tuning: the verdict, every candidate and how to use the file; below it argmax against the choice."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rankseg_plugins.comparison.phrases import percent, points, sign, span, unit
from rankseg_plugins.report.page import Introduction, Page, Section, presence_section, read_page
from rankseg_plugins.report.values import to_dict
from rankseg_plugins.report.words import describe_alike
from rankseg_plugins.report.writing import write_files
from rankseg_plugins.tuning.candidates import GLOBAL
from rankseg_plugins.tuning.presence import PRESENCE

if TYPE_CHECKING:
    from rankseg_plugins.tuning.tuner import Tuned

DECODER = "decoder.json"

EXPLANATION = (
    "The images were split into folds, those of one case together. On each fold, chosen is the candidate that is best "
    "on the other folds: its scores are of images that had no part in choosing it."
)
KNOWING = (
    "Presence candidates decide each image by what was fitted to the other folds; so what decides the images that a "
    "choice rests on may have seen those that it is scored on."
)
FITTED = "Rules of global candidates are an exception: they were fitted once, to all images, without their labels."
FLATTERED = (
    "All candidates on all images, the largest gain first. These gains are flattered, because the best of many is "
    "partly luck. That of the verdict is flattered less, as it is of images not used to choose, but still: where it is "
    "not above 0, argmax is kept. What is to be reported is measured on other images."
)


class Candidate(NamedTuple):
    """A row of the table of candidates, on the images that were tuned on, as it is shown.

    Args:
        name: of the candidate.
        value: its score.
        gain: over argmax; empty for argmax itself, as the next one.
        interval: of the gain.
        sign: of the gain.
    """

    name: str
    value: str
    gain: str
    interval: str
    sign: str


class TuningPage(NamedTuple):
    """What the report of a tuning says.

    Args:
        objective: what was to be gained, in words.
        verdict: one line.
        candidates: argmax, then the others by their gain, the largest first.
        notes: what to know of these rows.
        validated: argmax against the choice, and above it the verdict, the candidates and how to use the decoder.
        figures: everything as values that JSON holds.
    """

    objective: str
    verdict: str
    candidates: list[Candidate]
    notes: list[str]
    validated: Page
    figures: dict[str, Any]


def read_tuning(found: Tuned, file: Path) -> TuningPage:
    """What the report of a tuning says, and that its decoder is in this file."""
    candidates = _candidates(found)
    introduction = _introduction(found, candidates, file)
    figures = {
        "verdict": found.verdict,
        "decoder": found.decoder.to_dict(),
        "validated": to_dict(found.validated),
        "candidates": to_dict(found.comparison),
    }
    validated = read_page(found.validated, introduction)
    return TuningPage(_objective(found), found.verdict, candidates, _about_race(found), validated, figures)


def _objective(found: Tuned) -> str:
    """What was to be gained, in words."""
    return unit(found.comparison.scoring, found.decoder.evidence["objective"].split("_")[1])


def _candidates(found: Tuned) -> list[Candidate]:
    score, level = found.decoder.evidence["objective"].split("_")
    argmax, *others = found.comparison.tables.decoders
    gains = found.comparison.differences.levels[score, level]
    best = sorted(zip(others, gains, strict=True), key=lambda each: -np.nan_to_num(each[1][0], nan=-1))
    rows = (
        Candidate(row.name, percent(row.levels[score, level]), points(gain), span(low, high), sign(low, high))
        for row, (gain, low, high) in best
    )
    return [Candidate(argmax.name, percent(argmax.levels[score, level]), "", "", "unclear"), *rows]


def write_tuning(found: Tuned, path: str | os.PathLike[str]) -> TuningPage:
    """Write the decoder and the report of a tuning.

    Args:
        found: what ``rankseg_plugins.tuning.tune`` returned.
        path: folder, made if absent. It gets ``decoder.json`` and what
            ``write_report`` writes.

    Returns:
        What the report says.

    Raises:
        ImportError: if matplotlib, Jinja2, Pillow or SciPy is not installed.
        OSError: if a file cannot be written; it names the file.
    """
    folder = Path(path)
    page = read_tuning(found, folder / DECODER)
    write_files(folder, page.validated, page.figures, found.comparison)
    found.decoder.save(folder / DECODER)
    return page


def _introduction(found: Tuned, candidates: Sequence[Candidate], file: Path) -> Introduction:
    comparison, evidence = found.comparison, found.decoder.evidence
    low, high = evidence["interval"] or (np.nan, np.nan)
    return Introduction(
        f"Which decoder? {len(comparison.names)} images, argmax and {len(comparison.candidates)} candidates",
        found.verdict,
        "unclear" if found.decoder.is_argmax else sign(low, high),
        (f"In brackets the {100 * comparison.confidence:g} % interval. {_explanation(found)}",),
        (_race(found, candidates), *_presence(found), _usage(found, file)),
        "Below: argmax against chosen, on images that had no part in choosing it.",
    )


def _explanation(found: Tuned) -> str:
    sentences = {PRESENCE: KNOWING, GLOBAL: FITTED}
    names = found.comparison.candidates
    told = (sentence for kind, sentence in sentences.items() if any(name.startswith(kind) for name in names))
    return " ".join([EXPLANATION, *told])


def _about_race(found: Tuned) -> list[str]:
    """What to know of the table of candidates: how far it can be trusted, and which rows are one decision."""
    return [FLATTERED, *describe_alike(found.comparison)]


def _race(found: Tuned, candidates: Sequence[Candidate]) -> Section:
    head = ("candidate", f"{_objective(found)}, %", "gain, points", "interval")
    text = " ".join(_about_race(found))
    return Section("Candidates", text, head, tuple(row[:4] for row in candidates))


def _presence(found: Tuned) -> list[Section]:
    """How far the decoder can be relied upon to know which classes are there, if it does."""
    about = found.decoder.evidence.get("presence")
    where = "in images of folds that it was not fitted to"
    return [presence_section(about, "The decoder", where)] if about else []


def _usage(found: Tuned, file: Path) -> Section:
    evidence, path = found.decoder.evidence, file.as_posix()
    text = (
        f"{DECODER} holds the options, the temperature and the evidence. It decides on probabilities that were made "
        "like those here: same network, same activation."
    )
    if "one_vs_rest" in evidence or "activation" in evidence:
        code: tuple[tuple[str, str], ...] = (("Python", _prepared(evidence, path)),)
        text += " The options one-vs-rest and activation of this run have to be repeated before it."
    else:
        classes = found.decoder.num_classes
        call = f"decoder(probs)  # (B, {classes}, *spatial) probabilities"
        code = (("Python", _python(path, call)), *_toolkits(classes, path))
    if found.decoder.is_argmax:
        text += " Here it holds plain argmax, so using it changes nothing."
    return Section("How to use it", text, code=code)


def _python(path: str, call: str, imports: str = "") -> str:
    head = f"{imports}from rankseg_plugins.calibration import TunedDecoder"
    return f"{head}\n\ndecoder = TunedDecoder.load({path!r})\nlabels = {call}"


def _prepared(evidence: Mapping[str, Any], path: str) -> str:
    """The call on what the files hold, which is not what the decoder takes."""
    label, activation = evidence.get("one_vs_rest"), evidence.get("activation")
    channel = "" if label is None else f"[:, {label}:{label + 1}]"
    if activation is None:
        return _python(path, f"decoder(probs{channel})")
    if label is None or activation == "sigmoid":
        return _python(path, f"decoder.predict_logits(logits{channel}, {activation!r})")
    # What a class is against the rest takes the logits of all.
    imports = "from rankseg_plugins.core.inputs.probabilities import to_probabilities\n"
    return _python(path, f"decoder(to_probabilities(logits, {activation!r}){channel})", imports)


def _toolkits(classes: int, path: str) -> tuple[tuple[str, str], ...]:
    return (
        (
            "MMSegmentation, in a config",
            f"model = dict(type='rankseg_plugins.mmseg.RankSEGEncoderDecoder', "
            f"test_cfg=dict(rankseg=dict(tuned={path!r})))",
        ),
        (
            "Lightning",
            "from rankseg_plugins.lightning import RankSEGCallback\n\n"
            f"callback = RankSEGCallback({path!r}, num_classes={classes})",
        ),
        (
            "TorchMetrics",
            "from rankseg_plugins.torchmetrics import RankSEGWrapper\n\n"
            f"metric = RankSEGWrapper(metric, decoder={path!r})",
        ),
    )
