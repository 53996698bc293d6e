"""The prelude: data types that programs share, and their constructors.

from warpbeam.relay.adt import Prelude
p = Prelude(mod)
xs = p.cons(const(1), p.nil())
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from warpbeam.ir.diagnostics import IRError
from warpbeam.relay.expr import Constructor, Expr, IRModule, TypeData
from warpbeam.relay.types import GlobalTypeVar, TensorType, TupleType, Type, TypeCall, TypeVar

__all__ = ["Prelude", "define_adt", "from_list", "prelude_types", "to_list"]


def define_adt(
    name: str, type_vars: Sequence[TypeVar], cases: dict[str, Sequence[Type]], header: GlobalTypeVar
) -> TypeData:
    """A data type from its constructors' field types, which may refer to `header`."""
    built = [
        Constructor(case, tuple(fields), header, tuple(type_vars), tag)
        for tag, (case, fields) in enumerate(cases.items())
    ]
    if header.name != name:
        raise IRError(f"data type {name} with header {header.name}", hint="both names must agree")
    return TypeData(header, tuple(type_vars), tuple(built))


@cache
def prelude_types() -> dict[str, TypeData]:
    """List, Option, Tree, Either, Nat, by name; the same objects in every module."""
    a, b = TypeVar("A"), TypeVar("B")
    lst, opt, tree, either, nat = (GlobalTypeVar(n) for n in ("List", "Option", "Tree", "Either", "Nat"))
    found = [
        define_adt("List", (a,), {"Nil": (), "Cons": (a, TypeCall(lst, (a,)))}, lst),
        define_adt("Option", (a,), {"None_": (), "Some": (a,)}, opt),
        define_adt("Tree", (a,), {"Rose": (a, TypeCall(lst, (TypeCall(tree, (a,)),)))}, tree),
        define_adt("Either", (a, b), {"Left": (a,), "Right": (b,)}, either),
        define_adt("Nat", (), {"Zero": (), "Succ": (nat,)}, nat),
    ]
    return {d.header.name: d for d in found}


class Prelude:
    """Adds the shared data types to a module and gives their constructors as attributes: nil, cons, some, none, …"""

    _NAMES = {
        "nil": ("List", "Nil"), "cons": ("List", "Cons"), "none": ("Option", "None_"), "some": ("Option", "Some"),
        "rose": ("Tree", "Rose"), "left": ("Either", "Left"), "right": ("Either", "Right"), "z": ("Nat", "Zero"),
        "s": ("Nat", "Succ"),
    }  # fmt: skip

    def __init__(self, mod: IRModule | None = None) -> None:
        self.mod = mod if mod is not None else IRModule()
        for data in prelude_types().values():
            self.mod.types.setdefault(data.header, data)

    def constructor(self, type_name: str, case: str) -> Constructor:
        """A constructor by the names of its type and case."""
        for c in prelude_types()[type_name].constructors:
            if c.name == case:
                return c
        raise IRError(f"{type_name} has no constructor {case}")

    def __getattr__(self, name: str) -> Constructor:
        if name not in self._NAMES:
            raise AttributeError(f"the prelude has no {name!r}; it has {sorted(self._NAMES)}")
        return self.constructor(*self._NAMES[name])

    def type(self, name: str) -> GlobalTypeVar:
        """The name of a data type, for annotations."""
        return prelude_types()[name].header


def from_list(items: Sequence[Expr], element: Type | None = None) -> Expr:
    """A List value of the given expressions."""
    p = Prelude()
    kind = element if element is not None else items[0].ty if items else TupleType(())
    out: Expr = p.nil().replace(type_args=(kind,)) if isinstance(kind, TensorType | TupleType) else p.nil()
    for item in reversed(items):
        out = p.cons(item, out)
    return out


def to_list(value: object) -> list[object]:
    """The elements of an interpreted List value."""
    out = []
    while getattr(value, "fields", ()):
        head, value = value.fields  # type: ignore[attr-defined]
        out.append(head)
    return out
