"""The WebAssembly linker: what it makes is validated and executed by wasmtime, what it cannot link is refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from runtime_helpers import compile_ir

from warpbeam.codegen.machine import emit
from warpbeam.runtime.errors import LinkError
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.wasm import STACK_BYTES, link_module, signed, unsigned
from warpbeam.runtime.wasm_object import Reader, parse_object

_TRIPLE = "wasm32-unknown-unknown"
MAIN = """
@table = internal constant [2 x ptr] [ptr @twice, ptr @other]
@count = internal global i32 40
@zeros = internal global [1000 x i8] zeroinitializer
@second = internal global ptr getelementptr (i8, ptr @given, i32 1)
@given = external hidden constant i8
@shared = external hidden global i32
@maybe = extern_weak global i32
declare i32 @other(i32)
declare i32 @unused(i32)
define internal i32 @twice(i32 %x) { %y = shl i32 %x, 1 ret i32 %y }
define i32 @pick(i32 %k, i32 %x) {
  %p = getelementptr ptr, ptr @table, i32 %k
  %f = load ptr, ptr %p
  %r = call i32 %f(i32 %x)
  ret i32 %r
}
define i32 @next() {
  %a = load i32, ptr @count
  %b = add i32 %a, 1
  store i32 %b, ptr @count
  %s = load i32, ptr @shared
  %z = load i8, ptr getelementptr (i8, ptr @zeros, i32 999)
  %w = zext i8 %z to i32
  %t = add i32 %b, %s
  %u = add i32 %t, %w
  ret i32 %u
}
define i32 @bytes() {
  %a = load i8, ptr @given
  %p = load ptr, ptr @second
  %b = load i8, ptr %p
  %x = zext i8 %a to i32
  %y = zext i8 %b to i32
  %z = shl i32 %y, 8
  %r = or i32 %x, %z
  ret i32 %r
}
define i32 @weak() { %r = ptrtoint ptr @maybe to i32 ret i32 %r }
define i32 @deep(i32 %n) {
  %room = alloca [4096 x i32]
  %p = getelementptr [4096 x i32], ptr %room, i32 0, i32 %n
  store volatile i32 %n, ptr %p
  %m = add i32 %n, 1
  %r = call i32 @deep(i32 %m)
  %s = load volatile i32, ptr %p
  %t = add i32 %r, %s
  ret i32 %t
}
define i32 @dead(i32 %x) { %r = call i32 @unused(i32 %x) ret i32 %r }
"""
OTHER = """
@shared = hidden global i32 1
define i32 @other(i32 %x) { %y = mul i32 %x, 3 ret i32 %y }
"""
_NAMES = {n: n for n in ("pick", "next", "bytes", "weak", "deep")}


def objects(*texts: str) -> list[bytes]:
    how = {"triple": _TRIPLE, "cpu": "generic", "features": "", "abi": ""}
    return [emit(f'target triple = "{_TRIPLE}"\n{text}', how, 1) for text in texts]


def linked(*texts: str, exports: Any = None, data: Any = None) -> bytes:
    return b"".join(link_module(objects(*texts), exports or _NAMES, {"given": b"\x11\x22"} if data is None else data))


@pytest.fixture(scope="module")
def module() -> Any:
    wasmtime = pytest.importorskip("wasmtime", reason="needs wasmtime")
    store = wasmtime.Store()
    made = wasmtime.Module(store.engine, linked(MAIN, OTHER))
    assert not made.imports
    instance = wasmtime.Instance(store, made, [])
    exports = {e.name: instance.exports(store)[e.name] for e in made.exports}
    exports["call"] = lambda name, *arguments: exports[name](store, *arguments)
    exports["store"] = store
    return exports


def test_calls_through_the_table_and_between_objects(module: Any) -> None:
    assert (module["call"]("pick", 0, 21), module["call"]("pick", 1, 21)) == (42, 63)
    assert module["__indirect_function_table"].size(module["store"]) == 3  # null, and two


def test_data_of_all_objects(module: Any) -> None:
    assert [module["call"]("next") for _ in range(3)] == [42, 43, 44]
    assert module["call"]("bytes") == 0x2211
    assert module["call"]("weak") == 0


def test_memory_is_laid_out(module: Any) -> None:
    heap = module["__heap_base"].value(module["store"])
    size = module["memory"].data_len(module["store"])
    assert STACK_BYTES < heap < STACK_BYTES + 4096 and heap % 64 == 0 and heap <= size < heap + 65536


def test_a_stack_overflow_traps(module: Any) -> None:
    wasmtime = pytest.importorskip("wasmtime")
    with pytest.raises(wasmtime.Trap, match="out of bounds"):
        module["call"]("deep", 0)


def test_what_is_not_reached_is_left_out() -> None:
    everything = linked(MAIN, OTHER)
    assert b"dead" not in everything and b"unused" not in everything
    few = linked(MAIN, OTHER, exports={"n": "next"})
    assert b"twice" not in few and b"pick" not in few and len(few) < len(everything)
    with pytest.raises(LinkError, match="'unused' \\(used in object 0\\)"):
        linked(MAIN, OTHER, exports={"dead": "dead"})


def test_the_same_input_gives_the_same_bytes() -> None:
    assert linked(MAIN, OTHER) == linked(MAIN, OTHER)


def test_refusals() -> None:
    with pytest.raises(LinkError, match="undefined symbols: 'given'"):
        linked(MAIN, OTHER, data={})
    with pytest.raises(LinkError, match="'other' is defined twice"):
        linked(OTHER, OTHER, exports={"other": "other"})
    with pytest.raises(LinkError, match="not defined: nothing"):
        linked(OTHER, exports={"x": "nothing"})
    with pytest.raises(LinkError, match="nothing to link"):
        link_module([], {})
    with pytest.raises(LinkError, match="'other' is called with another type"):
        linked(MAIN, OTHER.replace("i32 %x)", "i32 %x, i32 %z)"))
    with pytest.raises(LinkError, match="relocatable objects have none"):
        link_module([linked(MAIN, OTHER)], _NAMES)
    with pytest.raises(LinkError, match="no section 'linking'"):
        link_module([b"\0asm\1\0\0\0"], _NAMES)
    with pytest.raises(LinkError, match="not a WebAssembly object"):
        link_module([b"\x7fELF1234"], _NAMES)
    with pytest.raises(LinkError, match="not an ELF object"):
        link_shared(objects(OTHER), ["other"])
    with pytest.raises(LinkError, match="not position-independent"):
        link_module(
            [compile_ir(f'target triple = "{_TRIPLE}"\n{MAIN}', _TRIPLE), *objects(OTHER)], _NAMES, {"given": b""}
        )
    with pytest.raises(LinkError, match="constructor"):
        linked("@llvm.global_ctors = appending global [1 x {i32, ptr, ptr}] [{i32, ptr, ptr} {i32 1, ptr @c, ptr null}]"
               "\ndefine void @c() { ret void }\n" + OTHER, exports={"other": "other"})  # fmt: skip


def test_a_weak_definition_gives_way() -> None:
    weak = "define weak i32 @other(i32 %x) { ret i32 0 }"
    assert linked(weak, OTHER, exports={"o": "other"})[:8] == linked(OTHER, weak, exports={"o": "other"})[:8]
    first = parse_object(objects(OTHER)[0], "o").functions[0].data
    for texts in ((weak, OTHER), (OTHER, weak)):
        assert first in linked(*texts, exports={"o": "other"})


def test_damaged_objects_are_refused_or_linked() -> None:
    whole, other = objects(MAIN, OTHER)
    rng = random.Random(4)
    refused = 0
    for k in range(600):
        data = bytearray(whole)
        if k % 3:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(8, len(data)) :]
        try:
            link_module([bytes(data), other], _NAMES, {"given": b"12"})
        except LinkError:
            refused += 1
    assert refused > 250


@pytest.mark.parametrize("value", [0, 1, 63, 64, 127, 128, 2**31 - 1, 2**32, 2**63 - 1])
def test_numbers(value: int) -> None:
    assert Reader(unsigned(value)).number() == value
    for sign in (1, -1):
        assert Reader(signed(sign * value)).signed() == sign * value
