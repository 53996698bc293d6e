"""Which passes run: the field's rules, nested sequences, requirements, instruments, events."""

from __future__ import annotations

import io

import pytest

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.instrument import DumpIR, PassInstrument, PassPrintingInstrument, PassTimingInstrument, PrintAfterAll
from warpbeam.ir.transform import PassContext, Sequential, function_pass, module_pass
from warpbeam.relay.expr import Function, IRModule, var


def recorder(log, name, level=0, required=()):
    @module_pass(opt_level=level, name=name, required=required)
    def body(mod, ctx):
        log.append(name)
        return mod

    return body


RULES = [
    # context level, required, disabled, pass level -> runs
    (2, (), (), 0, True),
    (2, (), (), 2, True),
    (2, (), (), 3, False),
    (0, (), (), 1, False),
    (0, ("p",), (), 3, True),
    (3, (), ("p",), 0, False),
    (3, ("p",), ("p",), 0, False),
]


@pytest.mark.parametrize("level, required, disabled, pass_level, runs", RULES)
def test_gating_table(level, required, disabled, pass_level, runs):
    log = []
    p = recorder(log, "p", pass_level)
    with PassContext(opt_level=level, required_pass=required, disabled_pass=disabled):
        Sequential([p])(IRModule())
    assert log == (["p"] if runs else [])


def test_direct_calls_are_not_gated_and_pass_objects_are_accepted_as_names():
    log = []
    p = recorder(log, "p", 9)
    with PassContext(opt_level=0, disabled_pass=[p]):
        p(IRModule())
        Sequential([p])(IRModule())
    assert log == ["p"]


def test_default_level_is_two_and_a_sequence_level_gates_only_where_it_is_nested():
    log = []
    inner = Sequential([recorder(log, "a", 2), recorder(log, "b", 3)], opt_level=3, name="inner")
    inner(IRModule())
    assert log == ["a"]
    Sequential([inner])(IRModule())
    assert log == ["a"]
    with PassContext(opt_level=3):
        Sequential([inner])(IRModule())
    assert log == ["a", "a", "b"]


def test_required_passes_run_first_and_unconditionally():
    log = []
    need = recorder(log, "need", 9)
    Sequential([recorder(log, "p", 0, ["need"])], lookup={"need": need}.get)(IRModule())
    assert log == ["need", "p"]
    with pytest.raises(IRError, match="no pass is named 'ghost'"):
        Sequential([recorder(log, "q", 0, ["ghost"])])(IRModule())


def test_level_is_demanded():
    with pytest.raises(ValueError, match="Please provide opt_level for the module pass"):
        module_pass(lambda mod, ctx: mod)
    with pytest.raises(ValueError, match="Please provide opt_level for the function pass"):
        function_pass(lambda fn, mod, ctx: fn)


def test_function_pass_skips_marked_functions_and_classes_are_makers():
    seen = []

    @function_pass(opt_level=1)
    class Visit:
        def __init__(self, tag):
            self.tag = tag

        def transform_function(self, fn, mod, ctx):
            seen.append((self.tag, fn.attrs.get("name")))
            return fn

    x = var("x", shape=(1,))
    mod = IRModule({"a": Function((x,), x, attrs={"name": "a"}), "b": Function((x,), x, attrs={"SkipOptimization": 1})})
    made = Visit("t")
    assert (made.info.name, made.info.opt_level) == ("Visit", 1)
    made(mod)
    assert seen == [("t", "a")]


class Refuse(PassInstrument):
    def __init__(self):
        self.log = []

    def enter_pass_ctx(self):
        self.log.append("enter")

    def exit_pass_ctx(self):
        self.log.append("exit")

    def should_run(self, mod, info):
        return info.name != "b"

    def run_before_pass(self, mod, info):
        self.log.append(f"before {info.name}")

    def run_after_pass(self, mod, info):
        self.log.append(f"after {info.name}")


def test_instruments_watch_and_refuse_but_not_required_passes():
    log, watch = [], Refuse()
    seq = Sequential([recorder(log, "a"), recorder(log, "b")], name="s")
    with PassContext(instruments=[watch]):
        seq(IRModule())
    expected = ["enter", "before s", "before a", "after a", "after s", "exit"]
    assert (log, watch.log) == (["a"], expected)
    with PassContext(instruments=[Refuse()], required_pass=["b"]):
        seq(IRModule())
    assert log == ["a", "a", "b"]


def test_timing_printing_and_dumping(tmp_path):
    out, timing = io.StringIO(), PassTimingInstrument()
    tools = [timing, PrintAfterAll(out, lambda m: "M"), PassPrintingInstrument(["a"], [], out, lambda m: "B")]
    with PassContext(instruments=[*tools, DumpIR(tmp_path, show=lambda m: "D")]):
        Sequential([recorder([], "a")], name="s")(IRModule())
        assert [(d, n) for d, n, _ in timing.rows()] == [(0, "s"), (1, "a")]
        assert "  a: " in timing.render()
    assert out.getvalue().split("\n") == ["// before a", "B", "// after a", "M", "// after s", "M", ""]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000_a.txt", "001_s.txt"]


def test_events_tell_what_ran():
    events = []
    with PassContext(opt_level=1, events=[events.append]):
        Sequential([recorder([], "a", 1), recorder([], "b", 2)], name="s")(IRModule())
    assert [(e.name, e.phase) for e in events] == [
        ("s", "begin"), ("a", "begin"), ("a", "end"), ("b", "skip"), ("s", "end"),
    ]  # fmt: skip


def test_contexts_nest_and_configs_are_checked():
    with PassContext(opt_level=1) as outer:
        with PassContext(opt_level=3, config={"relay.FuseOps.max_depth": 4, "warpbeam.x": 1}):
            assert PassContext.current().config["relay.FuseOps.max_depth"] == 4
        assert PassContext.current() is outer
    with pytest.raises(IRError, match=r"unknown config 'relay.FuseOps.max_dept'"):
        PassContext(config={"relay.FuseOps.max_dept": 1})
    with pytest.warns(UserWarning, match="no effect"):
        PassContext(config={"te.keep_schedule_record": True})
