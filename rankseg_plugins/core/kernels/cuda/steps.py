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

import torch
import triton.language as tl
from torch import Tensor

from rankseg_plugins.core.dense import GraphSteps
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cuda import labels as label_kernels
from rankseg_plugins.core.kernels.cuda import rows as row_kernels
from rankseg_plugins.core.kernels.cuda import shared
from rankseg_plugins.core.objectives import Dice, Objective
from rankseg_plugins.core.values import GraphValues
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
        #: What ``rankseg_plugins.core.kernels.cuda.rows.scale_pixels`` finds, where it is needed.
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


class CudaSteps:
    """The steps of ``rankseg_plugins.core.rma``; the kernels alone read and write what is known of the rows.

    Values that give no probabilities fail an assertion, which shows at the next synchronisation.
    """

    def __init__(self, pixels: Pixels) -> None:
        self.pixels, self.source = pixels, Source(pixels)
        source = self.source
        self.record = source.empty(source.batch, source.classes, shared.RECORD.value)
        self.overlap = source.empty(source.rows, 2 * shared.PLACES.value)
        self._found: Volumes | None = None

    def values(self) -> GraphValues:
        """See ``rankseg_plugins.core.rma.Steps``."""
        return GraphSteps(self.pixels).values()

    @property
    def maximum(self) -> Tensor:
        """(B, C) largest probability of every row."""
        return self.record[..., shared.LARGEST.value]

    def search(self, objective: Objective, pruning: float | Tensor) -> Volumes:
        """See ``rankseg_plugins.core.rma.Steps``."""
        source, smooth, dice = self.source, _bits(objective.smooth), isinstance(objective, Dice)
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
                partial, self.record, self.overlap, fits, table, source.pixels, parts, smooth, _bits(bound),
                has_table=table is not partial, dice=dice, block=512,
            )  # fmt: skip
            torch._assert_async(fits, "probs must be finite and lie in [0, 1]")
            row_kernels.collect[(source.rows * steps,)](
                *source.arguments, self.record, held, room, *source.layout, step, steps, **source.options, **_COLLECT
            )
            row_kernels.finish[(source.rows,)](
                *source.arguments, self.record, held, room, *source.layout, smooth, dice=dice,
                is_ratio=objective.is_ratio, **source.options, **_FINISH,
            )  # fmt: skip
            if not objective.is_ratio:
                self._rank(held, room, smooth)
        places = shared.THRESHOLD, shared.N, shared.S, shared.MU
        threshold, n, s, mu = (self.record[..., place.value] for place in places)
        self._found = Volumes(threshold, n, s, mu, threshold < torch.inf)
        return self._found

    def _rank(self, held: Tensor, room: int, smooth: int) -> None:
        """Smoothed Dice may leave out the least probable pixels of the mask of its ratio."""
        source = self.source
        found = source.empty(4, source.rows * _SCORERS)
        row_kernels.score_candidates[(source.rows * _SCORERS,)](
            *source.arguments, self.record, held, found, room, *source.layout, smooth, _SCORERS, **source.options,
            **_SCORE,
        )  # fmt: skip
        row_kernels.best_candidate[(source.rows,)](found, self.record, smooth, parts=_SCORERS, num_warps=1)

    def masks(self, volumes: Volumes) -> Tensor:
        """See ``rankseg_plugins.core.rma.Steps``."""
        self._take(volumes)
        source = self.source
        masks = source.empty(source.batch, source.classes, source.pixels, dtype=torch.bool)
        parts = _cdiv(source.pixels, _SELECT["block"])
        with torch.cuda.device_of(masks):
            label_kernels.select[(source.rows * parts,)](
                *source.arguments, self.record, masks, *source.layout, parts, **source.options, **_SELECT
            )
        return masks

    def labels(self, volumes: Volumes, objective: Objective, void_index: int | None) -> Tensor:
        """See ``rankseg_plugins.core.rma.Steps``."""
        self._take(volumes)
        source = self.source
        number, settled = _cdiv(_cdiv(source.pixels, _PIECE), _LABELED) * _LABELED, 1
        while settled < _LABELED and source.batch * number // settled > _MANY:
            settled *= 2
        labels = source.empty(source.batch, source.pixels, dtype=torch.int64)
        disputed = source.empty(source.batch, number, dtype=torch.int8)
        listed = source.empty(source.batch, source.classes + 1, dtype=torch.int32)
        given = *source.arguments, self.record, listed, self.overlap, labels, disputed, *source.layout
        with torch.cuda.device_of(labels):
            label_kernels.list_active[(source.batch,)](
                self.record, listed, source.classes, all_classes=1 << (source.classes - 1).bit_length(), num_warps=1
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

    def _take(self, volumes: Volumes) -> None:
        """Go on with these masks."""
        if volumes is self._found:
            return
        for place, table in ((shared.THRESHOLD, volumes.threshold), (shared.N, volumes.n), (shared.S, volumes.s)):
            self.record[..., place.value] = table.double()


def _cdiv(number: int, size: int) -> int:
    return -(-number // size)


def _rounded(number: float, dtype: torch.dtype) -> float:
    """The number as this precision holds it."""
    return number if dtype == torch.float64 else struct.unpack("<f", struct.pack("<f", number))[0]


def _bits(number: float) -> int:
    """The number as the kernels' ``_real`` reads it."""
    found: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return found
