"""What a machine is, for the compiler: vector width, registers, caches, number formats, intrinsics. Data, no behaviour.

A target is written in TOML (`target/*.toml`), inherits with `like`, and is a frozen value with a text form and a stable
key. Nothing in the compiler may branch on a target's name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.ir.dtype import bits

KINDS = ("llvm", "c", "cuda", "opencl")
_FOLDER = Path(__file__).parent


class TargetError(WarpbeamError, ValueError):
    """A target is unknown, or its description is wrong.

    Wrong:
        tvm.target.from_dict({"like": "znver4", "coers": 8})
    Right:
        tvm.target.from_dict({"like": "znver4", "cores": 8})
    """


class Kind(str):
    """A target's kind: a string that also has the classic attribute `name`."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The string itself."""
        return str(self)


class _Made(type):
    """`Target("llvm -mcpu=…", host=…)` reads a classic description; `Target(name=…, kind=…, …)` sets fields."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        if not args and "target" not in fields:
            return super().__call__(**fields)
        from warpbeam.target.classic import parse

        names = ("target", "host")
        given = dict(zip(names, args, strict=False)) | fields
        if len(args) > len(names) or not given.keys() <= set(names):
            raise TargetError(f"Target({', '.join(map(repr, args))}, …) does not say a target",
                              hint='Target("llvm -mcpu=znver4", host=None), or every field by its name')  # fmt: skip
        return parse(given["target"], given.get("host"))


_STACK: ContextVar[tuple[Target, ...]] = ContextVar("warpbeam_targets", default=())


@dataclass(frozen=True)
class Target(metaclass=_Made):
    """One kind of machine. `with target:` makes it the current one, see `Target.current`.

    Attributes:
        name: how users call it.
        kind: which code generator prints for it: "llvm", "c", "cuda" or "opencl".
        device: where kernels run, in the runtime's words ("cpu", "cuda", …).
        host: name of the target that the host part is compiled for; empty = this one.
        triple, cpu, features, abi: LLVM's words for the machine ("+avx2,+fma").
        attributes: extra LLVM function attributes.
        pointer_bits: width of addresses.
        vector_bits, vector_registers: width and number of the vector registers.
        fma: fused multiply-add exists for float32 and float64.
        fp16_convert: float16 <-> float32 conversions are instructions.
        native_minmax: min and max that propagate NaN are instructions.
        native_round: floor, ceil, trunc and rounding to even are instructions.
        native_sqrt: square root is an instruction.
        masked_memory: masked vector loads and stores are instructions.
        threads: parallel loops make sense.
        l1, l2, l3, line: bytes of the data caches as one core sees them (0 = none) and of a cache line.
        cores: processor cores that may be used.
        fma_rate: vector multiply-adds that a core starts per cycle, at best.
        l2_rate, l3_rate, memory_rate: bytes per cycle that one core reads from the second- and third-level cache, and
            from memory when all cores do.
        fork_cycles: what a parallel loop costs besides its work, in cycles.
        requires: processor features that generated code may use, by LLVM's names, separated by blanks.
        prefer_layout: layout that costs decide for when nothing else does ("NHWC" or "NCHW").
        max_threads_per_block, warp_size: of a GPU: threads that may share memory and barriers, and those that run in
            lock step (1 = none do). 0 threads: no GPU.
        shared_bytes, local_bytes: memory of one block, and private memory of one thread, in bytes (0 = no limit).
        warp_shuffle: threads of a warp can read each other's registers.
        options: what a classic target string said beyond the machine ("-libs=cblas"), see `attrs`.
        intrinsics: (name, LLVM template) pairs of tensor instructions, see `codegen/llvm/dots.py`.
        said: the classic text of a target made of one, which `str` gives; no part of what the target is.
    """

    name: str
    kind: str = "llvm"
    device: str = "cpu"
    host: str = ""
    triple: str = ""
    cpu: str = ""
    features: str = ""
    abi: str = ""
    attributes: str = ""
    pointer_bits: int = 64
    vector_bits: int = 128
    vector_registers: int = 16
    fma: bool = False
    fp16_convert: bool = False
    native_minmax: bool = False
    native_round: bool = False
    native_sqrt: bool = True
    masked_memory: bool = False
    threads: bool = True
    l1: int = 32768
    l2: int = 262144
    l3: int = 0
    line: int = 64
    cores: int = 1
    fma_rate: float = 2.0
    l2_rate: float = 40.0
    l3_rate: float = 22.0
    memory_rate: float = 5.0
    fork_cycles: int = 4000
    prefer_layout: str = "NHWC"
    requires: str = ""
    max_threads_per_block: int = 0
    warp_size: int = 1
    shared_bytes: int = 0
    local_bytes: int = 0
    warp_shuffle: bool = False
    options: str = ""
    intrinsics: tuple[tuple[str, str], ...] = ()
    said: str = dataclasses.field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TargetError(f"target {self.name!r} has kind {self.kind!r}", hint=f"kinds are {', '.join(KINDS)}")
        if self.vector_bits < 8 or self.vector_bits & (self.vector_bits - 1):
            raise TargetError(f"target {self.name!r}: vector_bits {self.vector_bits}", why="no power of two >= 8")
        object.__setattr__(self, "kind", Kind(self.kind))

    # ----------------------------------------------------------------------------------------------- the current target

    def __enter__(self) -> Target:
        _STACK.set((*_STACK.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        _STACK.set(_STACK.get()[:-1])

    @staticmethod
    def current(allow_none: bool = True) -> Target | None:
        """The target of the innermost `with target:`.

        Raises:
            TargetError: (a ValueError) if there is none and `allow_none` is false.
        """
        stack = _STACK.get()
        if not stack and not allow_none:
            raise TargetError("there is no current target", hint='use "with Target(…):" around this')
        return stack[-1] if stack else None

    # ----------------------------------------------------------------------------------------------- classic attributes

    @property
    def attrs(self) -> dict[str, Any]:
        """The options of the classic string it was made of, by name; plus what classic scripts ask for."""
        from warpbeam.target.classic import attributes

        return {"max_num_threads": self.max_num_threads, "thread_warp_size": self.warp_size, **attributes(self)}

    @property
    def keys(self) -> list[str]:
        """Classic groups of targets that this one belongs to, narrowest first."""
        own = {"llvm": ["cpu"], "c": ["cpu"], "cuda": ["cuda", "gpu"], "opencl": ["opencl", "gpu"]}[self.kind]
        return [str(k) for k in self.attrs.get("keys", own)]

    @property
    def max_num_threads(self) -> int:
        """Threads of one block on a GPU, else 1."""
        return max(self.max_threads_per_block, 1)

    @property
    def thread_warp_size(self) -> int:
        """Threads that run in lock step."""
        return self.warp_size

    @property
    def max_shared_memory_per_block(self) -> int:
        """Bytes that the threads of a block may share."""
        return self.shared_bytes

    @property
    def mcpu(self) -> str:
        """LLVM's name of the processor."""
        return self.cpu

    @property
    def mattr(self) -> list[str]:
        """Features in LLVM's words."""
        return [w for w in self.features.split(",") if w]

    @property
    def arch(self) -> str:
        """A GPU's architecture as given ("sm_70"); empty if none was."""
        return str(self.attrs.get("arch", ""))

    @property
    def model(self) -> str:
        """The model as given, else "unknown"."""
        return str(self.attrs.get("model", "unknown"))

    @property
    def device_name(self) -> str:
        """The classic -device option."""
        return str(self.attrs.get("device", ""))

    @property
    def libs(self) -> list[str]:
        """Libraries as given with -libs."""
        return list(self.attrs.get("libs", []))

    @functools.cached_property
    def key(self) -> str:
        """A stable digest of everything that matters for generated code and schedules."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()[:24]

    @property
    def required_features(self) -> tuple[str, ...]:
        """Processor features that the loader checks before it runs code for this target."""
        return tuple(self.requires.split())

    def lanes(self, dtype: str) -> int:
        """Elements of `dtype` in one vector register (at least 1)."""
        return max(1, self.vector_bits // bits(dtype))

    def intrinsic(self, name: str) -> str | None:
        """The template of a tensor intrinsic such as "dot4.uint8.int8.x16", or None."""
        return dict(self.intrinsics).get(name)

    def at_least(self, name: str, lanes: int) -> tuple[int, str] | None:
        """The narrowest intrinsic `name`.x4, .x8, … of so many lanes or more: its lanes and template; None if none is
        wide enough."""
        sizes = ((int(k.rpartition(".x")[2]), t) for k, t in self.intrinsics if k.rpartition(".x")[0] == name)
        return min((s for s in sizes if s[0] >= lanes), default=None)

    def replace(self, **changes: Any) -> Target:
        """The target with some fields changed."""
        return dataclasses.replace(self, **{"said": "", **changes})

    def to_text(self) -> str:
        """TOML text that `from_text` reads back to an equal target."""
        lines = [f"[{_quote(self.name)}]"]
        for f in fields(self):
            if f.name not in ("name", "intrinsics", "said"):
                lines.append(f"{f.name} = {_toml(getattr(self, f.name))}")
        if self.intrinsics:
            lines.append(f"[{_quote(self.name)}.intrinsics]")
            lines += [f"{_quote(k)} = {_quote(v)}" for k, v in self.intrinsics]
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_text(text: str) -> Target:
        """Reads one target from TOML text; `like` may name a built-in target.

        Raises:
            TargetError: if the text is no single, well-formed target.
        """
        tables = _parse(text, "text")
        if len(tables) != 1:
            raise TargetError(f"the text describes {len(tables)} targets", hint="one table [name] per text")
        name, table = next(iter(tables.items()))
        return from_dict({"name": name, **table})

    def __str__(self) -> str:
        return self.said or self.name


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else _quote(value)


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError("a target file is not valid TOML", where, str(error)) from error


#: tables that describe no target
_OTHER = ("feature", "alias")


@functools.cache
def _tables() -> dict[str, dict[str, Any]]:
    """All tables of the package's files: targets by name, "feature" and "alias"."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(_FOLDER.glob("*.toml")):
        for name, table in _parse(path.read_text(), path.name).items():
            if name == "feature":
                found.setdefault("feature", {}).update(table)
            elif name in found:
                raise TargetError(f"target {name!r} is described twice", path.name)
            else:
                found[name] = table
    return found


def names() -> list[str]:
    """Names of the built-in targets, in order."""
    return sorted(n for n in _tables() if n not in _OTHER)


def features() -> dict[str, dict[str, Any]]:
    """Optional processor features and the fields they add."""
    return _tables().get("feature", {})


def _resolve(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a table with `like` and `adds` applied."""
    chain: list[Mapping[str, Any]] = [table]
    seen: list[str] = []
    while "like" in chain[-1]:
        parent = chain[-1]["like"]
        if parent in seen or parent in _OTHER or parent not in _tables():
            why = "it inherits from itself" if parent in seen else "there is no such target"
            raise TargetError(f"target {where!r} is like {parent!r}", why=why, hint=f"built in: {', '.join(names())}")
        seen.append(parent)
        chain.append(_tables()[parent])
    out: dict[str, Any] = {"intrinsics": {}}
    for level in reversed(chain):
        for name in level.get("adds", ()):
            if name not in features():
                raise TargetError(f"target {where!r} adds unknown feature {name!r}", hint=", ".join(features()))
            _merge(out, features()[name])
        _merge(out, {k: v for k, v in level.items() if k not in ("like", "adds")})
    return out


def _merge(out: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for key, value in extra.items():
        if key == "intrinsics":
            value = {**out["intrinsics"], **dict(value)}
        elif key == "requires" and isinstance(value, str):  # what is inherited is needed as well
            value = " ".join(dict.fromkeys([*str(out.get("requires", "")).split(), *value.split()]))
        out[key] = value


def from_dict(data: Mapping[str, Any]) -> Target:
    """A target from fields; `like` inherits from a built-in one, `adds` lists optional features.

    Raises:
        TargetError: for unknown names or values of the wrong type.
    """
    where = str(data.get("name", data.get("like", "custom")))
    values = {"name": where, **_resolve(data, where)}
    known = {f.name: f for f in fields(Target)}
    for key, value in values.items():
        if key not in known:
            raise TargetError(f"target {where!r} has unknown field {key!r}", hint=f"fields: {', '.join(known)}")
        want = {"str": str, "int": int, "float": float, "bool": bool}.get(str(known[key].type), dict)
        if want is float and type(value) is int:
            values[key] = float(value)
        elif type(value) is not want:
            raise TargetError(f"target {where!r}: {key} = {value!r}", why=f"it must be {want.__name__}")
    values["intrinsics"] = tuple(sorted(values["intrinsics"].items()))
    return Target(**values)


@functools.cache
def named(name: str) -> Target:
    """A built-in target, by its name or another one of its machine's, such as "aarch64-linux-gnu".

    Raises:
        TargetError: if there is none of that name.
    """
    name = _tables()["alias"].get(name, name)
    if name in _OTHER or name not in _tables():
        near = get_close_matches(name, [*names(), *_tables()["alias"]], 3)
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise TargetError(f"unknown target {name!r}", hint=f'{meant}built in: {", ".join(names())}; or "native"')
    return from_dict({"name": name, **_tables()[name]})
