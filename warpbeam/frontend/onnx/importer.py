"""From an ONNX graph to a Relay function: one walk over the nodes, functions inlined by frames instead of recursion.

Integer tensors whose content is known (shapes and arithmetic on them) are carried along as numbers and expressions over
symbolic sizes; they become attributes. Everything that has no implementation is collected and reported at once.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.frontend.onnx import control, control_scan, schema, table, values
from warpbeam.frontend.onnx.assumed import other_choice, settle, unify
from warpbeam.frontend.onnx.control import Frame
from warpbeam.frontend.onnx.found import Found
from warpbeam.frontend.onnx.functions import own_functions, without
from warpbeam.frontend.onnx.inputs import Dims, bind_inputs, order_nodes
from warpbeam.frontend.onnx.limits import DEFAULT, Limits
from warpbeam.frontend.onnx.loader import Loaded, domain_versions, load, newest_opset, subgraphs
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.frontend.onnx.objects import check_declared, is_object, layout_of, leaves
from warpbeam.frontend.onnx.refusals import MisfitError, all_missing, undecided
from warpbeam.frontend.onnx.special import special_case, string_flags
from warpbeam.frontend.onnx.tensors import attribute_value, tensor_array
from warpbeam.ir import budget
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import Diagnostics, ImportModelError, Span, UnsupportedError, WarpbeamError
from warpbeam.ir.node import Attrs, children
from warpbeam.ir.rewrite import add_origins, substitute
from warpbeam.relay.expr import Call, Constant, Expr, Function, GlobalVar, IRModule, Tuple, TupleGetItem, Var
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.runtime.manifest import LAYOUT
from warpbeam.runtime.objects import Table, using
from warpbeam.topi.dims import Undecided, firm

_TRIES = 100  # a model is imported at most: for each two sizes that become one, and for each other choice of branches
_BROKEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError, MemoryError)


@dataclass(slots=True)
class ImportedModel:
    """A model as a Relay module. inputs, outputs: names in order. sizes: symbolic dimension name -> variable.

    main's attribute "assumptions" holds conditions on sizes that must hold at each call, "reasons" why, or "".
    guessed: inputs whose contents would tell which of an If's branches is taken, where one had to be chosen.
    """

    module: IRModule
    inputs: list[str]
    outputs: list[str]
    sizes: dict[str, Any]
    parameters: dict[str, Constant]
    name: str
    guessed: tuple[str, ...] = ()


_CONTROL = {"If": control.branches, "Loop": control.loop, "Scan": control_scan.scan}


class Importer:
    """Imports one loaded model."""

    def __init__(
        self,
        loaded: Loaded,
        shapes: Mapping[str, Any] | None = None,
        dtype: Any = None,
        limits: Limits = DEFAULT,
        constants: Mapping[str, np.ndarray] | None = None,
        aliases: Mapping[str, str] | None = None,
        host_sequences: bool = True,
        choices: Mapping[str, int] | None = None,
    ) -> None:
        self.loaded = loaded
        self.choices = dict(choices or {})
        self.chosen: list[tuple[str, int]] = []
        self.host_sequences = host_sequences
        self.constants = dict(constants or {})
        self.asked: set[str] = set()
        self.found = Found()
        self.table = Table()
        self.limits = limits
        self.problems = Diagnostics()
        self.assumptions: list[Any] = []
        self.reasons: dict[Any, str] = {}
        self.count = 0
        self.parameters: dict[str, Constant] = {}
        self.loops: dict[GlobalVar, Function] = {}
        self.functions = own_functions(loaded.proto)
        self.dims = Dims(aliases)
        self.shapes, self.dtype = shapes, dtype

    def run(self) -> ImportedModel:
        graph = self.loaded.proto.graph
        env = self.initializers(graph, self.loaded.contents)
        env.update({k: self.constant(np.array(v)) for k, v in self.constants.items()})
        params, given = bind_inputs(
            graph, env, self.dims, self.shapes, self.dtype, self.problems, self.limits, self.host_sequences
        )
        env.update(given)
        nodes = order_nodes(graph, set(env))
        self._walk(Frame(nodes, env, self.loaded.opsets))
        outputs = [o.name for o in graph.output]
        if len(set(outputs)) < len(outputs):
            raise ImportModelError("two outputs of the graph have the same name", where=self.loaded.source)
        if not outputs:
            raise ImportModelError("the graph has no outputs", where=self.loaded.source)
        if self.problems:
            raise all_missing(self.problems, self.loaded.source, self.asked & set(given))
        found = dict(zip(outputs, [self._output(o, env) for o in graph.output], strict=True))
        results = [e.expr for e in leaves(found.values())]
        body = results[0] if len(results) == 1 else Tuple(tuple(results))
        notes: dict[str, Any] = {}
        if self.assumptions:
            reasons = tuple(self.reasons.get(c, "") for c in self.assumptions)
            notes = {"assumptions": tuple(self.assumptions), "reasons": reasons}
        layout = layout_of(given, found, self.table)
        if not layout.plain or layout.strings:
            notes[LAYOUT] = layout.to_json()
        main = Function(tuple(params.values()), body, attrs=Attrs(notes))
        mod = IRModule({"main": main, **self.loops})
        ports = [p for n in layout.outputs for p in n.ports()]
        guessed = tuple(sorted(self.asked & set(given))) if self.chosen else ()
        return ImportedModel(mod, list(params), ports, self.dims.by_name, self.parameters, self.loaded.name, guessed)

    def constant(self, array: np.ndarray) -> Entry:
        """A value that is the same in every call; strings become their numbers."""
        string = array.dtype.kind in "OUS"
        found = Constant(self.table.encode(array) if string else array)
        return Entry(found, fixed=True, limit=self.limits.folded_bytes, string=string)

    def initializers(self, graph: Any, contents: Mapping[int, np.ndarray] | None = None) -> dict[str, Entry]:
        env: dict[str, Entry] = {}
        for i, proto in enumerate(graph.initializer):
            try:
                entry = self.constant(tensor_array(proto, self.loaded.external, self.limits, (contents or {}).get(i)))
            except UnsupportedError as e:
                self.problems.add(f"{e.what} ({e.where})")
                env[proto.name] = Entry(missing=True)
                continue
            if isinstance(entry.expr, Constant) and not entry.string:
                self.parameters[proto.name] = entry.expr
            env[proto.name] = entry
        for proto in graph.sparse_initializer:
            self.problems.add("sparse initializers", Span(proto.values.name))
            env[proto.values.name] = Entry(missing=True)
        return env

    def _output(self, info: Any, env: dict[str, Entry]) -> Entry:
        entry = env.get(info.name)
        if entry is None:
            raise ImportModelError(
                f"output {info.name[:80]!r} of the graph is never computed", where=self.loaded.source
            )
        check_declared(info.name, info.type, entry, self.loaded.source)
        return entry

    # ------------------------------------------------------------------------------------------------ the walk

    def _walk(self, frame: Frame | None) -> None:
        while frame is not None:
            if frame.at == len(frame.nodes):
                frame = self._leave(frame)
                continue
            proto = frame.nodes[frame.at]
            frame.at += 1
            self.count += 1
            budget.check_time(f"importing node {self.count}")
            if self.count > self.limits.nodes:
                raise ImportModelError(f"the model has more than {self.limits.nodes} nodes after inlining of functions")
            try:
                frame = self._node(frame, proto) or frame
            except MisfitError as e:
                frame = control.leave(frame, e)

    def _leave(self, frame: Frame) -> Frame | None:
        if frame.finish is not None:
            return frame.finish(frame)
        outer = frame.outer
        if outer is not None:
            for inner, name in frame.results:
                entry = frame.env.get(inner)
                if entry is None:
                    raise ImportModelError(f"output {inner[:80]!r} of a function is never computed", where=frame.prefix)
                outer.env[name] = entry
        return outer

    def _node(self, frame: Frame, proto: Any) -> Frame | None:
        """Imports one node; a node that calls a function gives the function's frame."""
        view = self._view(frame, proto)
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        local = self.functions.get((domain, proto.op_type, proto.overload))
        if any(e is not None and e.missing for e in view.entries):
            if local is None and not table.find(view.op_type, domain, view.opset) and not schema.has_body(view, domain):
                self.problems.add(schema.missing(domain, view.op_type), Span(view.name))
            self._poison(frame, view)
            return None
        try:
            if local is not None:
                return self._enter(frame, view, local)
            return self._settled(frame, view, domain)
        except UnsupportedError as e:
            self.problems.add(e.what, Span(view.name))
            self._poison(frame, view)
        except ImportModelError:
            raise
        except WarpbeamError as e:
            raise MisfitError(
                f"{view.op_type}: {e.what}", where=f"node {view.name[:80]!r}", why=e.why, hint=e.hint
            ) from e
        except _BROKEN as e:
            raise MisfitError(
                f"{view.op_type}: its operands or attributes do not fit together",
                where=f"node {view.name[:80]!r}",
                why=f"{type(e).__name__}: {e}"[:200],
            ) from e
        return None

    def _settled(self, frame: Frame, view: NodeView, domain: str) -> Frame | None:
        """Imports an operator; dimensions that it needs to be equal, and that inputs do not tell, are made so."""
        while True:
            try:
                return self._operator(frame, view, domain)
            except Undecided as e:
                first, second = (self.dims.name_of(v) is not None for v in e.pair)
                if not firm(*e.pair) and not settle(view, e, (first, second)):
                    raise

    def _view(self, frame: Frame, proto: Any) -> NodeView:
        entries: list[Entry | None] = []
        for name in proto.input:
            entry = frame.env.get(name) if name else None
            if name and entry is None:
                raise ImportModelError(
                    f"{proto.op_type}: input {name[:80]!r} is not defined before it is used",
                    where=f"node {proto.name[:80]!r}",
                )
            entries.append(entry)
        attributes: dict[str, Any] = {}
        for a in proto.attribute:
            if a.ref_attr_name:
                if frame.attributes is None:
                    raise ImportModelError(
                        f"attribute {a.name[:80]!r} refers to an attribute outside a function",
                        where=f"node {proto.name[:80]!r}",
                    )
                given = frame.attributes.get(a.ref_attr_name)
                if given is not None:
                    attributes[a.name] = given
            else:
                attributes[a.name] = a
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        own = proto.name or next((o for o in proto.output if o), proto.op_type)
        name = frame.prefix + own if frame.prefix else own
        return NodeView(
            proto,
            frame.opsets.get(domain, 0),
            entries,
            attributes,
            self._decode,
            name[:200],
            self.assumptions,
            self.asked,
            self.found,
        )

    def _decode(self, proto: Any) -> Any:
        return attribute_value(proto, self.loaded.external, self.limits)

    def _poison(self, frame: Frame, view: NodeView) -> None:
        for name in view.outputs:
            if name:
                frame.env[name] = Entry(missing=True)
        stack = list(subgraphs(view.proto))
        while stack:  # what lies inside a construct that is refused is reported too
            for node in stack.pop().node:
                if table.find(node.op_type, node.domain, 1 << 30) is None:
                    self.problems.add(f"operator {node.op_type[:60]}", Span(node.name[:80] or view.name))
                stack.extend(subgraphs(node))

    # ------------------------------------------------------------------------------------------------ operators

    def _operator(self, frame: Frame, view: NodeView, domain: str) -> Frame | None:
        if domain not in frame.opsets:
            raise view.error(f"the model does not import operator set {domain[:80] or 'ai.onnx'!r}")
        rules = schema.rules(view.op_type, view.opset, domain)
        if rules is None and domain in ("", "ai.onnx.ml") and table.find(view.op_type, domain, view.opset) is None:
            raise view.error(f"there is no such operator in set {domain or 'ai.onnx'} version {view.opset}")
        if rules is not None:
            schema.check(view, rules)
        view.refusal = MisfitError
        special = special_case(view, domain, self.host_sequences)
        if special is not None:
            made = special(self, frame, view)
            if isinstance(made, Frame):
                return made
            parts = leaves(made)
            self._sources(view, [e.expr for e in parts if not e.missing and e.content is None])
            for e in parts:
                if e.fixed and e.string:  # the model's own strings are known while importing only
                    _ = e.array
            self._define(frame, view, made)
            return None
        if not domain and view.op_type in _CONTROL:
            return self._control(frame, view)
        convert = table.find(view.op_type, domain, view.opset)
        if convert is None:
            body = None if rules is None else schema.function_body(view, rules)
            if body is None:
                raise UnsupportedError(schema.missing(domain, view.op_type))
            return self._enter(frame, view, body)
        known = values.track(view)
        if known is not None:
            texts = string_flags(view, rules, len(known))
            entries = [Entry(content=c, dtype=t, made=self._content, string=s) for (c, t), s in zip(known, texts)]
            self._define(frame, view, entries)
            return None
        fixed = all(e is None or e.constant for e in view.entries)
        result = convert(view, *[None if e is None else e.expr for e in view.entries])
        found = list(result) if isinstance(result, list | tuple) else [result]
        given = [e.expr for e in view.entries if e is not None]
        found = [self.found.guarded(f, given) for f in found]
        self._sources(view, found)
        limit, texts = self.limits.folded_bytes, string_flags(view, rules, len(found))
        entries = [Entry(e, fixed=fixed, limit=limit, string=s) for e, s in zip(found, texts, strict=True)]
        self._define(frame, view, entries)
        return None

    def _content(self, content: np.ndarray, dtype: str) -> Expr:
        return self.found.content(list(content.flat), content.shape, dtype)

    def _control(self, frame: Frame, view: NodeView) -> Frame:
        if view.op_type == "If" and view.const(0) is not None:
            return control.known_branch(self, frame, view)
        return _CONTROL[view.op_type](self, frame, view)

    def define(self, frame: Frame, view: NodeView, made: Callable[[], list[Entry]]) -> None:
        """Defines a node's outputs once the graphs it holds are imported; what is unsupported is collected."""
        try:
            found = made()
            if any(e.missing for e in found):
                self._poison(frame, view)
            else:
                self._define(frame, view, found)
        except UnsupportedError as e:
            self.problems.add(e.what, Span(view.name))
            self._poison(frame, view)

    def choose(self, name: str) -> int:
        """Which branch an If is taken to be where its results cannot be either's: 0, or what was asked for."""
        self.chosen.append((name, self.choices.get(name, 0)))
        return self.chosen[-1][1]

    def assume(self, condition: Any, reason: str) -> None:
        """A condition on sizes that must hold at each call that comes by it, and what to say where it does not."""
        self.assumptions.append(condition)
        self.reasons[condition] = reason

    def function(self, name: str, ty: Any) -> GlobalVar:
        """A new name for a function of the module."""
        return GlobalVar(f"{name}{len(self.loops)}", ty)

    def _define(self, frame: Frame, view: NodeView, entries: list[Entry]) -> None:
        own = frame.env.maps[0] if isinstance(frame.env, ChainMap) else frame.env  # a body may hide outer names
        for k, name in enumerate(view.outputs):
            if not name:
                continue
            if k >= len(entries):
                raise view.unsupported(f"output {k}")
            if name in own:
                raise view.error(f"output {name[:80]!r} is defined twice")
            if not is_object(entries[k]):
                _check_type(view, entries[k].type, self.limits)
            frame.env[name] = entries[k]

    def _sources(self, view: NodeView, results: list[Expr]) -> None:
        """Notes the node's name on every expression that its conversion made."""
        stop = {id(e._expr) for e in view.entries if e is not None}
        stack: list[Any] = list(results)
        seen: set[int] = set()
        while stack:
            node = stack.pop()
            if id(node) in stop or id(node) in seen or not isinstance(node, Call | Tuple | TupleGetItem):
                continue
            seen.add(id(node))
            add_origins(node, (view.name,))
            stack.extend(children(node))

    def _enter(self, frame: Frame, view: NodeView, body: Any) -> Frame:
        """The frame of a function's body, called by a node."""
        if frame.depth >= self.limits.nesting * 8:
            raise ImportModelError(f"functions are nested deeper than {self.limits.nesting * 8}", where=view.name)
        if len(view.inputs) > len(body.input) or len(view.outputs) > len(body.output):
            raise view.error("has more inputs or outputs than the function it calls")
        env: dict[str, Entry] = {}
        for name, entry in zip(body.input, view.entries, strict=False):
            if entry is not None:
                env[name] = entry
        nodes = list(body.node)
        given = {a.name: a for a in body.attribute_proto}
        given.update({n: view._attributes[n] for n in view.attributes})
        absent = {n for n in body.input if n not in env}
        if absent:
            nodes = [without(n, absent) for n in nodes]
        opsets = {"": newest_opset(), **frame.opsets, **domain_versions(body.opset_import, view.name)}
        results = [(i, o) for i, o in zip(body.output, view.outputs, strict=False) if o]
        return Frame(nodes, env, opsets, given, results, frame, view.name + "/", depth=frame.depth + 1)


def _check_type(view: NodeView, found: Any, limits: Limits) -> None:
    for t in found.fields if isinstance(found, TupleType) else (found,):
        if not isinstance(t, TensorType):
            raise view.unsupported("a result that is no tensor")
        if t.ndim > limits.rank:
            raise view.error(f"its result has {t.ndim} dimensions, the limit is {limits.rank}")
        if any(isinstance(d, int) and d < 0 for d in t.shape):
            raise view.error("its result has a negative dimension")
        need = math.prod(d for d in t.shape if isinstance(d, int)) * dt.nbytes(t.dtype)
        if need > limits.tensor_bytes:
            raise view.error(f"its result needs {need} bytes, the limit is {limits.tensor_bytes}")


def import_model(
    model: Any,
    shapes: Mapping[str, Any] | None = None,
    dtype: Any = None,
    opset: int | None = None,
    limits: Limits = DEFAULT,
    constants: Mapping[str, np.ndarray] | None = None,
    host_sequences: bool = True,
) -> ImportedModel:
    """A model (path, bytes or ModelProto) as Relay, constants inside, with the names of inputs and outputs.

    shapes: input name -> shape (ints, None or names for symbolic dimensions), or dimension name -> int.
    constants: input name -> array; such inputs are no inputs any more, the module is made for these contents.
    host_sequences: sequences whose length is found at run time become host calls; else their lengths are asked for.
    Raises ImportModelError (broken), UnsupportedError (valid, but something has no implementation; lists all of it).
    """
    try:
        loaded = load(model, limits, opset)
        aliases: dict[str, str] = {}
        choices: dict[str, int] | None = None
        refused: WarpbeamError | None = None
        for _ in range(_TRIES):
            importer = Importer(loaded, shapes, dtype, limits, constants, aliases, host_sequences, choices)
            try:
                with using(importer.table):
                    return importer.run()
            except (ImportModelError, UnsupportedError) as e:
                if unify(importer.dims, e.__cause__, aliases):
                    continue
                refused = refused or undecided(e, importer.asked, bool(importer.found.sources))
                choices = other_choice(importer.chosen)
                if choices is None:
                    break
        assert refused is not None
        raise refused
    except UnicodeDecodeError as e:
        raise ImportModelError("a name in the model is not valid UTF-8", why=str(e)[:100]) from None


def from_onnx(
    model: Any, shape: Any = None, dtype: Any = None, opset: int | None = None, freeze_params: bool = False
) -> tuple[IRModule, dict[str, np.ndarray]]:
    """The classic face: (module, parameters).

    shape: input name -> shape. dtype: dtype of inputs whose type the file leaves out, one or by name. opset: overrides
    the version of ai.onnx. freeze_params: keep weights as constants in the module; otherwise main takes them as
    parameters, and the second result holds their values.
    """
    found = import_model(model, shape, dtype, opset)
    if freeze_params:
        return found.module, {}
    main = found.module["main"]
    used = {id(n) for n in _constants(main)}
    swap: dict[Any, Any] = {}
    params: dict[str, np.ndarray] = {}
    for name, constant in found.parameters.items():
        if id(constant) in used and constant not in swap:
            swap[constant] = Var(name, constant.ty)
            params[name] = constant.numpy()
    body = substitute(main.body, swap)
    changed = Function((*main.params, *swap.values()), body, attrs=main.attrs)
    return IRModule({**found.module.functions, found.module.global_var("main"): changed}), params


def _constants(main: Function) -> list[Constant]:
    from warpbeam.ir.rewrite import post_order

    return [n for n in post_order(main.body) if isinstance(n, Constant)]
