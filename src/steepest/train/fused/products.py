"""Matrix products of one thread in C++, for matrices that stay in the cache.

    a [m, k], b [k, n], c [m, n]    any strides

One side of a product lies along vector registers, the other one is handed over number by number:
``c[i, j..j+w] += a[i, l] * b[l, j..j+w]`` for all ``l`` at once, with a tile of ``c`` in registers.
So only ``b`` has to be contiguous along ``n``; where it is not, it is copied into a panel that is.
Which of the two sides that is, `Product` decides: the product of the transposed matrices is the
same one.

The vectors are those that the compiler knows everywhere (GCC's and Clang's vector extensions), as
wide as the machine's. A sum runs through ``l`` in order and in one number, so the outcome depends
on nothing but its row and column.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LANES", "PRODUCTS", "Product", "filled"]

LANES = 16
"""Numbers that a panel's rows are filled up to; no vector of float32 is longer."""

PRODUCTS = r"""
#if defined(__AVX512F__)
enum { BYTES = 64, MANY = 1 };
#elif defined(__AVX__)
enum { BYTES = 32, MANY = 0 };
#elif defined(__aarch64__)
enum { BYTES = 16, MANY = 1 };  // MANY: 32 registers, not 16
#else
enum { BYTES = 16, MANY = 0 };
#endif
enum { PAD = 16 };
#define UNROLL _Pragma("GCC unroll 16")

template <class T> struct Lanes {
  typedef T type __attribute__((vector_size(BYTES)));
  enum { count = BYTES / (int)sizeof(T) };
};

template <class T> static inline typename Lanes<T>::type get(const T *p) {
  typename Lanes<T>::type v; memcpy(&v, p, BYTES); return v;
}
template <class T> static inline void put(T *p, typename Lanes<T>::type v) { memcpy(p, &v, BYTES); }

// Where rows begin: l * stride, or anywhere for the rows of b (by l) or of a (by i). In the last
// case products are added to c.
enum { PLAIN, ROWS_OF_B, ROWS_OF_A };

// R rows and V vectors of c; `width` of its columns are wanted. One piece of code for all calls: as
// many as there are strides take a second to compile and are no faster.
template <class T, int HOW, int R, int V>
static __attribute__((noinline, noclone)) void tile(
    int64_t k, const T *a, int64_t ai, int64_t ak, const T *b, int64_t bk, const int64_t *at,
    T *c, int64_t ci, int64_t cj, int64_t width) {
  typedef typename Lanes<T>::type Vector;
  enum { W = Lanes<T>::count };
  Vector sum[R][V];
  const T *from[R];
  UNROLL for (int i = 0; i < R; ++i) {
    from[i] = a + (HOW == ROWS_OF_A ? at[i] : i * ai);
    UNROLL for (int j = 0; j < V; ++j)
      sum[i][j] = HOW == ROWS_OF_A ? get<T>(c + i * ci + j * W) : Vector{};
  }
  for (int64_t l = 0; l < k; ++l) {
    const T *const line = b + (HOW == ROWS_OF_B ? at[l] : l * bk);
    Vector row[V];
    UNROLL for (int j = 0; j < V; ++j) row[j] = get<T>(line + j * W);
    UNROLL for (int i = 0; i < R; ++i) {
      const Vector all = from[i][l * ak] - Vector{};
      UNROLL for (int j = 0; j < V; ++j) sum[i][j] += all * row[j];
    }
  }
  if (cj == 1 && width == V * W) {
    UNROLL for (int i = 0; i < R; ++i)
      UNROLL for (int j = 0; j < V; ++j) put<T>(c + i * ci + j * W, sum[i][j]);
    return;
  }
  T rows[R][V * W];
  UNROLL for (int i = 0; i < R; ++i)
    UNROLL for (int j = 0; j < V; ++j) put<T>(rows[i] + j * W, sum[i][j]);
  for (int64_t j = 0; j < width; ++j)
    for (int i = 0; i < R; ++i) c[i * ci + j * cj] = rows[i][j];
}

template <class T, int HOW, int R, int V>
static inline void strip(
    int64_t m, int64_t k, const T *a, int64_t ai, int64_t ak, const T *b, int64_t bk,
    const int64_t *at, T *c, int64_t ci, int64_t cj, int64_t width) {
  const int step = HOW == ROWS_OF_A;
  int64_t i = 0;
  for (; i + R <= m; i += R)
    tile<T, HOW, R, V>(k, a + i * ai, ai, ak, b, bk, at + step * i, c + i * ci, ci, cj, width);
  if constexpr (R > 1)
    if (i < m)
      strip<T, HOW, R / 2, V>(m - i, k, a + i * ai, ai, ak, b, bk, at + step * i, c + i * ci, ci,
                              cj, width);
}

// columns `begin` to `end` of c, from rows of b that may be read up to whole vectors
template <class T, int HOW>
static void strips(
    int64_t begin, int64_t end, int64_t m, int64_t k, const T *a, int64_t ai, int64_t ak,
    const T *b, int64_t bk, const int64_t *at, T *c, int64_t ci, int64_t cj) {
  enum { W = Lanes<T>::count };
  int64_t j = begin;
  while (j < end) {
    const int64_t left = end - j;
    const T *here = b + (j - begin);
    T *into = c + j * cj;
    if (left > 3 * W) {
      const int64_t width = left < 4 * W ? left : 4 * W;
      strip<T, HOW, MANY ? 4 : 2, 4>(m, k, a, ai, ak, here, bk, at, into, ci, cj, width);
      j += 4 * W;
    } else if (left > W) {
      const int64_t width = left < 2 * W ? left : 2 * W;
      strip<T, HOW, MANY ? 8 : 4, 2>(m, k, a, ai, ak, here, bk, at, into, ci, cj, width);
      j += 2 * W;
    } else {
      strip<T, HOW, 8, 1>(m, k, a, ai, ak, here, bk, at, into, ci, cj, left);
      j += W;
    }
  }
}

// Rows and columns of W x W numbers change places: in step S = 1, 2, 4, … every two rows that are S
// apart exchange the numbers that are S apart.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define EXCHANGES
template <class V, int S, size_t... L>
static inline void exchange(V &a, V &b, std::index_sequence<L...>) {
  enum { W = sizeof...(L) };
  const V low = __builtin_shufflevector(a, b, (L & S ? (int)L + W - S : (int)L)...);
  b = __builtin_shufflevector(a, b, (L & S ? (int)L + W : (int)L + S)...);
  a = low;
}
template <class T, int S> static inline void exchange_all(typename Lanes<T>::type *rows) {
  enum { W = Lanes<T>::count };
  if constexpr (S < W) {
    UNROLL for (int i = 0; i < W; ++i)
      if (!(i & S))
        exchange<typename Lanes<T>::type, S>(rows[i], rows[i + S], std::make_index_sequence<W>());
    exchange_all<T, 2 * S>(rows);
  }
}
#endif
#endif

// b[l, j] with the numbers of a column beside each other, to panel[l, j]
template <class T>
static void turn(int64_t k, int64_t n, const T *b, int64_t bk, int64_t bj, T *panel, int64_t row) {
  enum { W = Lanes<T>::count };
  for (int64_t l = 0; l < k; l += W)
    for (int64_t j = 0; j < row; j += W) {
#ifdef EXCHANGES
      if (bk == 1 && l + W <= k && j + W <= n) {
        typename Lanes<T>::type rows[W];
        UNROLL for (int i = 0; i < W; ++i) rows[i] = get<T>(b + (j + i) * bj + l);
        exchange_all<T, 1>(rows);
        UNROLL for (int i = 0; i < W; ++i) put<T>(panel + (l + i) * row + j, rows[i]);
        continue;
      }
#endif
      for (int64_t x = l; x < (k < l + W ? k : l + W); ++x)
        for (int64_t y = j; y < j + W; ++y)
          panel[x * row + y] = y < n ? b[x * bk + y * bj] : (T)0;
    }
}

template <class T>
static void product(
    int64_t m, int64_t n, int64_t k, const T *a, int64_t ai, int64_t ak,
    const T *b, int64_t bk, int64_t bj, T *c, int64_t ci, int64_t cj, T *panel) {
  const int64_t whole = bj == 1 ? n - n % PAD : 0;
  if (whole) strips<T, PLAIN>(0, whole, m, k, a, ai, ak, b, bk, nullptr, c, ci, cj);
  if (whole == n) return;
  const int64_t row = (n - whole + PAD - 1) / PAD * PAD;
  turn<T>(k, n - whole, b + whole * bj, bk, bj, panel, row);
  strips<T, PLAIN>(whole, n, m, k, a, ai, ak, panel, row, nullptr, c, ci, cj);
}
"""


@dataclass(frozen=True)
class Product:
    """How one product is carried out.

    Attributes:
        swapped: As the product of the transposed matrices: ``a`` lies along the vectors.
        panel: Numbers of the panel; 0 if nothing has to be copied.
    """

    swapped: bool
    panel: int

    @classmethod
    def choose(cls, m: int, n: int, k: int, *, a_rows: int, b_columns: int) -> Product:
        """The way with the least to compute and to copy.

        Args:
            m: Rows of the first matrix.
            n: Columns of the second.
            k: What they have in common.
            a_rows: How far apart the numbers of one column of ``a`` lie.
            b_columns: How far apart the numbers of one row of ``b`` lie.
        """

        def way(rows: int, columns: int, stride: int) -> tuple[int, int]:
            copied = columns % LANES if stride == 1 else columns
            panel = k * filled(copied)
            return rows * filled(columns) * k + _COPY * panel, panel

        straight, turned = way(m, n, b_columns), way(n, m, a_rows)
        return cls(True, turned[1]) if turned[0] < straight[0] else cls(False, straight[1])


_COPY = 6  # multiplications that copying a number to a panel takes as long as


def filled(columns: int) -> int:
    """The next multiple of `LANES`."""
    return -(-columns // LANES) * LANES
