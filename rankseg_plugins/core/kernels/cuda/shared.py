"""Shared by the kernels: the record of a row, the formulas of ``rankseg_plugins.core.objectives``, and reading.

A *row* is one class of one image, a *part* a stretch of its pixels. Records are float64; probabilities are compared in
``dtype``, float32 or float64. Options that are real numbers arrive as the bits of a float64, as Triton would round them
to float32.
"""

import triton
import triton.language as tl

from rankseg_plugins.core.inputs.probabilities import TOLERANCE

#: Fields of a row's record: expected size; largest probability; count and sum of its mask; its threshold, infinity if
#: the row is not active and its mask empty; a value above which pixels are in the mask; number of undecided pixels. And
#: the record's size.
MU, LARGEST, N, S, THRESHOLD, CEILING, HELD, RECORD = (tl.constexpr(place) for place in range(8))

#: Each row has this many places to add up the pixels that other classes selected, too: one would be a bottleneck.
PLACES = tl.constexpr(32)

LOWEST, HIGHEST = tl.constexpr(-TOLERANCE), tl.constexpr(1 + TOLERANCE)


@triton.jit
def real(bits):
    """The float64 with these bits."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def ratio(numerator, denominator):
    """``numerator / denominator`` with 0 / 0 := 0."""
    return numerator / tl.where(denominator == 0, 1.0, denominator)


@triton.jit
def score_of(s, n, mu, smooth):
    """``Dice.score``, for ``smooth > 0``."""
    return 2 * s / (n + mu + 1 + smooth) + smooth / (n + mu + smooth)


@triton.jit
def threshold_of(s, n, mu, smooth, dice: tl.constexpr):
    """``Objective.threshold``."""
    if dice:
        return (s + smooth / 2) / (n + mu + 1 + smooth)
    else:
        return ratio(s + smooth, n + mu + 2 * smooth)


@triton.jit
def margin_of(mu, smooth):
    """How far above the ratio's threshold Dice may leave out a pixel: ``Dice.ceiling_beyond`` for n = 0."""
    return ratio(smooth, mu + smooth) / (mu + 1 + smooth) * (1 + 1e-9) + 1e-15


@triton.jit
def gain_of(p, m, t, mu, smooth, dice: tl.constexpr):
    """``Objective.gain``."""
    if dice:
        d = t + mu + 1 + smooth
        gain = 2 * (p - m / d) / (d + 1)
        return tl.where(smooth == 0, gain, gain - smooth / d / tl.where(smooth == 0, 1.0, t + mu + smooth))
    else:
        u = t + mu - m + smooth
        r = ratio(m + smooth, u)
        return ratio(p - r * (1 - p), u + 1 - p)


@triton.jit
def round_down(threshold, dtype: tl.constexpr):
    """``volumes.round_down`` for a threshold >= 0: the float below a positive one has the next smaller bits."""
    if dtype == tl.float64:
        return threshold
    else:
        rounded = threshold.to(tl.float32)
        below = (rounded.to(tl.int32, bitcast=True) - 1).to(tl.float32, bitcast=True)
        return tl.where(rounded.to(tl.float64) > threshold, below, rounded)


@triton.jit
def of_row(values, scale, valid, row, pixels, classes, stride_b, stride_c, stride_v):
    """Where the pixels of a row begin, and what belongs to each pixel of its image."""
    image = row // classes
    return values + image * stride_b + (row % classes) * stride_c, scale + 2 * image * pixels, valid + image * stride_v


@triton.jit
def are_valid(valid, at, inside, has_valid: tl.constexpr):
    """Which pixels are ``inside`` and valid."""
    if has_valid:
        inside = inside & (tl.load(valid + at, inside, other=0) != 0)
    return inside


@triton.jit
def load(values, scale, temperature, at, inside, pixels, activation: tl.constexpr, dtype: tl.constexpr):
    """Probabilities of some pixels of a row, which may lie a little outside of [0, 1]; 0 where not ``inside``.

    The same operations, and so the same numbers, wherever they are read.
    """
    p = tl.load(values + at, inside, other=0).to(dtype)
    if activation == "softmax":
        p = tl.exp(p / temperature - tl.load(scale + at, inside, other=0))
    elif activation == "sigmoid":
        p = tl.where(inside, 1 / (1 + tl.exp(-p / temperature)), 0.0)
    if (activation == "softmax") | (activation == "normalize"):
        p *= tl.load(scale + pixels + at, inside, other=0)
    return p


@triton.jit
def clamp(p):
    """Into [0, 1]."""
    return tl.minimum(tl.maximum(p, 0.0), 1.0)
