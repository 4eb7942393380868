"""RMA on an NVIDIA GPU in a few passes that never wait for the host; needs Triton, which PyTorch's CUDA builds bring.

The same steps as on a CPU. Survey: one pass over the values finds maxima and sums of every class, from which follows a
guess, a lower bound of every threshold. Collect: a second one, over the classes that were not pruned, copies the few
undecided pixels, on which the iteration finishes. Choose: a third one labels what a single class selected. Settle: what
is left is decided where it lies.

From logits, a pass before all others keeps of every pixel what makes probabilities of its values, and whatever reads a
value makes one: a tensor of probabilities never exists.

Sums that several programs add to may differ in the last bit of float64 from run to run, where small probabilities
are involved; the order of the programs is not fixed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import triton.language as tl
from torch import Tensor

from rankseg_plugins.core.kernels.cuda import labels as label_kernels
from rankseg_plugins.core.kernels.cuda import rows as row_kernels
from rankseg_plugins.core.kernels.cuda import shared
from rankseg_plugins.core.objectives import Dice, Objective
from rankseg_plugins.core.pixels import Pixels
from rankseg_plugins.core.volumes import Volumes

#: Values that a program reads at a time and its warps, in each pass; found by trying, on an H200, but for the first.
_SCALE = {"block": 256, "num_warps": 2}
_SURVEY = {"block": 512, "num_warps": 2}
_COLLECT = {"block": 1024, "num_warps": 1}
_FINISH = {"block": 4096, "num_warps": 16}
_SCORE = {"size": 64, "block": 128, "num_warps": 4}
_SELECT = {"block": 2048, "num_warps": 4}

#: Programs of a pass over the rows, enough to keep a large GPU busy; and those that score the masks of one row.
_PROGRAMS, _SCORERS = 8192, 32

#: Room for undecided pixels: this share of the memory of a row and a little more. Real images need a fiftieth.
_SHARE, _ROOM = 8, 1 << 10

#: Pixels of a piece, which are settled together; pieces that one program labels, and with how many warps.
_PIECE, _LABELED, _WARPS = 128, 16, 8

#: One program settles one piece, or more where the programs would be more than these.
_MANY = 1 << 14

#: Up to so many classes are labelled at once.
_FEW = 4


class Source:
    """Values (B, C, d) on a GPU, and the arguments that every kernel needs to read probabilities from them.

    Where neighbours lie apart in memory, the values are copied.
    """

    def __init__(self, pixels: Pixels) -> None:
        v, valid = pixels.values.flatten(2), pixels.valid
        self.values = v if v.stride(-1) == 1 else v.contiguous()
        self.batch, self.classes, self.pixels = v.shape
        self.rows = self.batch * self.classes
        #: Precision in which probabilities are compared.
        self.dtype = torch.float64 if v.dtype == torch.float64 else torch.float32
        #: What :func:`~rankseg_plugins.core.kernels.cuda.rows.scale_pixels` finds, where it is needed.
        self.scale = self.empty(self.batch, 2, self.pixels, dtype=self.dtype) if pixels.compete else self.values
        #: In which probabilities are kept without loss.
        self.kept = v.dtype if pixels.activation == "identity" else self.dtype
        is_masked, per_image = valid is not None, valid is not None and valid.ndim == pixels.values.ndim - 1
        mask = self.values if valid is None else valid.contiguous().view(torch.uint8)
        self.arguments = self.values, self.scale, mask, _rounded(pixels.temperature, torch.float32)
        strides = self.values.stride(0), self.values.stride(1), self.pixels if per_image else 0
        self.layout = self.pixels, self.classes, *strides
        dtype = tl.float64 if self.dtype == torch.float64 else tl.float32
        self.options = {"has_valid": is_masked, "activation": pixels.activation, "dtype": dtype}

    def empty(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Uninitialised memory beside the values."""
        return torch.empty(shape, dtype=dtype, device=self.values.device)

    def room(self) -> tuple[Tensor, int]:
        """Memory for undecided pixels of every row, and for how many of each."""
        share = self.pixels * self.values.itemsize // (_SHARE * self.kept.itemsize)
        room = min(self.pixels, share + _ROOM)
        return self.empty(self.rows, room, dtype=self.kept), room

    def split(self, block: int) -> tuple[int, int]:
        """Length and number of the parts into which a pass cuts every row."""
        parts = min(_cdiv(_PROGRAMS, self.rows), _cdiv(self.pixels, block))
        span = _cdiv(_cdiv(self.pixels, parts), block) * block
        return span, _cdiv(self.pixels, span)


@dataclass
class Rows:
    """What is known of every image and class; the kernels alone read and write it, but for :meth:`limit`."""

    source: Source
    record: Tensor = field(init=False)
    overlap: Tensor = field(init=False)

    def __post_init__(self) -> None:
        source = self.source
        self.record = source.empty(source.batch, source.classes, shared.RECORD.value)
        self.overlap = source.empty(source.rows, 2 * shared.PLACES.value)

    def limit(self, choose: Callable[[Tensor, Volumes], Tensor]) -> None:
        """Leave those of the active classes that :attr:`~rankseg_plugins.core.volumes.Classes.choose` says."""
        places = shared.LARGEST, shared.THRESHOLD, shared.N, shared.S, shared.MU
        largest, threshold, n, s, mu = (self.record[..., place.value] for place in places)
        found = Volumes(threshold.to(self.source.dtype), n, s, mu, threshold < torch.inf)
        left = found.only(choose(largest, found))
        for table, values in ((threshold, left.threshold), (n, left.n), (s, left.s)):
            table.copy_(values)


def search_volumes(source: Source, objective: Objective, pruning: float | Tensor) -> Rows:
    """As :func:`rankseg_plugins.core.dense.search_volumes`.

    Values that give no probabilities fail an assertion, which shows at the next synchronisation.
    """
    rows, smooth, dice = Rows(source), _bits(objective.smooth), isinstance(objective, Dice)
    (span, parts), (step, steps) = source.split(_SURVEY["block"]), source.split(_COLLECT["block"])
    partial, fits = source.empty(5, source.rows * parts), source.empty(dtype=torch.int32)
    table, bound = (
        (pruning.contiguous(), 0.0) if isinstance(pruning, Tensor) else (partial, _rounded(pruning, source.dtype))
    )
    held, room = source.room()
    with torch.cuda.device_of(source.values):
        if source.scale is not source.values:
            blocks = _cdiv(source.pixels, _SCALE["block"])
            row_kernels.scale_pixels[(source.batch * blocks,)](
                *source.arguments, *source.layout, blocks, **source.options, **_SCALE
            )
        row_kernels.survey[(source.rows * parts,)](
            *source.arguments, partial, fits, *source.layout, span, parts, **source.options, **_SURVEY
        )
        row_kernels.guess[(source.rows,)](
            partial, rows.record, rows.overlap, fits, table, source.pixels, parts, smooth, _bits(bound),
            has_table=table is not partial, dice=dice, block=512,
        )  # fmt: skip
        torch._assert_async(fits, "probs must be finite and lie in [0, 1]")
        row_kernels.collect[(source.rows * steps,)](
            *source.arguments, rows.record, held, room, *source.layout, step, steps, **source.options, **_COLLECT
        )
        row_kernels.finish[(source.rows,)](
            *source.arguments, rows.record, held, room, *source.layout, smooth, dice=dice, is_ratio=objective.is_ratio,
            **source.options, **_FINISH,
        )  # fmt: skip
        if not objective.is_ratio:
            found = source.empty(4, source.rows * _SCORERS)
            row_kernels.score_candidates[(source.rows * _SCORERS,)](
                *source.arguments, rows.record, held, found, room, *source.layout, smooth, _SCORERS, **source.options,
                **_SCORE,
            )  # fmt: skip
            row_kernels.best_candidate[(source.rows,)](found, rows.record, smooth, parts=_SCORERS, num_warps=1)
    return rows


def assign_masks(rows: Rows) -> Tensor:
    """The masks themselves, (B, C, d) bool."""
    source = rows.source
    masks = source.empty(source.batch, source.classes, source.pixels, dtype=torch.bool)
    parts = _cdiv(source.pixels, _SELECT["block"])
    with torch.cuda.device_of(masks):
        label_kernels.select[(source.rows * parts,)](
            *source.arguments, rows.record, masks, *source.layout, parts, **source.options, **_SELECT
        )
    return masks


def assign_labels(rows: Rows, objective: Objective, void_index: int | None) -> Tensor:
    """As :func:`rankseg_plugins.core.dense.assign_labels`."""
    source = rows.source
    number, settled = _cdiv(_cdiv(source.pixels, _PIECE), _LABELED) * _LABELED, 1
    while settled < _LABELED and source.batch * number // settled > _MANY:
        settled *= 2
    labels = source.empty(source.batch, source.pixels, dtype=torch.int64)
    disputed = source.empty(source.batch, number, dtype=torch.int8)
    listed = source.empty(source.batch, source.classes + 1, dtype=torch.int32)
    given = *source.arguments, rows.record, listed, rows.overlap, labels, disputed, *source.layout
    with torch.cuda.device_of(labels):
        label_kernels.list_active[(source.batch,)](
            rows.record, listed, source.classes, all_classes=1 << (source.classes - 1).bit_length(), num_warps=1
        )
        label_kernels.choose[(source.batch * number // _LABELED,)](
            *given, number // _LABELED, **source.options, few=source.classes if source.classes <= _FEW else 0,
            pieces=_LABELED, block=_PIECE, num_warps=_WARPS,
        )  # fmt: skip
        label_kernels.settle[(source.batch * number // settled,)](
            *given, number // settled, _bits(objective.smooth), void_index or 0, dice=isinstance(objective, Dice),
            has_void=void_index is not None, **source.options, pieces=settled, block=_PIECE, num_warps=1,
        )  # fmt: skip
    return labels


def _cdiv(number: int, size: int) -> int:
    return -(-number // size)


def _rounded(number: float, dtype: torch.dtype) -> float:
    """The number as this precision holds it."""
    return number if dtype == torch.float64 else struct.unpack("<f", struct.pack("<f", number))[0]


def _bits(number: float) -> int:
    """The number as the kernels' ``_real`` reads it."""
    return struct.unpack("<q", struct.pack("<d", number))[0]
