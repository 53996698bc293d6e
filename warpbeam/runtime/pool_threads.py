"""The threads of the pool, as LLVM IR text for `pool_ll`: what a worker does, how threads start and stop."""

from __future__ import annotations

WORKER = """
; Tells the caller that `ran` parts are done.
define internal void @report(ptr %pool, i32 %ran) nounwind {
  %some = icmp sgt i32 %ran, 0
  br i1 %some, label %count, label %out
count:
  %done.p = getelementptr %pool, ptr %pool, i32 0, i32 14
  %before = atomicrmw add ptr %done.p, i32 %ran seq_cst
  %now = add i32 %before, %ran
  %asleep.p = getelementptr %pool, ptr %pool, i32 0, i32 16
  %asleep = load atomic i32, ptr %asleep.p seq_cst, align 4
  %last = icmp eq i32 %asleep, %now
  br i1 %last, label %rouse, label %out
rouse:
  call void @futex_wake(ptr %done.p)
  br label %out
out:
  ret void
}

; One pause; from time to time lets another thread have the processor, perhaps the one that is waited for.
define internal void @relax(i32 %left) nounwind {
  %low = and i32 %left, 255
  %turn = icmp eq i32 %low, 128
  br i1 %turn, label %yield, label %spin
yield:
  %r = call i64 @wb_syscall6(i64 $YIELD, i64 0, i64 0, i64 0, i64 0, i64 0, i64 0)
  ret void
spin:
  call void @pause()
  ret void
}

; Waits for another loop than `seen`, at most `pauses`: the number of pauses left, 0 if none came.
define internal i32 @watch(ptr %pool, i64 %seen, i32 %pauses) nounwind {
entry:
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  br label %spin
spin:
  %left = phi i32 [ %pauses, %entry ], [ %left1, %rest ]
  %none = icmp sle i32 %left, 0
  br i1 %none, label %out, label %look
look:
  %now = load atomic i64, ptr %job.p acquire, align 8
  %new = icmp ne i64 %now, %seen
  br i1 %new, label %out, label %again
again:
  %left1 = sub i32 %left, 1
  %low = and i32 %left, 255
  %turn = icmp eq i32 %low, 128
  br i1 %turn, label %aside, label %rest
aside:
  call void @step_aside(ptr %pool, i64 %seen)
  br label %rest
rest:
  call void @relax(i32 %left)
  br label %spin
out:
  ret i32 %left
}

define internal void @park(ptr %pool, i64 %seen) nounwind {
entry:
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %sleeps.p = getelementptr %pool, ptr %pool, i32 0, i32 12
  %seen.32 = trunc i64 %seen to i32
  br label %sleep
sleep:
  %s0 = atomicrmw add ptr %sleeps.p, i32 1 seq_cst
  call void @futex_wait(ptr %job.p, i32 %seen.32)
  %now = load atomic i64, ptr %job.p acquire, align 8
  %new = icmp ne i64 %now, %seen
  br i1 %new, label %out, label %sleep
out:
  ret void
}

define internal ptr @worker(ptr %slot) nounwind {
entry:
  %pool = load ptr, ptr %slot
  %index.p = getelementptr %slot, ptr %slot, i32 0, i32 1
  %index = load i32, ptr %index.p
  %first.p = getelementptr %slot, ptr %slot, i32 0, i32 2
  %first = load i64, ptr %first.p
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %stop.p = getelementptr %pool, ptr %pool, i32 0, i32 15
  %spin.p = getelementptr %pool, ptr %pool, i32 0, i32 3
  %spin = load atomic i32, ptr %spin.p monotonic, align 4
  %floor = call i32 @llvm.smin.i32(i32 %spin, i32 $SHORT)
  %grace = call i32 @llvm.smin.i32(i32 %spin, i32 $GRACE)
  br label %await
await:
  ; `budget`: how long this worker spins now, `left`: what it has not yet spun in vain
  %seen = phi i64 [ %first, %entry ], [ %job, %judge ]
  %budget = phi i32 [ %spin, %entry ], [ %budget2, %judge ]
  %left = phi i32 [ %spin, %entry ], [ %left2, %judge ]
  %soon = call i32 @watch(ptr %pool, i64 %seen, i32 %grace)
  %came0 = icmp sgt i32 %soon, 0
  br i1 %came0, label %go, label %help
help:
  ; the loop may still go on: its caller or another worker may have lost its processor
  %more = call i32 @help(ptr %pool, i64 %seen, i32 %index)
  call void @report(ptr %pool, i32 %more)
  %later = call i32 @watch(ptr %pool, i64 %seen, i32 %left)
  %came1 = icmp sgt i32 %later, 0
  br i1 %came1, label %go, label %park
park:
  %half = lshr i32 %budget, 1
  %budget.p = call i32 @llvm.smax.i32(i32 %half, i32 %floor)
  call void @park(ptr %pool, i64 %seen)
  br label %go
go:
  %budget1 = phi i32 [ %budget, %await ], [ %budget, %help ], [ %budget.p, %park ]
  %left1 = phi i32 [ %left, %await ], [ %later, %help ], [ %budget.p, %park ]
  %job = load atomic i64, ptr %job.p acquire, align 8
  %stop = load atomic i32, ptr %stop.p acquire, align 4
  %stopped = icmp ne i32 %stop, 0
  br i1 %stopped, label %leave, label %choose
choose:
  %job.32 = trunc i64 %job to i32
  %workers = and i32 %job.32, 1023
  %mine = icmp ult i32 %index, %workers
  br i1 %mine, label %work, label %judge
work:
  %ran.w = call i32 @run_range(ptr %pool, i64 %job, i32 %index, i32 0)
  call void @report(ptr %pool, i32 %ran.w)
  br label %judge
judge:
  %ran = phi i32 [ 0, %choose ], [ %ran.w, %work ]
  %helped = icmp sgt i32 %ran, 0
  %double = shl i32 %budget1, 1
  %more.b = call i32 @llvm.smin.i32(i32 %double, i32 %spin)
  %budget2 = select i1 %helped, i32 %more.b, i32 %budget1
  %less = sub i32 %left1, $GRACE
  %left2 = select i1 %helped, i32 %more.b, i32 %less
  br label %await
leave:
  ret ptr null
}

; Takes what is left of the loop `job`, if this worker takes part in it.
define internal i32 @help(ptr %pool, i64 %job, i32 %index) nounwind {
  %job.32 = trunc i64 %job to i32
  %workers = and i32 %job.32, 1023
  %mine = icmp ult i32 %index, %workers
  br i1 %mine, label %look, label %none
look:
  %ran = call i32 @run_others(ptr %pool, i64 %job, i32 %index, i32 2)
  ret i32 %ran
none:
  ret i32 0
}

declare i32 @llvm.smin.i32(i32, i32)
declare i32 @llvm.smax.i32(i32, i32)
"""

CREATE = """
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
  ; the counter goes on: a claim word of an earlier loop must never look like one of a later
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %job = load i64, ptr %job.p
  store %pool zeroinitializer, ptr %pool
  %next = add i64 %job, 1024
  store i64 %next, ptr %job.p
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
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %job = load atomic i64, ptr %job.p monotonic, align 8
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
  store i64 %job, ptr %first.p
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
  %stop.p = getelementptr %pool, ptr %pool, i32 0, i32 15
  store atomic i32 1, ptr %stop.p seq_cst, align 4
  %job.p = getelementptr %pool, ptr %pool, i32 0, i32 11
  %old = atomicrmw add ptr %job.p, i64 1024 seq_cst
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
