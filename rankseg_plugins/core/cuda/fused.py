"""RMA on an NVIDIA GPU in a few passes that never wait for the host; needs Triton, which PyTorch's CUDA builds bring.

The same steps as on a CPU: one pass over the probabilities finds maxima, sums and a first floor of every threshold;
a second one, over the classes that were not pruned, copies the few undecided pixels, on which the iteration runs;
a third one labels what a single class selected, and what is left is settled where it lies.

Sums that several programs add to may differ in the last bit of float64 from run to run, where small probabilities
are involved; the order of the programs is not fixed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import torch
import triton.language as tl
from torch import Tensor

from rankseg_plugins.core.cuda import labels as label_kernels
from rankseg_plugins.core.cuda import shared
from rankseg_plugins.core.cuda import volumes as volume_kernels
from rankseg_plugins.core.objectives import Dice, Objective

#: Values that a program reads at a time and its warps, in each pass; found by trying, on an H200.
_STATISTICS = {"block": 512, "num_warps": 2}
_COLLECT = {"block": 1024, "num_warps": 1}
_REFINE = {"block": 4096, "num_warps": 16}
_SCORE = {"size": 64, "block": 128, "num_warps": 4}
_SELECT = {"block": 2048, "num_warps": 4}

#: Programs of a pass over the rows, enough to keep a large GPU busy; and those that score the masks of one row.
_PROGRAMS, _SCORERS = 8192, 32

#: Room for undecided pixels: this share of a row and a little more. Real images need a fiftieth.
_SHARE, _ROOM = 8, 1 << 10

#: Pixels of a piece, which are settled together; pieces that one program labels, and with how many warps.
_PIECE, _LABELED, _WARPS = 128, 16, 8

#: One program settles one piece, or more where the programs would be more than these.
_MANY = 1 << 14

#: Up to so many classes are labelled at once.
_FEW = 4


class Pixels:
    """Probabilities (B, C, d) on a GPU, and the arguments that every kernel needs to read them.

    Args:
        probs: (B, C, *spatial), floating point. Where neighbours lie apart in memory, it is copied.
        valid_mask: optional (B, *spatial) or (*spatial), bool; probabilities of pixels marked False read as 0.
    """

    def __init__(self, probs: Tensor, valid_mask: Tensor | None) -> None:
        p = probs.flatten(2)
        self.probs = p if p.stride(-1) == 1 else p.contiguous()
        self.batch, self.classes, self.pixels = p.shape
        self.rows = self.batch * self.classes
        self.layout = self.pixels, self.classes, self.probs.stride(0), self.probs.stride(1)
        self.valid, self.stride_v = self.probs, 0
        if valid_mask is not None:
            self.valid = valid_mask.contiguous().view(torch.uint8)
            self.stride_v = self.pixels if valid_mask.ndim == probs.ndim - 1 else 0
        #: Precision in which probabilities are compared.
        self.dtype = tl.float64 if p.dtype == torch.float64 else tl.float32
        self.options = {"has_valid": valid_mask is not None, "dtype": self.dtype}

    def empty(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Uninitialised memory beside the probabilities."""
        return torch.empty(shape, dtype=dtype, device=self.probs.device)

    def split(self, block: int) -> tuple[int, int]:
        """Length and number of the parts into which a pass cuts every row."""
        parts = min(_cdiv(_PROGRAMS, self.rows), _cdiv(self.pixels, block))
        span = _cdiv(_cdiv(self.pixels, parts), block) * block
        return span, _cdiv(self.pixels, span)


@dataclass
class Rows:
    """What is known of every image and class; the kernels alone read and write it."""

    pixels: Pixels
    record: Tensor = field(init=False)
    overlap: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.record = self.pixels.empty(self.pixels.rows, shared.RECORD.value)
        self.overlap = self.pixels.empty(self.pixels.rows, 2 * shared.PLACES.value)


def search_volumes(pixels: Pixels, objective: Objective, pruning_prob: float) -> Rows:
    """As :func:`rankseg_plugins.core.tiled.rma.search_volumes`.

    Values that are no probabilities fail an assertion, which shows at the next synchronisation.
    """
    rows, smooth, dice = Rows(pixels), _bits(objective.smooth), isinstance(objective, Dice)
    pruning = pruning_prob if pixels.dtype == tl.float64 else struct.unpack("<f", struct.pack("<f", pruning_prob))[0]
    (span, parts), (step, steps) = pixels.split(_STATISTICS["block"]), pixels.split(_COLLECT["block"])
    partial, fits = pixels.empty(5, pixels.rows * parts), pixels.empty(dtype=torch.int32)
    room = min(pixels.pixels, pixels.pixels // _SHARE + _ROOM)
    held = pixels.empty(pixels.rows, room, dtype=pixels.probs.dtype)
    source, layout = (pixels.probs, pixels.valid), (*pixels.layout, pixels.stride_v)
    with torch.cuda.device_of(pixels.probs):
        volume_kernels.row_statistics[(pixels.rows * parts,)](
            *source, partial, fits, *layout, span, parts, **pixels.options, **_STATISTICS
        )
        volume_kernels.first_floor[(pixels.rows,)](
            partial, rows.record, rows.overlap, fits, pixels.pixels, parts, smooth, _bits(pruning),
            dice=dice, block=512,
        )  # fmt: skip
        torch._assert_async(fits, "probs must be finite and lie in [0, 1]")
        volume_kernels.collect[(pixels.rows * steps,)](
            *source, rows.record, held, room, *layout, step, steps, **pixels.options, **_COLLECT
        )
        volume_kernels.refine[(pixels.rows,)](
            *source, rows.record, held, room, *layout, smooth, dice=dice, is_ratio=objective.is_ratio,
            **pixels.options, **_REFINE,
        )  # fmt: skip
        if not objective.is_ratio:
            found = pixels.empty(4, pixels.rows * _SCORERS)
            volume_kernels.score_candidates[(pixels.rows * _SCORERS,)](
                *source, rows.record, held, found, room, *layout, smooth, _SCORERS, **pixels.options, **_SCORE
            )
            volume_kernels.best_candidate[(pixels.rows,)](found, rows.record, smooth, parts=_SCORERS, num_warps=1)
    return rows


def assign_masks(rows: Rows) -> Tensor:
    """As :func:`rankseg_plugins.core.tiled.assignment.assign_masks`."""
    pixels = rows.pixels
    masks = pixels.empty(pixels.batch, pixels.classes, pixels.pixels, dtype=torch.bool)
    parts = _cdiv(pixels.pixels, _SELECT["block"])
    with torch.cuda.device_of(masks):
        label_kernels.select[(pixels.rows * parts,)](
            pixels.probs, rows.record, masks, *pixels.layout, parts, dtype=pixels.dtype, **_SELECT
        )
    return masks


def assign_labels(rows: Rows, objective: Objective, void_index: int | None) -> Tensor:
    """As :func:`rankseg_plugins.core.tiled.assignment.assign_labels`."""
    pixels = rows.pixels
    number, settled = _cdiv(_cdiv(pixels.pixels, _PIECE), _LABELED) * _LABELED, 1
    while settled < _LABELED and pixels.batch * number // settled > _MANY:
        settled *= 2
    labels = pixels.empty(pixels.batch, pixels.pixels, dtype=torch.int64)
    disputed = pixels.empty(pixels.batch, number, dtype=torch.int8)
    listed = pixels.empty(pixels.batch, pixels.classes + 1, dtype=torch.int32)
    result = rows.record, listed, rows.overlap, labels, disputed
    with torch.cuda.device_of(labels):
        label_kernels.list_active[(pixels.batch,)](
            rows.record, listed, pixels.classes, all_classes=1 << (pixels.classes - 1).bit_length(), num_warps=1
        )
        label_kernels.label_undisputed[(pixels.batch * number // _LABELED,)](
            pixels.probs, pixels.valid, *result, *pixels.layout, pixels.stride_v, number // _LABELED, **pixels.options,
            few=pixels.classes if pixels.classes <= _FEW else 0, pieces=_LABELED, block=_PIECE, num_warps=_WARPS,
        )  # fmt: skip
        label_kernels.settle_disputed[(pixels.batch * number // settled,)](
            pixels.probs, *result, *pixels.layout, number // settled, _bits(objective.smooth), void_index or 0,
            dice=isinstance(objective, Dice), has_void=void_index is not None, dtype=pixels.dtype, pieces=settled,
            block=_PIECE, num_warps=1,
        )  # fmt: skip
    return labels


def _cdiv(number: int, size: int) -> int:
    return -(-number // size)


def _bits(number: float) -> int:
    """The number as the kernels' ``_real`` reads it."""
    return struct.unpack("<q", struct.pack("<d", number))[0]
