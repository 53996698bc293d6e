"""What of ONNX is covered, read off the tables that the importer works by: operator, version of its set, element types.

How an operator is covered at a version:

    compiled     it becomes kernels, or branches and loops of the program
    import       it is decided while importing (sequences of known length, optionals of known state) and leaves nothing
    function     it has no converter and becomes the operators that the format defines it by
    host         it falls back to a function of the host, called by the same program
    no           a model that has it is refused
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from warpbeam.frontend.onnx import ops_sequence, ops_string, special, table
from warpbeam.frontend.onnx.inputs import GRADIENT_DOMAIN
from warpbeam.frontend.onnx.tensors import DTYPES, SCHEMA_NAMES

DOMAINS = ("", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")
CONTROL = ("If", "Loop", "Scan")
_OURS = {SCHEMA_NAMES.get(name, name): name for name in DTYPES.values()}
_WIDE = ("float64", "float32", "float16", "bfloat16")
_ORDER = {name: k for k, name in enumerate([*_WIDE, *[n for n in sorted(DTYPES.values()) if n not in _WIDE]])}


@dataclass(frozen=True, slots=True)
class Row:
    """One operator from version `since` of its set on. compiled, host, refused: the types of its first operand."""

    operator: str
    since: int
    how: str
    compiled: tuple[str, ...]
    host: tuple[str, ...]
    refused: tuple[str, ...]


def rows() -> list[Row]:
    """All operators of the format and all of ours, by domain, name and version; deprecated versions are left out."""
    import onnx

    history: dict[tuple[str, str], list[Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        history.setdefault((schema.domain, schema.name), []).append(schema)
    out = []
    for domain in DOMAINS:
        for _, name in sorted(k for k in history if k[0] == domain):
            schemas = sorted(history[domain, name], key=lambda s: s.since_version)
            out += [_row(domain, s) for s in schemas if not s.deprecated]
    known = {_full(d, n) for d, n in history}
    for name, versions in sorted(table.converters().items()):
        if name not in known:
            out += [Row(name, since, "compiled", (), (), ()) for since, _ in reversed(versions)]
    return out


def _full(domain: str, name: str) -> str:
    return f"{domain}::{name}" if domain else name


def _row(domain: str, schema: Any) -> Row:
    how = _how(domain, schema)
    groups: dict[str, list[str]] = {"compiled": [], "host": [], "refused": []}
    for kind in dict.fromkeys(_kinds(schema)):
        groups[_way(domain, schema.name, how, kind)].append(kind)
    found = {k: tuple(sorted(v, key=lambda n: (_ORDER.get(n, 99), n))) for k, v in groups.items()}
    return Row(_full(domain, schema.name), schema.since_version, how, **found)


def _how(domain: str, schema: Any) -> str:
    name, version = schema.name, schema.since_version
    if not domain and name in ops_string.TABLE:
        return "host"
    if not domain and name in ops_sequence.TABLE:
        return "import"
    if (
        (domain, name) == (GRADIENT_DOMAIN, "Gradient")
        or (not domain and name in CONTROL)
        or table.find(name, domain, version) is not None
    ):
        return "compiled"
    bodies = schema.function_opset_versions or schema.context_dependent_function_opset_versions
    return "function" if bodies else "no"


def _kinds(schema: Any) -> Iterator[str]:
    """The types of the first operand (of the first result, where there is none) in short: float32, string, seq, …"""
    ports = schema.inputs or schema.outputs
    if not ports:
        return
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    for text in sorted(allowed.get(ports[0].type_str, [ports[0].type_str])):
        outer, _, inner = text.partition("(")
        yield outer if outer != "tensor" else _OURS.get(inner[:-1], inner[:-1])


def _way(domain: str, name: str, how: str, kind: str) -> str:
    """Which group a type belongs to."""
    objects = kind in ("seq", "optional")
    if how == "no" or kind in ("map", "complex64", "complex128", "sparse_tensor"):
        return "refused"
    if domain == GRADIENT_DOMAIN and name == "Gradient" and kind not in _WIDE:
        return "refused"
    if objects and how == "compiled":
        return "compiled" if name in ops_sequence.ON_OBJECTS or name in CONTROL else "refused"
    if kind == "string" and not domain and how == "compiled":
        if name in ("Cast", "CastLike"):
            return "host"
        return "compiled" if name in special.MOVES or name in CONTROL else "refused"
    return "host" if how == "host" else "compiled"


def summary(found: list[Row]) -> dict[str, int]:
    """How many operators are covered in which way, in their newest version."""
    newest = {r.operator: r for r in found}
    ways = ("compiled", "import", "function", "host", "no")
    return {way: sum(r.how == way for r in newest.values()) for way in ways}
