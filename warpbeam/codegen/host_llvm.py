"""A model's entry in LLVM IR."""

from __future__ import annotations

from typing import NamedTuple

from warpbeam.codegen.host_writer import Writer
from warpbeam.codegen.llvm.emitter import Module
from warpbeam.codegen.llvm.helpers import CONTEXT
from warpbeam.codegen.llvm.parallel import message
from warpbeam.ir import dtype as dt
from warpbeam.target import Target

_TENSOR = "{ ptr, i32, i32, i32, i32, ptr, ptr, i64 }"  # code, bits and lanes as one i32
_FIELDS = {"abi_version": (0, "i32"), "flags": (1, "i32"), "arena": (2, "ptr"), "arena_bytes": (3, "i64"),
           "constants": (4, "ptr"), "params": (5, "ptr"), "reserve": (8, "ptr")}  # fmt: skip
_WORDS = {"add": "add", "sub": "sub", "mul": "mul"}
_COMPARE = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}

_GEOMETRY = f"""  %pn = getelementptr {_TENSOR}, ptr %tensor, i32 0, i32 3
  %n32 = load i32, ptr %pn
  %n = sext i32 %n32 to i64
  %ps = getelementptr {_TENSOR}, ptr %tensor, i32 0, i32 5
  %shape = load ptr, ptr %ps
  %pt = getelementptr {_TENSOR}, ptr %tensor, i32 0, i32 6
  %strides = load ptr, ptr %pt
  %none = icmp eq ptr %strides, null
"""  # %n dimensions, %shape, %strides of a tensor; whether there are no strides
_COMPACT = f"""define internal i64 @wb_compact(ptr %tensor) noinline #0 {{
entry:
{_GEOMETRY}  br i1 %none, label %yes, label %loop
loop:
  %i = phi i64 [ %n, %entry ], [ %j, %next ]
  %step = phi i64 [ 1, %entry ], [ %wider, %next ]
  %ok = phi i1 [ true, %entry ], [ %still, %next ]
  %more = icmp sgt i64 %i, 0
  br i1 %more, label %next, label %done
next:
  %j = sub i64 %i, 1
  %pe = getelementptr i64, ptr %shape, i64 %j
  %extent = load i64, ptr %pe
  %pd = getelementptr i64, ptr %strides, i64 %j
  %stride = load i64, ptr %pd
  %same = icmp eq i64 %stride, %step
  %single = icmp sle i64 %extent, 1
  %fine = or i1 %same, %single
  %still = and i1 %ok, %fine
  %empty = icmp eq i64 %extent, 0
  %wider = mul i64 %step, %extent
  br i1 %empty, label %yes, label %loop
done:
  %out = zext i1 %ok to i64
  ret i64 %out
yes:
  ret i64 1
}}
"""
_STRIDE = f"""define internal i64 @wb_stride(ptr %tensor, i64 %axis) noinline #0 {{
entry:
{_GEOMETRY}  br i1 %none, label %loop, label %given
given:
  %pd = getelementptr i64, ptr %strides, i64 %axis
  %stride = load i64, ptr %pd
  ret i64 %stride
loop:
  %i = phi i64 [ %axis, %entry ], [ %j, %next ]
  %step = phi i64 [ 1, %entry ], [ %wider, %next ]
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %next, label %done
next:
  %pe = getelementptr i64, ptr %shape, i64 %j
  %extent = load i64, ptr %pe
  %wider = mul i64 %step, %extent
  br label %loop
done:
  ret i64 %step
}}
"""
_COPY = """define internal void @wb_copy(ptr %to, ptr %from, i64 %bytes) noinline #0 {
entry:
  %words = and i64 %bytes, -8
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i8, %word ]
  %go = icmp slt i64 %i, %words
  br i1 %go, label %word, label %rest
word:
  %pf = getelementptr i8, ptr %from, i64 %i
  %pt = getelementptr i8, ptr %to, i64 %i
  %w = load i64, ptr %pf, align 1
  store i64 %w, ptr %pt, align 1
  %i8 = add i64 %i, 8
  br label %loop
rest:
  %k = phi i64 [ %i, %loop ], [ %k1, %byte ]
  %more = icmp slt i64 %k, %bytes
  br i1 %more, label %byte, label %done
byte:
  %bf = getelementptr i8, ptr %from, i64 %k
  %bt = getelementptr i8, ptr %to, i64 %k
  %b = load i8, ptr %bf
  store i8 %b, ptr %bt
  %k1 = add i64 %k, 1
  br label %rest
done:
  ret void
}
"""


class _Open(NamedTuple):
    """An open branch or loop: labels of its second part and its end."""

    other: str
    end: str


class LLVMWriter(Writer):
    """Writes IR with variables in a frame on the stack: nothing here is hot."""

    def __init__(self, target: Target, module: Module | None = None) -> None:
        self.module = module or Module(target)
        self.head = ""
        self.entry: list[str] = []
        self.lines: list[str] = []
        self.count_ = 0
        self.open: list[_Open] = []
        self.variables: dict[str | int, int] = {}
        self.name = ""
        self.outer: list[str] = []
        self.parts = 0

    def _v(self, rhs: str) -> str:
        self.count_ += 1
        self.lines.append(f"  %v{self.count_} = {rhs}")
        return f"%v{self.count_}"

    def _label(self, hint: str) -> str:
        self.count_ += 1
        return f"{hint}.{self.count_}"

    def _jump(self, label: str, next_: str | None = None) -> None:
        self.lines += [f"  br label %{label}", f"{next_ or label}:"]

    def declare(self, kernel: str, buffers: int, scalars: int) -> None:
        self.module.declare(kernel, "i32", ", ".join(["ptr"] * (buffers + 1) + ["i64"] * scalars))

    def begin(self, name: str) -> None:
        self.name = name
        self.head = f"define i32 @{name}(ptr %ctx, ptr %args, i32 %n) #0 {{"

    def end(self) -> str:
        self.close()
        return self.module.text()

    def close(self) -> None:
        """Adds the function to the module."""
        frame = [f"  %frame = alloca [{len(self.variables)} x i64]"]
        self._function(self.head, [*frame, *self.entry, *self.lines])

    def _function(self, head: str, lines: list[str]) -> None:
        self.module.functions.append("\n".join([head, "entry:", *lines, "  ret i32 0", "}", ""]))

    def begin_part(self) -> None:
        self.outer, self.lines = self.lines, []

    def end_part(self) -> None:
        part = f"{self.name}_part{self.parts}"
        self.parts += 1
        self._function(f"define internal i32 @{part}(ptr %ctx, ptr %args, ptr %frame) #0 {{", self.lines)
        self.lines = self.outer
        self._checked(f"call i32 @{part}(ptr %ctx, ptr %args, ptr %frame)")

    def return_ok(self) -> None:
        self.lines += ["  ret i32 0", f"{self._label('unreachable')}:"]

    # ------------------------------------------------------------------------------------------------------------ value

    def number(self, value: int) -> str:
        return str(value)

    def op(self, operator: str, *operands: str) -> str:
        if operator in _WORDS:
            return self._v(f"{_WORDS[operator]} i64 {', '.join(operands)}")
        if operator in _COMPARE:
            flag = self._v(f"icmp {_COMPARE[operator]} i64 {', '.join(operands)}")
            return self._v(f"zext i1 {flag} to i64")
        a, b = operands[0], operands[1] if len(operands) > 1 else "0"
        if operator == "neg":
            return self._v(f"sub i64 0, {a}")
        if operator in ("min", "max"):
            less = self._v(f"icmp {'slt' if operator == 'min' else 'sgt'} i64 {a}, {b}")
            return self._v(f"select i1 {less}, i64 {a}, i64 {b}")
        if operator in ("and", "or"):
            return self._v(f"zext i1 {self._v(f'{operator} i1 {self._flag(a)}, {self._flag(b)}')} to i64")
        if operator == "not":
            return self._v(f"zext i1 {self._v(f'icmp eq i64 {a}, 0')} to i64")
        if operator == "select":
            return self._v(f"select i1 {self._flag(a)}, i64 {b}, i64 {operands[2]}")
        if operator == "ceildiv":
            return self.op("neg", self.op("floordiv", self.op("neg", a), b))
        return self._floor(operator, a, b)

    def _flag(self, value: str) -> str:
        return self._v(f"icmp ne i64 {value}, 0")

    def _floor(self, operator: str, a: str, b: str) -> str:
        """floordiv or mod; zero was checked, and -1 is left out of the hardware's reach."""
        minus = self._v(f"icmp eq i64 {b}, -1")
        safe = self._v(f"select i1 {minus}, i64 1, i64 {b}")
        q, r = self._v(f"sdiv i64 {a}, {safe}"), self._v(f"srem i64 {a}, {safe}")
        inexact = self._v(f"icmp ne i64 {r}, 0")
        differ = self._v(f"icmp slt i64 {self._v(f'xor i64 {r}, {safe}')}, 0")
        fix = self._v(f"and i1 {inexact}, {differ}")
        if operator == "mod":
            return self._v(f"select i1 {fix}, i64 {self._v(f'add i64 {r}, {safe}')}, i64 {r}")
        floor = self._v(f"select i1 {fix}, i64 {self._v(f'sub i64 {q}, 1')}, i64 {q}")
        return self._v(f"select i1 {minus}, i64 {self._v(f'sub i64 0, {a}')}, i64 {floor}")

    def variable(self, name: str) -> None:
        self._slot(name, "i64", "0")

    def _slot(self, key: str | int, type: str, first: str) -> None:
        slot = f"%slot{len(self.variables)}"
        self.entry += [f"  {slot} = {self._place(len(self.variables))}", f"  store {type} {first}, ptr {slot}"]
        self.variables[key] = len(self.variables)

    @staticmethod
    def _place(number: int) -> str:
        """Where a variable is: all are words of one frame, so that the functions of a long entry share them."""
        return f"getelementptr i64, ptr %frame, i64 {number}"

    def _variable(self, key: str | int) -> str:
        return self._v(self._place(self.variables[key]))

    def get(self, name: str) -> str:
        return self._v(f"load i64, ptr {self._variable(name)}")

    def set(self, name: str, value: str) -> None:
        self.lines.append(f"  store i64 {value}, ptr {self._variable(name)}")

    def load(self, address: str, offset: int, dtype: str) -> str:
        place = self.offset(address, str(offset))
        bits = dt.bits(dtype)
        value = self._v(f"load i{bits}, ptr {place}, align {max(1, bits // 8)}")
        if bits == 64:
            return value
        return self._v(f"{'sext' if dtype.startswith('int') else 'zext'} i{bits} {value} to i64")

    # --------------------------------------------------------------------------------------------- arguments and contex

    def count(self) -> str:
        return self._v("sext i32 %n to i64")

    def _context(self, field: str) -> str:
        index, type = _FIELDS[field]
        address = self._v(f"getelementptr {CONTEXT}, ptr %ctx, i32 0, i32 {index}")
        return self._v(f"load {type}, ptr {address}")

    def context(self, field: str) -> str:
        return self._v(f"zext i32 {self._context(field)} to i64")

    def section(self, name: str) -> str:
        return self._context(name)

    def _tensor(self, index: int) -> str:
        return self._v(f"load ptr, ptr {self._v(f'getelementptr ptr, ptr %args, i32 {index}')}")

    def _part(self, index: int, field: int, type: str) -> str:
        address = self._v(f"getelementptr {_TENSOR}, ptr {self._tensor(index)}, i32 0, i32 {field}")
        return self._v(f"load {type}, ptr {address}")

    def field(self, index: int, name: str) -> str:
        return self._v(f"sext i32 {self._part(index, 3 if name == 'ndim' else 4, 'i32')} to i64")

    def _extent(self, index: int, axis: int) -> str:
        return self._v(f"getelementptr i64, ptr {self._part(index, 5, 'ptr')}, i32 {axis}")

    def extent(self, index: int, axis: int) -> str:
        return self._v(f"load i64, ptr {self._extent(index, axis)}")

    def stride(self, index: int, axis: int) -> str:
        self.module.helpers["wb_stride"] = _STRIDE
        return self._v(f"call i64 @wb_stride(ptr {self._tensor(index)}, i64 {axis})")

    def set_extent(self, index: int, axis: int, value: str) -> None:
        self.lines.append(f"  store i64 {value}, ptr {self._extent(index, axis)}")

    def data(self, index: int) -> str:
        return self.offset(self._part(index, 0, "ptr"), self._part(index, 7, "i64"))

    def absent(self, index: int) -> str:
        data = self._part(index, 0, "ptr")
        return self._v(f"zext i1 {self._v(f'icmp eq ptr {data}, null')} to i64")

    def set_data(self, index: int, address: str) -> None:
        for field, type, value in ((0, "ptr", address), (7, "i64", "0")):
            place = self._v(f"getelementptr {_TENSOR}, ptr {self._tensor(index)}, i32 0, i32 {field}")
            self.lines.append(f"  store {type} {value}, ptr {place}")

    def check_compact(self, index: int, message: str) -> None:
        self.module.helpers["wb_compact"] = _COMPACT
        self.check(self._v(f"call i64 @wb_compact(ptr {self._tensor(index)})"), message)

    # --------------------------------------------------------------------------------------------------------- addresse

    def offset(self, address: str, amount: str) -> str:
        return address if amount == "0" else self._v(f"getelementptr i8, ptr {address}, i64 {amount}")

    def pointer_variable(self, number: int) -> None:
        self._slot(number, "ptr", "null")

    def get_pointer(self, number: int) -> str:
        return self._v(f"load ptr, ptr {self._variable(number)}")

    def set_pointer(self, number: int, address: str) -> None:
        self.lines.append(f"  store ptr {address}, ptr {self._variable(number)}")

    # ----------------------------------------------------------------------------------------------------------- effect

    def check(self, condition: str, message_: str) -> None:
        symbol, size = message(self.module, message_)
        good, bad = self._label("holds"), self._label("failed")
        self.lines += [f"  br i1 {self._flag(condition)}, label %{good}, label %{bad}", f"{bad}:"]
        status = self._v(f"call i32 @wb_fail(ptr %ctx, ptr {symbol}, i64 {size})")
        self.lines += [f"  ret i32 {status}", f"{good}:"]

    def _checked(self, call: str) -> None:
        status = self._v(call)
        failed, good = self._label("failed"), self._label("done")
        bad = self._v(f"icmp ne i32 {status}, 0")
        self.lines += [
            f"  br i1 {bad}, label %{failed}, label %{good}",
            f"{failed}:",
            f"  ret i32 {status}",
            f"{good}:",
        ]

    def reserve(self, size: str) -> None:
        have = self._context("arena_bytes")
        self.if_(self.op("gt", size, have))
        function = self._context("reserve")
        none = self._v(f"icmp ne ptr {function}, null")
        self.check(self._v(f"zext i1 {none} to i64"), "the arena is too small and the context cannot grow it")
        self._checked(f"call i32 {function}(ptr %ctx, i64 {size})")
        self.end_if()

    def copy(self, target: str, source: str, size: str) -> None:
        self.module.helpers["wb_copy"] = _COPY
        self.lines.append(f"  call void @wb_copy(ptr {target}, ptr {source}, i64 {size})")

    def call(self, kernel: str, buffers: list[str], scalars: list[str]) -> None:
        args = ", ".join(["ptr %ctx", *(f"ptr {b}" for b in buffers), *(f"i64 {s}" for s in scalars)])
        self._checked(f"call i32 @{kernel}({args})")

    # ----------------------------------------------------------------------------------------------------------- contro

    def if_(self, condition: str) -> None:
        then, other, end = self._label("then"), self._label("else"), self._label("end")
        self.lines += [f"  br i1 {self._flag(condition)}, label %{then}, label %{other}", f"{then}:"]
        self.open.append(_Open(other, end))

    def else_(self) -> None:
        frame = self.open.pop()
        self.lines += [f"  br label %{frame.end}", f"{frame.other}:"]
        self.open.append(_Open("", frame.end))

    def end_if(self) -> None:
        frame = self.open.pop()
        self._jump(frame.end, frame.other or frame.end)
        if frame.other:
            self._jump(frame.end)

    def loop(self) -> None:
        head, end = self._label("loop"), self._label("left")
        self._jump(head)
        self.open.append(_Open(head, end))

    def while_(self, condition: str) -> None:
        go = self._label("go")
        self.lines += [f"  br i1 {self._flag(condition)}, label %{go}, label %{self.open[-1].end}", f"{go}:"]

    def end_loop(self) -> None:
        frame = self.open.pop()
        self._jump(frame.other, frame.end)
