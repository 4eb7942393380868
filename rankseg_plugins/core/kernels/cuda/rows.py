"""Kernels that find the mask of every row."""

import triton
import triton.language as tl

from rankseg_plugins.core.kernels.cuda.shared import (
    CEILING,
    HELD,
    HIGHEST,
    LARGEST,
    LOWEST,
    MU,
    PLACES,
    RECORD,
    THRESHOLD,
    N,
    S,
    are_valid,
    clamp,
    load,
    margin_of,
    of_row,
    real,
    round_down,
    score_of,
    threshold_of,
)


@triton.jit
def scale_pixels(
    values, scale, valid, temperature, pixels, classes, stride_b, stride_c, stride_v, parts,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Per pixel: largest value (softmax), and 1 / sum over the classes; NaN where there are no probabilities."""
    program = tl.program_id(0).to(tl.int64)
    image, at = program // parts, (program % parts) * block + tl.arange(0, block)
    values, scale, valid = of_row(values, scale, valid, image * classes, pixels, classes, stride_b, stride_c, stride_v)
    inside = are_valid(valid, at, at < pixels, has_valid)
    # Finite, as -inf is a value, too, and -inf less -inf is none.
    top, total = tl.full([block], -3e38, dtype), tl.zeros([block], dtype)
    for c in range(classes):
        value = tl.load(values + c * stride_c + at, inside, other=0).to(dtype)
        if activation == "softmax":
            value = value / temperature
            higher = tl.maximum(top, value)
            total = total * tl.exp(top - higher) + tl.exp(value - higher)
            top = higher
        else:
            total += tl.where(value >= 0, value, float("nan"))
    if activation == "normalize":
        total = tl.where(total == 0, 1.0, total)
    tl.store(scale + at, top, inside)
    tl.store(scale + pixels + at, 1 / total if dtype == tl.float64 else tl.div_rn(1.0, total), inside)


@triton.jit
def survey(
    values, scale, valid, temperature, partial, fits, pixels, classes, stride_b, stride_c, stride_v, span, parts,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Per part: sum, sum and count above 1/2, largest value, and whether a value is no probability."""
    program = tl.program_id(0).to(tl.int64)
    row, start = program // parts, (program % parts) * span
    values, scale, valid = of_row(values, scale, valid, row, pixels, classes, stride_b, stride_c, stride_v)
    total, upper = tl.zeros([block], tl.float64), tl.zeros([block], tl.float64)
    number, strange = tl.zeros([block], tl.int32), tl.zeros([block], tl.int32)
    largest = tl.zeros([block], dtype)
    for offset in range(0, span, block):
        at = start + offset + tl.arange(0, block)
        inside = are_valid(valid, at, at < pixels, has_valid)
        p = load(values, scale, temperature, at, inside, pixels, activation, dtype)
        # Written so that NaN is strange, too.
        strange |= tl.where((p >= LOWEST) & (p <= HIGHEST), 0, 1)
        p = clamp(p)
        above = p > 0.5
        total += p.to(tl.float64)
        upper += tl.where(above, p, 0.0).to(tl.float64)
        number += above.to(tl.int32)
        largest = tl.maximum(largest, p)
    if program == 0:
        tl.store(fits, 1)
    partial += program
    field = tl.num_programs(0).to(tl.int64)
    tl.store(partial, tl.sum(total, 0))
    tl.store(partial + field, tl.sum(upper, 0))
    tl.store(partial + 2 * field, tl.sum(number, 0).to(tl.float64))
    tl.store(partial + 3 * field, tl.max(largest, 0).to(tl.float64))
    tl.store(partial + 4 * field, tl.max(strange, 0).to(tl.float64))


@triton.jit(do_not_specialize=["smooth_bits", "pruning_bits"])
def guess(
    partial, record, overlap, fits, table, pixels, parts, smooth_bits, pruning_bits,
    has_table: tl.constexpr, dice: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Per row: join its parts, and find a lower bound of the threshold from three masks that any row has.

    A row is active if its largest probability is above its own bound in the ``table``, or above one bound for all.
    """
    row = tl.program_id(0).to(tl.int64)
    smooth = real(smooth_bits)
    partial += row * parts
    field = tl.num_programs(0).to(tl.int64) * parts
    sums, uppers, numbers = tl.zeros([block], tl.float64), tl.zeros([block], tl.float64), tl.zeros([block], tl.float64)
    peaks, odd = tl.zeros([block], tl.float64), tl.zeros([block], tl.float64)
    for offset in range(0, parts, block):
        i = offset + tl.arange(0, block)
        sums += tl.load(partial + i, i < parts, other=0.0)
        uppers += tl.load(partial + field + i, i < parts, other=0.0)
        numbers += tl.load(partial + 2 * field + i, i < parts, other=0.0)
        peaks = tl.maximum(peaks, tl.load(partial + 3 * field + i, i < parts, other=0.0))
        odd = tl.maximum(odd, tl.load(partial + 4 * field + i, i < parts, other=0.0))
    mu, s, n, largest = tl.sum(sums, 0), tl.sum(uppers, 0), tl.sum(numbers, 0), tl.max(peaks, 0)
    upper = threshold_of(s, n, mu, smooth, dice)
    single = threshold_of(largest, 1, mu, smooth, dice)
    whole = threshold_of(mu, pixels, mu, smooth, dice)
    floor = tl.maximum(tl.maximum(upper, single), whole)
    pruning = real(pruning_bits)
    if has_table:
        pruning = tl.load(table + row).to(tl.float64)
    record += row * RECORD
    tl.store(record + MU, mu)
    tl.store(record + LARGEST, largest)
    tl.store(record + N, n)
    tl.store(record + S, s)
    tl.store(record + THRESHOLD, tl.where(largest > pruning, floor, float("inf")))
    # At smooth > 0 the best mask of Dice may leave out pixels above 1/2.
    tl.store(record + CEILING, tl.where(dice & (smooth > 0), 0.5 + margin_of(mu, smooth), 0.5))
    tl.store(record + HELD, 0.0)
    tl.store(overlap + row * 2 * PLACES + tl.arange(0, 2 * PLACES), tl.zeros([2 * PLACES], tl.float64))
    if tl.max(odd, 0) > 0:
        tl.store(fits, 0)


@triton.jit
def collect(
    values, scale, valid, temperature, record, held, room, pixels, classes, stride_b, stride_c, stride_v, span, parts,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Copy the pixels with ``threshold < p <= ceiling`` of the active rows, up to ``room`` a row; count them all."""
    program = tl.program_id(0).to(tl.int64)
    row, start = program // parts, (program % parts) * span
    record += row * RECORD
    floor = tl.load(record + THRESHOLD)
    if floor < float("inf"):
        values, scale, valid = of_row(values, scale, valid, row, pixels, classes, stride_b, stride_c, stride_v)
        low, high = round_down(floor, dtype), round_down(tl.load(record + CEILING), dtype)
        for offset in range(0, span, block):
            at = start + offset + tl.arange(0, block)
            inside = are_valid(valid, at, at < pixels, has_valid)
            p = clamp(load(values, scale, temperature, at, inside, pixels, activation, dtype))
            undecided = ((p > low) & (p <= high)).to(tl.int32)
            number = tl.sum(undecided, 0)
            if number > 0:
                first = tl.atomic_add(record + HELD, number.to(tl.float64)).to(tl.int64)
                to = first + tl.cumsum(undecided, 0) - 1
                tl.store(held + row * room + to, p, (undecided > 0) & (to < room))


@triton.jit
def load_held(
    values, scale, valid, temperature, held, at, length, everywhere,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    """Pixels that are held, the first ``length``; or ``everywhere``, if not all of them could be held."""
    if everywhere:
        inside = are_valid(valid, at, at < length, has_valid)
        p = clamp(load(values, scale, temperature, at, inside, length, activation, dtype))
    else:
        p = tl.load(held + at, at < length, other=0).to(dtype)
    return p


@triton.jit(do_not_specialize=["smooth_bits"])
def finish(
    values, scale, valid, temperature, record, held, room, pixels, classes, stride_b, stride_c, stride_v, smooth_bits,
    dice: tl.constexpr, is_ratio: tl.constexpr,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Per row: Dinkelbach's iteration on the undecided pixels, or on the whole row where they are more than ``room``.

    Where the score is no ratio, its threshold is only a floor, and the pixels that are still undecided move to the
    front.
    """
    row = tl.program_id(0).to(tl.int64)
    record += row * RECORD
    threshold = tl.load(record + THRESHOLD)
    going = threshold < float("inf")
    if going:
        smooth = real(smooth_bits)
        values, scale, valid = of_row(values, scale, valid, row, pixels, classes, stride_b, stride_c, stride_v)
        held += row * room
        number = tl.load(record + HELD).to(tl.int64)
        everywhere = number > room
        length = tl.where(everywhere, pixels, number)
        mu, upper_n, upper_s = tl.load(record + MU), tl.load(record + N), tl.load(record + S)
        n, s = upper_n, upper_s
        while going:
            bound = round_down(threshold, dtype)
            counts, sums = tl.zeros([block], tl.int32), tl.zeros([block], tl.float64)
            for offset in range(0, length, block):
                at = offset + tl.arange(0, block)
                p = load_held(
                    values, scale, valid, temperature, held, at, length, everywhere, has_valid, activation, dtype
                )
                above = (p > bound) & (p <= 0.5)
                counts += above.to(tl.int32)
                sums += tl.where(above, p, 0.0).to(tl.float64)
            n = upper_n + tl.sum(counts, 0)
            s = upper_s + tl.sum(sums, 0)
            raised = tl.maximum(threshold, threshold_of(s, n, mu, smooth, dice))
            going = raised > threshold
            threshold = raised
        tl.store(record + N, n)
        tl.store(record + S, s)
        tl.store(record + THRESHOLD, round_down(threshold, dtype).to(tl.float64))
        if not is_ratio:
            ceiling = threshold + margin_of(mu, smooth)
            low, high = round_down(threshold, dtype), round_down(ceiling, dtype)
            first = tl.zeros([], tl.int64)
            for offset in range(0, length, block):
                at = offset + tl.arange(0, block)
                p = load_held(
                    values, scale, valid, temperature, held, at, length, everywhere, has_valid, activation, dtype
                )
                undecided = ((p > low) & (p <= high)).to(tl.int32)
                to = first + tl.cumsum(undecided, 0) - 1
                tl.debug_barrier()  # this block has been read: now its place may be written
                tl.store(held + to, p, (undecided > 0) & (to < room))
                first += tl.sum(undecided, 0)
            tl.store(record + CEILING, ceiling)
            tl.store(record + HELD, first.to(tl.float64))
    else:
        tl.store(record + N, 0.0)
        tl.store(record + S, 0.0)


@triton.jit(do_not_specialize=["smooth_bits"])
def score_candidates(
    values, scale, valid, temperature, record, held, found, room, pixels, classes, stride_b, stride_c, stride_v,
    smooth_bits, parts,
    has_valid: tl.constexpr, activation: tl.constexpr, dtype: tl.constexpr, size: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Per part: the best smoothed Dice of the masks ``{p > candidate}``, for a share of the undecided pixels.

    Every candidate is compared with every undecided pixel: that takes no ranking, and no order among the programs.
    """
    program = tl.program_id(0).to(tl.int64)
    row = program // parts
    record += row * RECORD
    floor = tl.load(record + THRESHOLD)
    best, best_threshold = tl.full([], float("-inf"), tl.float64), tl.full([], -1.0, tl.float64)
    best_n, best_s = tl.zeros([], tl.float64), tl.zeros([], tl.float64)
    if floor < float("inf"):
        smooth = real(smooth_bits)
        values, scale, valid = of_row(values, scale, valid, row, pixels, classes, stride_b, stride_c, stride_v)
        held += row * room
        number = tl.load(record + HELD).to(tl.int64)
        everywhere = number > room
        length = tl.where(everywhere, pixels, number)
        low, high = round_down(floor, dtype), round_down(tl.load(record + CEILING), dtype)
        mu, all_n, all_s = tl.load(record + MU), tl.load(record + N), tl.load(record + S)
        for start in range((program % parts) * size, length, parts * size):
            mine = start + tl.arange(0, size)
            candidate = load_held(
                values, scale, valid, temperature, held, mine, length, everywhere, has_valid, activation, dtype
            )
            below, lost = tl.zeros([size], tl.int32), tl.zeros([size], tl.float64)
            for offset in range(0, length, block):
                at = offset + tl.arange(0, block)
                p = load_held(
                    values, scale, valid, temperature, held, at, length, everywhere, has_valid, activation, dtype
                )
                dropped = ((p > low) & (p <= high))[None, :] & (p[None, :] <= candidate[:, None])
                below += tl.sum(dropped.to(tl.int32), 1)
                lost += tl.sum(tl.where(dropped, p[None, :], 0.0).to(tl.float64), 1)
            n, s = all_n - below, all_s - lost
            score = score_of(s, n, mu, smooth)
            score = tl.where((candidate > low) & (candidate <= high), score, float("-inf"))
            here = tl.max(score, 0)
            # Equal scores: the smallest mask.
            threshold = tl.max(tl.where(score == here, candidate.to(tl.float64), -1.0), 0)
            if (here > best) | ((here == best) & (threshold > best_threshold)):
                wins = (score == here) & (candidate.to(tl.float64) == threshold)
                best_n = tl.max(tl.where(wins, n, 0.0), 0)
                best_s = tl.max(tl.where(wins, s, 0.0), 0)
                best, best_threshold = here, threshold
    found += program
    field = tl.num_programs(0).to(tl.int64)
    tl.store(found, best)
    tl.store(found + field, best_threshold)
    tl.store(found + 2 * field, best_n)
    tl.store(found + 3 * field, best_s)


@triton.jit(do_not_specialize=["smooth_bits"])
def best_candidate(found, record, smooth_bits, parts: tl.constexpr):
    """Per row: the best of its parts, unless the mask that holds every undecided pixel is better."""
    row = tl.program_id(0).to(tl.int64)
    record += row * RECORD
    if tl.load(record + THRESHOLD) < float("inf"):
        field = tl.num_programs(0).to(tl.int64) * parts
        part = row * parts + tl.arange(0, parts)
        score, candidate = tl.load(found + part), tl.load(found + field + part)
        best = tl.max(score, 0)
        threshold = tl.max(tl.where(score == best, candidate, -1.0), 0)
        wins = (score == best) & (candidate == threshold)
        if best >= score_of(tl.load(record + S), tl.load(record + N), tl.load(record + MU), real(smooth_bits)):
            tl.store(record + N, tl.max(tl.where(wins, tl.load(found + 2 * field + part), 0.0), 0))
            tl.store(record + S, tl.max(tl.where(wins, tl.load(found + 3 * field + part), 0.0), 0))
            tl.store(record + THRESHOLD, threshold)
