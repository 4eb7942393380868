"""From the memory of a tensor to the probabilities of some neighbouring pixels of one class, in a piece of scratch."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from rankseg_plugins.core.kernels.cpu.compiling import exact, fast
from rankseg_plugins.core.probabilities import TOLERANCE

IDENTITY, SOFTMAX, SIGMOID, NORMALIZE = 0, 1, 2, 3
ACTIVATIONS = {"identity": IDENTITY, "softmax": SOFTMAX, "sigmoid": SIGMOID, "normalize": NORMALIZE}
#: What ``Source.half`` says of the 16 bits.
WHOLE, FLOAT16, BFLOAT16 = 0, 1, 2
LOWEST, HIGHEST = -TOLERANCE, 1 + TOLERANCE


class Source(NamedTuple):
    """A tensor (B, C, pixels) in memory, and what makes probabilities of it.

    Args:
        values: all of its memory in float32 or float64; empty where it is in half precision.
        bits: all of its memory, 16 bits each, in half precision; else empty.
        half: which of the half precisions.
        sizes: of three dimensions that the pixels lie in.
        strides: of images, classes, and these three dimensions.
        classes: C.
        pixels: product of the sizes.
        flat: whether the pixels of a class are neighbours in memory, in float32 or float64.
        direct: whether they are probabilities within [0, 1], too, and all are valid.
        clamps: whether some probabilities lie a little outside of [0, 1].
        valid: pixels that count, of all images or of each; empty where all do.
        per_image: whether they are given for each image.
        activation: one of the constants above.
        temperature: divides the values.
        top: (B, pixels) largest value of each pixel, of softmax; what stands here is empty until it is found.
        inverse: (B, pixels) 1 / sum over the classes, of softmax and normalize.
    """

    values: np.ndarray
    bits: np.ndarray
    half: int
    sizes: tuple[int, int, int]
    strides: tuple[int, int, int, int, int]
    classes: int
    pixels: int
    flat: bool
    direct: bool
    clamps: bool
    valid: np.ndarray
    per_image: bool
    activation: int
    temperature: Any
    top: np.ndarray
    inverse: np.ndarray


@intrinsic
def as_float(_: Any, bits: Any) -> Any:
    """The float32 or float64 with these bits."""
    return _bitcast(types.float32 if bits == types.uint32 else types.float64, bits)


@intrinsic
def as_bits(_: Any, number: Any) -> Any:
    """The bits of a float32 or float64, as an integer without sign."""
    return _bitcast(types.uint32 if number == types.float32 else types.uint64, number)


def _bitcast(to: Any, of: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(to))

    return to(of), generate


@exact
def from_float16(bits):
    """The float32 of 16 bits: sign, 5 of the exponent, 10 of the mantissa."""
    size = np.uint32(bits & 0x7FFF)
    # Rebias the exponent; that of infinity and NaN further; below the normal numbers 0.5 lends its exponent.
    rebias = np.uint32(0x38000000) if size < 0x7C00 else np.uint32(0x70000000)
    usual = as_float(np.uint32((size << np.uint32(13)) + rebias))
    tiny = as_float(np.uint32(size + np.uint32(0x3F000000))) - np.float32(0.5)
    number = usual if size >= 0x0400 else tiny
    return -number if bits & 0x8000 else number


@exact
def from_bfloat16(bits):
    """The float32 of its upper 16 bits."""
    return as_float(np.uint32(np.uint32(bits) << np.uint32(16)))


def exponential(x):
    """``exp(x)`` for x up to 88, to two units in the last place; NaN stays NaN."""
    raise NotImplementedError


@overload(exponential)
def _exponential(x):
    if x != types.float32:
        return lambda x: math.exp(x)
    return lambda x: exponential32(x)


@exact
def exponential32(x):
    """In operations that a compiler does for many numbers at once: 2^n e^r, with r within half a log 2 of 0."""
    # Adding a number this large rounds, and leaves n in the lowest bits.
    shifted = x * np.float32(1.44269504) + np.float32(12582912.0)
    n = shifted - np.float32(12582912.0)
    r = (x - n * np.float32(0.693145752)) - n * np.float32(1.42860677e-6)
    series = np.float32(1.9875691e-4)
    series = series * r + np.float32(1.3981999e-3)
    series = series * r + np.float32(8.3334519e-3)
    series = series * r + np.float32(4.1665796e-2)
    series = series * r + np.float32(1.6666665e-1)
    series = series * r + np.float32(0.5)
    power = as_float(np.uint32((as_bits(shifted) + np.uint32(127)) << np.uint32(23)))
    # Below the normal numbers nothing is left beside a sum of at least 1.
    return np.float32(0) if x < np.float32(-87.3) else power * (series * (r * r) + r + np.float32(1))


@fast
def read_halves(bits, half, into):
    """Numbers in half precision as float32."""
    if half == FLOAT16:
        for i in range(len(into)):
            into[i] = from_float16(bits[i])
    else:
        for i in range(len(into)):
            into[i] = from_bfloat16(bits[i])


@fast
def copy(values, into):
    """Write as many values as ``into`` holds. An assignment would compile the text of an error of other sizes."""
    for i in range(len(into)):
        into[i] = values[i]


@fast
def read_values(source, image, label, start, out):
    """Values of the pixels from ``start`` on, as many as ``out`` holds, divided by the temperature."""
    _, lines, length = source.sizes
    outer, inner, step = source.strides[2], source.strides[3], source.strides[4]
    base = image * source.strides[0] + label * source.strides[1]
    line, place, done = start // length, start % length, 0
    while done < len(out):
        number = min(length - place, len(out) - done)
        first = base + (line // lines) * outer + (line % lines) * inner + place * step
        into = out[done : done + number]
        if source.half == WHOLE:
            if step == 1:
                values = source.values[first : first + number]
                for i in range(number):
                    into[i] = values[i]
            else:
                for i in range(number):
                    into[i] = source.values[first + i * step]
        elif step == 1:
            read_halves(source.bits[first : first + number], source.half, into)
        else:
            for i in range(number):
                read_halves(source.bits[first + i * step : first + i * step + 1], source.half, into[i : i + 1])
        line, place, done = line + 1, 0, done + number
    if source.temperature != 1:
        for i in range(len(out)):
            out[i] /= source.temperature


@fast
def values_at(source, image, label, start, into):
    """As :func:`read_values`, without a copy where the values are what is in memory."""
    if source.flat and source.temperature == 1:
        first = image * source.strides[0] + label * source.strides[1] + start
        return source.values[first : first + len(into)]
    read_values(source, image, label, start, into)
    return into


@fast
def read_normalizers(source, image, start, scratch, top, inverse):
    """Largest value of each pixel, of softmax, and 1 / sum over the classes, as many as ``top`` holds."""
    size = len(top)
    into = scratch[:size]
    for i in range(size):
        inverse[i] = 0
    if source.activation == SOFTMAX:
        read_values(source, image, 0, start, top)
        for label in range(1, source.classes):
            row = values_at(source, image, label, start, into)
            for i in range(size):
                top[i] = row[i] if row[i] > top[i] else top[i]
        for label in range(source.classes):
            row = values_at(source, image, label, start, into)
            for i in range(size):
                inverse[i] += exponential(row[i] - top[i])
        for i in range(size):
            inverse[i] = 1 / inverse[i]
    else:
        for label in range(source.classes):
            row = values_at(source, image, label, start, into)
            for i in range(size):
                inverse[i] += row[i]
        for i in range(size):
            inverse[i] = 1 / inverse[i] if inverse[i] != 0 else inverse[i]


@fast
def normalizers(source, image, start, scratch, top, inverse):
    """As :func:`read_normalizers`, from where they are kept; nothing for activations of each class alone."""
    size = len(top)
    if source.activation == SOFTMAX or source.activation == NORMALIZE:
        if source.inverse.size:
            copy(source.inverse[image, start : start + size], inverse)
            copy(source.top[image, start : start + size], top)
        else:
            read_normalizers(source, image, start, scratch, top, inverse)


@fast
def activate(source, values, top, inverse, out):
    """Probabilities ``out`` of some values; the two may be the same."""
    size = len(out)
    if source.activation == SOFTMAX:
        for i in range(size):
            out[i] = exponential(values[i] - top[i]) * inverse[i]
    elif source.activation == SIGMOID:
        for i in range(size):
            # From the side where nothing overflows.
            small = exponential(-values[i] if values[i] > 0 else values[i])
            share = small / (small + np.float32(1))
            out[i] = np.float32(1) - share if values[i] > 0 else share
    elif source.activation == NORMALIZE:
        for i in range(size):
            out[i] = values[i] * inverse[i]
    else:
        for i in range(size):
            out[i] = values[i]


@fast
def clamp(p):
    """Move what lies a little outside of [0, 1] into it; return how many lie further outside, or are NaN."""
    strange = 0
    for i in range(len(p)):
        strange += 0 if (p[i] >= LOWEST) & (p[i] <= HIGHEST) else 1
        x = p[i] if p[i] > 0 else 0
        p[i] = x if x < 1 else 1
    return strange


@fast
def load(source, image, label, start, top, inverse, out):
    """Probabilities of one class, of as many pixels as ``out`` holds."""
    activate(source, values_at(source, image, label, start, out), top, inverse, out)
    if source.valid.size:
        valid = source.valid[start + (image * source.pixels if source.per_image else 0) :]
        for i in range(len(out)):
            out[i] = out[i] if valid[i] else 0
    if source.clamps:
        clamp(out)


@fast
def probs_at(source, image, label, start, top, inverse, into):
    """As :func:`load`, without a copy where the probabilities are what is in memory."""
    if source.direct:
        return values_at(source, image, label, start, into)
    load(source, image, label, start, top, inverse, into)
    return into


@fast
def load_some(source, image, label, start, places, top, inverse, out):
    """As :func:`load`, for pixels at places that are counted from ``start``, and the normalizers of these."""
    base = image * source.strides[0] + label * source.strides[1]
    if source.flat:
        for k in range(len(places)):
            out[k] = source.values[base + start + places[k]]
    else:
        _, lines, length = source.sizes
        for k in range(len(places)):
            line, place = (start + places[k]) // length, (start + places[k]) % length
            at = base + line // lines * source.strides[2] + line % lines * source.strides[3] + place * source.strides[4]
            if source.half == WHOLE:
                out[k] = source.values[at]
            else:
                bits = source.bits[at]
                out[k] = from_float16(bits) if source.half == FLOAT16 else from_bfloat16(bits)
    if source.temperature != 1:
        for k in range(len(places)):
            out[k] /= source.temperature
    activate(source, out, top, inverse, out)
    if source.clamps:
        clamp(out)
