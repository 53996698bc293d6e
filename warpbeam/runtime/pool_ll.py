"""The thread pool, written once in LLVM IR: it ships inside every artefact and needs no C library symbol.

`pool_ir(triple)` gives the text of a module with the six functions that `warpbeam.h` declares. On Linux they talk to
the kernel with system calls; elsewhere the serial variant is given, whose pool is null.

How it works. The caller of a loop is worker 0. Worker i of k owns the range [n*i/k, n*(i+1)/k), the same in every loop
of the same n, so that its caches stay warm; a range is cut into up to `_PARTS` parts, which are claimed by
compare-and-swap in the range's word: by the owner from the front, half of what is left at a time, by others from the
back. The caller, when through with its own range, takes ranges whose owner has not come; after a short while of waiting
anyone takes what is left of any range. The caller thus waits for claimed parts only, never for a worker that was not
scheduled in time.

A loop that may go either way (WB_EITHER_WAY) takes the parts of a range from the back if the loop before took them from
the front: it begins with what that one used last, which is what the caches hold, whether it is the same data again or
what that loop made for this one.

A loop is published by one atomic store of the word `job`: a counter (upper 54 bits) and the number of workers (lower
10). A claim word holds the counter of the loop that it belongs to: an older one means "nothing claimed yet", so nobody
has to clear them, and a newer one tells a late worker that its loop is over. A worker reads the loop's fields before
it claims: if the claim succeeds, the loop was unfinished then, so the fields were its own; it touches nothing of the
loop otherwise.

Workers spin on `job`, then sleep on its lower half with a futex. A worker that spun in vain spins half as long the next
time, one that helped twice as long, at most `spin` pauses; while it spins it offers its processor to others, and leaves
it if it is the caller's (`pool_place`). Whoever completes the last claimed part wakes the caller if it sleeps. When a
worker loses its processor in the middle of a claimed part, so that the loop would have been faster without it, loops
run serially for a while, longer if it happens so often that the time between is worth no more than what is lost.

Whoever cannot take the pool's lock at once (a nested loop, or a second caller) runs its loop serially: no queues, no
deadlock, no thread-local state. Threads start at the first loop that needs them. The kernel wipes the pool's pages in a
forked child (MADV_WIPEONFORK): a zero pool is serial, and `wb_pool_reset` makes it whole again.
"""

from __future__ import annotations

import string

from .abi import EITHER_WAY
from .pool_machine import SYSTEM, machine_of
from .pool_place import PLACE
from .pool_threads import CREATE, WORKER

MAX_THREADS = 1000
EXPORTS = (
    "wb_pool_create", "wb_pool_destroy", "wb_pool_parallel_for", "wb_pool_reset", "wb_pool_resize",
    "wb_serial_parallel_for",
)  # fmt: skip
POOL_BYTES = 256 + 64 * (MAX_THREADS + 24)
_WIPE_ON_FORK = 18
_PARTS = 4  # of a range, at most 31
_BACK = 256
_GRACE = 64  # pauses before the owner of a range that was begun gets help
_SHORT_SPIN = 512  # pauses: no worker gives up earlier, unless told to
_FRESH = 64  # loops for which it is believed that the caller runs where it noted
_CALLER_SPIN = 4096  # pauses: about what it costs to sleep and to be woken

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

# Slots start at byte 256 of the pool. A slot's claim word is the loop's counter << 10 | parts before the front << 5 |
# parts before the back: the parts between the two are free.
_TYPES = """
; the lock and the loop's fields | job | done | status: a cache line each
%pool = type { i32, i32, i32, i32, ptr, ptr, ptr, i64, i32, i32, i64,
               i64, i32, [52 x i8],
               i32, i32, i32, [52 x i8],
               i32, i32, i64 }
; 0 lock  1 size  2 started  3 spin  4 fn  5 closure  6 ctx  7 n  8 parts of a range, + $BACK if taken from the back
; 9 backoff  10 alone until
; 11 job  12 how often a worker went to sleep
; 14 done  15 stop  16 caller asleep until done has this value  18 status  19 sleeps when the caller last woke all
; 20 where a caller ran that a worker left alone
; pool, index, job word at start, pthread_t, claim word
%slot = type { ptr, i32, i64, i64, i64, [24 x i8] }
%context = type { i32, i32, ptr, i64, ptr, ptr, ptr, ptr, ptr, ptr, i32, i32, [176 x i8] }
"""

_CLAIM = """
define internal ptr @slot_of(ptr %pool, i32 %index) nounwind {
  %slots = getelementptr i8, ptr %pool, i64 256
  %slot = getelementptr %slot, ptr %slots, i32 %index
  ret ptr %slot
}

; Claims parts of a range for the loop `job`: first part << 8 | their number, or 0.
; `how`: 0 = the owner, 1 = another, if the owner has not come, 2 = another in any case.
define internal i32 @claim(ptr %word, i64 %job, i32 %parts, i32 %how) nounwind {
entry:
  %mine = and i64 %job, -1024
  %owner = icmp eq i32 %how, 0
  %polite = icmp eq i32 %how, 1
  %w0 = load atomic i64, ptr %word acquire, align 8
  br label %look
look:
  %w = phi i64 [ %w0, %entry ], [ %w1, %swap ]
  %tag = and i64 %w, -1024
  %over = icmp ugt i64 %tag, %mine
  br i1 %over, label %none, label %mark
mark:
  %begun = icmp eq i64 %tag, %mine
  %low = trunc i64 %w to i32
  %f0 = lshr i32 %low, 5
  %f1 = and i32 %f0, 31
  %b1 = and i32 %low, 31
  %front = select i1 %begun, i32 %f1, i32 0
  %back = select i1 %begun, i32 %b1, i32 %parts
  %left = sub i32 %back, %front
  %some = icmp sgt i32 %left, 0
  %came = icmp ne i32 %front, 0
  %leave = and i1 %polite, %came
  %refuse = xor i1 %leave, true
  %go = and i1 %some, %refuse
  br i1 %go, label %swap, label %none
swap:
  %up = add i32 %left, 1
  %take = lshr i32 %up, 1
  %front.o = add i32 %front, %take
  %back.t = sub i32 %back, %take
  %front1 = select i1 %owner, i32 %front.o, i32 %front
  %back1 = select i1 %owner, i32 %back, i32 %back.t
  %first = select i1 %owner, i32 %front, i32 %back.t
  %high = shl i32 %front1, 5
  %marks = or i32 %high, %back1
  %marks.64 = zext i32 %marks to i64
  %new = or i64 %mine, %marks.64
  %got = cmpxchg ptr %word, i64 %w, i64 %new acq_rel acquire
  %w1 = extractvalue { i64, i1 } %got, 0
  %won = extractvalue { i64, i1 } %got, 1
  br i1 %won, label %done, label %look
done:
  %first.8 = shl i32 %first, 8
  %claimed = or i32 %first.8, %take
  ret i32 %claimed
none:
  ret i32 0
}

; The first iteration of part `p` of `total`.
define internal i64 @bound(i64 %n, i64 %total, i64 %p) alwaysinline nounwind {
  %share = udiv i64 %n, %total
  %rest = urem i64 %n, %total
  %b0 = mul i64 %share, %p
  %b1 = mul i64 %rest, %p
  %b2 = udiv i64 %b1, %total
  %begin = add i64 %b0, %b2
  ret i64 %begin
}

; Claims and runs parts of range `index` of the loop `job` until none is left for this thread; the number of parts run.
define internal i32 @run_range(ptr %pool, i64 %job, i32 %index, i32 %how) nounwind {
entry:
  %fn.p = getelementptr %pool, ptr %pool, i32 0, i32 4
  %fn = load atomic ptr, ptr %fn.p monotonic, align 8
  %closure.p = getelementptr %pool, ptr %pool, i32 0, i32 5
  %closure = load atomic ptr, ptr %closure.p monotonic, align 8
  %ctx.p = getelementptr %pool, ptr %pool, i32 0, i32 6
  %ctx = load atomic ptr, ptr %ctx.p monotonic, align 8
  %n.p = getelementptr %pool, ptr %pool, i32 0, i32 7
  %n = load atomic i64, ptr %n.p monotonic, align 8
  %parts.p = getelementptr %pool, ptr %pool, i32 0, i32 8
  %order = load atomic i32, ptr %parts.p monotonic, align 4
  %parts = and i32 %order, 255
  %back = icmp uge i32 %order, $BACK
  %slot = call ptr @slot_of(ptr %pool, i32 %index)
  %word = getelementptr %slot, ptr %slot, i32 0, i32 4
  br label %next
next:
  %ran = phi i32 [ 0, %entry ], [ %ran1, %ok ]
  %claimed = call i32 @claim(ptr %word, i64 %job, i32 %parts, i32 %how)
  %none = icmp eq i32 %claimed, 0
  br i1 %none, label %out, label %run
run:
  %count = and i32 %claimed, 255
  %first.f = lshr i32 %claimed, 8
  %after = add i32 %first.f, %count
  %first.b = sub i32 %parts, %after
  %first = select i1 %back, i32 %first.b, i32 %first.f
  %job.32 = trunc i64 %job to i32
  %workers = and i32 %job.32, 1023
  %total.32 = mul i32 %workers, %parts
  %total = zext i32 %total.32 to i64
  %before = mul i32 %index, %parts
  %p.32 = add i32 %before, %first
  %p = zext i32 %p.32 to i64
  %q.32 = add i32 %p.32, %count
  %q = zext i32 %q.32 to i64
  %begin = call i64 @bound(i64 %n, i64 %total, i64 %p)
  %end = call i64 @bound(i64 %n, i64 %total, i64 %q)
  %rc = call i32 %fn(ptr %ctx, ptr %closure, i64 %begin, i64 %end)
  %bad = icmp ne i32 %rc, 0
  br i1 %bad, label %report, label %ok
report:
  %status.p = getelementptr %pool, ptr %pool, i32 0, i32 18
  %set = cmpxchg ptr %status.p, i32 0, i32 %rc seq_cst seq_cst
  br label %ok
ok:
  %ran1 = add i32 %ran, %count
  br label %next
out:
  ret i32 %ran
}

; Goes through the ranges of the other workers, from the next one on; the number of parts run.
define internal i32 @run_others(ptr %pool, i64 %job, i32 %index, i32 %how) nounwind {
entry:
  %job.32 = trunc i64 %job to i32
  %workers = and i32 %job.32, 1023
  br label %next
next:
  %at = phi i32 [ %index, %entry ], [ %range, %run ]
  %ran = phi i32 [ 0, %entry ], [ %ran1, %run ]
  %up = add i32 %at, 1
  %wrap = icmp uge i32 %up, %workers
  %range = select i1 %wrap, i32 0, i32 %up
  %round = icmp eq i32 %range, %index
  br i1 %round, label %out, label %run
run:
  %more = call i32 @run_range(ptr %pool, i64 %job, i32 %range, i32 %how)
  %ran1 = add i32 %ran, %more
  br label %next
out:
  ret i32 %ran
}
"""

_PARALLEL_FOR = """
; The caller's part of the published loop: works, then waits for what others have claimed.
define internal void @lead(ptr %pool, i64 %job, i32 %total, i64 %t0) nounwind {
entry:
  %done.p = getelementptr %pool, ptr %pool, i32 0, i32 14
  %asleep.p = getelementptr %pool, ptr %pool, i32 0, i32 16
  %own = call i32 @run_range(ptr %pool, i64 %job, i32 0, i32 0)
  %d0 = load atomic i32, ptr %done.p acquire, align 4
  %sum0 = add i32 %d0, %own
  %all0 = icmp eq i32 %sum0, %total
  br i1 %all0, label %out, label %absent
absent:
  %more = call i32 @run_others(ptr %pool, i64 %job, i32 0, i32 1)
  %left.alone = icmp sgt i32 %more, 0
  br i1 %left.alone, label %note, label %await
note:
  call void @note_place(ptr %pool, i64 %job)
  br label %await
await:
  %own1 = add i32 %own, %more
  %due1 = sub i32 %total, %own1
  %in.time = call i1 @await_done(ptr %pool, i32 %due1, i32 $GRACE)
  br i1 %in.time, label %out, label %late
late:
  %rest = call i32 @run_others(ptr %pool, i64 %job, i32 0, i32 2)
  %due = sub i32 %due1, %rest
  %spin.p = getelementptr %pool, ptr %pool, i32 0, i32 3
  %spin = load atomic i32, ptr %spin.p monotonic, align 4
  %t1 = call i64 @wb_clock()
  %pauses = call i32 @llvm.smin.i32(i32 %spin, i32 $CALLER)
  %awake = call i1 @await_done(ptr %pool, i32 %due, i32 %pauses)
  br i1 %awake, label %out, label %doze
doze:
  store atomic i32 %due, ptr %asleep.p seq_cst, align 4
  br label %check
check:
  %d = load atomic i32, ptr %done.p seq_cst, align 4
  %all = icmp eq i32 %d, %due
  br i1 %all, label %woken, label %sleep
sleep:
  call void @futex_wait(ptr %done.p, i32 %d)
  br label %check
woken:
  call void @judge_wait(ptr %pool, i64 %job, i64 %t0, i64 %t1)
  br label %out
out:
  ret void
}

; After a loop whose caller slept: it worked from t0 to t1 and has waited since. If it had been faster alone, then a
; worker lost its processor in the middle, and may again: loops run serially for as long as the wait was. If loops have
; run side by side for less than twice as long before, then they gain nothing by it: twice that, up to 32 times.
define internal void @judge_wait(ptr %pool, i64 %job, i64 %t0, i64 %t1) nounwind {
  %t2 = call i64 @wb_clock()
  %wait.0 = sub i64 %t2, %t1
  %wait = call i64 @llvm.smin.i64(i64 %wait.0, i64 2147483648)
  %work = sub i64 %t1, %t0
  %workers = and i64 %job, 1023
  %alone = mul i64 %work, %workers
  %stalled = icmp sgt i64 %wait, %alone
  br i1 %stalled, label %retreat, label %out
retreat:
  %until.p = getelementptr %pool, ptr %pool, i32 0, i32 10
  %until = load atomic i64, ptr %until.p monotonic, align 8
  %gap = sub i64 %t1, %until
  %long = shl i64 %wait, 1
  %rare = icmp sgt i64 %gap, %long
  %backoff.p = getelementptr %pool, ptr %pool, i32 0, i32 9
  %backoff = load i32, ptr %backoff.p
  %up = add i32 %backoff, 1
  %up1 = call i32 @llvm.smin.i32(i32 %up, i32 5)
  %backoff1 = select i1 %rare, i32 0, i32 %up1
  store i32 %backoff1, ptr %backoff.p
  %shift = zext i32 %backoff1 to i64
  %rest = shl i64 %wait, %shift
  %until1 = add i64 %t2, %rest
  store atomic i64 %until1, ptr %until.p monotonic, align 8
  br label %out
out:
  ret void
}

; Spins until the workers have done `due` parts: false if they had not after so many pauses.
define internal i1 @await_done(ptr %pool, i32 %due, i32 %pauses) nounwind {
entry:
  %done.p = getelementptr %pool, ptr %pool, i32 0, i32 14
  br label %wait
wait:
  %left = phi i32 [ %pauses, %entry ], [ %left1, %again ]
  %d = load atomic i32, ptr %done.p acquire, align 4
  %all = icmp eq i32 %d, %due
  br i1 %all, label %out, label %more
more:
  %left1 = sub i32 %left, 1
  %tired = icmp sle i32 %left, 0
  br i1 %tired, label %out, label %again
again:
  call void @relax(i32 %left)
  br label %wait
out:
  ret i1 %all
}

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
  %asked = call i32 @llvm.smin.i32(i32 %want, i32 %have)
  %most = select i1 %all, i32 %have, i32 %asked
  %one = icmp slt i32 %most, 2
  br i1 %one, label %serial, label %time
time:
  %until.p = getelementptr %pool, ptr %pool, i32 0, i32 10
  %until = load atomic i64, ptr %until.p monotonic, align 8
  %t0 = call i64 @wb_clock()
  %ahead = sub i64 %until, %t0
  %soon = icmp ult i64 %ahead, 137438953472 ; 2^37: not if the clock was set back
  br i1 %soon, label %serial, label %trylock
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
  %m1 = call i32 @llvm.smin.i32(i32 %started, i32 %most)
  %m2 = sext i32 %m1 to i64
  %k = call i64 @llvm.smin.i64(i64 %n, i64 %m2)
  %workers = trunc i64 %k to i32
  %each = udiv i64 %n, %k
  %parts.64 = call i64 @llvm.umin.i64(i64 %each, i64 $PARTS)
  %parts = trunc i64 %parts.64 to i32
  %total = mul i32 %parts, %workers
  %fn.p = getelementptr %pool, ptr %pool, i32 0, i32 4
  store atomic ptr %fn, ptr %fn.p monotonic, align 8
  %closure.p = getelementptr %pool, ptr %pool, i32 0, i32 5
  store atomic ptr %closure, ptr %closure.p monotonic, align 8
  %ctx.p = getelementptr %pool, ptr %pool, i32 0, i32 6
  store atomic ptr %ctx, ptr %ctx.p monotonic, align 8
  %n.p = getelementptr %pool, ptr %pool, i32 0, i32 7
  store atomic i64 %n, ptr %n.p monotonic, align 8
  %parts.p = getelementptr %pool, ptr %pool, i32 0, i32 8
  %order0 = load atomic i32, ptr %parts.p monotonic, align 4
  %turn0 = and i32 %order0, $BACK
  %turn1 = xor i32 %turn0, $BACK
  %flags.p = getelementptr %context, ptr %ctx, i32 0, i32 1
  %flags = load atomic i32, ptr %flags.p monotonic, align 4
  %either = and i32 %flags, $EITHER
  %may = icmp ne i32 %either, 0
  %turn = select i1 %may, i32 %turn1, i32 0
  %order = or i32 %parts, %turn
  store atomic i32 %order, ptr %parts.p monotonic, align 4
  %status.p = getelementptr %pool, ptr %pool, i32 0, i32 18
  store atomic i32 0, ptr %status.p monotonic, align 4
  %asleep.p = getelementptr %pool, ptr %pool, i32 0, i32 16
  store atomic i32 0, ptr %asleep.p monotonic, align 4
  %done.p = getelementptr %pool, ptr %pool, i32 0, i32 14
  store atomic i32 0, ptr %done.p monotonic, align 4
  %sleeps.p = getelementptr %pool, ptr %pool, i32 0, i32 12
  %sleeps0 = load atomic i32, ptr %sleeps.p seq_cst, align 4
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %old = load atomic i64, ptr %job.p monotonic, align 8
  %counter = and i64 %old, -1024
  %counter1 = add i64 %counter, 1024
  %job = or i64 %counter1, %k
  store atomic i64 %job, ptr %job.p seq_cst, align 8
  ; whoever counted itself before `job` changed is woken now or does not fall asleep, and needs no other wake-up
  %sleeps1 = load atomic i32, ptr %sleeps.p seq_cst, align 4
  %woken.p = getelementptr %pool, ptr %pool, i32 0, i32 19
  %woken = load i32, ptr %woken.p
  %anyone = icmp ne i32 %sleeps1, %woken
  br i1 %anyone, label %rouse, label %work
rouse:
  store i32 %sleeps0, ptr %woken.p
  call void @futex_wake(ptr %job.p)
  br label %work
work:
  call void @lead(ptr %pool, i64 %job, i32 %total, i64 %t0)
  %result = load atomic i32, ptr %status.p acquire, align 4
  store atomic i32 0, ptr %pool release, align 4
  ret i32 %result
}

declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.umin.i64(i64, i64)
"""


def pool_ir(target_triple: str) -> str:
    """LLVM IR text of the thread pool for a machine.

    Args:
        target_triple: an LLVM triple, such as `x86_64-unknown-linux-gnu`.

    Returns:
        A module that defines the functions in `EXPORTS` and has no undefined symbols.
    """
    machine = machine_of(target_triple)
    head = f'target triple = "{target_triple}"\n'
    if machine is None:
        return head + _SERIAL + _NO_POOL
    text = _TYPES + _SERIAL + SYSTEM + _CLAIM + PLACE + WORKER + CREATE + _PARALLEL_FOR
    numbers = {
        "POOLBYTES": POOL_BYTES, "MAXTHREADS": MAX_THREADS, "WIPE": _WIPE_ON_FORK,
        "PARTS": _PARTS, "GRACE": _GRACE, "SHORT": _SHORT_SPIN, "CALLER": _CALLER_SPIN, "FRESH": _FRESH, "BACK": _BACK,
        "EITHER": EITHER_WAY,
    }  # fmt: skip
    return head + string.Template(text).substitute({**machine, **numbers})
