"""The front door: `warpbeam.compile` and `warpbeam.load`."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warpbeam.ir.budget import limited, most_memory
from warpbeam.ir.diagnostics import CompileError, WarpbeamError
from warpbeam.ir.transform import PassContext
from warpbeam.runtime.artifact import Artifact
from warpbeam.runtime.compiled import CompiledModel, fits_here
from warpbeam.runtime.errors import ArtifactError
from warpbeam.runtime.model import open_model
from warpbeam.runtime.module import Module

if TYPE_CHECKING:  # a model from the cache does without these
    from warpbeam.runtime.export_model import Exported
    from warpbeam.runtime.profiler import Roof

#: what `guard=True` may spend on measuring
GUARD_SECONDS = 2.0


def compile(  # the name users expect
    model: Any,
    *,
    target: Any = "native",
    shapes: Mapping[str, Any] | None = None,
    opt_level: int = 3,
    threads: int | None = None,
    cache: bool = True,
    workers: int | None = None,
    name: str | None = None,
    accuracy: str | None = None,
    state: Mapping[str, str] | None = None,
    guard: bool | float | None = None,
    measure_on: Any = None,
    precision: str | None = None,
    max_memory: int | None = None,
    max_compile_seconds: float | None = None,
    buckets: Mapping[str, Sequence[int]] | None = None,
    pad: str = "auto",
    hot_shapes: int | None = None,
) -> Any:
    """Compiles a model to a module that runs it by one native call.

    Args:
        model: path of an ONNX file, its bytes, an `onnx.ModelProto`, or a Relay module or function.
        target: "native", a target's name, or a `Target`; or several of these, the preferred first: the saved file then
            serves all of them, and the first that fits the machine runs. If none fits this machine, the result can
            be saved and exported, but not run: it is a `runtime.CompiledModel` and no `Module`.
        shapes: {input name: shape} that fixes dynamic dimensions.
        opt_level: 0 (nothing is fused) to 3; 4 is 3 with `guard=True`.
        threads: threads that run the model; None: all cores.
        cache: keep and reuse compiled models and kernels on disk.
        workers: compiling processes; one less schedule beside this one. The result does not depend on it.
        name: the model's name in reports.
        accuracy: "exact": convolutions are plain sums; "default": also faster algorithms whose worst error is as that
            of plain sums; "fast": also such as lose a digit or two. None: as the current PassContext says.
        state: {input: output}: the module keeps these inputs itself, zero at first, and each run replaces them by the
            outputs. `get_param` and `set_param` read and set them by the input's name.
        guard: True, or seconds (True is 2): measures the next best variants of the heaviest kernels for so long, and
            keeps the fastest. None: at opt_level 4. What was decided is kept on disk with the other results.
        measure_on: a session (`rpc.connect`) with the device that the target describes: measure there. It means guard.
        precision: "fp32": as the model says; "bf16": products of bfloat16 numbers summed in float32, where the target
            has an instruction for them; "fp16": numbers are kept in float16 and computed in float32. Inputs and outputs
            keep their types. Operators may have another entry in the table of `transform.to_mixed_precision`:
            "bf16,nn.softmax=follow". None: as the current PassContext says.
        max_memory: bytes that the compiled model may need: for one tensor, and for constants and working memory
            together, as far as the shapes are known. A model that needs more is refused. None: as the importer allows.
        max_compile_seconds: compiling gives up soon after so long. None: it may take any time.
        buckets: {name of a size: values}: the result is a `driver.buckets.Bucketed`, which has a module for each value
            (of several sizes: each combination) besides the one for all sizes, and calls the one that fits.
        pad: with buckets: "auto": a size between two of them is padded to the next where that is proven to change
            nothing, else the module for all sizes serves it; "always": a model in which it is not proven is refused;
            "never": buckets serve their own sizes only.
        hot_shapes: a number: so many sets of sizes that come often get modules of their own, which another process
            compiles meanwhile; the result is a `driver.hot_shapes.HotShapes`.

    Raises:
        WarpbeamError: the model is broken, uses what is not supported (all of it is listed), or does not fit the
        target.
    """

    options = {
        "shapes": shapes, "opt_level": opt_level, "cache": cache, "workers": workers, "name": name, "guard": guard,
        "accuracy": accuracy, "precision": precision, "max_memory": max_memory,
        "max_compile_seconds": max_compile_seconds, "state": state, "measure_on": measure_on,
    }  # fmt: skip

    def made(given: Mapping[str, Any] | None) -> Any:
        module, _ = compile_with_report(model, target=target, **{**options, "shapes": given})
        if threads is not None:
            module.num_threads = threads
        return module

    if hot_shapes is not None:
        return _hot(model, hot_shapes, buckets, target, options, made)
    if buckets is not None:
        return _bucketed(model, buckets, pad, target, options, made)
    return made(shapes)


def _bucketed(
    model: Any, buckets: Mapping[str, Sequence[int]], pad: str, target: Any, options: Mapping[str, Any], made: Any
) -> Any:
    """What `compile` gives for buckets."""
    from warpbeam.driver.buckets import compile_buckets
    from warpbeam.target import get

    if options["state"]:
        raise CompileError("buckets of a model that keeps state", "compile", "each bucket's module would keep its own")
    return compile_buckets(model, buckets, pad, _targets(target, get)[0], options["shapes"], made)


def _hot(model: Any, most: int, buckets: Any, target: Any, options: Mapping[str, Any], made: Any) -> Any:
    """What `compile` gives for hot_shapes."""
    from warpbeam.driver.hot_shapes import compile_hot_shapes
    from warpbeam.target import get

    if options["state"]:
        raise CompileError("hot_shapes of a model that keeps state", "compile", "each size's module would keep its own")
    measure_on = options["measure_on"]
    if buckets is not None or measure_on is not None:
        raise CompileError(f"hot_shapes and {'buckets' if measure_on is None else 'measure_on'}", "compile",
                           "which sizes come often is found where the model runs", "give one of them")  # fmt: skip
    sent = {name: value for name, value in options.items() if name not in ("state", "measure_on")}
    return compile_hot_shapes(model, most, _targets(target, get), sent, made)


def compile_with_report(
    model: Any,
    *,
    target: Any = "native",
    shapes: Mapping[str, Any] | None = None,
    opt_level: int = 3,
    cache: bool = True,
    workers: int | None = None,
    name: str | None = None,
    dump: Any = None,
    accuracy: str | None = None,
    state: Mapping[str, str] | None = None,
    guard: bool | float | None = None,
    measure_on: Any = None,
    precision: str | None = None,
    max_memory: int | None = None,
    max_compile_seconds: float | None = None,
) -> tuple[Any, Any]:
    """As `compile`, and also the `Report` of what was done. `dump(kernel, llvm_text)` sees each new kernel."""
    from warpbeam.driver.collector import collector_paused

    limits = limited(max_memory, max_compile_seconds)
    with limits, accurate(accuracy), precise(precision), collector_paused():
        seconds = _guard_seconds(True if guard is None and measure_on is not None else guard, opt_level)
        guarded = seconds, measure_on
        return _compile(model, target, shapes, min(opt_level, 3), cache, workers, name, dump, state, guarded)


def _guard_seconds(guard: bool | float | None, opt_level: int) -> float:
    """Seconds that may be spent on measuring; 0 for none."""
    if guard is None:
        guard = opt_level >= 4
    seconds = GUARD_SECONDS * guard if isinstance(guard, bool) else guard
    if not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise CompileError(f"guard={guard!r}", "compile", "it is True, False or a number of seconds", "guard=True")
    return float(seconds)


def accurate(accuracy: str | None) -> AbstractContextManager[Any]:
    """A context in which models are compiled with another accuracy, see `compile`; None: no change."""
    if accuracy is None:
        return nullcontext()
    from warpbeam.transform.choose_convolution import ACCURACY, check_accuracy

    return _configured(ACCURACY, check_accuracy(accuracy))


def precise(precision: str | None) -> AbstractContextManager[Any]:
    """A context in which models are compiled with another precision, see `compile`; None: no change."""
    if precision is None:
        return nullcontext()
    from warpbeam.transform.to_mixed_precision import PRECISION, parse

    request = parse(precision)
    return _configured(PRECISION, None if request.name == "fp32" else str(request))


def _configured(key: str, value: Any) -> PassContext:
    """The current context with another entry of its config; None: without it."""
    ctx = PassContext.current()
    config = {k: v for k, v in ctx.config.items() if k != key}
    if value is not None:
        config[key] = value
    return PassContext(ctx.opt_level, ctx.required_pass, ctx.disabled_pass, ctx.instruments, config, ctx.events)


def _compile(
    model: Any,
    target: Any,
    shapes: Mapping[str, Any] | None,
    opt_level: int,
    cache: bool,
    workers: int | None,
    name: str | None,
    dump: Any,
    state: Mapping[str, str] | None,
    guard: tuple[float, Any],
) -> tuple[Any, Any]:
    from warpbeam.driver.cache import Cache
    from warpbeam.driver.report import Report
    from warpbeam.target import get

    targets = _targets(target, get)
    source = _source(model)
    store = Cache() if cache else None
    key = None
    if store is not None and source is not None and dump is None and not _watched():
        key = _key(source, targets, (shapes, state, _measured(*guard), {"memory": most_memory()}), opt_level, store)
        path = store.artifact_path(key)
        found = _cached(path, store)
        if found is not None:
            report = Report(name or found.manifest.name, str(targets[0].name), cached=True)
            return _module(found), report
    from warpbeam.driver.build import Options  # a model from the cache does without the compiler
    from warpbeam.target.host import keep_processor

    options = Options(targets[0], opt_level, store, workers, name or "", dump, targets[1:])
    options = replace(options, guard=guard[0], measure_on=guard[1])
    built = _build(model, shapes, state, options)
    if store is not None and key is not None:
        store.put_artifact(key, built.artifact)
        if store.usable:
            keep_processor()
    return _module(built.artifact), built.report


def _measured(seconds: float, session: Any) -> Mapping[str, Any] | None:
    """What of measuring tells one compilation from another."""
    if not seconds or session is None:
        return {"guard": seconds} if seconds else None
    from warpbeam.driver.remote_timer import machine_of

    return {"guard": seconds, "measure_on": machine_of(session)}


def _targets(target: Any, get: Any) -> tuple[Any, ...]:
    given = [target] if isinstance(target, str | Mapping) or not isinstance(target, Iterable) else list(target)
    found = tuple(get(t) for t in given)
    for t in found:
        if t.kind not in ("llvm", "c"):
            raise CompileError(f"target {t.name} is no CPU, and models are compiled for CPUs", "compile",
                               hint='give "native" or a CPU; `warpbeam.build` makes kernels for devices')  # fmt: skip
    names = [t.name for t in found]
    if not found or len(set(names)) != len(names):
        raise CompileError(f"targets {', '.join(names)}" if names else "no target is given", "compile",
                           "each machine can be there once" if names else "", 'give "native", or names')  # fmt: skip
    return found


def _module(artifact: Artifact) -> Any:
    """What `compile` gives: a module where the code runs here."""
    found = artifact.chosen(fits_here)
    return equipped(Module(artifact) if found.data("code") and fits_here(found.manifest) else CompiledModel(artifact))


def _watched() -> bool:
    """Whether somebody wants to see passes run, so that a model from the cache would not do."""
    ctx = PassContext.current()
    return bool(ctx.instruments or ctx.events)


def _source(model: Any) -> Any:
    """Bytes-like view or path whose contents identify the model; None where there is no cheap identity."""
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model)
    if isinstance(model, str | os.PathLike):
        return Path(model)
    if hasattr(model, "SerializeToString") and hasattr(model, "ByteSize") and model.ByteSize() < (1 << 26):
        return model.SerializeToString(deterministic=True)
    return None


def _key(
    source: Any, targets: Sequence[Any], given: Sequence[Mapping[str, Any] | None], opt_level: int, store: Any
) -> str:
    from warpbeam.driver.cache import package_stamp
    from warpbeam.driver.identity import model_digest

    digest = hashlib.sha256()
    ctx = PassContext.current()
    passes = sorted(ctx.disabled_pass), sorted(ctx.required_pass), sorted(ctx.config.items())
    options = [sorted((m or {}).items()) for m in given]
    digest.update(repr((package_stamp(), [t.key for t in targets], options, opt_level, passes)).encode())
    if isinstance(source, Path):
        try:
            digest.update(model_digest(source, store).encode())
        except OSError as error:
            raise CompileError(f"cannot read {source.name}", str(source.parent), str(error)) from error
    else:
        digest.update(source)
    return digest.hexdigest()


def _cached(path: Path, store: Any) -> Artifact | None:
    """The artefact of a cache entry; one that was found whole since the machine started, and did not change, is not
    hashed again.
    """
    from warpbeam.driver.identity import whole_key

    if not path.exists():
        return None
    try:
        key, settled = whole_key(path)
        known = store.get(key) is not None
        found = Artifact.load(path, verify_constants=not known)
        if settled and not known:
            store.put(key, b"whole")
        return found
    except (OSError, WarpbeamError):
        path.unlink(missing_ok=True)  # damaged entries are rebuilt
        return None


def _build(model: Any, shapes: Mapping[str, Any] | None, state: Mapping[str, str] | None, options: Any) -> Any:
    from warpbeam.driver import source
    from warpbeam.driver.build import build
    from warpbeam.driver.state import check_pairs

    found = source.read(model, shapes, options.name)
    pairs = check_pairs(state or {}, found.inputs, found.outputs, found.name)
    return build(found.module, found.inputs, found.outputs, replace(options, name=found.name, state=pairs))


def load(path: str | os.PathLike[str], trusted: Any = None) -> Module:
    """A module from a file that `Module.save` or `Module.export_library` wrote.

    A saved model whose code is for another processor is compiled again for this one, with a warning.

    Args:
        trusted: public keys (PEM files, or 32 bytes each). If given, only files that one of them signed are opened.

    Raises:
        ArtifactError: if the file is damaged, of another version, or not signed as required.
    """
    try:
        return equipped(open_model(path, trusted=trusted))
    except ArtifactError:
        found = _for_another(path, trusted)
        if found is None:
            raise
    reason = f"{found.manifest.name}: the saved code is for another processor; compiling it again for this one"
    warnings.warn(reason, stacklevel=2)
    return equipped(Module(_rebuilt(found)))


def _for_another(path: str | os.PathLike[str], trusted: Any) -> Artifact | None:
    """The artefact, if it is whole, has code for other machines only, and holds what it was built from."""
    try:
        found = Artifact.load(path, trusted=trusted)
    except WarpbeamError:
        return None
    other = not fits_here(found.chosen(fits_here).manifest)
    return found if other and found.data("relay") is not None else None


def _rebuilt(artifact: Artifact) -> Artifact:
    from warpbeam.driver.build import Options, rebuild
    from warpbeam.driver.cache import Cache
    from warpbeam.target import get

    return rebuild(artifact, Options(get("native"), cache=Cache(), name=artifact.manifest.name)).artifact


def equipped(module: Any) -> Any:
    """The module, whose profiles compare with the machine's limits and which can be printed as C or as objects."""

    def measure(threads: int) -> Roof:
        from warpbeam.driver.roof import measured

        return measured(threads)

    def emit(kind: str, artifact: Artifact, path: Path, name: str, freestanding: bool) -> Exported:
        from warpbeam.driver.export_c import export_c
        from warpbeam.driver.export_object import export_object

        return export_c(artifact, path, name, freestanding) if kind == "c" else export_object(artifact, path, name)

    if isinstance(module, Module):
        module.measure_roof = measure
    module.emit = emit
    return module
