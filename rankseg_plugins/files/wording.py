"""What a message says to a caller of Python, said to a user of the command.

Lower rooms name what is passed in Python, such as ``activation='sigmoid'``; a shell takes ``--activation sigmoid``. All
that the command prints comes through ``for_shell``, so that no message of a lower room needs to know of options.
"""

from __future__ import annotations

import re

#: Arguments that the option of the same name gives.
_ALIKE = (
    *("absent", "activation", "aggregation_levels", "class_names", "confidence", "decoder", "device", "folds"),
    *("ignore_index", "keep", "metrics", "min_cases", "objective", "output_mode", "panels", "presence", "present"),
    *("pruning_probs", "score", "seed", "solvers", "spacing", "temperatures"),
)
#: What an option is called that gives an argument, or one value of it.
OPTIONS = {name: f"--{name.replace('_', '-')}" for name in _ALIKE} | {
    "classes of lesions": "--lesion-class",
    "decoders": "--decoder",
    "excluded": "--exclude",
    "excluded classes": "--exclude",
    "metric": "--metrics",
    "overlap": "--lesion-overlap",
    "pruning_prob": "--pruning-probs",
    "solver": "--solvers",
}
#: What is said in other words, as only Python takes it, or as a shell has another remedy.
PHRASES = {
    "turn logits into probabilities first (softmax over the classes, or sigmoid), or, where there is the option, "
    "say activation='softmax' or 'sigmoid'": (
        "--activation softmax, or --activation sigmoid, makes probabilities of logits"
    ),
    " (dimension 1 of (B, C, *spatial))": "",
    "(output_mode='multilabel', with masks as truth)": (
        "(as truth they need a mask for each channel, and decode needs rankseg(output_mode=multilabel))"
    ),
    "a missing batch or channel dimension (probs.unsqueeze(0) adds the batch, probs.unsqueeze(1) the channel)": (
        "a missing channel dimension (array[None] adds it), axes in another order than (C, *spatial)"
    ),
    ". To decide on scores on purpose, set check_sums = False": "",
    "TemperatureScaling fits one, and tune() takes those that it is given, such as ": "rankseg-plugins tune takes ",
    "Divide them by 255": "--map-labels 255:1",
    "a single channel knows one class and all else": (
        "a single channel knows one class and all else, of which --map-labels makes other labels, such as 2:1,3:0"
    ),
    "need the spacing of the image, which is not known": "need the size of a pixel: --spacing gives it",
    " (output_mode='multiclass', solver='argmax')": "",
    " (for accuracy solver='TR')": "",
}
_NAMES = "|".join(sorted(OPTIONS, key=len, reverse=True))
#: The decoders that a message quotes, whose options stay as they are written; an argument with its value; one alone.
_ARGUMENTS = re.compile(
    r"(?P<quoted>'\w+\([^']*\)'|\b\w+\([^()]*\))"
    rf"|(?<![\w-])(?P<given>{_NAMES})=(?P<value>'[^']*'|\[[^\]]*\]|[-\w.]*\w)"
    rf"|(?:^|\beach of )(?P<subject>{_NAMES})(?= must | is an option | leaves? | needs? | '|: )"
    rf"|(?<![\w-])(?P<word>{'|'.join(name for name in OPTIONS if '_' in name)})(?![\w=])"
)


def for_shell(message: str) -> str:
    """A message in which what Python takes is what the command takes.

    Example:
        >>> for_shell("activation='softmax' gives 1 everywhere; use activation='sigmoid' (ignore_index=255)")
        '--activation softmax gives 1 everywhere; use --activation sigmoid (--ignore-index 255)'
        >>> for_shell("each of temperatures must be in [0.001, 1000], got 0.0")
        '--temperatures must be in [0.001, 1000], got 0.0'
        >>> for_shell("decoder 'rankseg(foo=1)': unknown option 'foo'. Allowed are metric, output_mode")
        "--decoder 'rankseg(foo=1)': unknown option 'foo'. Allowed are metric, output_mode"
    """
    if message.startswith("decoder '"):  # what follows speaks of what stands in its brackets
        return f"{OPTIONS['decoder']}{message.removeprefix('decoder')}"
    for phrase, words in PHRASES.items():
        message = message.replace(phrase, words)
    return _ARGUMENTS.sub(_option, re.sub(r"\bnum_classes=(\d+)", r"\1 classes", message))


def about_file(problem: str) -> str:
    """The same about a file that is named before: no argument is to blame, and no batch was given.

    Example:
        >>> about_file("target holds the label 7, allowed are 0 to 2 (ignore_index=255)")
        'holds the label 7, allowed are 0 to 2 (--ignore-index 255)'
    """
    problem = re.sub(
        r"^(target|class_names) (?=must |holds? |masks )", "", re.sub(r"^probs ", "probabilities ", problem)
    )
    return for_shell(re.sub(r"\bshape \(1, (?=\d+, \d+, \d)", "shape (", problem))


def _option(found: re.Match[str]) -> str:
    if found["quoted"]:
        return found["quoted"]
    option = OPTIONS[found["given"] or found["subject"] or found["word"]]
    return f"{option} {_words(found['value'])}" if found["given"] else option


def _words(value: str) -> str:
    """A value as a shell takes it: no quotes, and a list between commas."""
    if value.startswith("["):
        return ",".join(part.strip(" '") for part in value[1:-1].split(",")) or "none"
    return value.strip("'")
