"""What the thread pool needs of a machine: system calls without a C library, and the spin-wait hint.

`machine_of(triple)` gives the substitutions for the text in `SYSTEM`, or None where there is no threaded pool.
"""

from __future__ import annotations

import struct


def _aarch64_stub() -> bytes:
    """Machine code: mov x8, x0; mov x0, x1; ... mov x5, x6; svc #0; ret."""
    moves = [(8, 0), *((i, i + 1) for i in range(6))]
    return struct.pack("<9I", *(0xAA0003E0 | m << 16 | d for d, m in moves), 0xD4000001, 0xD65F03C0)


def _riscv64_stub() -> bytes:
    """Machine code: mv a7, a0; mv a0, a1; ... mv a5, a6; ecall; ret."""
    moves = [(17, 10), *((i, i + 1) for i in range(10, 16))]
    return struct.pack("<9I", *(source << 15 | d << 7 | 0x13 for d, source in moves), 0x73, 0x8067)


# mov rax, rdi; mov rdi, rsi; mov rsi, rdx; mov rdx, rcx; mov r10, r8; mov r8, r9; mov r9, [rsp + 8]; syscall; ret
_X86_64_STUB = bytes.fromhex("4889f8 4889f7 4889d6 4889ca 4d89c2 4d89c8 4c8b4c2408 0f05 c3")

#: architecture -> system call numbers, the machine code of `syscall(number, six operands)`
#: and of `clock()`, the spin-wait hint
_LINUX: dict[str, dict[str, str | int | bytes]] = {
    "x86_64": {
        "FUTEX": 202, "YIELD": 24, "MMAP": 9, "MADVISE": 28, "STUB": _X86_64_STUB,
        "GETCPU": 309, "GETMASK": 204, "SETMASK": 203,
        "CLOCK": bytes.fromhex("0f31 48c1e220 4809d0 c3"),  # rdtsc; shl rdx, 32; or rax, rdx; ret
        "PAUSE": "call void @llvm.x86.sse2.pause()", "DECLARE": "declare void @llvm.x86.sse2.pause()",
    },
    "aarch64": {
        "FUTEX": 98, "YIELD": 124, "MMAP": 222, "MADVISE": 233, "STUB": _aarch64_stub(),
        "GETCPU": 168, "GETMASK": 123, "SETMASK": 122,
        "CLOCK": struct.pack("<2I", 0xD53BE040, 0xD65F03C0),  # mrs x0, cntvct_el0; ret
        "PAUSE": "call void @llvm.aarch64.hint(i32 1)", "DECLARE": "declare void @llvm.aarch64.hint(i32)",
    },
    "riscv64": {
        "FUTEX": 98, "YIELD": 124, "MMAP": 222, "MADVISE": 233, "STUB": _riscv64_stub(),
        "GETCPU": 168, "GETMASK": 123, "SETMASK": 122,
        "CLOCK": struct.pack("<2I", 0xC0102573, 0x8067),  # rdtime a0; ret
        "PAUSE": "fence seq_cst", "DECLARE": "",
    },
}  # fmt: skip

#: Text that is the same on all machines but for the names
SYSTEM = """
; A system call is written as the bytes of its instructions, which LLVM puts before the body: inline assembly would need
; an assembler for each target. Weak, so that no optimiser looks at the body, which is never reached.
define weak hidden i64 @wb_syscall6(i64 %nr, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f) noinline nounwind
    prologue $STUB {
  ret i64 -1
}

; Counts at a constant rate in all threads.
define weak hidden i64 @wb_clock() noinline nounwind prologue $CLOCK {
  ret i64 -1
}

$DECLARE

; 128 = FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 129 = FUTEX_WAKE | FUTEX_PRIVATE_FLAG
define internal void @futex_wait(ptr %word, i32 %seen) nounwind {
  %address = ptrtoint ptr %word to i64
  %value = zext i32 %seen to i64
  %r = call i64 @wb_syscall6(i64 $FUTEX, i64 %address, i64 128, i64 %value, i64 0, i64 0, i64 0)
  ret void
}

define internal void @futex_wake(ptr %word) nounwind {
  %address = ptrtoint ptr %word to i64
  %r = call i64 @wb_syscall6(i64 $FUTEX, i64 %address, i64 129, i64 2147483647, i64 0, i64 0, i64 0)
  ret void
}

define internal void @pause() alwaysinline nounwind {
  $PAUSE
  ret void
}
"""


def machine_of(target_triple: str) -> dict[str, str] | None:
    """What to put for the `$NAMES` in the pool's text on a machine.

    Args:
        target_triple: an LLVM triple, such as `x86_64-unknown-linux-gnu`.

    Returns:
        Name -> text; None if only the serial variant of the pool works there.
    """
    arch, _, rest = target_triple.partition("-")
    machine = _LINUX.get({"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch))
    if machine is None or "linux" not in rest or "gnux32" in rest or "ilp32" in rest:
        return None
    return {name: _text(value) for name, value in machine.items()}


def _text(value: str | int | bytes) -> str:
    """Bytes become an LLVM constant."""
    if isinstance(value, bytes):
        return f'[{len(value)} x i8] c"' + "".join(f"\\{byte:02x}" for byte in value) + '"'
    return str(value)
