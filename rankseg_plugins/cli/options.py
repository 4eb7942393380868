"""Options that several commands share: their help, and the panel of the help page that they stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

READING, SCORING, INTERVALS, RUNNING = (
    {"rich_help_panel": title} for title in ("Reading", "Scoring", "Intervals", "Running")
)


def read_path(given: str | Path) -> Path:
    """Path takes an empty text for the folder one is in, which is a variable that is not set more often."""
    if not str(given):
        raise typer.BadParameter("must not be empty; '.' is the folder you are in")
    return Path(given)


Probs = Annotated[
    Path,
    typer.Option(
        help="Probabilities: a folder of .npz (also nnU-Net's), .npy or .pt files, or one .npz of all.",
        parser=read_path,
        metavar="PATH",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Truth: a folder of PNG, NIfTI, .npy, .npz or .pt files with the same names.",
        parser=read_path,
        metavar="PATH",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="Folder for the report; an interrupted run is continued there.", parser=read_path, metavar="DIRECTORY"
    ),
]
IgnoreIndex = Annotated[int, typer.Option(help="Label whose pixels do not count.", **READING)]
ClassNames = Annotated[str | None, typer.Option(help="Names of the classes, separated by commas.", **READING)]
OneVsRest = Annotated[int | None, typer.Option(help="Only this class, against all others.", **READING)]
MapLabels = Annotated[str | None, typer.Option(help='Change labels of the truth, such as "255:1,2:1".', **READING)]
Orientation = Annotated[
    str | None,
    typer.Option(
        help='How the arrays lie whose labels are NIfTI: "stored" as these, or turned when their images were read, '
        "such as to RAS. Unless given, nnU-Net's files tell.",
        **READING,
    ),
]
Activation = Annotated[
    str,
    typer.Option(help="What turns the values into probabilities: identity, softmax, sigmoid or normalize.", **READING),
]
Present = Annotated[
    str,
    typer.Option(
        help="Classes that have a score in an image: those in union (truth or prediction) or label.", **SCORING
    ),
]
Absent = Annotated[str, typer.Option(help="What a class counts that is absent: skip, zero or one.", **SCORING)]
Exclude = Annotated[list[int], typer.Option(help="Class that is not scored, such as background; repeat it.", **SCORING)]
GroupBy = Annotated[
    str | None,
    typer.Option(help="Pattern whose match in a name is its case, such as the patient: '^[^_]+'.", **INTERVALS),
]
Confidence = Annotated[float, typer.Option(help="Confidence of the intervals.", min=0.01, max=0.9999, **INTERVALS)]
Seed = Annotated[int, typer.Option(help="Of the folds.", min=0, **INTERVALS)]
Device = Annotated[str, typer.Option(help="Where to decode: cpu, cuda, ...", **RUNNING)]
KeepGoing = Annotated[bool, typer.Option(help="Report images that cannot be read, and go on.", **RUNNING)]
AsJson = Annotated[bool, typer.Option("--json", help="Print all figures as JSON.", **RUNNING)]
