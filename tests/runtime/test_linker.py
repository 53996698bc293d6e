"""The linker: what it builds loads and runs; what it cannot do it refuses by name."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from runtime_helpers import compile_c, compile_ir

from warpbeam.runtime import Library, LinkError, elf, link_shared

CALLEE = """
@table = internal constant [4 x i32] [i32 10, i32 20, i32 30, i32 40], align 16
@counter = internal global i32 5
@zeros = internal global [100 x i32] zeroinitializer, align 64
@pointers = constant [2 x ptr] [ptr @twice, ptr @pick]

define i32 @twice(i32 %x) {
  %r = shl i32 %x, 1
  ret i32 %r
}

define i32 @pick(i32 %i) {
  %p = getelementptr [4 x i32], ptr @table, i32 0, i32 %i
  %v = load i32, ptr %p
  ret i32 %v
}

define i32 @count() {
  %c = load i32, ptr @counter
  %c1 = add i32 %c, 1
  store i32 %c1, ptr @counter
  %z = getelementptr [100 x i32], ptr @zeros, i32 0, i32 99
  %zv = load i32, ptr %z
  %r = add i32 %c1, %zv
  ret i32 %r
}
"""
CALLER = """
declare i32 @twice(i32)
declare i32 @pick(i32)
@pointers = external constant [2 x ptr]

define i32 @both(i32 %i) {
  %a = call i32 @pick(i32 %i)
  %b = call i32 @twice(i32 %a)
  ret i32 %b
}

define i32 @indirect(i32 %which, i32 %i) {
  %p = getelementptr [2 x ptr], ptr @pointers, i32 0, i32 %which
  %f = load ptr, ptr %p
  %r = call i32 %f(i32 %i)
  ret i32 %r
}
"""


def call(library: Library, name: str, *arguments: int) -> int:
    return library.function(name)(*map(ctypes.c_int32, arguments))


def readelf_is_clean(data: bytes, folder: Path) -> None:
    readelf = shutil.which("readelf")
    if readelf is None:
        return
    path = folder / "linked.so"
    path.write_bytes(data)
    result = subprocess.run([readelf, "-aW", str(path)], capture_output=True, text=True, check=True)
    assert not result.stderr and "arning" not in result.stdout
    assert " RWE " not in result.stdout


def test_links_one_object(tmp_path: Path) -> None:
    data = link_shared([compile_ir(CALLEE)], ["twice", "pick", "count", "pointers"])
    library = Library(data)
    assert [call(library, "pick", i) for i in range(4)] == [10, 20, 30, 40]
    assert [call(library, "count"), call(library, "count")] == [6, 7]
    table = (ctypes.c_void_p * 2).from_address(library.address("pointers"))
    assert list(table) == [library.address("twice"), library.address("pick")]
    readelf_is_clean(data, tmp_path)


@pytest.mark.parametrize("order", [1, -1])
def test_calls_and_data_across_objects(order: int) -> None:
    library = Library(link_shared([compile_ir(CALLEE), compile_ir(CALLER)][::order], ["both", "indirect"]))
    assert [call(library, "both", i) for i in range(4)] == [20, 40, 60, 80]
    assert call(library, "indirect", 0, 21) == 42 and call(library, "indirect", 1, 3) == 40
    assert "twice" not in library, "only exports are visible"


def test_many_objects_with_equal_local_names(tmp_path: Path) -> None:
    objects = [
        compile_ir(f"@k = internal constant i32 {i}\ndefine i32 @f{i}() {{\n %v = load i32, ptr @k\n ret i32 %v\n}}")
        for i in range(40)
    ]
    data = link_shared(objects, [f"f{i}" for i in range(40)])
    library = Library(data)
    assert [call(library, f"f{i}") for i in range(40)] == list(range(40))
    readelf_is_clean(data, tmp_path)


def test_same_input_gives_same_bytes() -> None:
    objects = [compile_ir(CALLEE), compile_ir(CALLER)]
    assert link_shared(objects, ["both", "pick"]) == link_shared(list(objects), ["pick", "both"])


C_SOURCE = """
static int hidden_state = 3;
int shared_state = 4, bss_state[1000];
int common_state;
static const char *names[] = {"zero", "one", "two", "three"};
const double scale[3] = {0.5, 1.5, 2.5};
extern int other(int);
static int helper(int x) { return x * hidden_state + shared_state + bss_state[x] + common_state; }
int (*table[])(int) = {helper, other};
int use(int x) { return helper(x) + other(x) + names[x][0] + (int)(2 * scale[x]); }
int through(int which, int x) { return table[which](x); }
int choose(int x) {
  switch (x) { case 0: return 7; case 1: return 11; case 2: return 13; case 3: return 17; case 4: return 19;
               case 5: return 23; case 6: return 29; default: return -1; }
}
void *address(void) { return (void *)&other; }
extern int absent __attribute__((weak));
int weak_is_null(void) { return &absent == 0; }
"""
C_OTHER = "int common_state; __attribute__((weak)) int other(int x) { return x + 100; }"


@pytest.mark.parametrize("flags", [(), ("-O0",), ("-fno-plt",), ("-fcommon",), ("-fno-jump-tables",)])
def test_objects_of_gcc(tmp_path: Path, flags: tuple[str, ...]) -> None:
    if flags != ("-fcommon",):
        other = C_OTHER.replace("int common_state;", "")
    else:
        other = C_OTHER
    objects = [compile_c(C_SOURCE, tmp_path, *flags), compile_c(other, tmp_path, *flags)]
    data = link_shared(objects, ["use", "through", "choose", "address", "other", "weak_is_null"])
    library = Library(data)
    assert call(library, "use", 1) == (3 + 4) + 101 + ord("o") + 3
    assert call(library, "through", 0, 2) == 10 and call(library, "through", 1, 2) == 102
    assert [call(library, "choose", i) for i in range(8)] == [7, 11, 13, 17, 19, 23, 29, -1]
    assert call(library, "weak_is_null") == 1
    function = library.function("address")
    function.restype = ctypes.c_void_p
    assert function() == library.address("other")
    readelf_is_clean(data, tmp_path)


def test_strong_definition_beats_weak(tmp_path: Path) -> None:
    weak = compile_c("__attribute__((weak)) int f(void) { return 1; } int g(void) { return f(); }", tmp_path)
    strong = compile_c("int f(void) { return 2; }", tmp_path)
    for objects in ([weak, strong], [strong, weak], [weak, strong, weak]):
        exports = ["f"] if len(objects) == 3 else ["f", "g"]
        if len(objects) == 3:
            objects[2] = compile_c("__attribute__((weak)) int f(void) { return 3; }", tmp_path)
        assert call(Library(link_shared(objects, exports)), "f") == 2


def test_undefined_symbol_is_named() -> None:
    with pytest.raises(LinkError, match=r"undefined symbols: 'pick' .*'twice'|'twice' .*'pick'"):
        link_shared([compile_ir(CALLER), compile_ir("@pointers = constant [2 x ptr] zeroinitializer")], ["both"])


def test_double_definition_is_named() -> None:
    one = "define i32 @f() {\n ret i32 1\n}"
    with pytest.raises(LinkError, match=r"'f' is defined twice"):
        link_shared([compile_ir(one), compile_ir(one)], ["f"])


def test_missing_export_is_named() -> None:
    with pytest.raises(LinkError, match="not defined: nothing"):
        link_shared([compile_ir(CALLEE)], ["nothing", "pick"])


@pytest.mark.parametrize(
    ("source", "flags", "message"),
    [
        ("static void f(void) __attribute__((constructor)); int x; static void f(void) { x = 1; }", (), "constructor"),
        ("__thread int t; int f(void) { return t; }", (), "thread-local"),
        ("static int x; int *f(void) { return &x; }", ("-fno-pic", "-mcmodel=small", "-no-pie", "-O2"), "fPIC"),
    ],
)
def test_unsupported_objects_are_refused(tmp_path: Path, source: str, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(LinkError, match=message):
        link_shared([compile_c(source, tmp_path, *flags)], ["f"] if "int f" in source else [])


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"not an object at all" * 10])
def test_damaged_objects_are_refused(data: bytes) -> None:
    with pytest.raises(LinkError):
        link_shared([data], [])


def test_truncated_and_flipped_objects_never_crash() -> None:
    good = compile_ir(CALLEE)
    for cut in range(0, len(good), 61):
        with pytest.raises(LinkError):
            link_shared([good[:cut]], ["pick"])
    for at in range(0, len(good), 37):
        damaged = bytearray(good)
        damaged[at] ^= 0xFF
        try:
            link_shared([bytes(damaged)], ["pick"])
        except LinkError:
            continue


def test_sysv_hash() -> None:
    # Value from the gABI's own function, computed by hand for "printf".
    assert elf.sysv_hash(b"printf") == 0x077905A6


def code_words(data: bytes, name: str) -> tuple[int, list[int]]:
    """Address and instruction words of an exported function, read from the dynamic symbol table."""
    form = elf.ELF64 if data[4] == 2 else elf.ELF32
    shoff, count = form.ehdr.unpack_from(data)[6], form.ehdr.unpack_from(data)[12]
    headers = [form.shdr.unpack_from(data, shoff + i * form.shdr.size) for i in range(count)]
    symbols, strings = headers[1], headers[2]
    for st_name, _, _, value, size in form.symbols(data[symbols[4] : symbols[4] + symbols[5]]):
        start = strings[4] + st_name
        if data[start : data.index(b"\0", start)].decode() == name:
            return value, list(struct.unpack_from(f"<{size // 4}I", data, value))
    raise AssertionError(name)


def signed(value: int, bits: int) -> int:
    return (value & (1 << bits) - 1) - ((value >> bits - 1 & 1) << bits)


def test_aarch64_relocations(tmp_path: Path) -> None:
    triple = "aarch64-unknown-linux-gnu"
    data = link_shared([compile_ir(CALLEE, triple), compile_ir(CALLER, triple)], ["both", "pick", "twice", "pointers"])
    readelf_is_clean(data, tmp_path)
    pick, words = code_words(data, "pick")
    adrp = next(i for i, word in enumerate(words) if word & 0x9F000000 == 0x90000000)
    pages = (words[adrp] >> 5 & 0x7FFFF) << 2 | words[adrp] >> 29 & 3
    pages -= 1 << 21 if pages >> 20 else 0
    add = next(w for w in words[adrp:] if w & 0xFFC00000 == 0x91000000)
    target = ((pick + 4 * adrp) & ~0xFFF) + (pages << 12) + (add >> 10 & 0xFFF)
    assert struct.unpack_from("<4i", data, target) == (10, 20, 30, 40)
    both, words = code_words(data, "both")
    calls = []
    for index, word in enumerate(words):
        if word >> 26 in (0b100101, 0b000101):
            distance = (word & 0x3FFFFFF) - (1 << 26 if word & 1 << 25 else 0)
            calls.append(both + 4 * index + 4 * distance)
    assert calls == [pick, code_words(data, "twice")[0]]


EXPORTS = ["both", "pick", "twice", "pointers"]


def test_riscv_relocations(tmp_path: Path) -> None:
    triple = "riscv64-unknown-linux-gnu"  # without compressed instructions: words are instructions
    data = link_shared([compile_ir(CALLEE, triple), compile_ir(CALLER, triple)], EXPORTS)
    readelf_is_clean(data, tmp_path)
    pick, words = code_words(data, "pick")
    high = next(i for i, word in enumerate(words) if word & 0x7F == 0x17)  # auipc, then addi
    low = next(word for word in words[high + 1 :] if word & 0x707F == 0x13)
    target = pick + 4 * high + signed(words[high] & 0xFFFFF000, 32) + signed(low >> 20, 12)
    assert struct.unpack_from("<4i", data, target) == (10, 20, 30, 40)
    both, words = code_words(data, "both")
    calls = []
    for k, (word, after) in enumerate(itertools.pairwise(words)):
        if word & 0x7F == 0x17 and after & 0x7F == 0x67:  # auipc, then jalr
            calls.append(both + 4 * k + signed(word & 0xFFFFF000, 32) + signed(after >> 20, 12))
    assert calls == [pick, code_words(data, "twice")[0]]


def test_arm_relocations(tmp_path: Path) -> None:
    triple = "armv7-unknown-linux-gnueabihf"
    data = link_shared([compile_ir(CALLEE, triple), compile_ir(CALLER, triple)], EXPORTS)
    readelf_is_clean(data, tmp_path)
    pick, twice = (code_words(data, n)[0] for n in ("pick", "twice"))
    both, words = code_words(data, "both")
    calls = [both + 4 * k + 8 + 4 * signed(w, 24) for k, w in enumerate(words) if w >> 24 in (0xEB, 0xEA)]
    assert calls == [pick, twice]
    pointers, _ = code_words(data, "pointers")
    assert struct.unpack_from("<2I", data, pointers) == (twice, pick), "addends of load-time relocations stand in place"


def test_an_object_of_another_class_is_refused() -> None:
    data = bytearray(compile_ir(CALLEE, "armv7-unknown-linux-gnueabihf"))
    data[18:20] = b"\x3e\0"  # says x86-64
    with pytest.raises(LinkError, match="relocatable object of a known machine"):
        link_shared([bytes(data)], ["pick"])
