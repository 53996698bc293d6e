"""Where each output position of a resize reads: source coordinates, taps and weights, as te index arithmetic.

Coordinates follow the ONNX Resize operator (and through it, the modes of the common frameworks); they are computed in
float64, as the reference does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
METHODS = ("nearest_neighbor", "linear", "cubic")
REAL = "float64"


class Axis(NamedTuple):
    """One resized axis: sizes (ints or expressions), scale (a number or None for out/in), region of interest."""

    size: Any
    out: Any
    scale: float | None
    start: float
    end: float


def real(value: Any) -> Any:
    """A number or index expression as a float64 expression."""
    if isinstance(value, int | float):
        return E.const(float(value), REAL)
    return E.cast(REAL, E.as_expr(value))


def scale_of(axis: Axis) -> Any:
    """The scale as a Python float where known, else an expression."""
    if axis.scale is not None:
        return axis.scale
    if isinstance(axis.size, int) and isinstance(axis.out, int):
        return axis.out / axis.size
    return E.div(real(axis.out), real(axis.size))


def source_coordinate(o: Any, axis: Axis, mode: str) -> Any:
    """The (real) input coordinate of output position o."""
    x, scale = real(o), scale_of(axis)
    s = real(scale)
    if mode == "half_pixel":
        return E.div(x + 0.5, s) - 0.5
    if mode == "half_pixel_symmetric":
        # Adjusts for an output size that is rounded: ONNX Resize 19.
        ideal = real(axis.size) * s
        ratio = E.div(real(axis.out), ideal)
        offset = real(axis.size) * 0.5 * (real(1.0) - ratio)
        return offset + E.div(x + 0.5, s) - 0.5
    if mode == "pytorch_half_pixel":
        return E.select(E.as_expr(axis.out) > 1, E.div(x + 0.5, s) - 0.5, real(0.0))
    if mode == "align_corners":
        return x * _corner_step(axis)
    if mode == "asymmetric":
        return E.div(x, s)
    if mode == "tf_half_pixel_for_nn":
        return E.div(x + 0.5, s)
    span = real(axis.end - axis.start) * real(E.as_expr(axis.size) - 1)
    last = E.maximum(E.as_expr(axis.out) - 1, 1)
    middle = real(0.5 * (axis.start + axis.end)) * real(E.as_expr(axis.size) - 1)
    first = real(axis.start) * real(E.as_expr(axis.size) - 1)
    return E.select(E.as_expr(axis.out) > 1, first + E.div(x * span, real(last)), middle)


def _corner_step(axis: Axis) -> Any:
    """Input distance of neighbouring outputs when corners meet; a given scale counts the fraction of a position too."""
    if axis.scale is not None and isinstance(axis.size, int):
        width = axis.scale * axis.size
        return real((axis.size - 1) / (width - 1) if width != 1 else 0.0)
    last = real(E.maximum(E.as_expr(axis.out) - 1, 1))
    return E.select(E.as_expr(axis.out) > 1, E.div(real(E.as_expr(axis.size) - 1), last), real(0.0))


def nearest(x: Any, mode: str, scale: Any) -> Any:
    """The int64 input position of a real coordinate."""
    if mode == "round_prefer_floor":
        picked = E.call("ceil", x - 0.5)
    elif mode == "round_prefer_ceil":
        picked = E.call("floor", x + 0.5)
    elif mode == "ceil":
        picked = E.call("ceil", x)
    elif mode == "simple":
        down = real(scale) < real(1.0)
        picked = E.select(down, E.call("ceil", x), E.call("floor", x))
    else:
        picked = E.call("floor", x)
    return E.cast("int64", picked)


def cubic_weight(x: Any, a: float) -> Any:
    """Keys' cubic convolution kernel at distance |x| (Keys, "Cubic convolution interpolation", 1981, eq. 15)."""
    d = E.call("abs", x)
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    return E.select(d <= real(1.0), near, E.select(d < real(2.0), far, real(0.0)))


def linear_weight(x: Any) -> Any:
    """The triangle kernel."""
    return E.maximum(real(1.0) - E.call("abs", x), real(0.0))


class Taps:
    """Per output position of one axis: `count` input positions and their weights, as two small te stages."""

    def __init__(self, axis: Axis, attrs: Any, name: str) -> None:
        self.axis, self.attrs = axis, attrs
        scale = scale_of(axis)
        self.stretch = 1.0
        if attrs["antialias"] and isinstance(scale, float | int) and scale < 1:
            self.stretch = 1.0 / scale
        radius = (2.0 if attrs["method"] == "cubic" else 1.0) * self.stretch
        self.reach = int(-(-radius // 1))
        self.count = 2 * self.reach
        self.index = te.compute((axis.out, self.count), self._index, name=f"{name}_index")
        raw = te.compute((axis.out, self.count), self._weight, name=f"{name}_raw")
        k = te.reduce_axis(self.count, "t")
        total = te.compute((axis.out,), lambda o: te.sum(raw[o, k.var], axis=k), name=f"{name}_total")
        self.weight = te.compute((axis.out, self.count), lambda o, t: E.div(raw[o, t], total[o]), name=f"{name}_weight")

    def _place(self, o: Any, t: Any) -> tuple[Any, Any]:
        """(real coordinate, unclamped int64 position) of tap t."""
        x = source_coordinate(o, self.axis, self.attrs["coordinate_transformation_mode"])
        return x, E.cast("int64", E.call("floor", x)) - (self.reach - 1) + t

    def _index(self, o: Any, t: Any) -> Any:
        _, place = self._place(o, t)
        return E.maximum(E.minimum(place, E.as_expr(self.axis.size) - 1), 0)

    def _weight(self, o: Any, t: Any) -> Any:
        x, place = self._place(o, t)
        distance = (real(place) - x) / real(self.stretch)
        if self.attrs["method"] == "cubic":
            w = cubic_weight(distance, float(self.attrs["cubic_alpha"]))
        else:
            w = linear_weight(distance)
        if not self.attrs["cubic_exclude"]:
            return w
        ok = E.land(place >= 0, place < E.as_expr(self.axis.size))
        return E.select(ok, w, real(0.0))


def integer_upscale(axis: Axis, mode: str, rounding: str) -> int | None:
    """The factor f where nearest upsampling is exactly o // f."""
    if not isinstance(axis.size, int) or not isinstance(axis.out, int) or axis.size == 0 or axis.out % axis.size:
        return None
    factor = axis.out // axis.size
    if axis.scale is not None and axis.scale != factor:
        return None
    plain = mode == "asymmetric" and rounding in ("floor", "simple")
    centred = mode in ("half_pixel", "half_pixel_symmetric") and rounding in NEAREST[:2]
    return factor if plain or centred or (factor == 1 and mode != "tf_crop_and_resize") else None


def read_at(index: Sequence[Any], axis: int, place: Any) -> tuple[Any, ...]:
    """`index` with one axis replaced."""
    return (*index[:axis], place, *index[axis + 1 :])
