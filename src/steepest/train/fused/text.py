"""The C++ around a pass: types, functions of one number, and the loop over members."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from steepest.train.fused.convolutions import CONVOLUTIONS
from steepest.train.fused.products import PRODUCTS

__all__ = ["KINDS", "PRELUDE", "Loop", "adding", "number", "run"]

KINDS = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.bool: "bool",
}
"""Element types that a pass may have, and what they are called in C++."""

PRELUDE = (
    r"""
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
extern "C" int omp_get_thread_num(void);  // omp.h is not with every compiler
#define SIMD _Pragma("omp simd")

// e^x = 2^n e^r, |r| <= ln 2 / 2; within 2 units in the last place; written so that it vectorizes
static inline float exp_(float x) {
  const float at = x > 89.0f ? 89.0f : (x < -104.0f ? -104.0f : x);
  const float n = nearbyintf(at * 1.44269504f);
  const float r = (at - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f;
  const float e = p * r * r + r + 1.0f;
  const int32_t whole = (int32_t)n, half = whole / 2, rest = whole - half;  // 2^n may not be normal
  const uint32_t a = (uint32_t)(half + 127) << 23, b = (uint32_t)(rest + 127) << 23;
  float f, g; memcpy(&f, &a, 4); memcpy(&g, &b, 4);
  const float result = e * f * g;
  return x != x ? x : (x > 88.7228394f ? INFINITY : result);
}
static inline double exp_(double x) { return std::exp(x); }
// (e^y - 1) / (e^y + 1) with y = 2 |x|; near 0 by its series
static inline float tanh_(float x) {
  const float a = std::fabs(x), e = exp_(-2.0f * a), s = x * x;
  float p = -5.70498872745e-3f;
  p = p * s + 2.06390887954e-2f; p = p * s - 5.37397155531e-2f; p = p * s + 1.33314422036e-1f;
  p = p * s - 3.33332819422e-1f;
  const float near = p * s * x + x, far = std::copysign((1.0f - e) / (1.0f + e), x);
  return a < 0.625f ? near : far;
}
static inline double tanh_(double x) { return std::tanh(x); }
// Cephes' polynomials: up to 1 of the function itself, beyond of what it lacks to 1
static inline float erf_(float x) {
  const float a = std::fabs(x), s = x * x, far = a < 1.0f ? 1.0f : a, q = 1.0f / far, y = q * q;
  float p = 7.853861353153693e-5f;
  p = p * s - 8.010193625184903e-4f; p = p * s + 5.188327685732524e-3f;
  p = p * s - 2.685381193529856e-2f; p = p * s + 1.128358514861418e-1f;
  p = p * s - 3.761262582423300e-1f; p = p * s + 1.128379165726710f;
  float m = 2.326819970068386e-2f;
  m = m * y - 1.387039388740657e-1f; m = m * y + 3.687424674597105e-1f;
  m = m * y - 5.824733027278666e-1f; m = m * y + 6.210004621745983e-1f;
  m = m * y - 4.944515323274145e-1f; m = m * y + 3.404879937665872e-1f;
  m = m * y - 2.741127028184656e-1f; m = m * y + 5.638259427386472e-1f;
  float l = -1.047766399936249e+1f;
  l = l * y + 1.297719955372516e+1f; l = l * y - 7.495518717768503f;
  l = l * y + 2.921019019210786f; l = l * y - 1.015265279202700f;
  l = l * y + 4.218463358204948e-1f; l = l * y - 2.820767439740514e-1f;
  l = l * y + 5.641895067754075e-1f;
  const float lacks = exp_(-far * far) * q * (far < 2.0f ? m : l);
  return a < 1.0f ? p * x : (x != x ? x : std::copysign(1.0f - lacks, x));
}
static inline double erf_(double x) { return std::erf(x); }
template <class T> static inline T sigmoid_(T x) { return (T)1 / ((T)1 + exp_(-x)); }
template <class T> static inline T relu_(T x) { return x < (T)0 ? (T)0 : x; }
template <class T> static inline T sign_(T x) {
  return x != x ? x : (T)((int)(x > (T)0) - (int)(x < (T)0));
}
template <class T> static inline T larger(T a, T b) {
  const T c = a > b ? a : b; return a != a ? a : c;
}
template <class T> static inline T smaller(T a, T b) {
  const T c = a < b ? a : b; return a != a ? a : c;
}

// a member's rows of a batch: as they are handed in, or copied from where the data lie
template <class T>
static inline const T *rows(const void *given, const int64_t *numbers, int64_t member,
                            int64_t batch, int64_t size, T *into) {
  const T *const all = (const T *)given;
  if (!numbers) return all + member * batch * size;
  const int64_t *const mine = numbers + member * batch;
  const int64_t bytes = size * (int64_t)sizeof(T), ahead = bytes < 4096 ? 8192 / bytes + 1 : 2;
  for (int64_t i = -ahead; i < batch; ++i) {
    if (i + ahead < batch) {  // rows lie anywhere, so nothing else fetches them ahead
      const char *const next = (const char *)(all + mine[i + ahead] * size);
      for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(next + at);
    }
    if (i >= 0) memcpy(into + i * size, all + mine[i] * size, bytes);
  }
  return into;
}
"""
    + PRODUCTS
    + CONVOLUTIONS
)

_RUN = r"""
extern "C" int64_t steepest_pass(
    int64_t members, int64_t threads, const void *const *given, const int64_t *numbers,
    void *const *results, char *scratch) {
  int64_t outside = 0;
  #pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(+:outside)
  for (int64_t member = 0; member < members; ++member)
    outside += one(member, given, numbers, results, scratch + omp_get_thread_num() * SCRATCH);
  return outside;
}
"""


class Loop:
    """Loops over the elements of arrays of one shape that lie in different ways.

    Args:
        shape: Of all of them, after broadcasting.
        strides: Of each, by name.
        letter: What its counters are called.
    """

    def __init__(
        self, shape: Sequence[int], strides: Mapping[str, Sequence[int]], *, letter: str = "i"
    ) -> None:
        self.letter = letter
        keep = [d for d, size in enumerate(shape) if size != 1]
        self.shape = [shape[d] for d in keep]
        self.strides = {name: [s[d] for d in keep] for name, s in strides.items()}
        d = len(self.shape) - 1
        while d > 0:  # two dimensions are one where every array walks through both in step
            if all(s[d - 1] == s[d] * self.shape[d] for s in self.strides.values()):
                self.shape[d - 1] *= self.shape.pop(d)
                for s in self.strides.values():
                    del s[d - 1]
            d -= 1

    def at(self, name: str) -> str:
        """The place of an array's element."""
        terms = [f"{self.letter}{d}" + (f" * {s}" if s != 1 else "")
                 for d, s in enumerate(self.strides[name]) if s]  # fmt: skip
        return " + ".join(terms) or "0"

    def text(self, *body: str, simd: str = "SIMD") -> list[str]:
        """The loops around a body."""
        lines: list[str] = []
        for d, size in enumerate(self.shape):
            if d == len(self.shape) - 1 and simd:
                lines.append(simd)
            i = f"{self.letter}{d}"
            lines.append(f"for (int64_t {i} = 0; {i} < {size}; ++{i})")
        return [*lines, "{", *body, "}"]


def number(value: float | int | bool | str, kind: str) -> str:
    """A number in C++, or what one is computed as there."""
    if isinstance(value, str):
        return f"({kind})({value})"
    if isinstance(value, bool) or kind == "bool":
        return "true" if value else "false"
    if isinstance(value, float) and math.isnan(value):
        return f"({kind})NAN"
    if isinstance(value, float) and math.isinf(value):
        return f"({kind}){'-' if value < 0 else ''}INFINITY"
    return f"({kind})({value!r})"


def adding(*sums: str) -> str:
    """The compiler may take the numbers that a loop adds to these sums together."""
    return f'_Pragma("omp simd reduction(+:{",".join(sums)})")'


def run(scratch: int) -> str:
    """The function that Python calls.

    Args:
        scratch: Bytes that a thread needs.
    """
    return _RUN.replace("SCRATCH", str(scratch))
