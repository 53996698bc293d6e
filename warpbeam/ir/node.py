"""One kind of node for every IR: immutable, interned, with children found generically.

A subclass declares its fields as annotations. Two nodes of equal fields are the same object, so `is` compares
programs and
a dict memoises passes. What has identity is a `Binder`: each construction is new. Nodes never know their parents.

    class Add(PrimExpr):
        a: PrimExpr
        b: PrimExpr
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from warpbeam.ir.diagnostics import IRError

_POOL: dict[tuple[Any, ...], weakref.ref[Any]] = {}
_UIDS = itertools.count()
_V = TypeVar("_V")
_PLAIN = ("int", "str", "bool", "float")  # annotations of fields that hold no nodes
_CLASSES: set[type] = set()  # every node class: a test of membership is several times cheaper than isinstance


class _PoolRef(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("key",)
    key: tuple[Any, ...]


def _forget(ref: Any) -> None:
    key = ref.key
    if _POOL.get(key) is ref:
        del _POOL[key]


def _own_fields(ns: dict[str, Any]) -> list[str]:
    names = ns.get("__annotations__", {})
    return [n for n, t in names.items() if not str(t).startswith(("ClassVar", "Derived"))]


class NodeMeta(type):
    """Turns annotations into slots and construction into interning.

    `Derived[...]` annotations are slots that `_derive` fills from the fields; they take no part in identity.
    """

    def __new__(mcls, name: str, bases: tuple[type, ...], ns: dict[str, Any], /, **kw: Any) -> NodeMeta:
        own = _own_fields(ns)
        derived = [n for n, t in ns.get("__annotations__", {}).items() if str(t).startswith("Derived")]
        inherited: list[str] = []
        for base in bases:
            inherited += [f for f in getattr(base, "_fields", ()) if f not in inherited]
        defaults = {f: ns.pop(f) for f in own if f in ns}
        slots = [f for f in own + derived if f not in inherited] + list(ns.get("__slots__", ()))
        if any(getattr(b, "_binder", False) and not hasattr(b, "uid") for b in bases):
            slots.append("uid")  # not on Binder itself: two bases with slots of their own cannot be combined
        ns["__slots__"] = tuple(slots)
        cls = super().__new__(mcls, name, bases, ns, **kw)
        cls._fields = tuple(inherited + [f for f in own if f not in inherited])  # type: ignore[attr-defined]
        merged: dict[str, Any] = {}
        for base in reversed(bases):
            merged.update(getattr(base, "_defaults", {}))
        cls._defaults = {**merged, **defaults}  # type: ignore[attr-defined]
        if bases:  # `Node` says of itself what holds for it
            cls._arity = len(cls._fields) if _inherited(cls, "_normalize") else -1  # type: ignore[attr-defined]
            cls._own_key = not _inherited(cls, "_key")  # type: ignore[attr-defined]
            plain = {f for f in own if str(ns["__annotations__"][f]) in _PLAIN}
            above = [b for b in bases if hasattr(b, "_holding")]
            plain |= {f for b in above for f in b._fields if f not in own and f not in b._holding}  # type: ignore[attr-defined]
            fields = () if cls._binder else cls._fields  # type: ignore[attr-defined]
            cls._holding = tuple(f for f in fields if f not in plain)  # type: ignore[attr-defined]
            # a class without children says so itself, in the place of the slot that keeps those of a node
            cls._below = Node.__dict__["_below"] if cls._holding else ()  # type: ignore[attr-defined]
            cls._made_of = Node.__dict__["_made_of"]  # type: ignore[attr-defined]  # a parent's makes nodes of the parent
        _CLASSES.add(cls)
        return cls

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        values = args
        if len(args) != cls._arity or kwargs:  # type: ignore[attr-defined]
            values = cls._normalize(*args, **kwargs)  # type: ignore[attr-defined]
        if not cls._interned:  # type: ignore[attr-defined]
            return cls._made_of(values)  # type: ignore[attr-defined]
        key = (cls, *(cls._key(values) if cls._own_key else values))  # type: ignore[attr-defined]
        try:
            ref = _POOL.get(key)
        except TypeError:  # children in a list
            if not any(isinstance(v, list) for v in values):
                raise
            return cls(*(tuple(v) if isinstance(v, list) else v for v in values))
        if ref is not None:
            node = ref()
            if node is not None:
                return node
        node = cls._made_of(values)  # type: ignore[attr-defined]
        new = _PoolRef(node, _forget)
        new.key = key
        _POOL[key] = new
        return node


def alive(*key: Any) -> Any:
    """The node of a class with these values if there is one already, else None: a short cut for frequent ones."""
    ref = _POOL.get(key)
    return None if ref is None else ref()


def _inherited(cls: Any, name: str) -> bool:
    """Whether a class method is the one of `Node`."""
    return getattr(cls, name).__func__ is getattr(Node, name).__func__


def _maker(cls: Any) -> Callable[[tuple[Any, ...]], Any]:
    """The function that builds a class's nodes from the values of its fields: straight-line code, as there are many."""
    names = cls._fields
    scope: dict[str, Any] = {f"set_{i}": getattr(cls, name).__set__ for i, name in enumerate(names)}
    scope |= {"new": object.__new__, "cls": cls, "derive": cls._derive}
    lines = ["def make(values):", "    node = new(cls)"]
    if names:
        lines.append(f"    ({', '.join(f'v{i}' for i in range(len(names)))},) = values")
    lines += [f"    set_{i}(node, v{i})" for i in range(len(names))]
    if cls._derive is not Node._derive:
        lines.append("    derive(node)")
    exec("\n".join([*lines, "    return node"]), scope)
    return scope["make"]  # type: ignore[no-any-return]


if TYPE_CHECKING:
    _T = TypeVar("_T")
    Derived = Annotated[_T, "computed"]
else:

    class Derived:
        """Marks an annotation as a slot computed by `_derive`: `dtype: Derived[str]`."""

        def __class_getitem__(cls, item: Any) -> Any:
            return item


class Node(metaclass=NodeMeta):
    """Base of every IR node. Fields are read-only; build a new node to change one."""

    _interned: ClassVar[bool] = True
    _binder: ClassVar[bool] = False
    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}
    _labels: ClassVar[tuple[str, ...]] = ()  # fields that only name things, for structural comparison to skip
    _arity: ClassVar[int] = -1  # how many values stand for the fields as they are; -1: none do without `_normalize`
    _holding: ClassVar[tuple[str, ...]] = ()  # fields that may hold nodes
    _own_key: ClassVar[bool] = False  # whether `_key` says something else than the values
    __slots__ = ("__weakref__", "_below", "_learnt")

    if TYPE_CHECKING:  # the metaclass builds nodes; a checker needs to know that classes take their fields

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    @classmethod
    def _normalize(cls, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Field values in order, coerced and checked; subclasses override to accept friendlier arguments."""
        fields = cls._fields
        if len(args) == len(fields) and not kwargs:
            return args
        if len(args) > len(fields):
            raise IRError(f"{cls.__name__} takes {len(fields)} fields {fields}, got {len(args)}")
        values = dict(zip(fields, args, strict=False))
        for name, value in kwargs.items():
            if name not in fields or name in values:
                raise IRError(f"{cls.__name__} has no free field {name!r}", hint=f"its fields are {fields}")
            values[name] = value
        missing = [f for f in fields if f not in values and f not in cls._defaults]
        if missing:
            raise IRError(f"{cls.__name__} is missing fields {missing}")
        return tuple(values[f] if f in values else cls._defaults[f] for f in fields)

    @classmethod
    def _key(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return values

    @classmethod
    def _made_of(cls, values: tuple[Any, ...]) -> Any:
        """A node with these values; the first call of a class replaces this by its own `_maker`."""
        make = _maker(cls)
        cls._made_of = staticmethod(make)  # type: ignore[method-assign, assignment]
        return make(values)

    def _derive(self) -> None:
        """Computes derived slots; called once, after the fields are set."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise IRError(f"{type(self).__name__}.{name} is read-only", hint="use node.replace(...) to build a new node")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def same_as(self, other: Any) -> bool:
        """Whether both are one node: equal parts, or for what has an identity the same one."""
        return self is other

    def replace(self, **changes: Any) -> Any:
        """The node of the same class with some fields changed."""
        cls = type(self)
        return cls(**{f: changes.get(f, getattr(self, f)) for f in cls._fields})

    def __reduce__(self) -> Any:
        raise IRError(f"{type(self).__name__} cannot be pickled", hint="use warpbeam.ir.wire, or its text")

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __copy__(self) -> Any:
        return self


class Binder(Node):
    """A node with an identity of its own: every construction is a new one. A leaf for generic traversal.

    `uid` orders binders by creation. It never enters hashes, text or output.
    """

    _interned: ClassVar[bool] = False
    _binder: ClassVar[bool] = True

    def _derive(self) -> None:
        self._set("uid", next(_UIDS))


class Attrs(Mapping[str, Any]):
    """An immutable, hashable mapping for attributes; lists become tuples, dicts become Attrs, keys are sorted."""

    __slots__ = ("_data", "_hash")
    _data: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        data = dict(*args, **kwargs)
        object.__setattr__(self, "_data", {k: freeze(data[k]) for k in sorted(data)})
        object.__setattr__(self, "_hash", hash(tuple((k, _typed(v)) for k, v in self._data.items())))

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __getattr__(self, key: str) -> Any:
        try:
            return self._data[key]
        except KeyError:
            raise AttributeError(f"no attribute {key!r}; there are {sorted(self._data)}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        raise IRError("attributes are read-only", hint="use attrs.updated(key=value)")

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __hash__(self) -> int:
        return self._hash  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Attrs) or hash(self) != hash(other):
            return False
        return [(k, _typed(v)) for k, v in self._data.items()] == [(k, _typed(v)) for k, v in other._data.items()]

    def __repr__(self) -> str:
        return "Attrs(" + ", ".join(f"{k}={v!r}" for k, v in self._data.items()) + ")"

    def updated(self, **changes: Any) -> Attrs:
        return Attrs({**self._data, **changes})


def _typed(value: Any) -> Any:
    """A comparison key under which 1, 1.0 and True differ."""
    if isinstance(value, tuple):
        return tuple(_typed(v) for v in value)
    if isinstance(value, bool | int | float):
        return (type(value).__name__, repr(value))
    return value


def freeze(value: Any) -> Any:
    """Lists to tuples and dicts to Attrs, so that a value can be part of a node."""
    if isinstance(value, list | tuple):
        return tuple(freeze(v) for v in value)
    if isinstance(value, dict):
        return Attrs(value)
    if type(value) is not bool and isinstance(value, int):
        return int(value)  # a subclass such as a dimension's would print and compare as something else
    return value


EMPTY = Attrs()


class NodeMemo(Generic[_V]):
    """What was found out about nodes: kept with each node, and gone with it."""

    def get(self, node: Node) -> _V | None:
        """What is kept of a node; None if nothing is."""
        try:
            return node._learnt.get(self)  # type: ignore[no-any-return, attr-defined]
        except AttributeError:
            return None

    def __setitem__(self, node: Node, value: _V) -> None:
        try:
            node._learnt[self] = value  # type: ignore[attr-defined]
        except AttributeError:
            object.__setattr__(node, "_learnt", {self: value})


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below `node`, in field order; found once. Binders have none."""
    try:
        return node._below  # type: ignore[no-any-return, attr-defined]
    except AttributeError:
        found: list[Node] = []
        for name in type(node)._holding:
            value = getattr(node, name)
            if type(value) in _CLASSES:
                found.append(value)
            elif type(value) is tuple:
                _collect(value, found)
        below = tuple(found)
        object.__setattr__(node, "_below", below)
        return below


def _collect(values: tuple[Any, ...], found: list[Node]) -> None:
    for value in values:
        if type(value) in _CLASSES:
            found.append(value)
        elif type(value) is tuple:
            _collect(value, found)


def _mapped(value: Any, fn: Callable[[Node], Node]) -> Any:
    if type(value) in _CLASSES:
        return fn(value)
    if type(value) is tuple and value:
        new = tuple(_mapped(v, fn) for v in value)
        return value if all(a is b for a, b in zip(new, value, strict=True)) else new
    return value


def map_children(node: Node, fn: Callable[[Node], Node]) -> Any:
    """`node` with each direct child replaced by `fn(child)`; the same node where nothing changed."""
    if not children(node):
        return node
    cls = type(node)
    changed = False
    values = []
    for name in cls._fields:
        old = getattr(node, name)
        if type(old) in _CLASSES:
            new = fn(old)
        elif type(old) is tuple and old:
            new = _mapped(old, fn)
        else:
            new = old
        changed = changed or new is not old
        values.append(new)
    return cls(*values) if changed else node
