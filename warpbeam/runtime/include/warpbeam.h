/* Warpbeam binary interface, version 1.
 *
 * Everything that crosses the border between generated code and its host (the Python runtime, a C program, a firmware)
 * is declared here, and nothing else crosses it: generated objects have no undefined symbols. Whatever they need from
 * outside (memory, threads) comes through `wb_ctx`. The header is C11 and also valid C++.
 *
 * Versioning: a field is never moved or reinterpreted within one version; `abi_version` is checked at load.
 */
#ifndef WARPBEAM_H
#define WARPBEAM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WB_ABI_VERSION 1u

/* ctx->flags: the entry writes the shapes of its outputs into their `shape` arrays, computes nothing, touches no data. */
#define WB_QUERY_SHAPES 1u
/* ctx->flags, set by generated code around a call of parallel_for: the loop asks for nothing ahead of time, so that it is
 * as well walked from the back. A hint that parallel_for may ignore; nothing for a host to set. */
#define WB_EITHER_WAY 2u

#define WB_MESSAGE_BYTES 176

/* A tensor. Layout and codes are those of DLPack's DLTensor. Generated code expects compact row-major data. */
typedef struct wb_tensor {
  void* data;          /* may be NULL when the tensor has no elements, and for an output whose shape depends on the data:
                        * the entry then writes shape and data, which stays valid until the context's next call */
  int32_t device_type; /* DLPack device codes: 1 = CPU, 2 = CUDA, ... */
  int32_t device_id;
  int32_t ndim;
  uint8_t code; /* DLPack type code: 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool, 7.. = 8-bit floats */
  uint8_t bits;
  uint16_t lanes;
  int64_t* shape;   /* `ndim` extents; NULL allowed when ndim is 0 */
  int64_t* strides; /* in elements; NULL = compact row-major */
  uint64_t byte_offset;
} wb_tensor;

struct wb_ctx;

/* The body of a parallel loop: runs iterations [begin, end). 0 = ok, anything else fails the loop. */
typedef int32_t (*wb_loop_fn)(struct wb_ctx* ctx, void* closure, int64_t begin, int64_t end);

/* What generated code sees of the world. One context serves one call at a time; calls in parallel use several. */
typedef struct wb_ctx {
  uint32_t abi_version; /* WB_ABI_VERSION */
  uint32_t flags;       /* set by the host: 0 or WB_QUERY_SHAPES */
  void* arena;          /* scratch memory, 64-byte aligned */
  int64_t arena_bytes;
  const void* constants; /* the artefact's constants section, 64-byte aligned */
  void* params;          /* mutable parameters, 64-byte aligned; NULL when the model has none */
  /* Runs fn over [0, n), split statically into at most num_threads ranges. Never NULL. Returns the first non-zero
   * status. May be called from inside fn (it then runs serially). */
  int32_t (*parallel_for)(struct wb_ctx* ctx, wb_loop_fn fn, void* closure, int64_t n);
  void* pool; /* belongs to parallel_for; NULL = serial */
  /* Makes the arena at least `bytes` long; sets arena and arena_bytes. 0 = ok. Its content is kept, though it
   * may move: models whose sizes depend on the data call it in the middle of a run. */
  int32_t (*reserve)(struct wb_ctx* ctx, int64_t bytes);
  void* user;          /* the host's, untouched by generated code */
  int32_t status;      /* the last failing status */
  int32_t num_threads; /* 0 = all the pool has */
  char message[WB_MESSAGE_BYTES]; /* NUL-terminated text of the failure */
} wb_ctx;

/* A model's entry: `args` are the inputs, then the outputs, all allocated by the caller, compact, aligned at least to
 * their element. Re-entrant: keeps no state outside ctx. Non-zero = failure, text in ctx->message. */
typedef int32_t (*wb_entry_fn)(wb_ctx* ctx, wb_tensor** args, int32_t n);

/* A compiled function of a module has the type wb_entry_fn too: `args` are its arguments in order. A number is passed as
 * a tensor without axes: int64 (code 0, bits 64) for an integer, float64 (code 2, bits 64) for a float. It checks number,
 * type, rank, shape and compactness of what it is given.
 *
 * A module that calls out exports a table of addresses, `void* wb_imports[]`; its text `const char wb_module[]` (JSON)
 * lists under "imports" what belongs into each place: {"c": "powf"} a C function, {"packed": true} a function of type
 * wb_call_packed_fn. Who loads the module fills the table before the first call. */

/* A value that crosses to a function called by name. */
#define WB_VALUE_INT 0
#define WB_VALUE_FLOAT 2
#define WB_VALUE_HANDLE 3
#define WB_VALUE_NULL 4
#define WB_VALUE_TENSOR 7 /* as_handle points at a wb_tensor */
#define WB_VALUE_STR 11
typedef struct wb_value {
  union {
    int64_t as_int;
    double as_float;
    void* as_handle;
    const char* as_str;
  } v;
  int32_t code;
  int32_t reserved;
} wb_value;

/* Calls the function registered as `name`. Non-zero = failure, text in ctx->message. */
typedef int32_t (*wb_call_packed_fn)(wb_ctx* ctx, const char* name, const wb_value* args, int32_t n, wb_value* result);

/* A kernel has the type int32_t (wb_ctx*, void* buffer0, void* buffer1, ..., int64_t scalar0, ...): buffers in the
 * order of its parameters, then its scalar parameters. 0 = ok. */

/* The thread pool that comes with each CPU artefact. One per process is enough: any artefact's code serves all. */
void* wb_pool_create(int32_t num_threads, void* pthread_create_address, int32_t spin);
int32_t wb_pool_resize(void* pool, int32_t num_threads); /* returns the new number of threads */
void wb_pool_destroy(void* pool, void* pthread_join_address);
/* Re-initialises `pool` in place in a forked child, where its threads do not exist. */
void wb_pool_reset(void* pool, int32_t num_threads, void* pthread_create_address, int32_t spin);
int32_t wb_pool_parallel_for(wb_ctx* ctx, wb_loop_fn fn, void* closure, int64_t n);
int32_t wb_serial_parallel_for(wb_ctx* ctx, wb_loop_fn fn, void* closure, int64_t n);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* WARPBEAM_H */
