"""From the words of a command line to modules and arrays."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warpbeam.cli import console, options
from warpbeam.runtime import extents
from warpbeam.runtime.artifact import Artifact
from warpbeam.runtime.errors import RunError, WarpbeamError

_MAGIC = b"WARPBEAM"


def is_artefact(path: str) -> bool:
    """Whether a file is a compiled model."""
    return _starts(path, _MAGIC)


def _starts(path: str, with_what: bytes) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(len(with_what)) == with_what
    except OSError:
        return False


def is_compiled(path: str) -> bool:
    """Whether a file is a compiled model, saved or exported."""
    return is_artefact(path) or _starts(path, b"\x7fELF")


def check_source(path: str) -> None:
    """Refuses what is no file, and what was compiled before.

    Raises:
        WarpbeamError: if nothing can be compiled from the path.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise WarpbeamError(f"{path} {what}", hint="give the path of an ONNX file, a .relay text or a compiled model")
    if is_compiled(path):
        hint = "give the ONNX file or the .relay text that it was made from"
        raise WarpbeamError(f"{path} is a compiled model, and a model to compile is wanted", hint=hint)


def source_of(path: str) -> Any:
    """What `warpbeam.compile` takes: the path of an ONNX file, or the module of a Relay text.

    Raises:
        WarpbeamError: if there is no such file, or it is a compiled model.
    """
    check_source(path)
    if Path(path).suffix == ".relay":
        from warpbeam.driver import source

        return source.read(path).module
    return path


def compiled(args: argparse.Namespace, dump: Any = None) -> tuple[Any, Any]:
    """(module, report) for the model of a command line; the report is None for a model that was compiled before."""
    trusted = getattr(args, "trusted", None)
    remote = getattr(args, "remote", None) is not None
    elsewhere = remote and args.runs_there
    if elsewhere and (is_compiled(args.model) or trusted):
        if trusted:
            Artifact.load(args.model, trusted=trusted)
        return _elsewhere(args, args.model), None
    if is_compiled(args.model) or trusted:
        import warpbeam

        module, report = warpbeam.load(args.model, trusted=trusted), None
    else:
        source = source_of(args.model)
        from warpbeam.driver.api import compile_with_report

        with console.progress(f"compiling {Path(args.model).name}"):
            module, report = compile_with_report(
                source,
                target=args.target,
                shapes=options.shape_map(args.input_shapes) or None,
                opt_level=args.opt_level,
                cache=not args.no_cache,
                workers=args.workers,
                name=Path(args.model).stem,
                dump=dump,
                guard=getattr(args, "guard", None),
                measure_on=_session(args) if remote and (args.guard or args.opt_level == 4 or not elsewhere) else None,
            )
    if elsewhere:
        return _elsewhere(args, module), report
    if args.threads is not None:
        from warpbeam import runtime

        runtime.set_num_threads(max(args.threads, runtime.get_num_threads()))
        module.num_threads = args.threads
    return module, report


def _session(args: argparse.Namespace) -> Any:
    from warpbeam.cli.remote import session

    return session(args)


def _elsewhere(args: argparse.Namespace, model: Any) -> Any:
    """The model on the machine that `--remote` names."""
    from warpbeam.cli.remote import loaded

    there = loaded(args, model)
    if args.threads is not None:
        there.num_threads = args.threads
    return there


def input_arrays(args: argparse.Namespace, module: Any) -> dict[str, Any]:
    """Arrays for all inputs: from the npz file where it has them, generated where it does not.

    Raises:
        RunError: if the file has arrays that the model has no use for, or a symbolic extent is contradictory.
    """
    from warpbeam.cli.files import read_npz

    given = read_npz(args.inputs) if args.inputs else {}
    layout = module.layout
    handles = [n.name for n in layout.inputs if n.kind == "handle"] if layout else []
    known = [info.name for info in module.inputs if info.name not in handles]
    known += [name for name in given if name.rpartition("[")[0] in handles]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise RunError(f"{args.inputs}: unknown inputs {', '.join(unknown)}", hint=f"the model's: {', '.join(known)}")
    wanted = {} if not is_compiled(args.model) else options.shape_map(args.input_shapes)
    sizes = extents.symbol_sizes(module, {**wanted, **{n: a.shape for n, a in given.items()}})
    extents.check_symbols(module, args.sizes, "--sizes")

    def arrays(more: Mapping[str, int]) -> dict[str, Any]:
        made = fill(module, args.fill, args.seed, {**args.sizes, **sizes, **more})
        if layout is not None:
            return layout.gathered(given, made)
        return {name: given.get(name, made[name]) for name in known}

    return _that_fit(module, arrays, extents.unknown_symbols(module, {**sizes, **args.sizes}))


def _that_fit(module: Any, arrays: Callable[[Mapping[str, int]], dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Arrays that the model runs with; says which sizes were taken for `names`, the extents that nobody gave."""
    try:
        found, sizes = extents.that_fit(module, arrays, names)
    except RunError as error:
        if type(error) is not RunError or not names:
            raise
        hints = [error.hint, f"or say which extents fit: --sizes {extents.said(dict.fromkeys(names, 1))}"]
        raise RunError(error.what, error.where, error.why, ", ".join(filter(None, hints))) from error
    tell_sizes(sizes)
    return found


def tell_sizes(sizes: Mapping[str, int]) -> None:
    """Says that extents were taken because 1 does not fit."""
    if sizes:
        console.note(f"extents of 1 do not fit this model; taken: {extents.said(sizes)} (--sizes says others)")


def fill(module: Any, how: str, seed: int, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Generated arrays for all inputs.

    Args:
        how: "random" (floats normal, integers 0 or 1), "zeros" or "ones".
    """
    import numpy as np

    arrays: dict[str, Any] = module.random_inputs(seed, **sizes)
    value = 0 if how == "zeros" else 1

    def filled(given: Any) -> Any:
        if isinstance(given, list):
            return [filled(part) for part in given]
        return given if given.dtype == object else np.full(given.shape, value, given.dtype)

    return arrays if how == "random" else {name: filled(given) for name, given in arrays.items()}


def describe(array: Any) -> tuple[str, str, str, str, str]:
    """(shape, dtype, min, mean, max) of an array as text."""
    import numpy as np

    extents = "[" + ", ".join(map(str, array.shape)) + "]"
    if array.dtype.kind in "OUS":
        return extents, "string", "-", "-", "-"
    if not array.size:
        return extents, str(array.dtype), "-", "-", "-"
    values = np.asarray(array).astype(np.float64)
    low, mean, high = (f"{f(values):.6g}" for f in (np.min, np.mean, np.max))
    return extents, str(array.dtype), low, mean, high
