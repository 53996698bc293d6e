"""Classic target strings: "llvm -mcpu=skylake-avx512", "cuda -arch=sm_70", "c", and dicts {"kind": "llvm", "mcpu": …}.

The word in front is the kind, the options say which machine. Plain "llvm" is this very machine with all its features
(the classic stack took it for the oldest processor of the family); `-mcpu=` names a built-in target or the processor
of one, `-mtriple=` another architecture, `-mattr=` switches features on and off.
"""

from __future__ import annotations

import functools
import shlex
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from warpbeam.target.target import KINDS, Target, TargetError, features, from_dict, named, names

#: options that change what is compiled or what the target's attributes say
_KNOWN = ("mcpu", "mattr", "mtriple", "arch", "keys", "device", "model", "libs", "num-cores", "max_num_threads",
          "max_threads_per_block", "max_shared_memory_per_block", "thread_warp_size", "host")  # fmt: skip
#: classic options that have nothing to steer here
_NO_EFFECT = ("link-params", "system-lib", "runtime", "tag", "mfloat-abi", "mabi", "opt-level", "cl-opt", "fast-math",
              "vector-width", "march", "target", "texture_spatial_limit")  # fmt: skip
_KINDS = {"cpu": "llvm", "nvptx": "cuda", "gpu": "cuda", "cl": "opencl", "native": "llvm"}
_BY_MACHINE = {
    "x86_64": "generic-cpu", "aarch64": "generic-aarch64", "arm64": "generic-aarch64", "armv7": "generic-armv7",
    "armv7l": "generic-armv7", "armv8l": "generic-armv7", "riscv64": "generic-riscv64", "wasm32": "wasm32",
    "hexagon": "hexagon",
}  # fmt: skip
#: features that together mean a wider machine, widest first
_WIDER = (
    (("avx512f",), 512, "generic-x86-64-v4"),
    (("avx2",), 256, "generic-x86-64-v3"),
    (("sse4.1",), 128, "generic-x86-64-v2"),
)


def parse(spec: Any, host: Any = None) -> Target:
    """A target from a classic string, a dict with "kind", a Target, or anything that `target.get` takes.

    Raises:
        TargetError: for unknown kinds, processors and options.
    """
    found = _parse(spec)
    if host is None:
        return found
    return found.replace(host=host.to_text() if isinstance(host, Target) else str(host))


def _parse(spec: Any) -> Target:
    if spec is None:
        return _native()
    if isinstance(spec, Target):
        return spec
    if isinstance(spec, Mapping):
        if "kind" in spec and "name" not in spec and "like" not in spec:
            return _from_dict(spec)
        return from_dict(spec)
    if not isinstance(spec, str):
        raise TargetError(f"a {type(spec).__name__} is no target", hint='give a string such as "llvm" or a dict')
    if "\n" in spec or spec.startswith("["):
        return Target.from_text(spec)
    words = shlex.split(spec)
    if not words:
        raise TargetError("the target string is empty", hint='"llvm" is this machine')
    return _spoken(_resolve(words[0], _options(words[1:], spec), spec), tuple(words))


@functools.cache
def _spoken(target: Target, words: tuple[str, ...]) -> Target:
    """The target with its classic text: the kind, what it is grouped under, the options."""
    if words[0] not in (*_KINDS, *KINDS) or words[0] == "native":
        return target
    keys = [] if any(w.lstrip("-").startswith("keys=") for w in words) else [f"-keys={','.join(target.keys)}"]
    return target.replace(said=" ".join([str(target.kind), *keys, *words[1:]]))


def _from_dict(spec: Mapping[str, Any]) -> Target:
    options = {k: ",".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for k, v in spec.items()}
    kind = options.pop("kind")
    host = spec.get("host")
    options.pop("host", None)
    _check(options, kind)
    words = [kind, *(f"-{k}={v}" for k, v in options.items())]
    found = _resolve(kind, options, " ".join(words))
    return found if host is None else parse(found, parse(host))


def _options(words: Sequence[str], spec: str) -> dict[str, str]:
    """The options by name; `-name=value`, `--name=value`, `-name value` and `-flag` are all read."""
    out: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            out[name] = value
            name = "" if equals else name
        elif name:
            out[name], name = word, ""
        else:
            raise TargetError(f"target {spec!r}: stray word {word!r}", hint='options are "-name=value"')
    _check(out, spec)
    return out


def _check(options: Mapping[str, str], spec: str) -> None:
    for name in options:
        if name in _NO_EFFECT:
            warnings.warn(f"target {spec!r}: -{name} has no effect", stacklevel=5)
        elif name not in _KNOWN:
            raise TargetError(f"target {spec!r}: unknown option -{name}", hint=f"options: {', '.join(_KNOWN)}")


def _native() -> Target:
    from warpbeam.target.host import detect

    return detect()


def _resolve(kind: str, options: dict[str, str], spec: str) -> Target:
    base = _base(_KINDS.get(kind, kind), options, spec)
    if options.get("keys") == ",".join(base.keys):  # they go without saying
        options = {k: v for k, v in options.items() if k != "keys"}
        spec = " ".join([kind, *(f"-{k}={v}" for k, v in options.items())])
    mattr = options.get("mattr", "")
    if mattr:
        base = _with_features(base, [w.strip() for w in mattr.split(",") if w.strip()])
    if options.get("mtriple"):
        base = base.replace(triple=options["mtriple"])
    if options.get("num-cores", "").isdecimal():
        base = base.replace(cores=int(options["num-cores"]))
    for name, field in (
        ("max_num_threads", "max_threads_per_block"),
        ("max_threads_per_block", ""),
        ("max_shared_memory_per_block", "shared_bytes"),
        ("thread_warp_size", "warp_size"),
    ):
        if options.get(name, "").isdecimal():
            base = base.replace(**{field or name: int(options[name])})
    if not options.keys() - {"mcpu"}:
        return base  # nothing that the target does not say itself
    return base.replace(name=spec, options=" ".join(f"-{k}={v}" for k, v in options.items()))


def _base(kind: str, options: Mapping[str, str], spec: str) -> Target:
    """The built-in target that the options start from."""
    if kind != "llvm":
        return named(kind)
    cpu, triple = options.get("mcpu"), options.get("mtriple")
    if cpu in (None, "", "native"):
        if not triple or _machine(triple) == _machine(_native().triple):
            return _native()
        if _machine(triple) not in _BY_MACHINE:
            raise TargetError(f"target {spec!r}: no built-in target describes {triple}", hint=", ".join(names()))
        return named(_BY_MACHINE[_machine(triple)])
    native = _native()
    if cpu == native.cpu and (not triple or _machine(triple) == _machine(native.triple)):
        return native
    found = _by_cpu().get(str(cpu))
    if found is None:
        raise TargetError(f"target {spec!r}: unknown processor {cpu!r}",
                          hint=f"known: {', '.join(sorted(_by_cpu()))}; or describe it with like=")  # fmt: skip
    return named(found)


def _machine(triple: str) -> str:
    return triple.partition("-")[0]


@functools.cache
def _by_cpu() -> dict[str, str]:
    """Names of built-in targets by LLVM's processor name and by their own."""
    out: dict[str, str] = {}
    for name in names():
        t = named(name)
        if t.kind == "llvm":
            out.setdefault(t.cpu, name)
            out[name] = name
    return out


def _with_features(base: Target, words: list[str]) -> Target:
    """`base` with features on (+name) or off (-name); wider registers come with the features that have them."""
    on = [w.lstrip("+") for w in words if not w.startswith("-")]
    for needed, width, wider in _WIDER:
        if set(needed) & set(on) and "x86" in base.triple and base.vector_bits < width:
            base = from_dict({"name": base.name, "like": wider, "cpu": base.cpu, "triple": base.triple,
                              "cores": base.cores, "options": base.options})  # fmt: skip
            break
    extra = dict(base.intrinsics)
    requires = base.requires.split()
    for name in on:
        row = features().get(name, {})
        extra.update(row.get("intrinsics", {}))
        requires += str(row.get("requires", "")).split()
    signed = [w if w[0] in "+-" else f"+{w}" for w in words]
    return base.replace(
        features=",".join([*filter(None, [base.features]), *signed]), intrinsics=tuple(sorted(extra.items())),
        requires=" ".join(dict.fromkeys(requires)),
    )  # fmt: skip


def attributes(target: Target) -> dict[str, Any]:
    """The options that a target was given, by their classic names."""
    out: dict[str, Any] = {}
    for word in shlex.split(target.options):
        name, _, value = word.lstrip("-").partition("=")
        out[name] = [v for v in value.split(",") if v] if name in ("mattr", "keys", "libs") else value
    return out


# ----------------------------------------------------------------------------------------------------- classic makers


def create(spec: Any) -> Target:
    """The classic name of `Target(spec)`."""
    return parse(spec)


def _made(kind: str, model: str, options: str | Sequence[str] | None, **more: str) -> Target:
    words = [options] if isinstance(options, str) else list(options or ())
    fixed = [f"-{k}={v}" for k, v in more.items()]
    return parse(" ".join([kind, *fixed, *([f"-model={model}"] if model != "unknown" else []), *words]))


def cuda(model: str = "unknown", arch: str | None = None, options: Any = None) -> Target:
    """An NVIDIA GPU; `arch` such as "sm_70"."""
    return _made("cuda", model, options, **({"arch": arch} if arch else {}))


def llvm(options: Any = None) -> Target:
    """This machine, or the one that the options name."""
    return _made("llvm", "unknown", options)


def opencl(model: str = "unknown", options: Any = None) -> Target:
    """An OpenCL device."""
    return _made("opencl", model, options)


def arm_cpu(model: str = "unknown", options: Any = None) -> Target:
    """An Arm processor of 64 bits, or a board by its classic model name."""
    boards = {"pixel2": "cortex-a73", "rasp4b": "cortex-a72", "rasp4b64": "cortex-a72", "rk3399": "cortex-a72",
              "pynq": "cortex-a9", "rasp3b": "cortex-a53", "mate10": "cortex-a73"}  # fmt: skip
    given = {"keys": "arm_cpu,cpu", "device": "arm_cpu"}
    cpu = boards.get(model, "")
    if cpu and cpu in _by_cpu():
        given["mcpu"] = cpu
    given["mtriple"] = "aarch64-linux-gnu"
    return _made("llvm", model, options, **given)
