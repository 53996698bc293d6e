"""Where the pool's threads run, as LLVM IR text for `pool_ll`: which worker goes to another processor, and when.

Two threads of a pool on one processor while others are free are a mistake of the system's, which it may take a second
to notice: a worker that waits for loops never seems to want more than it gets. So the caller notes its processor in a
loop to which a worker did not come, and a worker that finds itself on that one while it waits asks for any other. It
may run anywhere again as soon as it is there. A program that says where this thread runs in the microseconds between
is heard; one that says so between the last look and putting back is not, and would have to say it again.
"""

from __future__ import annotations

PLACE = """
; The processor on which this thread runs, or -1.
define internal i32 @processor() noinline nounwind {
  %cpu = alloca i32
  store i32 -1, ptr %cpu
  %at = ptrtoint ptr %cpu to i64
  %r = call i64 @wb_syscall6(i64 $GETCPU, i64 %at, i64 0, i64 0, i64 0, i64 0, i64 0)
  %bad = icmp ne i64 %r, 0
  %got = load i32, ptr %cpu
  %id = select i1 %bad, i32 -1, i32 %got
  ret i32 %id
}

; Notes where the caller runs: the loop's counter << 10 | its processor.
define internal void @note_place(ptr %pool, i64 %job) noinline nounwind {
  %id = call i32 @processor()
  %known = icmp ult i32 %id, 1024
  br i1 %known, label %note, label %out
note:
  %low = zext i32 %id to i64
  %high = and i64 %job, -1024
  %value = or i64 %high, %low
  %place.p = getelementptr %pool, ptr %pool, i32 0, i32 20
  store atomic i64 %value, ptr %place.p monotonic, align 8
  br label %out
out:
  ret void
}

; Goes to another processor if the caller has noted this one in the loop `job` or one of the few before.
define internal void @step_aside(ptr %pool, i64 %job) noinline nounwind {
entry:
  %mask = alloca [128 x i64], align 16
  %seen = alloca [128 x i64], align 16
  %place.p = getelementptr %pool, ptr %pool, i32 0, i32 20
  %place = load atomic i64, ptr %place.p monotonic, align 8
  %when = lshr i64 %place, 10
  %now = lshr i64 %job, 10
  %age = sub i64 %now, %when
  %fresh = icmp ult i64 %age, $FRESH
  %some = icmp ne i64 %place, 0
  %noted = and i1 %fresh, %some
  br i1 %noted, label %compare, label %out
compare:
  %id = call i32 @processor()
  %mine = sext i32 %id to i64
  %theirs = and i64 %place, 1023
  %same = icmp eq i64 %mine, %theirs
  br i1 %same, label %ask, label %out
ask:
  store atomic i64 0, ptr %place.p monotonic, align 8
  %at = ptrtoint ptr %mask to i64
  %size = call i64 @wb_syscall6(i64 $GETMASK, i64 0, i64 1024, i64 %at, i64 0, i64 0, i64 0)
  %bits = shl i64 %size, 3
  %inside = icmp slt i64 %mine, %bits
  br i1 %inside, label %leave, label %out
leave:
  %index = lshr i64 %mine, 6
  %shift = and i64 %mine, 63
  %bit = shl i64 1, %shift
  %others = xor i64 %bit, -1
  %word.p = getelementptr i64, ptr %mask, i64 %index
  %word = load i64, ptr %word.p
  %rest = and i64 %word, %others
  store i64 %rest, ptr %word.p
  ; an error where there is no other processor: then nothing has changed
  %gone = call i64 @wb_syscall6(i64 $SETMASK, i64 0, i64 %size, i64 %at, i64 0, i64 0, i64 0)
  %went = icmp eq i64 %gone, 0
  br i1 %went, label %check, label %out
check:
  ; someone else may have said meanwhile where this thread runs: that stands then
  %seen.at = ptrtoint ptr %seen to i64
  %again = call i64 @wb_syscall6(i64 $GETMASK, i64 0, i64 1024, i64 %seen.at, i64 0, i64 0, i64 0)
  %words = ashr i64 %size, 3
  br label %next
next:
  %i = phi i64 [ 0, %check ], [ %i1, %alike ]
  %done = icmp sge i64 %i, %words
  br i1 %done, label %restore, label %alike
alike:
  %mask.i = getelementptr i64, ptr %mask, i64 %i
  %seen.i = getelementptr i64, ptr %seen, i64 %i
  %want = load i64, ptr %mask.i
  %have = load i64, ptr %seen.i
  %i1 = add i64 %i, 1
  %equal = icmp eq i64 %want, %have
  br i1 %equal, label %next, label %out
restore:
  store i64 %word, ptr %word.p
  %back = call i64 @wb_syscall6(i64 $SETMASK, i64 0, i64 %size, i64 %at, i64 0, i64 0, i64 0)
  br label %out
out:
  ret void
}
"""
