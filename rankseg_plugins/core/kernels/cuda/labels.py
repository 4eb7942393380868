"""Kernels from one mask per row to the decision."""

import triton
import triton.language as tl

from rankseg_plugins.core.kernels.cuda.shared import (
    MU,
    PLACES,
    RECORD,
    THRESHOLD,
    N,
    S,
    are_valid,
    clamp,
    gain_of,
    load,
    of_row,
    real,
)


@triton.jit
def list_active(record, listed, classes, all_classes: tl.constexpr):
    """Per image: the number of active classes, then these in ascending order; without any, 0 and then all."""
    image = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, all_classes)
    inside = c < classes
    threshold = tl.load(record + (image * classes + c) * RECORD + THRESHOLD, inside, other=float("inf"))
    active = (threshold < float("inf")).to(tl.int32)
    number = tl.sum(active, 0)
    listed += image * (classes + 1)
    tl.store(listed, number)
    chosen = tl.where(number == 0, inside, active > 0)
    tl.store(listed + tl.cumsum(chosen.to(tl.int32), 0), c, chosen)


@triton.jit
def select(
    values, scale, valid, temperature, record, masks, pixels, classes, stride_b, stride_c, stride_v, parts,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """The masks of all rows; those that are not active are not read."""
    program = tl.program_id(0).to(tl.int64)
    row = program // parts
    at = (program % parts) * block + tl.arange(0, block)
    threshold = tl.load(record + row * RECORD + THRESHOLD)
    values, scale, valid = of_row(values, scale, valid, row, pixels, classes, stride_b, stride_c, stride_v)
    end = tl.where(threshold < float("inf"), pixels, 0)
    p = load(values, scale, temperature, at, at < end, pixels, activation, dtype)
    tl.store(masks + row * pixels + at, p > threshold.to(dtype), at < pixels)


@triton.jit
def choose(
    values, scale, valid, temperature, record, listed, overlap, labels, disputed, pixels, classes, stride_b, stride_c,
    stride_v, parts,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr, few: tl.constexpr, pieces: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Label the pixels that one class selected, -1 the others; add up what each class shares with others.

    A program labels ``pieces`` times ``block`` pixels, and says of each piece whether any of them is left. ``few`` is
    the number of classes where it is small, else 0: then the active ones are read one after the other.
    """
    program = tl.program_id(0).to(tl.int64)
    image = program // parts
    at = tl.arange(0, pieces)[:, None] * block + tl.arange(0, block)[None, :]
    at += (program % parts) * pieces * block
    inside = at < pixels
    values, scale, valid = of_row(values, scale, valid, image * classes, pixels, classes, stride_b, stride_c, stride_v)
    inside = are_valid(valid, at, inside, has_valid)
    listed += image * (classes + 1)
    record += image * classes * RECORD
    count, label = tl.zeros([pieces, block], tl.int32), tl.zeros([pieces, block], tl.int32)
    number = tl.load(listed)
    if few > 0:
        for c in tl.static_range(few):
            threshold = tl.load(record + c * RECORD + THRESHOLD).to(dtype)
            selected = (
                load(values + c * stride_c, scale, temperature, at, inside, pixels, activation, dtype) > threshold
            )
            count += selected.to(tl.int32)
            label = tl.where(selected, c, label)
    else:
        for i in tl.range(1, number + 1, loop_unroll_factor=4):
            c = tl.load(listed + i)
            threshold = tl.load(record + c * RECORD + THRESHOLD).to(dtype)
            selected = (
                load(values + c * stride_c, scale, temperature, at, inside, pixels, activation, dtype) > threshold
            )
            count += selected.to(tl.int32)
            label = tl.where(selected, c, label)
    tl.store(labels + image * pixels + at, tl.where(count == 1, label, -1).to(tl.int64), at < pixels)
    left = tl.max((inside & (count != 1)).to(tl.int32), 1)
    tl.store(disputed + program * pieces + tl.arange(0, pieces), left.to(tl.int8))
    several = inside & (count > 1)
    if tl.max(tl.max(several.to(tl.int32), 1), 0) > 0:
        overlap += image * classes * 2 * PLACES + program % PLACES
        for i in range(1, number + 1):
            # Not `c`: Triton takes the loops above for the same variable.
            other = tl.load(listed + i)
            p = clamp(load(values + other * stride_c, scale, temperature, at, several, pixels, activation, dtype))
            shared = several & (p > tl.load(record + other * RECORD + THRESHOLD).to(dtype))
            n = tl.sum(tl.sum(shared.to(tl.int32), 1), 0)
            if n > 0:
                s = tl.sum(tl.sum(tl.where(shared, p, 0.0).to(tl.float64), 1), 0)
                tl.atomic_add(overlap + other * 2 * PLACES, n.to(tl.float64))
                tl.atomic_add(overlap + (other * 2 + 1) * PLACES, s)


@triton.jit(do_not_specialize=["smooth_bits", "void_index"])
def settle(
    values, scale, valid, temperature, record, listed, overlap, labels, disputed, pixels, classes, stride_b, stride_c,
    stride_v, parts, smooth_bits, void_index,
    dice: tl.constexpr, has_void: tl.constexpr, has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr,
    pieces: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Give the pixels that no class or several classes selected to the one that gains most, or label them void.

    A pixel without any probability is labelled 0, as by argmax.
    """
    program = tl.program_id(0).to(tl.int64)
    image = program // parts
    smooth = real(smooth_bits)
    values, scale, valid = of_row(values, scale, valid, image * classes, pixels, classes, stride_b, stride_c, stride_v)
    labels += image * pixels
    listed += image * (classes + 1)
    record += image * classes * RECORD
    overlap += image * classes * 2 * PLACES
    for piece in range(program * pieces, (program + 1) * pieces):
        if tl.load(disputed + piece) > 0:
            at = (piece - image * parts * pieces) * block + tl.arange(0, block)
            left = are_valid(valid, at, tl.load(labels + at, at < pixels, other=0) < 0, has_valid)
            active = tl.load(listed)
            # Where pruning left no class at all, every class competes for every pixel.
            number = tl.where(active == 0, classes, active)
            best, winner = tl.full([block], float("-inf"), tl.float64), tl.zeros([block], tl.int32)
            # A class that selected the pixel comes before all that did not, whatever they gain.
            chosen = tl.zeros([block], tl.int1)
            largest = tl.zeros([block], dtype)
            for i in tl.range(1, number + 1, loop_unroll_factor=2):
                c = tl.load(listed + i)
                p = clamp(load(values + c * stride_c, scale, temperature, at, left, pixels, activation, dtype))
                row, shared = record + c * RECORD, overlap + c * 2 * PLACES + tl.arange(0, PLACES)
                selected = p > tl.load(row + THRESHOLD).to(dtype)
                t = tl.load(row + N) - tl.sum(tl.load(shared), 0)
                m = tl.load(row + S) - tl.sum(tl.load(shared + PLACES), 0)
                gain = gain_of(p.to(tl.float64), m, t, tl.load(row + MU), smooth, dice)
                better = (selected & ~chosen) | ((selected == chosen) & (gain > best))
                best = tl.where(better, gain, best)
                winner = tl.where(better, c, winner)
                chosen = chosen | selected
                largest = tl.maximum(largest, p)
            bare = left & (largest == 0)
            if number < classes and not has_void and tl.max(bare.to(tl.int32), 0) > 0:
                # Not `c` and `p`: Triton takes the loop above for the same variables.
                for other in range(classes):
                    q = load(values + other * stride_c, scale, temperature, at, bare, pixels, activation, dtype)
                    largest = tl.maximum(largest, q)
            winner = tl.where(largest == 0, 0, winner)
            decided = winner.to(tl.int64)
            if has_void:
                decided = tl.where(chosen, decided, void_index)
            tl.store(labels + at, decided, left)
