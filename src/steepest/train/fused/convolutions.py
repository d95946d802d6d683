"""Convolutions of one thread as matrix products whose rows begin anywhere.

    x [B, C, H, W], w [O, C, h, w], y [B, O, H', W']

An example is copied to **planes**: with its zeros around it, and for a stride s in s * s pieces,
each of every s-th row and column. There the numbers that one weight is multiplied with lie one
after the other, for all places of the outcome: a weight, a *tap* ``(c, i, j)``, is a place in the
planes at which a row begins. So nothing is copied once per weight, as columns would be:

    y[o, p]   = sum over taps:      w[o, tap] * planes[at[tap] + p]
    dw[o, tap] = sum over p:        dy[o, p] * planes[at[tap] + p]
    dx: planes[at[tap] + p]      += sum over o: w[o, tap] * dy[o, p]

A row of planes is longer than one of the outcome; the places in between are computed for nothing,
a few in a hundred, and are 0 in ``dy``.
"""

from __future__ import annotations

from dataclasses import dataclass

from steepest.train.fused.products import LANES, filled

__all__ = ["CONVOLUTIONS", "Convolution"]

_SOME = 16  # taps that the way back to the images takes at a time

CONVOLUTIONS = (
    f"enum {{ SOME = {_SOME} }};"
    + r"""
struct Convolution {
  int64_t examples, channels, height, width, outcomes, high, wide;
  int64_t down, across, above, beside, apart_y, apart_x, out_height, out_width;
  int64_t rows, columns;      // of a piece of planes
  int64_t taps, places, row;  // row: places, filled up
};

static inline void find_taps(const Convolution &s, int64_t *at) {
  int64_t n = 0;
  const int64_t piece = s.rows * s.columns, pieces = s.down * s.across;
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t i = 0; i < s.high; ++i)
      for (int64_t j = 0; j < s.wide; ++j) {
        const int64_t y = i * s.apart_y, x = j * s.apart_x;
        at[n++] = (c * pieces + y % s.down * s.across + x % s.across) * piece
            + y / s.down * s.columns + x / s.across;
      }
}

// an example to planes, whose zeros are there already; or back
template <class T, bool BACK>
static void lay_out(const Convolution &s, T *x, T *planes) {
  const int64_t piece = s.rows * s.columns, pieces = s.down * s.across;
  for (int64_t c = 0; c < s.channels; ++c)
    for (int64_t i = 0; i < s.height; ++i) {
      const int64_t y = i + s.above;
      T *const to = planes + (c * pieces + y % s.down * s.across) * piece + y / s.down * s.columns;
      T *const from = x + (c * s.height + i) * s.width;
      if (s.across == 1) {
        if (BACK) memcpy(from, to + s.beside, s.width * sizeof(T));
        else memcpy(to + s.beside, from, s.width * sizeof(T));
        continue;
      }
      for (int64_t j = 0; j < s.width; ++j) {
        T &there = to[(j + s.beside) % s.across * piece + (j + s.beside) / s.across];
        if (BACK) from[j] = there;
        else there = from[j];
      }
    }
}

// an outcome with the places in between, which are 0; or without them
template <class T, bool BACK>
static void widen(const Convolution &s, T *y, T *rows) {
  for (int64_t o = 0; o < s.outcomes; ++o)
    for (int64_t i = 0; i < s.out_height; ++i) {
      T *const narrow = y + (o * s.out_height + i) * s.out_width;
      T *const wide = rows + o * s.row + i * s.columns;
      if (BACK) memcpy(narrow, wide, s.out_width * sizeof(T));
      else memcpy(wide, narrow, s.out_width * sizeof(T));
    }
}

template <class T>
static void convolve(const Convolution &s, const T *x, const T *w, T *y,
                     int64_t *at, T *planes, int64_t size, T *rows) {
  find_taps(s, at);
  memset(planes, 0, size * sizeof(T));
  for (int64_t b = 0; b < s.examples; ++b) {
    lay_out<T, false>(s, (T *)x + b * s.channels * s.height * s.width, planes);
    strips<T, ROWS_OF_B>(0, s.places, s.outcomes, s.taps, w, s.taps, 1, planes, 0, at,
                         rows, s.row, 1);
    widen<T, true>(s, y + b * s.outcomes * s.out_height * s.out_width, rows);
  }
}

template <class T>
static void convolve_back(const Convolution &s, const T *x, const T *w, const T *dy, T *dx, T *dw,
                          int64_t *at, T *planes, int64_t size, T *rows, T *turned, T *sums,
                          T *some) {
  const int64_t filled = (s.outcomes + PAD - 1) / PAD * PAD;
  find_taps(s, at);
  memset(planes, 0, size * sizeof(T));
  memset(rows, 0, s.outcomes * s.row * sizeof(T));
  if (dw) memset(sums, 0, s.taps * filled * sizeof(T));
  for (int64_t b = 0; b < s.examples; ++b) {
    widen<T, false>(s, (T *)dy + b * s.outcomes * s.out_height * s.out_width, rows);
    if (dw) {
      lay_out<T, false>(s, (T *)x + b * s.channels * s.height * s.width, planes);
      turn<T>(s.places, s.outcomes, rows, 1, s.row, turned, filled);
      strips<T, ROWS_OF_A>(0, filled, s.taps, s.places, planes, 0, 1, turned, filled, at,
                           sums, filled, 1);
    }
    if (dx) {
      if (dw || b) memset(planes, 0, size * sizeof(T));
      for (int64_t tap = 0; tap < s.taps; tap += SOME) {
        const int64_t here = s.taps - tap < SOME ? s.taps - tap : SOME;
        strips<T, PLAIN>(0, s.row, here, s.outcomes, w + tap, 1, s.taps, rows, s.row, nullptr,
                         some, s.row, 1);
        for (int64_t i = 0; i < here; ++i) {
          T *const to = planes + at[tap + i];
          const T *const from = some + i * s.row;
          SIMD for (int64_t p = 0; p < s.places; ++p) to[p] += from[p];
        }
      }
      lay_out<T, true>(s, dx + b * s.channels * s.height * s.width, planes);
      if (dw) memset(planes, 0, size * sizeof(T));
    }
  }
  if (dw)
    for (int64_t tap = 0; tap < s.taps; ++tap)
      for (int64_t o = 0; o < s.outcomes; ++o) dw[o * s.taps + tap] = sums[tap * filled + o];
}
"""
)


@dataclass(frozen=True)
class Convolution:
    """The sizes of one; those that follow from others are properties.

    Attributes:
        x: Shape of what is convolved.
        w: Shape of the weights.
        stride: Down and across.
        padding: Above and beside.
        dilation: Between taps, down and across.
    """

    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def y(self) -> tuple[int, int, int, int]:
        """Shape of the outcome."""
        sides = zip(self.x[2:], self.w[2:], self.stride, self.padding, self.dilation, strict=True)
        height, width = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)
        return self.x[0], self.w[0], height, width

    @property
    def piece(self) -> tuple[int, int]:
        """Rows and columns of a piece of planes."""
        sides = zip(self.x[2:], self.stride, self.padding, strict=True)
        rows, columns = (-(-(n + 2 * p) // s) for n, s, p in sides)
        return rows, columns

    @property
    def taps(self) -> int:
        """Weights of one outcome."""
        return self.w[1] * self.w[2] * self.w[3]

    @property
    def row(self) -> int:
        """Places of the outcome in planes, filled up to whole vectors."""
        return filled(self.y[2] * self.piece[1])

    @property
    def planes(self) -> int:
        """Numbers of an example's planes; the last rows are read a little beyond their ends."""
        rows, columns = self.piece
        whole = self.x[1] * self.stride[0] * self.stride[1] * rows * columns
        return whole + columns + 5 * LANES

    @property
    def outcomes(self) -> int:
        """Numbers that stand for one place of all outcomes, filled up to whole vectors."""
        return filled(self.w[0])

    @property
    def some(self) -> int:
        """Numbers that as many taps give at a time, on the way back to the images."""
        return _SOME * self.row

    def text(self) -> str:
        """It in C++."""
        (b, c, h, w), (o, _, i, j) = self.x, self.w
        rows, columns = self.piece
        numbers = (
            b, c, h, w, o, i, j, *self.stride, *self.padding, *self.dilation, *self.y[2:],
            rows, columns, self.taps, self.y[2] * columns, self.row,
        )  # fmt: skip
        return f"Convolution{{{', '.join(map(str, numbers))}}}"
