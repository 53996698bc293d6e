"""The part of an exported model's C interface that talks to the system: memory, threads. A template of LLVM IR."""

from __future__ import annotations

HOSTED = """
declare ptr @wb_pool_create(i32, ptr, i32)
declare void @wb_pool_destroy(ptr, ptr)
declare i32 @wb_pool_resize(ptr, i32)
declare i32 @wb_pool_parallel_for(ptr, ptr, ptr, i64)
declare i64 @wb_syscall6(i64, i64, i64, i64, i64, i64, i64)
declare extern_weak i32 @pthread_create(ptr, ptr, ptr, ptr)
declare extern_weak i32 @pthread_join(i64, ptr)

@create.at = internal global ptr @pthread_create
@join.at = internal global ptr @pthread_join
; The pool that all contexts of this library share: lock, number of contexts, pool, bytes of the pool's memory.
@shared = internal global { i32, i32, ptr } zeroinitializer

define internal ptr @wbm_map(i64 %bytes) noinline nounwind {
  %r = call i64 @wb_syscall6(i64 $MMAP, i64 0, i64 %bytes, i64 3, i64 34, i64 -1, i64 0)
  %failed = icmp ugt i64 %r, -4096
  br i1 %failed, label %none, label %ok
ok:
  %big = icmp uge i64 %bytes, 4194304
  br i1 %big, label %advise, label %done
advise: ; MADV_HUGEPAGE
  %a = call i64 @wb_syscall6(i64 $MADVISE, i64 %r, i64 %bytes, i64 14, i64 0, i64 0, i64 0)
  br label %done
done:
  %p = inttoptr i64 %r to ptr
  ret ptr %p
none:
  ret ptr null
}

define internal void @wbm_unmap(ptr %at, i64 %bytes) noinline nounwind {
  %address = ptrtoint ptr %at to i64
  %r = call i64 @wb_syscall6(i64 $MUNMAP, i64 %address, i64 %bytes, i64 0, i64 0, i64 0, i64 0)
  ret void
}

; Processors that this process may use, at least 1.
define internal i32 @wbm_processors() noinline nounwind {
entry:
  %mask = alloca [128 x i64], align 16
  %at = ptrtoint ptr %mask to i64
  %r = call i64 @wb_syscall6(i64 $AFFINITY, i64 0, i64 1024, i64 %at, i64 0, i64 0, i64 0)
  %bad = icmp slt i64 %r, 8
  br i1 %bad, label %one, label %start
start:
  %words = lshr i64 %r, 3
  br label %count
count:
  %i = phi i64 [ 0, %start ], [ %i1, %count ]
  %sum = phi i64 [ 0, %start ], [ %sum1, %count ]
  %p = getelementptr i64, ptr %mask, i64 %i
  %w = load i64, ptr %p
  %bits = call i64 @llvm.ctpop.i64(i64 %w)
  %sum1 = add i64 %sum, %bits
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %words
  br i1 %more, label %count, label %done
done:
  %n = trunc i64 %sum1 to i32
  %some = icmp sgt i32 %n, 0
  %n1 = select i1 %some, i32 %n, i32 1
  ret i32 %n1
one:
  ret i32 1
}
declare i64 @llvm.ctpop.i64(i64)

define internal void @wbm_lock() noinline nounwind {
entry:
  br label %try
try:
  %got = cmpxchg ptr @shared, i32 0, i32 1 seq_cst seq_cst
  %won = extractvalue { i32, i1 } %got, 1
  br i1 %won, label %done, label %wait
wait:
  %r = call i64 @wb_syscall6(i64 $YIELD, i64 0, i64 0, i64 0, i64 0, i64 0, i64 0)
  br label %try
done:
  ret void
}

define internal void @wbm_unlock() nounwind {
  store atomic i32 0, ptr @shared seq_cst, align 4
  ret void
}

; The pool, made for the first context. Null where there are no threads.
define internal ptr @wbm_pool_enter() noinline nounwind {
entry:
  call void @wbm_lock()
  %users.p = getelementptr { i32, i32, ptr }, ptr @shared, i32 0, i32 1
  %pool.p = getelementptr { i32, i32, ptr }, ptr @shared, i32 0, i32 2
  %users = load i32, ptr %users.p
  %users1 = add i32 %users, 1
  store i32 %users1, ptr %users.p
  %first = icmp eq i32 %users, 0
  %create = load ptr, ptr @create.at
  %threads = icmp ne ptr %create, null
  %make = and i1 %first, %threads
  br i1 %make, label %new, label %done
new:
  %n = call i32 @wbm_processors()
  %made = call ptr @wb_pool_create(i32 %n, ptr %create, i32 100000)
  store ptr %made, ptr %pool.p
  br label %done
done:
  %pool = load ptr, ptr %pool.p
  call void @wbm_unlock()
  ret ptr %pool
}

; The last context ends the threads, so that the library can be unloaded.
define internal void @wbm_pool_leave() noinline nounwind {
entry:
  call void @wbm_lock()
  %users.p = getelementptr { i32, i32, ptr }, ptr @shared, i32 0, i32 1
  %pool.p = getelementptr { i32, i32, ptr }, ptr @shared, i32 0, i32 2
  %users = load i32, ptr %users.p
  %users1 = sub i32 %users, 1
  store i32 %users1, ptr %users.p
  %pool = load ptr, ptr %pool.p
  %last = icmp eq i32 %users1, 0
  %some = icmp ne ptr %pool, null
  %end = and i1 %last, %some
  br i1 %end, label %stop, label %done
stop:
  %join = load ptr, ptr @join.at
  call void @wb_pool_destroy(ptr %pool, ptr %join)
  call void @wbm_unmap(ptr %pool, i64 $POOLBYTES)
  store ptr null, ptr %pool.p
  br label %done
done:
  call void @wbm_unlock()
  ret void
}

; A context in memory of its own, serial and without a part in the pool.
define internal ptr @wbm_create_bare() noinline nounwind {
entry:
  %c = call ptr @wbm_map(i64 $BLOCK)
  %none = icmp eq ptr %c, null
  br i1 %none, label %fail, label %fill
fill:
  call void @wbm_fill(ptr %c)
  %bytes.p = getelementptr %own, ptr %c, i32 0, i32 1
  store i64 $BLOCK, ptr %bytes.p
  %arena = getelementptr i8, ptr %c, i64 $ARENAAT
  %some = icmp ne i64 $ARENA, 0
  %start = select i1 %some, ptr %arena, ptr null
  %arena.p = getelementptr %context, ptr %c, i32 0, i32 2
  store ptr %start, ptr %arena.p
  %size.p = getelementptr %context, ptr %c, i32 0, i32 3
  store i64 $ARENA, ptr %size.p
  %reserve.p = getelementptr %context, ptr %c, i32 0, i32 8
  store ptr @wbm_reserve, ptr %reserve.p
  ret ptr %c
fail:
  ret ptr null
}

define internal void @wbm_free(ptr %c) noinline nounwind {
entry:
  %arena.p = getelementptr %context, ptr %c, i32 0, i32 2
  %arena = load ptr, ptr %arena.p
  %mapped.p = getelementptr %own, ptr %c, i32 0, i32 2
  %mapped = load i64, ptr %mapped.p
  %some = icmp ne i64 %mapped, 0
  br i1 %some, label %drop, label %block
drop:
  call void @wbm_unmap(ptr %arena, i64 %mapped)
  br label %block
block:
  %bytes.p = getelementptr %own, ptr %c, i32 0, i32 1
  %bytes = load i64, ptr %bytes.p
  %own = icmp ne i64 %bytes, 0
  br i1 %own, label %free, label %done
free:
  call void @wbm_unmap(ptr %c, i64 %bytes)
  br label %done
done:
  ret void
}

@no.memory = internal constant [14 x i8] c"out of memory\\00"

; ctx->reserve: the arena becomes larger and keeps its content.
define internal i32 @wbm_reserve(ptr %c, i64 %bytes) noinline nounwind {
entry:
  %arena.p = getelementptr %context, ptr %c, i32 0, i32 2
  %arena = load ptr, ptr %arena.p
  %size.p = getelementptr %context, ptr %c, i32 0, i32 3
  %size = load i64, ptr %size.p
  %mapped.p = getelementptr %own, ptr %c, i32 0, i32 2
  %mapped = load i64, ptr %mapped.p
  %fits = icmp sle i64 %bytes, %size
  br i1 %fits, label %good, label %grow
grow:
  %slack = lshr i64 %size, 1
  %half = add i64 %size, %slack
  %more = icmp sgt i64 %half, %bytes
  %want = select i1 %more, i64 %half, i64 %bytes
  %up = add i64 %want, 4095
  %pages = and i64 %up, -4096
  %wrong = icmp slt i64 %up, 0
  br i1 %wrong, label %fail, label %how
how:
  %remap = icmp ne i64 %mapped, 0
  br i1 %remap, label %move, label %fresh
move:
  %address = ptrtoint ptr %arena to i64
  %r = call i64 @wb_syscall6(i64 $MREMAP, i64 %address, i64 %mapped, i64 %pages, i64 1, i64 0, i64 0)
  %failed = icmp ugt i64 %r, -4096
  %moved = inttoptr i64 %r to ptr
  br i1 %failed, label %fail, label %set
fresh:
  %new = call ptr @wbm_map(i64 %pages)
  %none = icmp eq ptr %new, null
  br i1 %none, label %fail, label %keep
keep:
  %any = icmp sgt i64 %size, 0
  br i1 %any, label %copy, label %set
copy:
  %i = phi i64 [ 0, %keep ], [ %i1, %copy ]
  %f = getelementptr i8, ptr %arena, i64 %i
  %t = getelementptr i8, ptr %new, i64 %i
  %w = load i64, ptr %f
  store i64 %w, ptr %t
  %i1 = add i64 %i, 8
  %rest = icmp slt i64 %i1, %size
  br i1 %rest, label %copy, label %set
set:
  %at = phi ptr [ %moved, %move ], [ %new, %keep ], [ %new, %copy ]
  store ptr %at, ptr %arena.p
  store i64 %pages, ptr %size.p
  store i64 %pages, ptr %mapped.p
  br label %good
good:
  ret i32 0
fail:
  %message = getelementptr %context, ptr %c, i32 0, i32 12
  %text = load [14 x i8], ptr @no.memory
  store [14 x i8] %text, ptr %message
  ret i32 1
}

define ptr @wbm_create() nounwind {
entry:
  %c = call ptr @wbm_create_bare()
  %none = icmp eq ptr %c, null
  br i1 %none, label %out, label %threads
threads:
  %pool = call ptr @wbm_pool_enter()
  %pool.p = getelementptr %context, ptr %c, i32 0, i32 7
  store ptr %pool, ptr %pool.p
  %loop.p = getelementptr %context, ptr %c, i32 0, i32 6
  store ptr @wb_pool_parallel_for, ptr %loop.p
  br label %out
out:
  ret ptr %c
}

define void @wbm_destroy(ptr %c) nounwind {
entry:
  %none = icmp eq ptr %c, null
  br i1 %none, label %done, label %look
look: ; a context in the caller's memory has no part in the pool
  %bytes.p = getelementptr %own, ptr %c, i32 0, i32 1
  %bytes = load i64, ptr %bytes.p
  %own = icmp ne i64 %bytes, 0
  br i1 %own, label %free, label %done
free:
  call void @wbm_free(ptr %c)
  call void @wbm_pool_leave()
  br label %done
done:
  ret void
}

; Threads that calls with this context use; 0 = one for each processor. Gives the number that it will be.
define i32 @wbm_set_threads(ptr %c, i32 %n) nounwind {
entry:
  %none = icmp eq ptr %c, null
  br i1 %none, label %one, label %look
look:
  %pool.p = getelementptr %context, ptr %c, i32 0, i32 7
  %pool = load ptr, ptr %pool.p
  %serial = icmp eq ptr %pool, null
  br i1 %serial, label %one, label %set
set:
  %size.p = getelementptr i8, ptr %pool, i64 4
  %size = load atomic i32, ptr %size.p monotonic, align 4
  %most = icmp slt i32 %n, 1
  %less = icmp slt i32 %n, %size
  %some = select i1 %less, i32 %n, i32 %size
  %now = select i1 %most, i32 %size, i32 %some
  %stored = select i1 %most, i32 0, i32 %n
  %want.p = getelementptr %context, ptr %c, i32 0, i32 11
  store i32 %stored, ptr %want.p
  ret i32 %now
one:
  ret i32 1
}

; A call without a context gets one for its time.
define internal i32 @wbm_call_any(ptr %context, ptr %args, i32 %n) noinline nounwind {
entry:
  %none = icmp eq ptr %context, null
  br i1 %none, label %own, label %given
given:
  %s0 = call i32 @wbm_call(ptr %context, ptr %args, i32 %n)
  ret i32 %s0
own:
  %c = call ptr @wbm_create_bare()
  %fail = icmp eq ptr %c, null
  br i1 %fail, label %bad, label %run
run:
  %s1 = call i32 @wbm_call(ptr %c, ptr %args, i32 %n)
  call void @wbm_free(ptr %c)
  ret i32 %s1
bad:
  ret i32 1
}
"""
