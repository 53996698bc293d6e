"""Random programs of lets, closures, matches, branches and loops mean the same after partial evaluation."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from warpbeam import relay
from warpbeam.relay import interp
from warpbeam.relay.expr import IRModule
from warpbeam.relay.infer import infer_types
from warpbeam.transform.partial_evaluate import evaluated

TENSOR, INDEX = relay.TensorType((2, 2)), relay.TensorType((), "int32")
X = np.random.default_rng(0).standard_normal((2, 2)).astype(np.float32)


class Programs:
    """Draws expressions of type Tensor[(2, 2)]: `values` are those in scope, `functions` closures on such."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.prelude = relay.Prelude(IRModule())
        self.cond = relay.var("c", shape=(), dtype="bool")

    def module(self) -> IRModule:
        x = relay.var("x", shape=(2, 2))
        mod = IRModule({}, self.prelude.mod.types)
        parts = [self.expr([x], [], depth) for depth in (6, 5)]
        mod["main"] = relay.Function([x, self.cond], relay.Tuple(parts))
        return mod

    def expr(self, values: list[Any], functions: list[Any], depth: int) -> Any:
        if depth <= 0:
            return self.draw.choice(values)
        makers = [self.leaf, self.operators, self.operators, self.let, self.closure, self.called, self.branch,
                  self.field, self.match, self.loop]  # fmt: skip
        return self.draw.choice(makers)(values, functions, depth - 1)

    def leaf(self, values: Any, functions: Any, depth: int) -> Any:
        return self.draw.choice(values)

    def operators(self, values: Any, functions: Any, depth: int) -> Any:
        first = self.expr(values, functions, depth)
        if self.draw.random() < 0.5:
            return self.draw.choice([relay.tanh, relay.negative])(first)
        return relay.add(first, self.expr(values, functions, depth))

    def let(self, values: Any, functions: Any, depth: int) -> Any:
        var = relay.Var("v", TENSOR)
        value = self.expr(values, functions, depth)
        return relay.Let(var, value, self.expr([*values, var], functions, depth))

    def closure(self, values: Any, functions: Any, depth: int) -> Any:
        a, f = relay.Var("a", TENSOR), relay.Var("f", relay.FuncType([TENSOR], TENSOR))
        function = relay.Function([a], self.expr([*values, a], functions, depth))
        return relay.Let(f, function, self.expr(values, [*functions, f], depth))

    def called(self, values: Any, functions: Any, depth: int) -> Any:
        argument = self.expr(values, functions, depth)
        return relay.Call(self.draw.choice(functions), [argument]) if functions else argument

    def branch(self, values: Any, functions: Any, depth: int) -> Any:
        return relay.If(self.cond, self.expr(values, functions, depth), self.expr(values, functions, depth))

    def field(self, values: Any, functions: Any, depth: int) -> Any:
        parts = [self.expr(values, functions, depth) for _ in range(2)]
        return relay.TupleGetItem(relay.Tuple(parts), self.draw.randrange(2))

    def match(self, values: Any, functions: Any, depth: int) -> Any:
        p, head = self.prelude, relay.Var("h", TENSOR)
        data = p.nil() if self.draw.random() < 0.3 else p.cons(self.expr(values, functions, depth), p.nil())
        pattern = relay.PatternConstructor(p.cons, [relay.PatternVar(head), relay.PatternWildcard()])
        clauses = [relay.Clause(pattern, self.expr([*values, head], functions, depth)),
                   relay.Clause(relay.PatternWildcard(), self.expr(values, functions, depth))]  # fmt: skip
        return relay.Match(data, clauses)

    def loop(self, values: Any, functions: Any, depth: int) -> Any:
        i, s = relay.Var("i", INDEX), relay.Var("s", TENSOR)
        f = relay.Var("loop", relay.FuncType([INDEX, TENSOR], TENSOR))
        step = relay.Call(f, [relay.add(i, relay.const(1)), self.expr([*values, s], functions, depth - 1)])
        body = relay.If(relay.less(i, relay.const(self.draw.randrange(4))), step, s)
        start = relay.Call(f, [relay.const(0), self.expr(values, functions, depth)])
        return relay.Let(f, relay.Function([i, s], body, TENSOR), start)


def check(seed: int, compiled: bool) -> None:
    mod = infer_types(Programs(seed).module())
    made, _ = evaluated(mod)
    run = relay.create_executor("vm", mod).evaluate() if compiled else None
    for flag in (np.bool_(True), np.bool_(False)):
        want = interp.evaluate(mod, [X, flag])
        for a, b in zip(want, interp.evaluate(made, [X, flag]), strict=True):
            assert np.array_equal(a, b), seed
        for a, b in zip(want, run(X, flag) if run is not None else want, strict=True):
            np.testing.assert_allclose(np.asarray(b), a, rtol=1e-5, atol=1e-6)


def test_random_programs() -> None:
    for seed in range(80):
        check(seed, seed % 40 == 0)


@pytest.mark.slow
def test_many_random_programs() -> None:
    for seed in range(1000, 3000):
        check(seed, seed % 20 == 0)
