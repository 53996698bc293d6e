"""The parts of an exported model's C interface that are the same for all models, as templates of LLVM IR."""

from __future__ import annotations

# %own: bytes of the block to unmap (0: the caller's memory), bytes of the arena's own mapping (0: none).
COMMON = """
%tensor = type { ptr, i32, i32, i32, i32, ptr, ptr, i64 }
%context = type $CONTEXT
%own = type { %context, i64, i64 }
; name, element type, shape, axes, DLPack type, offset
%row = type { ptr, ptr, ptr, i32, i32, i64 }

declare i32 @$ENTRY(ptr, ptr, i32)

; Pointers in data, which the loader relocates: the constants may be further away than code reaches.
@constants.at = internal global ptr $CONSTANTS
@params.at = internal global ptr $PARAMSAT
@no.text = internal constant [1 x i8] zeroinitializer
@no.context = internal constant [11 x i8] c"no context\\00"

; Fills a descriptor of argument `index`.
define internal void @wbm_describe(ptr %t, i32 %index, ptr %data) noinline nounwind {
  %row = getelementptr [1 x %row], ptr @rows, i32 0, i32 %index
  %shape.p = getelementptr %row, ptr %row, i32 0, i32 2
  %shape = load ptr, ptr %shape.p
  %n.p = getelementptr %row, ptr %row, i32 0, i32 3
  %n = load i32, ptr %n.p
  %kind.p = getelementptr %row, ptr %row, i32 0, i32 4
  %kind = load i32, ptr %kind.p
  store %tensor zeroinitializer, ptr %t
  store ptr %data, ptr %t
  %device = getelementptr %tensor, ptr %t, i32 0, i32 1
  store i32 1, ptr %device
  %n.t = getelementptr %tensor, ptr %t, i32 0, i32 3
  store i32 %n, ptr %n.t
  %kind.t = getelementptr %tensor, ptr %t, i32 0, i32 4
  store i32 %kind, ptr %kind.t
  %shape.t = getelementptr %tensor, ptr %t, i32 0, i32 5
  store ptr %shape, ptr %shape.t
  ret void
}

; Makes a context in zeroed or used memory of $FIXED bytes, aligned to 64: a copy of the parameters, no arena.
define internal void @wbm_fill(ptr %c) noinline nounwind {
entry:
  br label %clear
clear:
  %k = phi i64 [ 0, %entry ], [ %k1, %clear ]
  %word = getelementptr i64, ptr %c, i64 %k
  store i64 0, ptr %word
  %k1 = add i64 %k, 1
  %on = icmp ult i64 %k1, $WORDS
  br i1 %on, label %clear, label %set
set:
  store i32 $ABI, ptr %c
  %constants.p = getelementptr %context, ptr %c, i32 0, i32 4
  %constants = load ptr, ptr @constants.at
  store ptr %constants, ptr %constants.p
  %loop.p = getelementptr %context, ptr %c, i32 0, i32 6
  store ptr @wbm_serial, ptr %loop.p
  %some = icmp ne i64 $PARAMS, 0
  br i1 %some, label %params, label %done
params:
  %params.p = getelementptr %context, ptr %c, i32 0, i32 5
  %to = getelementptr i8, ptr %c, i64 $HEADER
  store ptr %to, ptr %params.p
  %from = load ptr, ptr @params.at
  br label %copy
copy:
  %i = phi i64 [ 0, %params ], [ %i1, %copy ]
  %f = getelementptr i8, ptr %from, i64 %i
  %t = getelementptr i8, ptr %to, i64 %i
  %b = load i8, ptr %f
  store i8 %b, ptr %t
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, $PARAMS
  br i1 %more, label %copy, label %done
done:
  ret void
}

define internal i32 @wbm_serial(ptr %ctx, ptr %fn, ptr %closure, i64 %n) nounwind {
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %run, label %none
run:
  %rc = call i32 %fn(ptr %ctx, ptr %closure, i64 0, i64 %n)
  ret i32 %rc
none:
  ret i32 0
}

define i64 @wbm_context_bytes() nounwind {
  ret i64 $BLOCK
}

; A context in the caller's memory; what follows the parameters is its arena. Serial.
define ptr @wbm_create_in(ptr %memory, i64 %bytes) nounwind {
entry:
  %at = ptrtoint ptr %memory to i64
  %up = add i64 %at, 63
  %start = and i64 %up, -64
  %lost = sub i64 %start, %at
  %have = sub i64 %bytes, %lost
  %enough = icmp sge i64 %have, $BLOCK
  %given = icmp ne ptr %memory, null
  %good = and i1 %enough, %given
  br i1 %good, label %make, label %none
make:
  %c = inttoptr i64 %start to ptr
  call void @wbm_fill(ptr %c)
  %arena = getelementptr i8, ptr %c, i64 $ARENAAT
  %arena.p = getelementptr %context, ptr %c, i32 0, i32 2
  store ptr %arena, ptr %arena.p
  %rest = sub i64 %have, $ARENAAT
  %size.p = getelementptr %context, ptr %c, i32 0, i32 3
  store i64 %rest, ptr %size.p
  ret ptr %c
none:
  ret ptr null
}

define i32 @wbm_call(ptr %context, ptr %args, i32 %n) nounwind {
entry:
  %none = icmp eq ptr %context, null
  br i1 %none, label %bad, label %call
call:
  %message = getelementptr %context, ptr %context, i32 0, i32 12
  store i8 0, ptr %message
  %status = call i32 @$ENTRY(ptr %context, ptr %args, i32 %n)
  %status.p = getelementptr %context, ptr %context, i32 0, i32 10
  store i32 %status, ptr %status.p
  ret i32 %status
bad:
  ret i32 1
}

define i32 @wbm_shapes(ptr %context, ptr %args, i32 %n) nounwind {
entry:
  %none = icmp eq ptr %context, null
  br i1 %none, label %bad, label %call
call:
  %flags = getelementptr %context, ptr %context, i32 0, i32 1
  store i32 1, ptr %flags
  %status = call i32 @wbm_call(ptr %context, ptr %args, i32 %n)
  store i32 0, ptr %flags
  ret i32 %status
bad:
  ret i32 1
}

define ptr @wbm_error(ptr %context) nounwind {
  %none = icmp eq ptr %context, null
  %message = getelementptr %context, ptr %context, i32 0, i32 12
  %text = select i1 %none, ptr @no.context, ptr %message
  ret ptr %text
}

define i32 @wbm_entry(ptr %context, ptr %args, i32 %n) nounwind {
  %status = call i32 @$ENTRY(ptr %context, ptr %args, i32 %n)
  ret i32 %status
}
"""

QUESTIONS = (
    """
define ptr @wbm_name() nounwind { ret ptr @model.text }
define ptr @wbm_compiler() nounwind { ret ptr @compiler.text }
define i32 @wbm_abi() nounwind { ret i32 $ABI }
define i32 @wbm_num_inputs() nounwind { ret i32 $INPUTS }
define i32 @wbm_num_outputs() nounwind { ret i32 $OUTPUTS }
define i32 @wbm_num_params() nounwind { ret i32 $NPARAMS }
define ptr @wbm_constants() nounwind {
  %at = load ptr, ptr @constants.at
  ret ptr %at
}

; The row of tensor `index` among inputs (0), outputs (1) or parameters (2); the last, empty one if there is none.
define internal ptr @wbm_row(i32 %group, i32 %index) noinline nounwind {
  %is.in = icmp eq i32 %group, 0
  %is.out = icmp eq i32 %group, 1
  %more = select i1 %is.out, i32 $OUTPUTS, i32 $NPARAMS
  %count = select i1 %is.in, i32 $INPUTS, i32 %more
  %late = select i1 %is.out, i32 $INPUTS, i32 $COUNT
  %first = select i1 %is.in, i32 0, i32 %late
  %inside = icmp ult i32 %index, %count
  %at = add i32 %first, %index
  %last = add i32 $COUNT, $NPARAMS
  %number = select i1 %inside, i32 %at, i32 %last
  %row = getelementptr [1 x %row], ptr @rows, i32 0, i32 %number
  ret ptr %row
}
"""
    + "".join(
        f"""
define {kind} @wbm_{group}_{what}(i32 %index) nounwind {{
  %row = call ptr @wbm_row(i32 {number}, i32 %index)
  %p = getelementptr %row, ptr %row, i32 0, i32 {field}
  %v = load {kind}, ptr %p
  ret {kind} %v
}}
"""
        for number, group in enumerate(("input", "output", "param"))
        for what, kind, field in (("name", "ptr", 0), ("dtype", "ptr", 1), ("shape", "ptr", 2), ("ndim", "i32", 3))
    )
    + """
; The address of a mutable parameter in a context; null if there is none.
define ptr @wbm_param(ptr %context, i32 %index) nounwind {
entry:
  %none = icmp eq ptr %context, null
  %inside = icmp ult i32 %index, $NPARAMS
  %not = xor i1 %inside, true
  %bad = or i1 %none, %not
  br i1 %bad, label %no, label %yes
yes:
  %row = call ptr @wbm_row(i32 2, i32 %index)
  %offset.p = getelementptr %row, ptr %row, i32 0, i32 5
  %offset = load i64, ptr %offset.p
  %params.p = getelementptr %context, ptr %context, i32 0, i32 5
  %params = load ptr, ptr %params.p
  %at = getelementptr i8, ptr %params, i64 %offset
  ret ptr %at
no:
  ret ptr null
}
"""
)

FREESTANDING = """
define internal i32 @wbm_call_any(ptr %context, ptr %args, i32 %n) noinline nounwind {
  %status = call i32 @wbm_call(ptr %context, ptr %args, i32 %n)
  ret i32 %status
}
"""
