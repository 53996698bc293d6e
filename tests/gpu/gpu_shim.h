// CUDA's words for one CPU thread: the threads of a block are contexts that take turns at barriers and shuffles.
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <tuple>
#include <vector>

using std::max;
using std::min;
#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(n)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 { unsigned x, y, z; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct double2 { double x, y; };
struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct char4 { signed char x, y, z, w; };
struct uchar4 { unsigned char x, y, z, w; };
struct longlong2 { long long x, y; };

struct half { unsigned short bits; };
inline float __half2float(half h) { _Float16 v; memcpy(&v, &h, 2); return (float)v; }
inline half __float2half_rn(float x) { _Float16 v = (_Float16)x; half h; memcpy(&h, &v, 2); return h; }
inline unsigned short __half_as_ushort(half h) { return h.bits; }
inline half __ushort_as_half(unsigned short u) { return half{u}; }
inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

namespace shim {
struct Thread { ucontext_t at; bool done; long barrier, shuffle; uint3 tid; };
static std::vector<Thread> threads;
static std::vector<double> slots;
static ucontext_t home;
static int now, wrong;
static std::function<void()> entry;

inline void yield() { swapcontext(&threads[now].at, &home); }
inline void start() {
  entry();
  threads[now].done = true;
  yield();
}
}  // namespace shim

static uint3 blockIdx, threadIdx;

inline void __syncthreads() { ++shim::threads[shim::now].barrier; shim::yield(); }

template <class T> T shim_shuffle(T value, int source) {
  // Two rounds: all lanes of the block put their values down, then all take; a kernel shuffles in whole warps.
  memcpy(&shim::slots[shim::now], &value, sizeof(T));
  ++shim::threads[shim::now].shuffle;
  shim::yield();
  T out;
  memcpy(&out, &shim::slots[source], sizeof(T));
  ++shim::threads[shim::now].shuffle;
  shim::yield();
  return out;
}
template <class T> T __shfl_sync(unsigned, T v, int k, int w) {
  int lane = shim::now % 32;
  return shim_shuffle(v, shim::now - lane + lane / w * w + k % w);
}
template <class T> T __shfl_down_sync(unsigned, T v, int k, int w) {
  return shim_shuffle(v, shim::now % 32 % w + k < w ? shim::now + k : shim::now);
}
template <class T> T __shfl_up_sync(unsigned, T v, int k, int w) {
  return shim_shuffle(v, shim::now % 32 % w >= k ? shim::now - k : shim::now);
}
template <class T> T __shfl_xor_sync(unsigned, T v, int k, int) { return shim_shuffle(v, shim::now ^ k); }

// Runs one launch; 1 if the threads of a block do not all pass the same barriers and shuffles.
inline int shim_launch(const int64_t* dims, const std::function<void()>& kernel) {
  using namespace shim;
  int count = (int)(dims[3] * dims[4] * dims[5]);
  std::vector<char> stacks((size_t)count * 65536);
  threads.resize(count);
  slots.assign(count, 0.0);
  entry = kernel;
  wrong = 0;
  for (unsigned z = 0; z < dims[2]; ++z)
    for (unsigned y = 0; y < dims[1]; ++y)
      for (unsigned x = 0; x < dims[0]; ++x) {
        blockIdx = uint3{x, y, z};
        for (int t = 0; t < count; ++t) {
          Thread& th = threads[t];
          th.done = false, th.barrier = th.shuffle = 0;
          th.tid = uint3{(unsigned)(t % dims[3]), (unsigned)(t / dims[3] % dims[4]), (unsigned)(t / dims[3] / dims[4])};
          getcontext(&th.at);
          th.at.uc_stack.ss_sp = &stacks[(size_t)t * 65536];
          th.at.uc_stack.ss_size = 65536;
          th.at.uc_link = &home;
          makecontext(&th.at, (void (*)())start, 0);
        }
        for (int left = count; left;) {
          for (int t = 0; t < count; ++t) {
            if (threads[t].done) continue;
            now = t, threadIdx = threads[t].tid;
            swapcontext(&home, &threads[t].at);
            left -= threads[t].done;
          }
          for (int t = 1; t < count; ++t)
            if (threads[t].barrier != threads[0].barrier || threads[t].shuffle != threads[0].shuffle) return 1;
        }
      }
  return wrong;
}
