/* Warpbeam's device server: loads compiled libraries and runs them for a client in another process or on another
 * machine. C11 over warpbeam.h and POSIX; no Python.
 *
 *   cc -std=c11 -O2 server.c -o wb-server -pthread -ldl -lm
 *   ./wb-server --host 0.0.0.0 --port 9090 --secret-file secret
 *
 * -DWB_NO_DLOPEN: for systems without a dynamic loader; loading is refused then. -DWB_NO_FORK: one session at a time,
 * in the server's own process.
 *
 * Protocol, version 1; numbers are little-endian. Each message is a frame: u32 size, payload. The first four are
 *
 *   hello      client  "WBRP", u16 version, u16 size of key, u32 seconds that the session may last (0: any),
 *                      nonce[32], key
 *   challenge  server  "WBRP", u16 version, u16 status, nonce[32]
 *   proof      client  HMAC(secret, "wbrpc client\0" hello challenge)
 *   verdict    server  u32 status, HMAC(secret, "wbrpc server\0" hello challenge status); zeros where it is DENIED
 *
 * Nothing else is read from a peer before its proof. Afterwards each frame ends with a MAC of 32 bytes,
 *
 *   HMAC(key, u64 number of the frame, u32 size, payload)
 *   key = HMAC(secret, "wbrpc c2s\0" or "wbrpc s2c\0" hello challenge)
 *
 * so that a frame that was changed, repeated, left out or moved ends the session. Data is authenticated, not
 * encrypted. Requests are u8 operation and its arguments; replies u8 status and results, or the text of the failure:
 * see `operations`. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifndef WB_NO_DLOPEN
#include <dlfcn.h>
#endif

#include "calls.h"

/* -------------------------------------------------------------------------------------------- what this machine is */

static const char* machine(void) {
#if defined(__x86_64__)
  return "x86_64";
#elif defined(__aarch64__)
  return "aarch64";
#elif defined(__arm__) && __ARM_ARCH >= 7
  return "armv7";
#elif defined(__riscv) && __riscv_xlen == 64
  return "riscv64";
#elif defined(__i386__)
  return "i386";
#else
  return "";
#endif
}

/* The processor's features in the system's words; empty where it does not tell. */
static void features(char* text, size_t room) {
#if defined(__x86_64__) || defined(__i386__)
  const char* word = "flags";
#else
  const char* word = "Features";
#endif
  static char line[8192];
  FILE* f = fopen("/proc/cpuinfo", "r");
  text[0] = 0;
  while (f && fgets(line, sizeof line, f)) {
    char* colon = strchr(line, ':');
    if (!colon || strncmp(line, word, strlen(word))) continue;
    size_t n = 0;
    for (const char* p = colon + 1; *p && n + 1 < room; ++p)
      text[n++] = *p > 32 && *p < 127 && *p != '"' && *p != '\\' ? *p : ' ';
    text[n] = 0;
    break;
  }
  if (f) fclose(f);
}

/* -> text, JSON */
static int op_info(session* s, reader* r) {
  static char names[8192], text[9000];
  (void)r;
#ifdef WB_NO_DLOPEN
  const char* loads = "false";
#else
  const char* loads = "true";
#endif
  features(names, sizeof names);
  snprintf(text, sizeof text,
           "{\"server\":\"c\",\"protocol\":%d,\"abi\":%u,\"machine\":\"%s\",\"pointer_bits\":%d,\"cores\":%ld,"
           "\"max_bytes\":%llu,\"loads\":%s,\"features\":\"%s\"}",
           VERSION, WB_ABI_VERSION, machine(), (int)sizeof(void*) * 8, sysconf(_SC_NPROCESSORS_ONLN),
           (unsigned long long)s->options->max_bytes, loads, names);
  put_text(s, text);
  return OK;
}

static int op_bye(session* s, reader* r) {
  (void)r;
  s->stop = 1;
  return OK;
}

/* By number, from 1; a text is u32 size and bytes, a handle 0 stands for none. */
static int (*const operations[])(session*, reader*) = {
    NULL,    op_info,  op_upload,  op_download,  op_remove, op_list, op_load,   op_about, op_function,
    op_free, op_alloc, op_copy_to, op_copy_from, op_call,   op_time, op_params, op_bye};

static void serve(session* s) {
  for (uint32_t size; !s->stop && (size = receive(s)) != 0;) {
    reader r = {s->in + 4, s->in + 4 + size, 0};
    uint64_t op = get(&r, 1);
    s->out_size = 0;
    s->out_full = 0;
    put(s, OK, 1);
    int known = op && op < sizeof operations / sizeof *operations;
    int status = known ? operations[op](s, &r) : BAD_REQUEST;
    if (s->out_full)
      fail(s, TOO_LARGE, "the reply is too large");
    else if (status == BAD_REQUEST && s->out[4] != BAD_REQUEST)
      fail(s, BAD_REQUEST, "malformed request");
    if (reply(s)) return;
  }
}

/* -------------------------------------------------------------------------------------------------- who may come in */

static int random_bytes(uint8_t* out, size_t size) {
  int in = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  while (in >= 0 && size) {
    ssize_t n = read(in, out, size);
    if (n <= 0) break;
    out += n;
    size -= (size_t)n;
  }
  if (in >= 0) close(in);
  return size != 0;
}

/* HMAC(secret, label with its NUL, hello, challenge, more) */
static void derive(const options* o, const char* label, const uint8_t* said, size_t size, const uint8_t* more,
                   size_t more_size, uint8_t out[MAC]) {
  hmac h;
  hmac_start(&h, o->secret, o->secret_size);
  sha_add(&h.inner, label, strlen(label) + 1);
  sha_add(&h.inner, said, size);
  sha_add(&h.inner, more, more_size);
  hmac_end(&h, out);
}

static int send_plain(int fd, const uint8_t* data, uint32_t size, int64_t deadline) {
  uint8_t frame[4 + 128];
  store(frame, size, 4);
  memcpy(frame + 4, data, size);
  return transfer(fd, frame, size + 4, deadline, 1);
}

/* A frame of between `least` and `most` bytes; its size, or 0. */
static uint32_t receive_plain(int fd, uint8_t* data, uint32_t least, uint32_t most, int64_t deadline) {
  uint8_t head[4];
  if (transfer(fd, head, 4, deadline, 0)) return 0;
  reader r = {head, head + 4, 0};
  uint32_t size = (uint32_t)get(&r, 4);
  return size < least || size > most || transfer(fd, data, size, deadline, 0) ? 0 : size;
}

/* Lets a client in that knows the secret: sets the session's keys, gives 0 and the seconds it may last. */
static int greet(session* s, unsigned* lasting) {
  const options* o = s->options;
  int64_t deadline = seconds_from_now(HELLO_SECONDS);
  uint8_t said[44 + MAX_KEY + 40], proof[MAC], wanted[MAC], verdict[4 + MAC] = {0};
  uint32_t size = receive_plain(s->fd, said, 44, 44 + MAX_KEY, deadline);
  reader r = {said, said + size, 0};
  if (!size || memcmp(take(&r, 4), "WBRP", 4)) return 1;
  uint64_t version = get(&r, 2), key_size = get(&r, 2);
  *lasting = (unsigned)get(&r, 4) & 0x7fffffff;
  if (44 + key_size != size) return 1;
  uint8_t* challenge = said + size;
  memcpy(challenge, "WBRP", 4);
  store(challenge + 4, VERSION, 2);
  store(challenge + 6, version == VERSION ? WELCOME : BAD_VERSION, 2);
  if (random_bytes(challenge + 8, NONCE) || send_plain(s->fd, challenge, 40, deadline) || version != VERSION) return 1;
  if (!receive_plain(s->fd, proof, MAC, MAC, deadline)) return 1;
  derive(o, "wbrpc client", said, size + 40, NULL, 0, wanted);
  int status = same(proof, wanted, MAC) ? WELCOME : DENIED;
  int other = key_size != strlen(o->key) || memcmp(said + 44, o->key, (size_t)key_size);
  if (status == WELCOME && key_size && other) status = OTHER_KEY;
  store(verdict, (uint64_t)status, 4);
  if (status != DENIED) derive(o, "wbrpc server", said, size + 40, verdict, 4, verdict + 4);
  derive(o, "wbrpc c2s", said, size + 40, NULL, 0, s->in_key);
  derive(o, "wbrpc s2c", said, size + 40, NULL, 0, s->out_key);
  return send_plain(s->fd, verdict, 4 + MAC, deadline) || status != WELCOME;
}

/* One connection from its hello to its end. */
static void converse(const options* o, int fd, const char* folder) {
  session s = {.options = o, .fd = fd, .folder = folder};
  unsigned lasting = 0;
  int one = 1;
  s.ctx.abi_version = WB_ABI_VERSION;
  s.ctx.parallel_for = serial;
  s.ctx.reserve = reserve;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  if (!greet(&s, &lasting)) {
    s.ctx.user = &s;
    s.in = malloc(4 + MAX_PAYLOAD + MAC);
    s.out = malloc(4 + MAX_PAYLOAD + MAC);
    s.files = calloc(MAX_FILES, sizeof *s.files);
    s.deadline = lasting ? seconds_from_now((int)lasting) : INT64_MAX;
#ifndef WB_NO_FORK
    if (lasting) alarm(lasting); /* ends the process, also in the middle of a call */
#endif
    if (s.in && s.out && s.files) serve(&s);
  }
  while (s.num_files) drop_file(&s, &s.files[s.num_files - 1]);
  for (uint32_t i = 0; i < s.num_objects; ++i)
    if (s.objects[i].kind != NOTHING) release(&s, &s.objects[i]);
  free(s.objects), free(s.files), free(s.in), free(s.out), free(s.arena_block);
  close(fd);
}

/* ----------------------------------------------------------------------------------------------- the server itself */

static volatile sig_atomic_t ending;

static void on_end(int number) {
  (void)number;
  ending = 1;
}

static void remove_folder(const char* path) {
  DIR* folder = opendir(path);
  for (struct dirent* e; folder && (e = readdir(folder));)
    if (e->d_name[0] != '.') unlinkat(dirfd(folder), e->d_name, 0);
  if (folder) closedir(folder);
  rmdir(path);
}

typedef struct child {
  pid_t pid;
  char folder[2048];
} child;

/* Gives the places of ended sessions back; waits for all where `all`. */
static int reap(child* children, int count, int all) {
  int running = 0;
  for (int i = 0; i < count; ++i) {
    if (!children[i].pid) continue;
    if (waitpid(children[i].pid, NULL, all ? 0 : WNOHANG) == 0) {
      ++running;
      continue;
    }
    remove_folder(children[i].folder);
    children[i].pid = 0;
  }
  return running;
}

static void take_in(const options* o, int listener, int fd, child* children) {
  int i = 0;
  while (i < o->sessions && children[i].pid) ++i;
  snprintf(children[i].folder, sizeof children[i].folder, "%s/wb-session-XXXXXX", o->folder);
  if (!mkdtemp(children[i].folder)) {
    perror(children[i].folder);
    close(fd);
    return;
  }
#ifdef WB_NO_FORK
  (void)listener;
  converse(o, fd, children[i].folder);
  remove_folder(children[i].folder);
#else
  children[i].pid = fork();
  if (children[i].pid == 0) {
    close(listener);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    converse(o, fd, children[i].folder);
    exit(0);
  }
  if (children[i].pid < 0) {
    perror("fork");
    children[i].pid = 0;
    remove_folder(children[i].folder);
  }
  close(fd);
#endif
}

static void accept_all(const options* o, int listener) {
  static child children[MAX_SESSIONS];
  while (!ending) {
    struct pollfd p = {.fd = listener, .events = POLLIN};
    int running = reap(children, o->sessions, 0);
    if (running == o->sessions) { /* others wait in the queue of the socket */
      rest(20);
      continue;
    }
    if (poll(&p, 1, running ? 100 : 250) <= 0) continue;
    int fd = accept(listener, NULL, NULL);
    if (fd >= 0) take_in(o, listener, fd, children);
  }
  for (int i = 0; i < o->sessions; ++i)
    if (children[i].pid) kill(children[i].pid, SIGKILL);
  reap(children, o->sessions, 1);
}

static int listen_at(const char* host, const char* port, int silent) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV},
                  *found;
  int error = getaddrinfo(host, port, &hints, &found), one = 1;
  if (error) {
    fprintf(stderr, "%s:%s: %s\n", host, port, gai_strerror(error));
    return -1;
  }
  int fd = socket(found->ai_family, SOCK_STREAM, 0);
  if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_storage at;
  socklen_t size = sizeof at;
  char name[64], number[16];
  if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 64) ||
      getsockname(fd, (struct sockaddr*)&at, &size) ||
      getnameinfo((struct sockaddr*)&at, size, name, sizeof name, number, sizeof number,
                  NI_NUMERICHOST | NI_NUMERICSERV)) {
    fprintf(stderr, "%s:%s: %s\n", host, port, strerror(errno));
    fd = -1;
  } else if (!silent) {
    printf("listening on %s:%s\n", name, number);
    fflush(stdout);
  }
  freeaddrinfo(found);
  return fd;
}

/* The secret from a file, or from the environment; at least 16 bytes. 0 = done. */
static int read_secret(options* o, const char* path) {
  const char* given = getenv("WARPBEAM_RPC_SECRET");
  if (path) {
    FILE* f = fopen(path, "rb");
    o->secret_size = f ? fread(o->secret, 1, sizeof o->secret, f) : 0;
    if (f) fclose(f);
  } else if (given && strlen(given) <= sizeof o->secret) {
    o->secret_size = strlen(given);
    memcpy(o->secret, given, o->secret_size);
  }
  while (o->secret_size && strchr(" \t\r\n", o->secret[o->secret_size - 1])) --o->secret_size;
  if (o->secret_size >= 16) return 0;
  fprintf(stderr, "a secret of at least 16 bytes is needed: --secret-file FILE, or WARPBEAM_RPC_SECRET\n");
  return 1;
}

int main(int argc, char** argv) {
  options o = {.key = "", .max_bytes = (uint64_t)1 << 30, .idle = 3600, .sessions = 4};
  const char *host = "127.0.0.1", *port = "9090", *secret = NULL, *folder = getenv("TMPDIR");
  o.folder = folder ? folder : "/tmp";
  for (int i = 1; i < argc; ++i) {
    const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (!strcmp(word, "--silent")) {
      o.silent = 1;
      continue;
    }
    if (value && !strcmp(word, "--host"))
      host = value;
    else if (value && !strcmp(word, "--port"))
      port = value;
    else if (value && !strcmp(word, "--secret-file"))
      secret = value;
    else if (value && !strcmp(word, "--key") && strlen(value) <= MAX_KEY)
      o.key = value;
    else if (value && !strcmp(word, "--folder") && strlen(value) < 2000)
      o.folder = value;
    else if (value && !strcmp(word, "--max-bytes"))
      o.max_bytes = strtoull(value, NULL, 10);
    else if (value && !strcmp(word, "--idle"))
      o.idle = atoi(value);
    else if (value && !strcmp(word, "--max-sessions"))
      o.sessions = atoi(value);
    else {
      fprintf(stderr,
              "usage: %s [--host ADDRESS] [--port N] [--secret-file FILE] [--key NAME] [--folder DIR]\n"
              "  [--max-bytes N] [--idle SECONDS] [--max-sessions N] [--silent]\n",
              argv[0]);
      return 2;
    }
    ++i;
  }
  if (o.sessions < 1 || o.sessions > MAX_SESSIONS || o.idle < 1 || o.max_bytes < 1 || o.max_bytes > UINT64_MAX / 4) {
    fprintf(stderr, "a limit makes no sense: sessions 1..%d, idle and bytes from 1\n", MAX_SESSIONS);
    return 2;
  }
  if (read_secret(&o, secret)) return 2;
  struct sigaction end = {.sa_handler = on_end};
  sigaction(SIGTERM, &end, NULL);
  sigaction(SIGINT, &end, NULL);
  signal(SIGPIPE, SIG_IGN);
  int listener = listen_at(host, port, o.silent);
  if (listener < 0) return 1;
  accept_all(&o, listener);
  close(listener);
  return 0;
}
