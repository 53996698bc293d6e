"""The thread pool, written once in LLVM IR: it ships inside every artefact and needs no C library symbol.

`pool_ir(triple)` gives the text of a module with the six functions that `warpbeam.h` declares. On Linux they talk to
the kernel with system calls; elsewhere the serial variant is given, whose pool is null.

How it works. The caller of a loop is worker 0. A loop is published by one atomic store of the word `job`, which holds a
counter (upper 22 bits) and the number of workers that take part (lower 10), so that a worker which slept through some
loops cannot mistake one for another. Workers spin on `job` for `spin` pauses, then sleep on it with a futex. The last
worker to finish wakes the caller if it sleeps on `pending`. Whoever cannot take the pool's lock at once (a nested loop,
or a second caller) runs its loop serially: no queues, no deadlock, no thread-local state. Threads start at the first
loop that needs them. The kernel wipes the pool's pages in a forked child (MADV_WIPEONFORK): a zero pool is serial,
and `wb_pool_reset` makes it whole again.

The split of a loop is static: worker i of k runs iterations [n*i/k, n*(i+1)/k).
"""

from __future__ import annotations

import string
import struct

MAX_THREADS = 1000
EXPORTS = (
    "wb_pool_create", "wb_pool_destroy", "wb_pool_parallel_for", "wb_pool_reset", "wb_pool_resize",
    "wb_serial_parallel_for",
)  # fmt: skip
_POOL_BYTES = 256 + 32 * (MAX_THREADS + 24)
_WIPE_ON_FORK = 18


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

#: architecture -> system call numbers, the machine code of `syscall(number, six operands)`, the spin-wait hint
_LINUX: dict[str, dict[str, object]] = {
    "x86_64": {
        "FUTEX": 202, "MMAP": 9, "MADVISE": 28, "STUB": _X86_64_STUB,
        "PAUSE": "call void @llvm.x86.sse2.pause()", "DECLARE": "declare void @llvm.x86.sse2.pause()",
    },
    "aarch64": {
        "FUTEX": 98, "MMAP": 222, "MADVISE": 233, "STUB": _aarch64_stub(),
        "PAUSE": "call void @llvm.aarch64.hint(i32 1)", "DECLARE": "declare void @llvm.aarch64.hint(i32)",
    },
    "riscv64": {
        "FUTEX": 98, "MMAP": 222, "MADVISE": 233, "STUB": _riscv64_stub(),
        "PAUSE": "fence seq_cst", "DECLARE": "",
    },
}  # fmt: skip

_SERIAL = """
define i32 @wb_serial_parallel_for(ptr %ctx, ptr %fn, ptr %closure, i64 %n) nounwind {
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %run, label %none
run:
  %rc = call i32 %fn(ptr %ctx, ptr %closure, i64 0, i64 %n)
  ret i32 %rc
none:
  ret i32 0
}
"""

_NO_POOL = """
define ptr @wb_pool_create(i32 %n, ptr %create, i32 %spin) nounwind { ret ptr null }
define i32 @wb_pool_resize(ptr %pool, i32 %n) nounwind { ret i32 1 }
define void @wb_pool_destroy(ptr %pool, ptr %join) nounwind { ret void }
define void @wb_pool_reset(ptr %pool, i32 %n, ptr %create, i32 %spin) nounwind { ret void }

define i32 @wb_pool_parallel_for(ptr %ctx, ptr %fn, ptr %closure, i64 %n) nounwind {
  %rc = call i32 @wb_serial_parallel_for(ptr %ctx, ptr %fn, ptr %closure, i64 %n)
  ret i32 %rc
}
"""

# Slots start at byte 256 of the pool; slot i is {pool, index, job word at start, pthread_t}.
_TYPES = """
; lock | job | sleepers | pending | caller asleep, each in its own cache line where two threads would fight over it
%pool = type { i32, i32, i32, i32, ptr, ptr, ptr, i64, [16 x i8],
               i32, [60 x i8],
               i32, i32, i32, [52 x i8],
               i32, i32 }
; 0 lock  1 size  2 started  3 spin  4 fn  5 closure  6 ctx  7 n  9 job  11 pending  12 caller asleep  13 stop
; 15 sleepers  16 status
%slot = type { ptr, i32, i32, i64 }
%context = type { i32, i32, ptr, i64, ptr, ptr, ptr, ptr, ptr, ptr, i32, i32, [176 x i8] }
"""

_HELPERS = """
; A system call is written as the bytes of its instructions, which LLVM puts before the body: inline assembly would need
; an assembler for each target. Weak, so that no optimiser looks at the body, which is never reached.
define weak hidden i64 @wb_syscall6(i64 %nr, i64 %a, i64 %b, i64 %c, i64 %d, i64 %e, i64 %f) noinline nounwind
    prologue $STUB {
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

define internal ptr @slot_of(ptr %pool, i32 %index) nounwind {
  %slots = getelementptr i8, ptr %pool, i64 256
  %slot = getelementptr %slot, ptr %slots, i32 %index
  ret ptr %slot
}

; Runs the share of worker `index` of `workers` of the published loop.
define internal i32 @run_share(ptr %pool, i32 %index, i32 %workers) nounwind {
  %fn.p = getelementptr %pool, ptr %pool, i32 0, i32 4
  %fn = load ptr, ptr %fn.p
  %closure.p = getelementptr %pool, ptr %pool, i32 0, i32 5
  %closure = load ptr, ptr %closure.p
  %ctx.p = getelementptr %pool, ptr %pool, i32 0, i32 6
  %ctx = load ptr, ptr %ctx.p
  %n.p = getelementptr %pool, ptr %pool, i32 0, i32 7
  %n = load i64, ptr %n.p
  %i = zext i32 %index to i64
  %k = zext i32 %workers to i64
  %share = udiv i64 %n, %k
  %rest = urem i64 %n, %k
  %b0 = mul i64 %share, %i
  %b1 = mul i64 %rest, %i
  %b2 = udiv i64 %b1, %k
  %begin = add i64 %b0, %b2
  %i1 = add i64 %i, 1
  %e0 = mul i64 %share, %i1
  %e1 = mul i64 %rest, %i1
  %e2 = udiv i64 %e1, %k
  %end = add i64 %e0, %e2
  %rc = call i32 %fn(ptr %ctx, ptr %closure, i64 %begin, i64 %end)
  ret i32 %rc
}
"""

_WORKER = """
define internal ptr @worker(ptr %slot) nounwind {
entry:
  %pool = load ptr, ptr %slot
  %index.p = getelementptr %slot, ptr %slot, i32 0, i32 1
  %index = load i32, ptr %index.p
  %first.p = getelementptr %slot, ptr %slot, i32 0, i32 2
  %first = load i32, ptr %first.p
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 9
  %pending.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %asleep.p = getelementptr %pool, ptr %pool, i32 0, i32 12
  %stop.p = getelementptr %pool, ptr %pool, i32 0, i32 13
  %sleepers.p = getelementptr %pool, ptr %pool, i32 0, i32 15
  %status.p = getelementptr %pool, ptr %pool, i32 0, i32 16
  %spin.p = getelementptr %pool, ptr %pool, i32 0, i32 3
  br label %await
await:
  %seen = phi i32 [ %first, %entry ], [ %job, %choose ], [ %job, %done ], [ %job, %finish ], [ %job, %rouse ]
  %spins = load atomic i32, ptr %spin.p monotonic, align 4
  br label %spin
spin:
  %left = phi i32 [ %spins, %await ], [ %left1, %again ]
  %now = load atomic i32, ptr %job.p acquire, align 4
  %new = icmp ne i32 %now, %seen
  br i1 %new, label %go, label %more
more:
  %left1 = sub i32 %left, 1
  %tired = icmp sle i32 %left, 0
  br i1 %tired, label %park, label %again
again:
  call void @pause()
  br label %spin
park:
  %s0 = atomicrmw add ptr %sleepers.p, i32 1 seq_cst
  call void @futex_wait(ptr %job.p, i32 %seen)
  %s1 = atomicrmw sub ptr %sleepers.p, i32 1 seq_cst
  %now2 = load atomic i32, ptr %job.p acquire, align 4
  %new2 = icmp ne i32 %now2, %seen
  br i1 %new2, label %go, label %park
go:
  %job = phi i32 [ %now, %spin ], [ %now2, %park ]
  %stop = load atomic i32, ptr %stop.p acquire, align 4
  %stopped = icmp ne i32 %stop, 0
  %workers = and i32 %job, 1023
  %mine = icmp ult i32 %index, %workers
  br i1 %stopped, label %leave, label %choose
choose:
  br i1 %mine, label %work, label %await
work:
  %rc = call i32 @run_share(ptr %pool, i32 %index, i32 %workers)
  %bad = icmp ne i32 %rc, 0
  br i1 %bad, label %report, label %done
report:
  %set = cmpxchg ptr %status.p, i32 0, i32 %rc seq_cst seq_cst
  br label %done
done:
  %before = atomicrmw sub ptr %pending.p, i32 1 seq_cst
  %last = icmp eq i32 %before, 1
  br i1 %last, label %finish, label %await
finish:
  %asleep = load atomic i32, ptr %asleep.p seq_cst, align 4
  %sleeping = icmp ne i32 %asleep, 0
  br i1 %sleeping, label %rouse, label %await
rouse:
  call void @futex_wake(ptr %pending.p)
  br label %await
leave:
  ret ptr null
}
"""

_CREATE = """
define internal i32 @clamp(i32 %n) nounwind {
  %low = icmp slt i32 %n, 1
  %n1 = select i1 %low, i32 1, i32 %n
  %high = icmp sgt i32 %n1, $MAXTHREADS
  %n2 = select i1 %high, i32 $MAXTHREADS, i32 %n1
  ret i32 %n2
}

define internal void @fill(ptr %pool, i32 %n, ptr %create, i32 %spin) nounwind {
  %n2 = call i32 @clamp(i32 %n)
  %size.p = getelementptr %pool, ptr %pool, i32 0, i32 1
  store atomic i32 %n2, ptr %size.p monotonic, align 4
  %started.p = getelementptr %pool, ptr %pool, i32 0, i32 2
  store i32 1, ptr %started.p
  %spin.p = getelementptr %pool, ptr %pool, i32 0, i32 3
  store atomic i32 %spin, ptr %spin.p monotonic, align 4
  %create.p = getelementptr i8, ptr %pool, i64 248
  store ptr %create, ptr %create.p
  ret void
}

define ptr @wb_pool_create(i32 %n, ptr %create, i32 %spin) nounwind {
  ; PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
  %r = call i64 @wb_syscall6(i64 $MMAP, i64 0, i64 $POOLBYTES, i64 3, i64 34, i64 -1, i64 0)
  %failed = icmp ugt i64 %r, -4096
  br i1 %failed, label %none, label %ok
ok:
  %w = call i64 @wb_syscall6(i64 $MADVISE, i64 %r, i64 $POOLBYTES, i64 $WIPE, i64 0, i64 0, i64 0)
  %pool = inttoptr i64 %r to ptr
  call void @fill(ptr %pool, i32 %n, ptr %create, i32 %spin)
  ret ptr %pool
none:
  ret ptr null
}

define void @wb_pool_reset(ptr %pool, i32 %n, ptr %create, i32 %spin) nounwind {
  %null = icmp eq ptr %pool, null
  br i1 %null, label %done, label %clear
clear:
  store %pool zeroinitializer, ptr %pool
  call void @fill(ptr %pool, i32 %n, ptr %create, i32 %spin)
  br label %done
done:
  ret void
}

; Starts threads up to `size`, under the lock. Lowers `size` to what could be started.
define internal void @start_threads(ptr %pool) nounwind {
entry:
  %size.p = getelementptr %pool, ptr %pool, i32 0, i32 1
  %size = load atomic i32, ptr %size.p monotonic, align 4
  %started.p = getelementptr %pool, ptr %pool, i32 0, i32 2
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 9
  %job = load atomic i32, ptr %job.p monotonic, align 4
  %create.p = getelementptr i8, ptr %pool, i64 248
  %create = load ptr, ptr %create.p
  br label %next
next:
  %started = load i32, ptr %started.p
  %more = icmp slt i32 %started, %size
  br i1 %more, label %start, label %done
start:
  %slot = call ptr @slot_of(ptr %pool, i32 %started)
  store ptr %pool, ptr %slot
  %index.p = getelementptr %slot, ptr %slot, i32 0, i32 1
  store i32 %started, ptr %index.p
  %first.p = getelementptr %slot, ptr %slot, i32 0, i32 2
  store i32 %job, ptr %first.p
  %thread.p = getelementptr %slot, ptr %slot, i32 0, i32 3
  %rc = call i32 %create(ptr %thread.p, ptr null, ptr @worker, ptr %slot)
  %ok = icmp eq i32 %rc, 0
  br i1 %ok, label %count, label %fail
count:
  %started1 = add i32 %started, 1
  store i32 %started1, ptr %started.p
  br label %next
fail:
  store atomic i32 %started, ptr %size.p monotonic, align 4
  br label %done
done:
  ret void
}

define i32 @wb_pool_resize(ptr %pool, i32 %n) nounwind {
  %null = icmp eq ptr %pool, null
  br i1 %null, label %none, label %set
set:
  %n2 = call i32 @clamp(i32 %n)
  %size.p = getelementptr %pool, ptr %pool, i32 0, i32 1
  store atomic i32 %n2, ptr %size.p seq_cst, align 4
  ret i32 %n2
none:
  ret i32 1
}

define void @wb_pool_destroy(ptr %pool, ptr %join) nounwind {
entry:
  %null = icmp eq ptr %pool, null
  br i1 %null, label %done, label %lock
lock:
  %got = cmpxchg ptr %pool, i32 0, i32 1 seq_cst seq_cst
  %won = extractvalue { i32, i1 } %got, 1
  br i1 %won, label %stop, label %wait
wait:
  call void @pause()
  br label %lock
stop:
  %stop.p = getelementptr %pool, ptr %pool, i32 0, i32 13
  store atomic i32 1, ptr %stop.p seq_cst, align 4
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 9
  %old = atomicrmw add ptr %job.p, i32 1024 seq_cst
  call void @futex_wake(ptr %job.p)
  %started.p = getelementptr %pool, ptr %pool, i32 0, i32 2
  %started = load i32, ptr %started.p
  %nojoin = icmp eq ptr %join, null
  br i1 %nojoin, label %done, label %next
next:
  %i = phi i32 [ 1, %stop ], [ %i1, %one ]
  %more = icmp slt i32 %i, %started
  br i1 %more, label %one, label %done
one:
  %slot = call ptr @slot_of(ptr %pool, i32 %i)
  %thread.p = getelementptr %slot, ptr %slot, i32 0, i32 3
  %thread = load i64, ptr %thread.p
  %rc = call i32 %join(i64 %thread, ptr null)
  %i1 = add i32 %i, 1
  br label %next
done:
  ret void
}
"""

_PARALLEL_FOR = """
define i32 @wb_pool_parallel_for(ptr %ctx, ptr %fn, ptr %closure, i64 %n) nounwind {
entry:
  %pool.p = getelementptr %context, ptr %ctx, i32 0, i32 7
  %pool = load ptr, ptr %pool.p
  %null = icmp eq ptr %pool, null
  %small = icmp slt i64 %n, 2
  %quick = or i1 %null, %small
  br i1 %quick, label %serial, label %size
size:
  %size.p = getelementptr %pool, ptr %pool, i32 0, i32 1
  %have = load atomic i32, ptr %size.p monotonic, align 4
  %want.p = getelementptr %context, ptr %ctx, i32 0, i32 11
  %want = load i32, ptr %want.p
  %all = icmp slt i32 %want, 1
  %fewer = icmp slt i32 %want, %have
  %asked = select i1 %fewer, i32 %want, i32 %have
  %most = select i1 %all, i32 %have, i32 %asked
  %one = icmp slt i32 %most, 2
  br i1 %one, label %serial, label %trylock
trylock:
  %got = cmpxchg ptr %pool, i32 0, i32 1 seq_cst seq_cst
  %won = extractvalue { i32, i1 } %got, 1
  br i1 %won, label %locked, label %serial
serial:
  %rc.serial = call i32 @wb_serial_parallel_for(ptr %ctx, ptr %fn, ptr %closure, i64 %n)
  ret i32 %rc.serial
locked:
  %started.p = getelementptr %pool, ptr %pool, i32 0, i32 2
  %started0 = load i32, ptr %started.p
  %need = icmp slt i32 %started0, %most
  br i1 %need, label %start, label %publish
start:
  call void @start_threads(ptr %pool)
  br label %publish
publish:
  %started = load i32, ptr %started.p
  %c1 = icmp slt i32 %started, %most
  %m1 = select i1 %c1, i32 %started, i32 %most
  %m2 = sext i32 %m1 to i64
  %c2 = icmp slt i64 %n, %m2
  %m3 = select i1 %c2, i64 %n, i64 %m2
  %workers = trunc i64 %m3 to i32
  %fn.p = getelementptr %pool, ptr %pool, i32 0, i32 4
  store ptr %fn, ptr %fn.p
  %closure.p = getelementptr %pool, ptr %pool, i32 0, i32 5
  store ptr %closure, ptr %closure.p
  %ctx.p = getelementptr %pool, ptr %pool, i32 0, i32 6
  store ptr %ctx, ptr %ctx.p
  %n.p = getelementptr %pool, ptr %pool, i32 0, i32 7
  store i64 %n, ptr %n.p
  %status.p = getelementptr %pool, ptr %pool, i32 0, i32 16
  store atomic i32 0, ptr %status.p monotonic, align 4
  %asleep.p = getelementptr %pool, ptr %pool, i32 0, i32 12
  store atomic i32 0, ptr %asleep.p monotonic, align 4
  %pending.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %others = sub i32 %workers, 1
  store atomic i32 %others, ptr %pending.p monotonic, align 4
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 9
  %old = load atomic i32, ptr %job.p monotonic, align 4
  %counter = and i32 %old, -1024
  %counter1 = add i32 %counter, 1024
  %job = or i32 %counter1, %workers
  store atomic i32 %job, ptr %job.p seq_cst, align 4
  %sleepers.p = getelementptr %pool, ptr %pool, i32 0, i32 15
  %sleepers = load atomic i32, ptr %sleepers.p seq_cst, align 4
  %anyone = icmp sgt i32 %sleepers, 0
  br i1 %anyone, label %rouse, label %work
rouse:
  call void @futex_wake(ptr %job.p)
  br label %work
work:
  %rc = call i32 @run_share(ptr %pool, i32 0, i32 %workers)
  %spin.p = getelementptr %pool, ptr %pool, i32 0, i32 3
  %spins = load atomic i32, ptr %spin.p monotonic, align 4
  br label %wait
wait:
  %left = phi i32 [ %spins, %work ], [ %left1, %again ]
  %todo = load atomic i32, ptr %pending.p acquire, align 4
  %done = icmp eq i32 %todo, 0
  br i1 %done, label %merge, label %more
more:
  %left1 = sub i32 %left, 1
  %tired = icmp sle i32 %left, 0
  br i1 %tired, label %doze, label %again
again:
  call void @pause()
  br label %wait
doze:
  store atomic i32 1, ptr %asleep.p seq_cst, align 4
  br label %check
check:
  %todo2 = load atomic i32, ptr %pending.p seq_cst, align 4
  %done2 = icmp eq i32 %todo2, 0
  br i1 %done2, label %merge, label %sleep
sleep:
  call void @futex_wait(ptr %pending.p, i32 %todo2)
  br label %check
merge:
  %theirs = load atomic i32, ptr %status.p acquire, align 4
  %mine.bad = icmp ne i32 %rc, 0
  %result = select i1 %mine.bad, i32 %rc, i32 %theirs
  store atomic i32 0, ptr %pool release, align 4
  ret i32 %result
}
"""


def pool_ir(target_triple: str) -> str:
    """LLVM IR text of the thread pool for a machine.

    Args:
        target_triple: an LLVM triple, such as `x86_64-unknown-linux-gnu`.

    Returns:
        A module that defines the functions in `EXPORTS` and has no undefined symbols.
    """
    arch, _, rest = target_triple.partition("-")
    machine = _LINUX.get({"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch))
    head = f'target triple = "{target_triple}"\n'
    if machine is None or "linux" not in rest or "gnux32" in rest or "ilp32" in rest:
        return head + _SERIAL + _NO_POOL
    text = _TYPES + _SERIAL + _HELPERS + _WORKER + _CREATE + _PARALLEL_FOR
    stub = machine["STUB"]
    assert isinstance(stub, bytes)
    values = {
        **machine,
        "STUB": f'[{len(stub)} x i8] c"' + "".join(f"\\{byte:02x}" for byte in stub) + '"',
        "POOLBYTES": _POOL_BYTES,
        "MAXTHREADS": MAX_THREADS,
        "WIPE": _WIPE_ON_FORK,
    }
    return head + string.Template(text).substitute(values)
