"""From the memory of a tensor to the probabilities of some neighbouring pixels of one class, in a piece of scratch."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from rankseg_plugins.core.inputs.probabilities import TOLERANCE
from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, fast, inline

IDENTITY, SOFTMAX, SIGMOID, NORMALIZE = 0, 1, 2, 3
ACTIVATIONS = {"identity": IDENTITY, "softmax": SOFTMAX, "sigmoid": SIGMOID, "normalize": NORMALIZE}
#: What ``Source.half`` says of the 16 bits.
WHOLE, FLOAT16, BFLOAT16 = 0, 1, 2
LOWEST, HIGHEST = -TOLERANCE, 1 + TOLERANCE


#: What a ``Source`` is told in numbers. Kernels are handed one address, where each number of a tuple would be an
#: argument: most of what there is to compile would only pass them on.
FORM = np.dtype(
    [
        *((name, np.int64) for name in ("image", "label", "outer", "inner", "step", "lines", "length")),
        *((name, np.int64) for name in ("classes", "pixels", "half", "activation")),
        *((name, np.bool_) for name in ("flat", "clamps", "per_image")),
        ("temperature", np.float64),
    ],
    align=True,
)


class Source(NamedTuple):
    """A tensor (B, C, pixels) in memory.

    Args:
        values: all of its memory in float32 or float64; empty where it is in half precision.
        form: the numbers, a record of ``FORM``.

            - ``image``, ``label``, ``outer``, ``inner``, ``step``: strides of images, classes, and three dimensions
              that the pixels lie in.
            - ``lines``, ``length``: sizes of the last two of these.
            - ``classes``: C.
            - ``pixels``: product of the three sizes.
            - ``half``: which of the half precisions.
            - ``activation``: one of the constants above.
            - ``flat``: whether the pixels of a class are neighbours in memory, in float32 or float64.
            - ``clamps``: whether some probabilities lie a little outside of [0, 1].
            - ``per_image``: whether the valid pixels are given for each image.
            - ``temperature``: divides the values.
    """

    values: np.ndarray
    form: np.void

    @property
    def classes(self) -> int:
        """C."""
        return int(self.form["classes"])

    @property
    def pixels(self) -> int:
        """Of an image."""
        return int(self.form["pixels"])

    def but(self, **numbers: Any) -> Source:
        """The same but for some numbers of its form."""
        form = self.form.copy()
        for name, number in numbers.items():
            form[name] = number
        return self._replace(form=form)


class Making(NamedTuple):
    """What makes probabilities of the values, beside the numbers of their form.

    There is None where the values are probabilities in [0, 1], all valid, and the pixels of a class are neighbours in
    memory: numba leaves out what is done where there is one, and compiles the rest in half the time.

    Args:
        bits: all memory, 16 bits each, in half precision; else empty.
        valid: pixels that count, of all images or of each; empty where all do.
        norms: (2, B, pixels) what ``read_normalizers`` gives; (1, B, pixels) where one of the two is enough; empty
            where they are not kept.
    """

    bits: np.ndarray
    valid: np.ndarray
    norms: np.ndarray


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
def read_values(source, making, image, label, start, out):
    """Values of the pixels from ``start`` on, as many as ``out`` holds, divided by the temperature."""
    form = source.form
    length, lines, step, half = form.length, form.lines, form.step, form.half
    base = image * form.image + label * form.label
    line, place, done = start // length, start % length, 0
    while done < len(out):
        number = min(length - place, len(out) - done)
        first = base + (line // lines) * form.outer + (line % lines) * form.inner + place * step
        into = out[done : done + number]
        if half == WHOLE:
            if step == 1:
                copy(source.values[first : first + number], into)
            else:
                for i in range(number):
                    into[i] = source.values[first + i * step]
        elif step == 1:
            read_halves(making.bits[first : first + number], half, into)
        else:
            for i in range(number):
                read_halves(making.bits[first + i * step : first + i * step + 1], half, into[i : i + 1])
        line, place, done = line + 1, 0, done + number
    if form.temperature != 1:
        temperature = out.dtype.type(form.temperature)
        for i in range(len(out)):
            out[i] /= temperature


@inline
def values_at(source, making, image, label, start, into):
    """As ``read_values``, without a copy where the values are what is in memory."""
    if source.form.flat and source.form.temperature == 1:
        first = image * source.form.image + label * source.form.label + start
        return source.values[first : first + len(into)]
    read_values(source, making, image, label, start, into)
    return into


@fast
def read_normalizers(source, making, image, start, scratch, top, inverse):
    """Largest value of each pixel, of softmax, and 1 / sum over the classes, as many as ``top`` holds.

    Of half precision, the logarithm of softmax's sum joins the largest value: beside the digits of the values, those
    that are lost are nothing, and one number a pixel is to be kept.
    """
    size = len(top)
    into = scratch[:size]
    for i in range(size):
        inverse[i] = 0
    if source.form.activation == SOFTMAX:
        # A plain 0 is a type of its own, for which numba would compile all of this anew.
        read_values(source, making, image, np.int64(0), start, top)
        for label in range(1, source.form.classes):
            row = values_at(source, making, image, label, start, into)
            for i in range(size):
                top[i] = row[i] if row[i] > top[i] else top[i]
        for label in range(source.form.classes):
            row = values_at(source, making, image, label, start, into)
            for i in range(size):
                inverse[i] += exponential(row[i] - top[i])
        if source.form.half == WHOLE:
            for i in range(size):
                inverse[i] = 1 / inverse[i]
        else:
            for i in range(size):
                top[i] += math.log(inverse[i])
                inverse[i] = 1
    else:
        for label in range(source.form.classes):
            row = values_at(source, making, image, label, start, into)
            for i in range(size):
                inverse[i] += row[i]
        for i in range(size):
            inverse[i] = 1 / inverse[i] if inverse[i] != 0 else inverse[i]


@inline
def normalizers(source, making, image, start, scratch, top, inverse):
    """As ``read_normalizers``, from where they are kept; nothing for activations of each class alone."""
    if making is not None and (source.form.activation == SOFTMAX or source.form.activation == NORMALIZE):
        if making.norms.size:
            copy(making.norms[0, image, start : start + len(top)], top)
            if source.form.activation == NORMALIZE:
                copy(top, inverse)
            elif len(making.norms) == 2:
                copy(making.norms[1, image, start : start + len(top)], inverse)
            else:
                for i in range(len(top)):
                    inverse[i] = 1
        else:
            read_normalizers(source, making, image, start, scratch, top, inverse)


@fast
def activate(source, values, top, inverse, out):
    """Probabilities ``out`` of some values; the two may be the same."""
    size = len(out)
    if source.form.activation == SOFTMAX:
        for i in range(size):
            out[i] = exponential(values[i] - top[i]) * inverse[i]
    elif source.form.activation == SIGMOID:
        for i in range(size):
            # From the side where nothing overflows.
            small = exponential(-values[i] if values[i] > 0 else values[i])
            share = small / (small + np.float32(1))
            out[i] = np.float32(1) - share if values[i] > 0 else share
    elif source.form.activation == NORMALIZE:
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
def load(source, making, image, label, start, top, inverse, out):
    """Probabilities of one class, of as many pixels as ``out`` holds."""
    activate(source, values_at(source, making, image, label, start, out), top, inverse, out)
    if making.valid.size:
        valid = making.valid[start + (image * source.form.pixels if source.form.per_image else 0) :]
        for i in range(len(out)):
            out[i] = out[i] if valid[i] else 0
    if source.form.clamps:
        clamp(out)


@inline
def probs_at(source, making, image, label, start, top, inverse, into):
    """As ``load``, without a copy where the probabilities are what is in memory."""
    if making is None:
        first = image * source.form.image + label * source.form.label + start
        return source.values[first : first + len(into)]
    load(source, making, image, label, start, top, inverse, into)
    return into


@inline
def probs_of(source, making, image, label, start, places, top, inverse, into):
    """As ``probs_at``, for pixels at places that are counted from ``start``, and the normalizers of these."""
    if making is None:
        first = image * source.form.image + label * source.form.label + start
        for k in range(len(places)):
            into[k] = source.values[first + places[k]]
    else:
        load_some(source, making, image, label, start, places, top, inverse, into)


@fast
def load_some(source, making, image, label, start, places, top, inverse, out):
    """As ``load``, for some pixels: see ``probs_of``."""
    form = source.form
    base = image * form.image + label * form.label
    if form.flat:
        for k in range(len(places)):
            out[k] = source.values[base + start + places[k]]
    else:
        for k in range(len(places)):
            line, place = (start + places[k]) // form.length, (start + places[k]) % form.length
            at = base + line // form.lines * form.outer + line % form.lines * form.inner + place * form.step
            if form.half == WHOLE:
                out[k] = source.values[at]
            else:
                read_halves(making.bits[at : at + 1], form.half, out[k : k + 1])
    if form.temperature != 1:
        temperature = out.dtype.type(form.temperature)
        for k in range(len(places)):
            out[k] /= temperature
    activate(source, out, top, inverse, out)
    if form.clamps:
        clamp(out)
