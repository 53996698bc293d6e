/* Sessions of the device server: frames, the table of objects, memory. */
#ifndef WB_SESSION_H
#define WB_SESSION_H

#include "hmac.h"
#include "warpbeam.h"

#define VERSION 1
#define MAX_PAYLOAD (1u << 20)
#define MAX_KEY 64
#define MAX_NAME 255
#define MAX_FILES 256
#define MAX_OBJECTS 65535u
#define MAX_AXES 64
#define MAX_SESSIONS 64
#define NONCE 32
#define HELLO_SECONDS 5
#define FRAME_SECONDS 60

enum {
  OK = 0,
  FAILED = 1,
  NOT_FOUND = 2,
  TOO_LARGE = 3,
  UNSUPPORTED = 4,
  NOT_LOADABLE = 5,
  BAD_REQUEST = 6,
  CALL_FAILED = 7
};
enum { WELCOME = 0, BAD_VERSION = 1, DENIED = 2, OTHER_KEY = 3 };

/* ------------------------------------------------------------------------------------------------ bytes in and out */

typedef struct reader {
  const uint8_t *at, *end;
  int bad; /* something was read beyond the end */
} reader;

static const uint8_t* take(reader* r, uint64_t size) {
  if (r->bad || size > (uint64_t)(r->end - r->at)) {
    r->bad = 1;
    return NULL;
  }
  r->at += size;
  return r->at - size;
}

static uint64_t get(reader* r, int bytes) {
  const uint8_t* p = take(r, (uint64_t)bytes);
  uint64_t value = 0;
  for (int i = 0; p && i < bytes; ++i) value |= (uint64_t)p[i] << (8 * i);
  return value;
}

static double get_double(reader* r) {
  uint64_t bits = get(r, 8);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* A text of at most `room` - 1 bytes and without NUL. */
static void get_text(reader* r, char* text, size_t room) {
  uint64_t size = get(r, 4);
  const uint8_t* p = size < room ? take(r, size) : NULL;
  text[0] = 0;
  if (!p || memchr(p, 0, (size_t)size)) {
    r->bad = 1;
    return;
  }
  memcpy(text, p, (size_t)size);
  text[size] = 0;
}

static void store(uint8_t* to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to[i] = (uint8_t)(value >> (8 * i));
}

/* --------------------------------------------------------------------------------------------------------- sessions */

typedef struct module {
  void* library;
  const char* about;
  uint32_t users; /* handles that need the code */
  const void* constants;
  uint8_t* params;
  uint64_t params_size;
  int64_t arena;
  int is_model, pinned;
} module;

typedef int32_t (*builtin_fn)(wb_ctx* ctx, const wb_value* args, int32_t n, wb_value* result);
typedef enum kind { NOTHING, BUFFER, MODULE, FUNCTION, BUILTIN } kind;

typedef struct object {
  kind kind;
  uint16_t generation;
  uint8_t* data; /* of a buffer */
  void* block;   /* what free() takes; NULL for a view of a module's parameters */
  uint64_t size;
  module* module;
  wb_entry_fn entry;
  builtin_fn builtin;
} object;

typedef struct file {
  char name[MAX_NAME + 1];
  uint32_t number; /* on the disk it is a number: names never meet the file system */
  uint64_t size;
} file;

typedef struct options {
  uint8_t secret[1024];
  size_t secret_size;
  const char *key, *folder;
  uint64_t max_bytes;
  int idle, sessions, silent;
} options;

typedef struct session {
  const options* options;
  int fd, stop;
  uint8_t in_key[MAC], out_key[MAC];
  uint64_t in_count, out_count;
  uint8_t *in, *out; /* size, payload, MAC */
  size_t out_size;
  int out_full;
  int64_t deadline; /* of the session */
  object* objects;
  uint32_t num_objects, room_objects;
  file* files;
  uint32_t num_files, next_file;
  uint64_t stored, held; /* bytes of files, of buffers and scratch memory */
  const char* folder;
  wb_ctx ctx;
  void* arena_block;
} session;

static void put(session* s, uint64_t value, int bytes) {
  if (s->out_size + (size_t)bytes > MAX_PAYLOAD) {
    s->out_full = 1;
    return;
  }
  store(s->out + 4 + s->out_size, value, bytes);
  s->out_size += (size_t)bytes;
}

static void put_double(session* s, double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  put(s, bits, 8);
}

static void put_bytes(session* s, const void* data, size_t size) {
  if (size > MAX_PAYLOAD - s->out_size) {
    s->out_full = 1;
    return;
  }
  if (size) memcpy(s->out + 4 + s->out_size, data, size);
  s->out_size += size;
}

static void put_text(session* s, const char* text) {
  size_t size = strlen(text);
  put(s, size, 4);
  put_bytes(s, text, size);
}

/* Replaces the reply by a failure. */
static int fail(session* s, int status, const char* format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  s->out_size = 0;
  s->out_full = 0;
  put(s, (uint64_t)status, 1);
  put_text(s, text);
  return status;
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Moves all of `size` bytes before the deadline; 0 = done. */
static int transfer(int fd, uint8_t* data, size_t size, int64_t deadline, int sending) {
  while (size) {
    int64_t left = (deadline - now_ns()) / 1000000;
    struct pollfd p = {.fd = fd, .events = sending ? POLLOUT : POLLIN};
    if (left <= 0) return 1;
    int ready = poll(&p, 1, left > 1000000 ? 1000000 : (int)left + 1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return 1;
    if (!ready) continue;
    ssize_t n = sending ? send(fd, data, size, MSG_NOSIGNAL) : recv(fd, data, size, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) continue;
    if (n <= 0) return 1;
    data += n;
    size -= (size_t)n;
  }
  return 0;
}

static int64_t seconds_from_now(int seconds) { return now_ns() + (int64_t)seconds * 1000000000; }

static void frame_mac(const uint8_t* key, uint64_t number, const uint8_t* frame, size_t size, uint8_t out[MAC]) {
  uint8_t count[8];
  hmac h;
  store(count, number, 8);
  hmac_start(&h, key, MAC);
  sha_add(&h.inner, count, 8);
  sha_add(&h.inner, frame, size);
  hmac_end(&h, out);
}

/* The next request's size, its payload in s->in + 4; 0 where the session is over. */
static uint32_t receive(session* s) {
  uint8_t mac[MAC];
  int64_t patience = seconds_from_now(s->options->idle);
  if (transfer(s->fd, s->in, 1, patience < s->deadline ? patience : s->deadline, 0)) return 0;
  int64_t deadline = seconds_from_now(FRAME_SECONDS);
  if (transfer(s->fd, s->in + 1, 3, deadline, 0)) return 0;
  reader head = {s->in, s->in + 4, 0};
  uint32_t size = (uint32_t)get(&head, 4);
  if (!size || size > MAX_PAYLOAD || transfer(s->fd, s->in + 4, (size_t)size + MAC, deadline, 0)) return 0;
  frame_mac(s->in_key, s->in_count++, s->in, (size_t)size + 4, mac);
  return same(mac, s->in + 4 + size, MAC) ? size : 0;
}

static int reply(session* s) {
  store(s->out, s->out_size, 4);
  frame_mac(s->out_key, s->out_count++, s->out, s->out_size + 4, s->out + 4 + s->out_size);
  return transfer(s->fd, s->out, s->out_size + 4 + MAC, seconds_from_now(FRAME_SECONDS), 1);
}

/* ------------------------------------------------------------------------------------------------- memory, objects */

static void* aligned(uint64_t size, void** block) {
  if (size > SIZE_MAX - 64) return NULL;
  *block = malloc((size_t)size + 64);
  return *block ? (uint8_t*)*block + (64 - (uintptr_t)*block % 64) : NULL;
}

static int no_room(session* s, uint64_t bytes) {
  return bytes > s->options->max_bytes || s->held > s->options->max_bytes - bytes;
}

/* ctx->reserve: the scratch memory becomes larger and keeps its content. */
static int32_t reserve(wb_ctx* ctx, int64_t bytes) {
  session* s = ctx->user;
  if (bytes <= ctx->arena_bytes) return bytes < 0;
  uint64_t want = (uint64_t)ctx->arena_bytes + (uint64_t)ctx->arena_bytes / 2;
  void* block = NULL;
  want = want > (uint64_t)bytes ? want : (uint64_t)bytes;
  void* arena = no_room(s, want) ? NULL : aligned(want, &block);
  if (!arena) {
    snprintf(ctx->message, sizeof ctx->message, "out of memory: %lld bytes of scratch memory", (long long)bytes);
    return 1;
  }
  if (ctx->arena_bytes) memcpy(arena, ctx->arena, (size_t)ctx->arena_bytes);
  free(s->arena_block);
  s->held += want - (uint64_t)ctx->arena_bytes;
  s->arena_block = block;
  ctx->arena = arena;
  ctx->arena_bytes = (int64_t)want;
  return 0;
}

static object* find(session* s, uint64_t handle, kind wanted) {
  uint32_t slot = (uint32_t)handle & 0xffff;
  if (!slot || slot > s->num_objects) return NULL;
  object* o = &s->objects[slot - 1];
  return o->kind == wanted && o->generation == handle >> 16 ? o : NULL;
}

/* A free place in the table and its handle; 0 if there is none. */
static uint32_t place(session* s, object** made) {
  uint32_t slot = 0;
  while (slot < s->num_objects && s->objects[slot].kind != NOTHING) ++slot;
  if (slot == MAX_OBJECTS) return 0;
  if (slot == s->room_objects) {
    uint32_t room = s->room_objects ? s->room_objects * 2 : 64;
    object* grown = realloc(s->objects, room * sizeof *grown);
    if (!grown) return 0;
    memset(grown + s->room_objects, 0, (room - s->room_objects) * sizeof *grown);
    s->objects = grown;
    s->room_objects = room;
  }
  if (slot == s->num_objects) ++s->num_objects;
  *made = &s->objects[slot];
  return (uint32_t)(*made)->generation << 16 | (slot + 1);
}

/* A buffer of `size` bytes; 0 where memory is short. */
static uint32_t new_buffer(session* s, uint64_t size, object** made) {
  void* block = NULL;
  uint8_t* data = no_room(s, size) ? NULL : aligned(size, &block);
  uint32_t handle = data ? place(s, made) : 0;
  if (!handle) {
    free(block);
    return 0;
  }
  memset(data, 0, (size_t)size);
  (*made)->kind = BUFFER;
  (*made)->data = data;
  (*made)->block = block;
  (*made)->size = size;
  s->held += size;
  return handle;
}

static void* symbol(void* library, const char* name) {
#ifdef WB_NO_DLOPEN
  (void)library;
  (void)name;
  return NULL;
#else
  return dlsym(library, name);
#endif
}

/* Puts the address of a function into a pointer to one; whether there is such a function. */
static int entry_point(void* library, const char* name, void* function) {
  void* found = symbol(library, name);
  memcpy(function, &found, sizeof found);
  return found != NULL;
}

static void leave_module(session* s, module* m) {
  if (--m->users) return;
  s->held -= m->params_size;
  free(m->params);
#ifndef WB_NO_DLOPEN
  if (!m->pinned) dlclose(m->library);
#endif
  free(m);
}

static void release(session* s, object* o) {
  uint16_t generation = o->generation;
  if (o->kind == BUFFER && o->block) s->held -= o->size;
  free(o->block);
  if (o->module) leave_module(s, o->module);
  memset(o, 0, sizeof *o);
  o->generation = (uint16_t)(generation + 1);
}

#endif /* WB_SESSION_H */
