/* Files, modules and functions of a session of the device server. */
#ifndef WB_MODULES_H
#define WB_MODULES_H

#include "session.h"

/* ----------------------------------------------------------------------------------------------- functions by name */

static int32_t config_threadpool(wb_ctx* ctx, const wb_value* args, int32_t n, wb_value* result) {
  (void)result; /* (affinity mode, number of threads), as ever; the mode is the system's business */
  if (n < 2 || args[1].code != WB_VALUE_INT || args[1].v.as_int < 0 || args[1].v.as_int > 65536) {
    snprintf(ctx->message, sizeof ctx->message, "config_threadpool takes an affinity mode and a number of threads");
    return 1;
  }
  ctx->num_threads = (int32_t)args[1].v.as_int;
  return 0;
}

static const struct {
  const char* name;
  builtin_fn call;
} BUILTINS[] = {{"runtime.config_threadpool", config_threadpool}};

static builtin_fn builtin(const char* name) {
  for (size_t i = 0; i < sizeof BUILTINS / sizeof *BUILTINS; ++i)
    if (!strcmp(BUILTINS[i].name, name)) return BUILTINS[i].call;
  return NULL;
}

#ifndef WB_NO_DLOPEN
/* What compiled code calls for functions that are registered by name. */
static int32_t call_packed(wb_ctx* ctx, const char* name, const wb_value* args, int32_t n, wb_value* result) {
  builtin_fn found = builtin(name);
  if (found) return found(ctx, args, n, result);
  snprintf(ctx->message, sizeof ctx->message, "Cannot find global function %.100s on this device", name);
  return 1;
}
#endif

static int32_t serial(wb_ctx* ctx, wb_loop_fn fn, void* closure, int64_t n) {
  return n > 0 ? fn(ctx, closure, 0, n) : 0;
}

/* ------------------------------------------------------------------------------------------------------------ files */

static file* named(session* s, const char* name) {
  for (uint32_t i = 0; i < s->num_files; ++i)
    if (!strcmp(s->files[i].name, name)) return &s->files[i];
  return NULL;
}

static void path_of(session* s, const file* f, char* path, size_t room) {
  snprintf(path, room, "%s/f%u.so", s->folder, (unsigned)f->number);
}

static void drop_file(session* s, file* f) {
  char path[4096];
  path_of(s, f, path, sizeof path);
  unlink(path);
  s->stored -= f->size;
  *f = s->files[--s->num_files];
}

static int plain_name(const char* name) {
  size_t size = strlen(name);
  int dots = !strncmp(name, "../", 3) || !strcmp(name, "..") || strstr(name, "/../");
  return size && name[0] != '/' && !dots && !(size > 2 && !strcmp(name + size - 3, "/.."));
}

/* name, u64 offset, bytes: at offset 0 the file begins anew, else they are appended. */
static int op_upload(session* s, reader* r) {
  char name[MAX_NAME + 1], path[4096];
  get_text(r, name, sizeof name);
  uint64_t offset = get(r, 8), size = get(r, 4);
  const uint8_t* data = take(r, size);
  if (r->bad || r->at != r->end) return BAD_REQUEST;
  if (!plain_name(name)) return fail(s, FAILED, "'%s' lies outside of the session's folder", name);
  file* f = named(s, name);
  if (f && !offset) drop_file(s, f), f = NULL;
  if (offset != (f ? f->size : 0)) return fail(s, BAD_REQUEST, "'%s' is not written in order", name);
  if (size > s->options->max_bytes || s->stored > s->options->max_bytes - size)
    return fail(s, TOO_LARGE, "uploads of this session are limited to %llu bytes",
                (unsigned long long)s->options->max_bytes);
  if (!f) {
    if (s->num_files == MAX_FILES) return fail(s, TOO_LARGE, "a session has at most %d files", MAX_FILES);
    f = &s->files[s->num_files++];
    memset(f, 0, sizeof *f);
    memcpy(f->name, name, sizeof name);
    f->number = s->next_file++;
  }
  path_of(s, f, path, sizeof path);
  int out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0700);
  for (uint64_t done = 0; out >= 0 && done < size;) {
    ssize_t n = write(out, data + done, (size_t)(size - done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      close(out);
      out = -1;
      break;
    }
    done += (uint64_t)n;
  }
  if (out < 0 || close(out)) {
    const char* why = strerror(errno);
    drop_file(s, f);
    return fail(s, FAILED, "'%s' cannot be written: %s", name, why);
  }
  f->size += size;
  s->stored += size;
  return OK;
}

/* name, u64 offset, u32 count -> u64 size of the file, bytes */
static int op_download(session* s, reader* r) {
  char name[MAX_NAME + 1], path[4096];
  get_text(r, name, sizeof name);
  uint64_t offset = get(r, 8), count = get(r, 4);
  if (r->bad || count > MAX_PAYLOAD / 2) return BAD_REQUEST;
  file* f = named(s, name);
  if (!f) return fail(s, NOT_FOUND, "the session has no file '%s'", name);
  put(s, f->size, 8);
  offset = offset < f->size ? offset : f->size;
  count = count < f->size - offset ? count : f->size - offset;
  put(s, count, 4);
  path_of(s, f, path, sizeof path);
  int in = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  uint64_t done = 0;
  while (in >= 0 && done < count) {
    ssize_t n = pread(in, s->out + 4 + s->out_size, (size_t)(count - done), (off_t)(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += (uint64_t)n;
    s->out_size += (size_t)n;
  }
  if (in >= 0) close(in);
  return done == count ? OK : fail(s, FAILED, "'%s' cannot be read", name);
}

/* The file that a request names and is all about; *f is NULL where the result is not OK. */
static int asked_file(session* s, reader* r, file** f) {
  char name[MAX_NAME + 1];
  get_text(r, name, sizeof name);
  *f = r->bad ? NULL : named(s, name);
  return r->bad ? BAD_REQUEST : *f ? OK : fail(s, NOT_FOUND, "the session has no file '%s'", name);
}

static int op_remove(session* s, reader* r) {
  file* f;
  int status = asked_file(s, r, &f);
  if (!status) drop_file(s, f);
  return status;
}

/* -> u32 count, names */
static int op_list(session* s, reader* r) {
  (void)r;
  put(s, s->num_files, 4);
  for (uint32_t i = 0; i < s->num_files; ++i) put_text(s, s->files[i].name);
  return OK;
}

/* ---------------------------------------------------------------------------------------------------------- modules */

#ifndef WB_NO_DLOPEN
static void* c_function(const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (!found) {
    void* math = dlopen("libm.so.6", RTLD_NOW | RTLD_GLOBAL); /* stays for the process */
    found = math ? dlsym(math, name) : NULL;
  }
  return found;
}

/* Fills the table of what the code calls outside: a list of {"c": name} or {"packed": true} in its description. */
static int fill_imports(session* s, module* m) {
  void** table = symbol(m->library, "wb_imports");
  wb_call_packed_fn packed = call_packed;
  const char* at = strstr(m->about, "\"imports\":[");
  if (!table || !at) return OK;
  const char* end = strchr(at, ']');
  for (int i = 0; end && (at = strchr(at, '{')) && at < end; ++i, ++at) {
    char name[128] = "";
    if (sscanf(at, "{\"c\":\"%127[A-Za-z0-9_]\"", name) == 1)
      table[i] = c_function(name);
    else
      memcpy(&table[i], &packed, sizeof packed);
    if (!table[i]) return fail(s, FAILED, "the C function '%s' is not on this device", name);
  }
  return OK;
}

/* The thread pool of the process comes with the first code that brings one, and that code stays. */
static void take_pool(session* s, module* m) {
  static void* pool;
  static int32_t (*parallel_for)(wb_ctx*, wb_loop_fn, void*, int64_t);
  int (*start)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) = pthread_create;
  void* (*create)(int32_t, void*, int32_t);
  void* start_address;
  if (!pool && entry_point(m->library, "wb_pool_create", &create) &&
      entry_point(m->library, "wb_pool_parallel_for", &parallel_for)) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    memcpy(&start_address, &start, sizeof start_address);
    pool = create(count > 0 && count < 4096 ? (int32_t)count : 1, start_address, 1000);
    m->pinned = pool != NULL;
  }
  if (!pool) return;
  s->ctx.pool = pool;
  s->ctx.parallel_for = parallel_for;
}

/* The function of a model whose name begins with the model's. */
static int ask(module* m, const char* prefix, const char* suffix, void* function) {
  char name[256];
  snprintf(name, sizeof name, "%s%s", prefix, suffix);
  return entry_point(m->library, name, function);
}

/* Constants, parameters and scratch memory of a model, by the functions and data that each exported model has. */
static int open_model(session* s, module* m, char prefix[129]) {
  const void* (*constants)(void);
  int64_t (*context_bytes)(void);
  unsigned long long params = 0;
  const char* at = strstr(m->about, "\"params\":");
  if (sscanf(m->about, "{\"name\":\"%128[A-Za-z0-9_]\"", prefix) != 1 || !at || sscanf(at + 9, "%llu", &params) != 1)
    return fail(s, NOT_LOADABLE, "the library's description of its model is damaged");
  if (ask(m, prefix, "_constants", &constants)) m->constants = constants();
  if (ask(m, prefix, "_context_bytes", &context_bytes)) m->arena = context_bytes(); /* and a little more */
  const void* values = symbol(m->library, "wb_model_params");
  if (params && values) {
    if (no_room(s, params) || !(m->params = aligned_alloc(64, (size_t)((params + 63) / 64 * 64))))
      return fail(s, TOO_LARGE, "no memory for %llu bytes of parameters", params);
    memcpy(m->params, values, (size_t)params);
    m->params_size = params;
    s->held += params;
  }
  return OK;
}
#endif

/* name -> u32 handle, u8 whether it is a model, u64 size of its description */
static int op_load(session* s, reader* r) {
  file* f;
  int status = asked_file(s, r, &f);
  if (status) return status;
#ifdef WB_NO_DLOPEN
  return fail(s, UNSUPPORTED, "this device cannot load libraries: its server was built without a dynamic loader");
#else
  const char* name = f->name;
  char path[4096], magic[4] = "", prefix[129] = "";
  object* o;
  path_of(s, f, path, sizeof path);
  int in = open(path, O_RDONLY | O_CLOEXEC);
  if (in < 0 || read(in, magic, 4) != 4 ||
      memcmp(magic,
             "\x7f"
             "ELF",
             4)) {
    if (in >= 0) close(in);
    return fail(s, NOT_LOADABLE, "'%s' is no shared library", name);
  }
  close(in);
  module* m = calloc(1, sizeof *m);
  if (!m) return fail(s, TOO_LARGE, "no memory");
  m->users = 1;
  m->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!m->library) {
    const char* why = dlerror();
    free(m);
    return fail(s, NOT_LOADABLE, "'%s' cannot be loaded: %.300s", name, why ? why : "no reason given");
  }
  m->about = symbol(m->library, "wb_module");
  if (!m->about) m->about = symbol(m->library, "wb_model"), m->is_model = m->about != NULL;
  if (!m->about) status = fail(s, NOT_LOADABLE, "'%s' is neither a module of compiled functions nor a model", name);
  if (!status) status = m->is_model ? open_model(s, m, prefix) : fill_imports(s, m);
  uint32_t handle = status ? 0 : place(s, &o);
  if (!handle) {
    leave_module(s, m);
    return status ? status : fail(s, TOO_LARGE, "there are too many objects in this session");
  }
  take_pool(s, m);
  o->kind = MODULE;
  o->module = m;
  put(s, handle, 4);
  put(s, (uint64_t)m->is_model, 1);
  put(s, strlen(m->about), 8);
  return OK;
#endif
}

/* u32 module, u64 offset, u32 count -> bytes of its description */
static int op_about(session* s, reader* r) {
  object* o = find(s, get(r, 4), MODULE);
  uint64_t offset = get(r, 8), count = get(r, 4);
  if (r->bad || count > MAX_PAYLOAD / 2) return BAD_REQUEST;
  if (!o) return fail(s, NOT_FOUND, "there is no such module");
  uint64_t size = strlen(o->module->about);
  offset = offset < size ? offset : size;
  count = count < size - offset ? count : size - offset;
  put(s, count, 4);
  put_bytes(s, o->module->about + offset, (size_t)count);
  return OK;
}

/* u32 module, or 0 for functions of the server; name -> u32 handle */
static int op_function(session* s, reader* r) {
  char name[MAX_NAME + 1];
  uint64_t from = get(r, 4);
  get_text(r, name, sizeof name);
  if (r->bad) return BAD_REQUEST;
  object* owner = find(s, from, MODULE);
  module* m = owner ? owner->module : NULL;
  if (from && !m) return fail(s, NOT_FOUND, "there is no such module");
  wb_entry_fn code = NULL;
  builtin_fn found = from ? NULL : builtin(name);
  if (m) entry_point(m->library, name, &code);
  if (!code && !found)
    return fail(s, NOT_FOUND, from ? "the module has no function '%s'" : "Cannot find global function %s", name);
  object* o;
  uint32_t handle = place(s, &o);
  if (!handle) return fail(s, TOO_LARGE, "there are too many objects in this session");
  o->kind = found ? BUILTIN : FUNCTION;
  o->builtin = found;
  o->module = m;
  o->entry = code;
  if (m) ++m->users;
  put(s, handle, 4);
  return OK;
}

/* u32 module -> u32 buffer that is the module's mutable parameters, u64 its size */
static int op_params(session* s, reader* r) {
  object *owner = find(s, get(r, 4), MODULE), *o;
  if (r->bad) return BAD_REQUEST;
  if (!owner) return fail(s, NOT_FOUND, "there is no such module");
  module* m = owner->module;
  uint32_t handle = place(s, &o);
  if (!handle) return fail(s, TOO_LARGE, "there are too many objects in this session");
  ++m->users;
  o->kind = BUFFER;
  o->module = m;
  o->data = m->params;
  o->size = m->params_size;
  put(s, handle, 4);
  put(s, o->size, 8);
  return OK;
}

#endif /* WB_MODULES_H */
