"""Numbers for a model's symbolic extents: from shapes of what is given, and found by trial for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import RunError
from .shape_expr import show

_SIZES = (8, 32, 64, 128, 224, 512, 1024, 4096, 16000)  # of maps and signals, where 1 does not fit
_MOST_ELEMENTS = 1 << 22  # of inputs, to find out


def symbol_sizes(module: Any, shapes: Mapping[str, Any]) -> dict[str, int]:
    """Values of symbolic extents, from shapes given for some inputs.

    Raises:
        RunError: if a shape has other axes or extents than its input, or two of them contradict each other.
    """
    sizes: dict[str, int] = {}
    for info in module.inputs:
        wanted = shapes.get(info.name)
        if wanted is not None and len(wanted) != len(info.shape):
            have = "[" + ", ".join(str(e) if isinstance(e, int) else show(e) for e in info.shape) + "]"
            raise RunError(f"input {info.name!r} has {len(info.shape)} axes, {len(wanted)} given", why=f"it is {have}")
        for axis, extent in enumerate(info.shape):
            value = wanted[axis] if wanted is not None and isinstance(wanted[axis], int) else None
            if isinstance(extent, str) and value is not None and sizes.setdefault(extent, value) != value:
                raise RunError(f"extent {extent!r} is {sizes[extent]} and {value}", f"input {info.name!r}")
            if isinstance(extent, int) and value is not None and value != extent:
                raise RunError(f"input {info.name!r}: axis {axis} is {extent}, not {value}")
    return sizes


def unknown_symbols(module: Any, known: Mapping[str, int]) -> list[str]:
    """Names of the extents of inputs that are not among `known`."""
    return sorted(_symbols(module) - known.keys())


def check_symbols(module: Any, names: Iterable[str], where: str) -> None:
    """Refuses names that no extent of the inputs has.

    Raises:
        RunError: if there are any.
    """
    symbols = _symbols(module)
    if not symbols.issuperset(names):
        hint = f"the model's: {', '.join(sorted(symbols))}" if symbols else "all extents of this model are fixed"
        raise RunError(f"no extent is called {', '.join(sorted(set(names) - symbols))}", where, hint=hint)


def _symbols(module: Any) -> set[str]:
    return {e for info in module.inputs for e in info.shape if isinstance(e, str)}


def that_fit(
    module: Any, arrays: Callable[[Mapping[str, int]], dict[str, Any]], names: list[str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """The first arrays that the model runs with, and the sizes taken for that: none where 1 fits, which extents are
    that nobody gave, else the same larger number for all of `names` but those that inputs begin with; then for all.

    Args:
        arrays: what makes arrays for all inputs of sizes for some of `names`.

    Raises:
        RunError: that of the first trial, if nothing fits.
    """
    if not names:
        return arrays({}), {}
    leading = {info.shape[0] for info in module.inputs if info.shape}
    inner = [n for n in names if n not in leading]
    tried = [{}, *(dict.fromkeys(some, size) for some in ([inner] if inner else []) + [names] for size in _SIZES)]
    first: RunError | None = None
    for sizes in tried:
        if sizes and _elements(module, sizes) > _MOST_ELEMENTS:
            continue
        try:
            found = arrays(sizes)
            module.run(found)
        except RunError as error:
            if type(error) is not RunError:  # of a connection, say: other extents would not help
                raise
            first = first or error
            continue
        return found, sizes
    assert first is not None
    raise first


def said(sizes: Mapping[str, int]) -> str:
    """As the option `--sizes` takes them."""
    return ",".join(f"{name}={size}" for name, size in sizes.items())


def _elements(module: Any, sizes: Mapping[str, int]) -> int:
    """Elements of all inputs."""
    return sum(math.prod(e if isinstance(e, int) else sizes.get(e, 1) for e in info.shape) for info in module.inputs)
