/* Buffers and calls of a session of the device server. */
#ifndef WB_CALLS_H
#define WB_CALLS_H

#include "modules.h"

/* ---------------------------------------------------------------------------------------------------------- buffers */

/* u32 count, handles */
static int op_free(session* s, reader* r) {
  for (uint64_t n = get(r, 4); n && !r->bad; --n) {
    uint64_t handle = get(r, 4);
    object* o = NULL;
    for (kind k = BUFFER; k <= BUILTIN && !o; ++k) o = find(s, handle, k);
    if (!o) return r->bad ? BAD_REQUEST : fail(s, NOT_FOUND, "there is no such object");
    release(s, o);
  }
  return r->bad ? BAD_REQUEST : OK;
}

/* u64 bytes -> u32 handle; the memory is zero and aligned to 64 */
static int op_alloc(session* s, reader* r) {
  object* o;
  uint64_t size = get(r, 8);
  if (r->bad) return BAD_REQUEST;
  uint32_t handle = new_buffer(s, size, &o);
  if (!handle) return fail(s, TOO_LARGE, "no memory for %llu bytes on the device", (unsigned long long)size);
  put(s, handle, 4);
  return OK;
}

static int outside(const object* o, uint64_t offset, uint64_t size) {
  return offset > o->size || size > o->size - offset;
}

/* u32 buffer, u64 offset, bytes */
static int op_copy_to(session* s, reader* r) {
  object* o = find(s, get(r, 4), BUFFER);
  uint64_t offset = get(r, 8), size = get(r, 4);
  const uint8_t* data = take(r, size);
  if (r->bad || r->at != r->end) return BAD_REQUEST;
  if (!o || outside(o, offset, size))
    return fail(s, NOT_FOUND, o ? "that is outside of the buffer" : "there is no such buffer");
  if (size) memcpy(o->data + offset, data, (size_t)size);
  return OK;
}

/* u32 buffer, u64 offset, u32 count -> bytes */
static int op_copy_from(session* s, reader* r) {
  object* o = find(s, get(r, 4), BUFFER);
  uint64_t offset = get(r, 8), size = get(r, 4);
  if (r->bad || size > MAX_PAYLOAD / 2) return BAD_REQUEST;
  if (!o || outside(o, offset, size))
    return fail(s, NOT_FOUND, o ? "that is outside of the buffer" : "there is no such buffer");
  put(s, size, 4);
  put_bytes(s, size ? o->data + offset : NULL, (size_t)size);
  return OK;
}

/* ------------------------------------------------------------------------------------------------------------ calls */

typedef struct call {
  object* function;
  uint32_t n;
  wb_value* values;
  wb_tensor *tensors, **table;
  int64_t *dims, *cells;
  char* texts;
  uint32_t* handles;
} call;

static void call_end(call* c) {
  free(c->values), free(c->tensors), free(c->table), free(c->dims), free(c->cells), free(c->texts), free(c->handles);
}

/* Bytes of a tensor; UINT64_MAX where that makes no sense. */
static uint64_t tensor_bytes(const wb_tensor* t) {
  uint64_t size = (uint64_t)(t->bits + 7) / 8 * t->lanes;
  int empty = 0;
  for (int32_t i = 0; i < t->ndim; ++i) {
    if (t->shape[i] < 0) return UINT64_MAX;
    empty |= !t->shape[i];
  }
  if (empty) return 0;
  for (int32_t i = 0; i < t->ndim; ++i) {
    if (size > UINT64_MAX / 2 / (uint64_t)t->shape[i]) return UINT64_MAX;
    size *= (uint64_t)t->shape[i];
  }
  return size;
}

/* u32 buffer (0: the call finds memory), u64 offset, u8 code, u8 bits, u16 lanes, u32 axes, i64 extents */
static int read_tensor(session* s, reader* r, wb_tensor* t, int64_t** dims, uint32_t* handle) {
  *handle = (uint32_t)get(r, 4);
  uint64_t offset = get(r, 8);
  t->device_type = 1;
  t->code = (uint8_t)get(r, 1);
  t->bits = (uint8_t)get(r, 1);
  t->lanes = (uint16_t)get(r, 2);
  uint64_t axes = get(r, 4);
  if (r->bad || axes > MAX_AXES || axes > (uint64_t)(r->end - r->at) / 8 || !t->bits || !t->lanes) return BAD_REQUEST;
  t->ndim = (int32_t)axes;
  t->shape = *dims;
  for (uint64_t i = 0; i < axes; ++i) *(*dims)++ = (int64_t)get(r, 8);
  if (!*handle) return OK;
  object* o = find(s, *handle, BUFFER);
  if (!o) return fail(s, NOT_FOUND, "there is no such buffer");
  uint64_t size = tensor_bytes(t), element = (uint64_t)(t->bits + 7) / 8;
  if (size == UINT64_MAX || outside(o, offset, size) || offset % (element < 8 ? element : 8))
    return fail(s, BAD_REQUEST, "the tensor does not fit into its buffer of %llu bytes", (unsigned long long)o->size);
  t->data = o->data + offset;
  return OK;
}

/* u8 code (as in wb_value), value. A number becomes a tensor too, which compiled functions take. */
static int read_value(session* s, reader* r, call* c, uint32_t i, int64_t** dims, char** text) {
  wb_value* v = &c->values[i];
  wb_tensor* t = &c->tensors[i];
  v->code = (int32_t)get(r, 1);
  t->device_type = 1;
  t->bits = 64;
  t->lanes = 1;
  t->data = &c->cells[i];
  t->shape = *dims;
  c->table[i] = t;
  if (v->code == WB_VALUE_INT) {
    v->v.as_int = c->cells[i] = (int64_t)get(r, 8);
  } else if (v->code == WB_VALUE_FLOAT) {
    v->v.as_float = get_double(r);
    memcpy(&c->cells[i], &v->v.as_float, sizeof(double));
    t->code = 2;
  } else if (v->code == WB_VALUE_STR) {
    uint64_t room = (uint64_t)(r->end - r->at);
    get_text(r, *text, (size_t)room + 1);
    v->v.as_str = *text;
    *text += strlen(*text) + 1;
  } else if (v->code == WB_VALUE_TENSOR) {
    t->data = NULL;
    v->v.as_handle = t;
    return read_tensor(s, r, t, dims, &c->handles[i]);
  } else if (v->code != WB_VALUE_NULL) {
    return BAD_REQUEST;
  }
  return r->bad ? BAD_REQUEST : OK;
}

/* u32 n, n values; they must end the request. */
static int read_call(session* s, reader* r, uint64_t function, call* c) {
  size_t left = (size_t)(r->end - r->at);
  c->function = find(s, function, FUNCTION);
  if (!c->function) c->function = find(s, function, BUILTIN);
  uint64_t n = get(r, 4);
  if (r->bad || n > left) return BAD_REQUEST;
  if (!c->function) return fail(s, NOT_FOUND, "there is no such function");
  size_t some = (size_t)n + 1;
  c->n = (uint32_t)n;
  c->values = calloc(some, sizeof *c->values);
  c->tensors = calloc(some, sizeof *c->tensors);
  c->table = calloc(some, sizeof *c->table);
  c->cells = calloc(some, sizeof *c->cells);
  c->handles = calloc(some, sizeof *c->handles);
  c->dims = calloc(left / 8 + 1, sizeof *c->dims);
  c->texts = calloc(left + 1, 1);
  if (!c->values || !c->tensors || !c->table || !c->cells || !c->handles || !c->dims || !c->texts)
    return fail(s, TOO_LARGE, "no memory for the call");
  int64_t* dims = c->dims;
  char* text = c->texts;
  for (uint32_t i = 0; i < c->n; ++i) {
    int status = read_value(s, r, c, i, &dims, &text);
    if (status) return status;
  }
  return r->at == r->end ? OK : BAD_REQUEST;
}

/* Calls once; `times` in a row where it is compiled code. */
static int run(session* s, call* c, uint32_t flags, uint64_t times, wb_value* result) {
  module* m = c->function->module;
  wb_ctx* ctx = &s->ctx;
  int32_t status = 0;
  ctx->message[0] = 0;
  ctx->flags = flags;
  ctx->constants = m ? m->constants : NULL;
  ctx->params = m ? m->params : NULL;
  if (m && m->arena > ctx->arena_bytes) status = reserve(ctx, m->arena);
  for (uint64_t k = 0; k < times && !status; ++k) {
    if (c->function->kind == FUNCTION)
      status = c->function->entry(ctx, c->table, (int32_t)c->n);
    else
      status = c->function->builtin(ctx, c->values, (int32_t)c->n, result);
  }
  ctx->flags = 0;
  ctx->message[WB_MESSAGE_BYTES - 1] = 0;
  return status ? fail(s, CALL_FAILED, "%s", ctx->message[0] ? ctx->message : "no message") : OK;
}

/* u32 function, u32 flags, arguments -> u8 code and value of the result, for each argument u32 buffer, u32 axes,
 * extents. A tensor without a buffer gets one with what the call found. */
static int op_call(session* s, reader* r) {
  call c = {0};
  wb_value result = {.code = WB_VALUE_NULL};
  uint64_t function = get(r, 4), flags = get(r, 4);
  int status = flags & ~(uint64_t)WB_QUERY_SHAPES ? BAD_REQUEST : read_call(s, r, function, &c);
  if (!status) status = run(s, &c, (uint32_t)flags, 1, &result);
  if (!status) {
    put(s, (uint64_t)result.code, 1);
    put(s, (uint64_t)result.v.as_int, 8);
    put(s, c.n, 4);
  }
  for (uint32_t i = 0; i < c.n && !status; ++i) {
    wb_tensor* t = &c.tensors[i];
    object* o;
    if (!c.handles[i] && c.values[i].code == WB_VALUE_TENSOR && t->data) {
      uint64_t size = tensor_bytes(t);
      c.handles[i] = size == UINT64_MAX ? 0 : new_buffer(s, size, &o);
      if (!c.handles[i])
        status = fail(s, TOO_LARGE, "no memory for an output of the call");
      else if (size)
        memcpy(o->data, (uint8_t*)t->data + t->byte_offset, (size_t)size);
    }
    if (status) break;
    put(s, c.handles[i], 4);
    put(s, (uint64_t)t->ndim, 4);
    for (int32_t k = 0; k < t->ndim; ++k) put(s, (uint64_t)t->shape[k], 8);
  }
  call_end(&c);
  return status;
}

/* Overwrites so many bytes, so that caches hold nothing of the arguments. */
static int flush_caches(session* s, uint64_t bytes, volatile uint8_t** trash) {
  if (bytes && !*trash && (no_room(s, bytes) || !(*trash = calloc(1, (size_t)bytes))))
    return fail(s, TOO_LARGE, "no memory for %llu bytes to flush caches with", (unsigned long long)bytes);
  for (uint64_t i = 0; i < bytes; ++i) (*trash)[i]++;
  return OK;
}

static void rest(uint64_t ms) {
  struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
  while (nanosleep(&t, &t) && errno == EINTR) continue;
}

/* u32 function, number, repeat, min_repeat_ms, limit_zero_time_iterations, cooldown_interval_ms, repeats_to_cooldown,
 * u64 cache_flush_bytes, arguments -> u64 number, u32 repeat, f64 seconds of one call for each measurement */
static int op_time(session* s, reader* r) {
  call c = {0};
  volatile uint8_t* trash = NULL;
  wb_value result = {.code = WB_VALUE_NULL};
  uint64_t function = get(r, 4), number = get(r, 4), repeat = get(r, 4), least = get(r, 4), zeros = get(r, 4);
  uint64_t pause = get(r, 4), pauses = get(r, 4), flush = get(r, 8), zero = 0;
  int bad = r->bad || !number || !repeat || repeat > MAX_PAYLOAD / 16 || !pauses;
  int status = bad ? BAD_REQUEST : read_call(s, r, function, &c);
  if (!status) status = run(s, &c, 0, 1, &result); /* does not count */
  double* seconds = status ? NULL : calloc((size_t)repeat, sizeof *seconds);
  if (!status && !seconds) status = fail(s, TOO_LARGE, "no memory for %llu measurements", (unsigned long long)repeat);
  for (uint64_t i = 0; i < repeat && !status; ++i) {
    for (;;) {
      if ((status = flush_caches(s, flush, &trash))) break;
      int64_t start = now_ns();
      if ((status = run(s, &c, 0, number, &result))) break;
      double took = (double)(now_ns() - start) * 1e-9;
      zero += took <= 0;
      seconds[i] = took / (double)number;
      if (took * 1e3 >= (double)least || zero >= zeros) break;
      double want = (double)least / 1e3 / (seconds[i] > 1e-9 ? seconds[i] : 1e-9) + 1,
             grown = (double)number * 1.618 + 1;
      number = (uint64_t)(want > grown ? want : grown);
    }
    if (pause && (i + 1) % pauses == 0) rest(pause);
  }
  if (!status) {
    put(s, number, 8);
    put(s, repeat, 4);
    for (uint64_t i = 0; i < repeat; ++i) put_double(s, seconds[i]);
  }
  free(seconds);
  free((void*)(uintptr_t)trash);
  call_end(&c);
  return status;
}

#endif /* WB_CALLS_H */
