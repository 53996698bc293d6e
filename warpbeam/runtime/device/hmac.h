/* SHA-256 (FIPS 180-4), HMAC, and comparing in constant time. */
#ifndef WB_HMAC_H
#define WB_HMAC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAC 32

typedef struct sha {
  uint32_t state[8];
  uint64_t size;
  uint8_t block[64];
} sha;

static const uint32_t ROUNDS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* One round; the caller turns the letters, so that nothing is moved. */
#define SHA_ROUND(a, b, c, d, e, f, g, h, i)                                                             \
  do {                                                                                                   \
    uint32_t t = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]; \
    d += t;                                                                                              \
    h = t + (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));                    \
  } while (0)

static void sha_block(uint32_t* state, const uint8_t* p) {
  uint32_t w[64], a = state[0], b = state[1], c = state[2], d = state[3];
  uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
  for (int i = 0; i < 16; ++i, p += 4) w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
  for (int i = 16; i < 64; ++i) {
    uint32_t x = w[i - 15], y = w[i - 2];
    w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ x >> 3) + w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ y >> 10);
  }
  for (int i = 0; i < 64; i += 8) {
    SHA_ROUND(a, b, c, d, e, f, g, h, i);
    SHA_ROUND(h, a, b, c, d, e, f, g, i + 1);
    SHA_ROUND(g, h, a, b, c, d, e, f, i + 2);
    SHA_ROUND(f, g, h, a, b, c, d, e, i + 3);
    SHA_ROUND(e, f, g, h, a, b, c, d, i + 4);
    SHA_ROUND(d, e, f, g, h, a, b, c, i + 5);
    SHA_ROUND(c, d, e, f, g, h, a, b, i + 6);
    SHA_ROUND(b, c, d, e, f, g, h, a, i + 7);
  }
  state[0] += a, state[1] += b, state[2] += c, state[3] += d;
  state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static void sha_start(sha* s) {
  static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(s->state, first, sizeof first);
  s->size = 0;
}

static void sha_add(sha* s, const void* data, size_t size) {
  const uint8_t* p = data;
  size_t used = s->size % 64;
  s->size += size;
  if (used && used + size >= 64) {
    memcpy(s->block + used, p, 64 - used);
    sha_block(s->state, s->block);
    p += 64 - used;
    size -= 64 - used;
    used = 0;
  }
  if (!used)
    for (; size >= 64; p += 64, size -= 64) sha_block(s->state, p);
  if (size) memcpy(s->block + used, p, size);
}

static void sha_end(sha* s, uint8_t out[MAC]) {
  uint64_t bits = s->size * 8;
  uint8_t pad[72] = {0x80}, tail[8];
  for (int i = 0; i < 8; ++i) tail[i] = (uint8_t)(bits >> (56 - 8 * i));
  sha_add(s, pad, 1 + (119 - s->size % 64) % 64);
  sha_add(s, tail, 8);
  for (int i = 0; i < MAC; ++i) out[i] = (uint8_t)(s->state[i / 4] >> (24 - 8 * (i % 4)));
}

typedef struct hmac {
  sha inner, outer;
} hmac;

static void hmac_start(hmac* h, const uint8_t* key, size_t size) {
  uint8_t block[64] = {0};
  sha_start(&h->inner);
  sha_start(&h->outer);
  if (size > 64) {
    sha_add(&h->inner, key, size);
    sha_end(&h->inner, block);
    sha_start(&h->inner);
  } else {
    memcpy(block, key, size);
  }
  for (int i = 0; i < 64; ++i) block[i] ^= 0x36;
  sha_add(&h->inner, block, 64);
  for (int i = 0; i < 64; ++i) block[i] ^= 0x36 ^ 0x5c;
  sha_add(&h->outer, block, 64);
}

static void hmac_end(hmac* h, uint8_t out[MAC]) {
  uint8_t digest[MAC];
  sha_end(&h->inner, digest);
  sha_add(&h->outer, digest, MAC);
  sha_end(&h->outer, out);
}

/* Takes the same time wherever they differ. */
static int same(const uint8_t* a, const uint8_t* b, size_t size) {
  volatile uint8_t differs = 0;
  for (size_t i = 0; i < size; ++i) differs |= a[i] ^ b[i];
  return !differs;
}

#endif /* WB_HMAC_H */
