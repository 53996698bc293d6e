"""Constants that a function is called with, and never with others, stand in its body, so that passes and kernels see
them.

    def @f(x, w) { dense(x, w) }          def @f(x) { dense(x, const) }
    def @main(x) { @f(x, const) }   ->    def @main(x) { @f(x) }

The weights and counts of a loop are what this is for: they can then be laid out for its products, and what is computed
from them alone is computed now. A function that is called with several constants at one place becomes several.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.names import fresh_name
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.ir.transform import PassContext, module_pass
from warpbeam.relay.expr import Call, Constant, Function, GlobalVar, IRModule
from warpbeam.relay.types import FuncType
from warpbeam.transform.fold_constant import fold_function, max_bytes
from warpbeam.transform.graph import is_finished
from warpbeam.transform.loops import callers, calls_of

Key = tuple[GlobalVar, tuple[tuple[int, Any, str], ...]]
Path = frozenset[GlobalVar]  # the functions that a function was made of, and that of its callers back to main


@module_pass(opt_level=2, name="SinkConstants", required=["InferType"])
class SinkConstants:
    """Arguments that are constants move into the functions that are called by name."""

    def transform_module(self, mod: IRModule, ctx: PassContext) -> IRModule:
        if "main" not in mod or len(mod.functions) == 1:
            return mod
        return _Sinker(mod, max_bytes(ctx)).run()


class _Sinker:
    """Goes from main to what it calls, so that constants reach functions within functions."""

    def __init__(self, mod: IRModule, limit: int) -> None:
        self.mod, self.limit = mod, limit
        self.loose = callers(mod)[1]
        self.names = {g.name for g in mod.functions}
        self.made: dict[Key, GlobalVar] = {}
        self.out = IRModule({}, mod.types)
        self.work: list[tuple[GlobalVar, Function, Path]] = []

    def run(self) -> IRModule:
        """The new module. Functions that main does not reach are kept, too."""
        main = self.mod.global_var("main")
        named = list(self.mod.functions)
        for gv in [main, *(g for g in named if g in self.loose), *named]:
            if not any(called is gv for called, _ in self.made):
                self._ask(gv, self.mod[gv])
            while self.work:
                name, fn, path = self.work.pop(0)
                plain = not isinstance(fn, Function) or is_finished(fn)
                self.out[name] = fn if plain else self._called(fold_function(fn, self.limit), name, path)
        return self.out

    def _ask(self, gv: GlobalVar, fn: Function) -> GlobalVar:
        """Has a function visited as it is."""
        if (gv, ()) not in self.made:
            self.made[gv, ()] = gv
            self.work.append((gv, fn, frozenset([gv])))
        return gv

    def _called(self, fn: Function, own: GlobalVar, path: Path) -> Function:
        def visit(node: Node) -> Node | None:
            if not isinstance(node, Call) or not isinstance(node.op, GlobalVar) or node.op is own:
                return None
            return self._sunk(node, path)

        body = rewrite(fn.body, visit)
        return fn if body is fn.body else fn.replace(body=body)

    def _sunk(self, call: Call, path: Path) -> Call | None:
        """The call of the function that has its constants inside; None where it stays as it is. Functions that call
        each other in a circle are made once for each way into it: what they count would else be known for ever.
        """
        gv = call.op
        fn = self.mod.functions.get(gv)
        if fn is None:
            return None
        open_ = isinstance(fn, Function) and not is_finished(fn) and gv not in self.loose and gv not in path
        known = {k: a for k, a in enumerate(call.args) if open_ and isinstance(a, Constant)}
        fixed = {k: a for k, a in known.items() if a.ty is fn.params[k].ty and _kept(gv, fn, k)}
        if not fixed:
            self._ask(gv, fn)
            return None
        key = (gv, tuple((k, a.ty, a.data.digest) for k, a in fixed.items()))
        if key not in self.made:
            self.made[key] = self._inside(gv, fn, fixed, path | {gv})
        return Call(self.made[key], tuple(a for k, a in enumerate(call.args) if k not in fixed), call.attrs)

    def _inside(self, gv: GlobalVar, fn: Function, fixed: dict[int, Constant], path: Path) -> GlobalVar:
        """The function with constants in the place of parameters, which is still to be visited."""
        left = [k for k in range(len(fn.params)) if k not in fixed]
        params = tuple(fn.params[k] for k in left)
        ret = fn.ret_type if fn.ret_type is not None else fn.body.ty
        new = GlobalVar(fresh_name(gv.name, self.names), FuncType(tuple(p.ty for p in params), ret))

        def visit(node: Node) -> Node | None:
            if isinstance(node, Call) and node.op is gv:
                return Call(new, tuple(node.args[k] for k in left), node.attrs)
            return None

        body = rewrite(substitute(fn.body, {fn.params[k]: a for k, a in fixed.items()}), visit)
        self.work.append((new, Function(params, body, ret, fn.type_params, fn.attrs), path))
        return new


def _kept(gv: GlobalVar, fn: Function, k: int) -> bool:
    """Whether a function hands a parameter on to itself as it came."""
    return all(call.args[k] is fn.params[k] for call in calls_of(fn, gv))
