r"""Read an optimizer's pointers in microseconds: what changed since the last step, and where are
the gradients?

``zero_grad()`` makes every step's gradients new tensors, a user may replace a slot, a list of
parameters, or the storage behind a tensor. Asking all that in Python costs 0.1 µs per attribute:
half a millisecond for 2,000 parameters, several times the step itself. So a C function asks:

* dicts and lists through CPython's own functions, handed to it by ``ctypes.pythonapi``;
* tensors through torch's stable C interface (``aoti_torch_get_data_ptr`` ...), given the address
  inside the Python object where its tensor is held. That address, and the two symbols that are not
  of the stable interface (``c10::TensorImpl::grad``, ``bump_version``), are checked on real tensors
  before they are used; where the check fails, the same is done in Python.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from steepest.kernels import compiler
from steepest.kernels.unavailable import KernelUnavailable

__all__ = ["CHANGED", "SAME", "VALUES", "Block", "Gather", "Structure", "Walker", "walker"]

SAME, VALUES, CHANGED = 0, 1, 2
"""What a walk finds: nothing changed but gradients; some group's values too; anything else."""

_SOURCE = r"""
#include <cstdint>
typedef void *Object;
typedef void *Handle;   // the address of an at::Tensor

struct Functions {
  int (*dict_next)(Object, int64_t *, Object *, Object *);
  int64_t (*dict_size)(Object);
  int64_t (*list_size)(Object);
  Object (*list_item)(Object, int64_t);
  Handle (*grad)(void *impl);
  void (*bump_version)(Handle);
  int32_t (*is_defined)(Handle, bool *);
  int32_t (*data_ptr)(Handle, void **);
  int32_t (*dtype)(Handle, int32_t *);
  int32_t (*layout)(Handle, int32_t *);
  int32_t (*device_type)(Handle, int32_t *);
  int32_t (*dim)(Handle, int64_t *);
  int32_t (*sizes)(Handle, int64_t **);
  int32_t (*strides)(Handle, int64_t **);
};

struct Structure {      // what must be the same Python objects as when this was filled in
  int64_t dicts;        // parameter groups: a difference in one is of values only
  Object *dict; int64_t *dict_first; Object *keys, *values;
  int64_t lists; Object *list; int64_t *list_first; Object *items;
  int64_t idle; Handle *idle_params;     // have no gradient
  int64_t watched; Handle *watch; void **watched_data;
};

struct Block { int64_t lo, hi, has_steps, active, uniform; double t; };

struct Gather {
  int64_t n, blocks, tensor_slots, wide_steps, wide_slots, dtype, layout, device;
  Block *block;
  Handle *params; void **param_data;
  int64_t *dim_first, *sizes, *strides;
  void **steps, **slots;                 // n;  tensor_slots * n
  void **grads; double *t, *slot_values; // results: n;  n;  tensor_slots * n
  int64_t *scalar_row; double *new_slots;// for commit: n;  rows * tensor_slots
};

static double read(const void *p, int64_t wide) { return wide ? *(double *)p : *(float *)p; }
static void write(void *p, int64_t wide, double x) {
  if (wide) *(double *)p = x; else *(float *)p = (float)x;
}

extern "C" int64_t steepest_structure(const Functions *f, Structure *s) {
  int64_t found = 0;
  for (int64_t d = 0; d < s->dicts; ++d) {
    int64_t i = s->dict_first[d], end = s->dict_first[d + 1], at = 0;
    Object key, value; bool same = f->dict_size(s->dict[d]) == end - i;
    while (same && i < end && f->dict_next(s->dict[d], &at, &key, &value)) {
      same = key == s->keys[i] && value == s->values[i];
      ++i;
    }
    if (!same) found = 1;
  }
  for (int64_t l = 0; l < s->lists; ++l) {
    int64_t i = s->list_first[l], n = s->list_first[l + 1] - i;
    if (f->list_size(s->list[l]) != n) return 2;
    for (int64_t j = 0; j < n; ++j) if (f->list_item(s->list[l], j) != s->items[i + j]) return 2;
  }
  for (int64_t i = 0; i < s->idle; ++i) {
    bool defined; Handle g = f->grad(*(void **)s->idle_params[i]);
    if (f->is_defined(g, &defined) || defined) return 2;
  }
  for (int64_t i = 0; i < s->watched; ++i) {
    void *data;
    if (f->data_ptr(s->watch[i], &data) || data != s->watched_data[i]) return 2;
  }
  return found;
}

static void near(const char *implementation) {  // a c10::TensorImpl has 3 cache lines
  for (int64_t at = 0; at < 192; at += 64) __builtin_prefetch(implementation + at);
}

// A tensor is a chain of small pieces of memory (its Python object, its implementation, that of its
// gradient), each of which names the next. After a backward pass none of them is in a cache, and to
// wait for one after the other takes longer than all the rest: so they are asked for ahead of time.
static void ahead(const Functions *f, const Gather *a, int64_t i, int64_t hi) {
  if (i + 24 < hi) __builtin_prefetch(a->params[i + 24]);
  if (i + 24 < hi) __builtin_prefetch(a->steps[i + 24]);
  if (i + 18 < hi) near(*(char **)a->params[i + 18]);
  if (i + 12 < hi) __builtin_prefetch(f->grad(*(void **)a->params[i + 12]));
  if (i + 6 < hi) near(*(char **)f->grad(*(void **)a->params[i + 6]));
}

extern "C" int64_t steepest_gather(const Functions *f, Gather *a) {
  for (int64_t b = 0; b < a->blocks; ++b) {
    Block &block = a->block[b];
    block.active = 0; block.uniform = 1;
    int64_t first = -1;
    for (int64_t i = block.lo; i < block.hi; ++i) {
      void *data; bool defined;
      ahead(f, a, i, block.hi);
      if (f->data_ptr(a->params[i], &data) || data != a->param_data[i]) return 2;
      Handle g = f->grad(*(void **)a->params[i]);
      if (f->is_defined(g, &defined)) return 2;
      if (!defined) { a->grads[i] = nullptr; continue; }
      int32_t dtype, layout, device; int64_t dim, *sizes, *strides;
      if (f->layout(g, &layout) || layout != a->layout) return 2;
      if (f->dtype(g, &dtype) || dtype != a->dtype) return 2;
      if (f->device_type(g, &device) || device != a->device) return 2;
      int64_t at = a->dim_first[i], nd = a->dim_first[i + 1] - at;
      if (f->dim(g, &dim) || dim != nd) return 2;
      if (f->sizes(g, &sizes) || f->strides(g, &strides)) return 2;
      bool empty = false, fits = true;
      for (int64_t d = 0; d < nd; ++d) {
        if (sizes[d] != a->sizes[at + d]) return 2;
        empty |= sizes[d] == 0;
        fits &= sizes[d] == 1 || strides[d] == a->strides[at + d];
      }
      if (!fits && !empty) return 2;
      if (f->data_ptr(g, &data) || (!data && !empty)) return 2;
      a->grads[i] = data ? data : (void *)a;  // empty: no row points to it, the step counts
      double t = block.has_steps ? read(a->steps[i], a->wide_steps) + 1 : block.t;
      a->t[i] = t;
      for (int64_t j = 0; j < a->tensor_slots; ++j)
        a->slot_values[j * a->n + i] = read(a->slots[j * a->n + i], a->wide_slots);
      if (first < 0) { first = i; block.t = t; }
      block.uniform &= t == block.t;
      for (int64_t j = 0; j < a->tensor_slots; ++j)
        block.uniform &= a->slot_values[j * a->n + i] == a->slot_values[j * a->n + first];
      ++block.active;
    }
    if (first >= 0 && block.has_steps) block.t = a->t[first];
  }
  return 0;
}

extern "C" void steepest_commit(const Functions *f, Gather *a) {
  for (int64_t b = 0; b < a->blocks; ++b)
    for (int64_t i = a->block[b].lo; i < a->block[b].hi; ++i) {
      if (!a->grads[i]) continue;
      f->bump_version(a->params[i]);
      if (a->block[b].has_steps) write(a->steps[i], a->wide_steps, a->t[i]);
      for (int64_t j = 0; j < a->tensor_slots; ++j)
        write(a->slots[j * a->n + i], a->wide_slots,
              a->new_slots[a->scalar_row[i] * a->tensor_slots + j]);
    }
}
"""

_PYTHON = ("PyDict_Next", "PyDict_Size", "PyList_Size", "PyList_GetItem")
_GRAD = "_ZNK3c1010TensorImpl4gradEv"  # c10::TensorImpl::grad() const
# torch::autograd::impl::bump_version(at::Tensor const&): so that autograd notices the writing
_BUMP = "_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE"
_TORCH = (
    "aoti_torch_is_defined",
    "aoti_torch_get_data_ptr",
    "aoti_torch_get_dtype",
    "aoti_torch_get_layout",
    "aoti_torch_get_device_type",
    "aoti_torch_get_dim",
    "aoti_torch_get_sizes",
    "aoti_torch_get_strides",
)


class _Functions(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in (*_PYTHON, "grad", "bump_version", *_TORCH)]


class Structure(ctypes.Structure):
    """The Python objects that must still be the same; fields as in C++."""

    _fields_ = [
        ("dicts", ctypes.c_int64),
        ("dict", ctypes.c_void_p),
        ("dict_first", ctypes.c_void_p),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("lists", ctypes.c_int64),
        ("list", ctypes.c_void_p),
        ("list_first", ctypes.c_void_p),
        ("items", ctypes.c_void_p),
        ("idle", ctypes.c_int64),
        ("idle_params", ctypes.c_void_p),
        ("watched", ctypes.c_int64),
        ("watch", ctypes.c_void_p),
        ("watched_data", ctypes.c_void_p),
    ]


class Block(ctypes.Structure):
    """A range of tensors and what was found about their steps; fields as in C++."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("lo", "hi", "has_steps", "active", "uniform")),
        ("t", ctypes.c_double),
    ]


class Gather(ctypes.Structure):
    """Where to read what, and where to put it; fields as in C++."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "n",
                "blocks",
                "tensor_slots",
                "wide_steps",
                "wide_slots",
                "dtype",
                "layout",
                "device",
            )
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "block",
                "params",
                "param_data",
                "dim_first",
                "sizes",
                "strides",
                "steps",
                "slots",
                "grads",
                "t",
                "slot_values",
                "scalar_row",
                "new_slots",
            )
        ),
    ]


class Walker:
    """The C functions, and where in a tensor's Python object its tensor is held."""

    def __init__(self) -> None:
        library = compiler.load(_SOURCE, holding_gil=True)
        torch_lib = Path(torch.__file__).parent / "lib"
        suffix = ".dylib" if (torch_lib / "libc10.dylib").exists() else ".so"
        c10 = ctypes.CDLL(str(torch_lib / f"libc10{suffix}"))
        cpu = ctypes.CDLL(str(torch_lib / f"libtorch_cpu{suffix}"))
        try:
            functions = [
                *(getattr(ctypes.pythonapi, name) for name in _PYTHON),
                getattr(c10, _GRAD),
                getattr(cpu, _BUMP),
                *(getattr(cpu, name) for name in _TORCH),
            ]
        except AttributeError as error:
            raise KernelUnavailable(f"torch {torch.__version__} lacks a symbol: {error}") from error
        self._functions = _Functions(*(ctypes.cast(f, ctypes.c_void_p).value for f in functions))
        self._address = ctypes.addressof(self._functions)
        self._structure = _bound(library.steepest_structure, ctypes.c_int64, 2)
        self._gather = _bound(library.steepest_gather, ctypes.c_int64, 2)
        self._commit = _bound(library.steepest_commit, None, 2)
        self.offset = _offset()
        self._check()

    def structure(self, s: Structure) -> int:
        """Whether the Python objects are the same: SAME, VALUES or CHANGED."""
        return int(self._structure(self._address, ctypes.addressof(s)))

    def gather(self, a: Gather) -> int:
        """Read gradients and steps: SAME or CHANGED."""
        return int(self._gather(self._address, ctypes.addressof(a)))

    def commit(self, a: Gather) -> None:
        """Write the new steps and the new per-tensor slots of all tensors with a gradient."""
        self._commit(self._address, ctypes.addressof(a))

    def handle(self, x: torch.Tensor) -> int | None:
        """Where in the Python object its ``at::Tensor`` is; None if not where expected."""
        at = id(x) + self.offset
        return at if ctypes.c_uint64.from_address(at).value == x._cdata else None

    def kind(self, handle: int) -> tuple[int, int, int]:
        """Dtype, layout and device type of a tensor, as torch's C interface numbers them."""
        names = ("aoti_torch_get_dtype", "aoti_torch_get_layout", "aoti_torch_get_device_type")
        answers = tuple(ctypes.c_int32() for _ in names)
        for name, answer in zip(names, answers, strict=True):
            self._call(name, ctypes.c_int32, handle, answer)
        return answers[0].value, answers[1].value, answers[2].value

    def _check(self) -> None:
        """Ask about tensors whose answers are known."""
        with_grad = torch.nn.Parameter(torch.zeros(3, 2).t())
        with_grad.grad = torch.zeros(2, 3)
        without = torch.nn.Parameter(torch.zeros(1))
        for p, grad in ((with_grad, with_grad.grad), (without, None)):
            handle = self.handle(p)
            if handle is None:
                raise KernelUnavailable("a tensor's Python object is laid out in an unknown way")
            data = ctypes.c_void_p()
            defined = ctypes.c_bool()
            impl = ctypes.c_void_p.from_address(handle).value
            held = self._call("grad", ctypes.c_void_p, impl)
            same = self._call("aoti_torch_get_data_ptr", ctypes.c_int32, handle, data) == 0
            same &= data.value == p.data_ptr()
            same &= self._call("aoti_torch_is_defined", ctypes.c_int32, held, defined) == 0
            same &= defined.value == (grad is not None)
            version = p._version
            self._call("bump_version", None, handle)
            same &= p._version == version + 1
            if grad is not None:
                sizes = ctypes.POINTER(ctypes.c_int64)()
                self._call("aoti_torch_get_data_ptr", ctypes.c_int32, held, data)
                self._call("aoti_torch_get_strides", ctypes.c_int32, held, sizes)
                same &= data.value == grad.data_ptr() and tuple(sizes[:2]) == grad.stride()
            if not same:
                raise KernelUnavailable("torch's C interface answers otherwise than expected")

    def _call(self, name: str, result: Any, handle: int | None, *outputs: Any) -> Any:
        kind = ctypes.PYFUNCTYPE(result, *[ctypes.c_void_p] * (1 + len(outputs)))
        return kind(getattr(self._functions, name))(handle, *(ctypes.addressof(x) for x in outputs))


def _bound(function: Any, result: Any, arguments: int) -> Any:
    function.restype = result
    function.argtypes = [ctypes.c_void_p] * arguments
    return function


def _offset() -> int:
    """Where in a tensor's Python object the pointer to its implementation stands."""
    x = torch.nn.Parameter(torch.zeros(1))
    for at in range(object.__basicsize__, torch._C.TensorBase.__basicsize__, 8):
        if ctypes.c_uint64.from_address(id(x) + at).value == x._cdata:
            return at
    raise KernelUnavailable("a tensor's Python object is laid out in an unknown way")


@lru_cache(maxsize=1)
def walker() -> Walker | None:
    """The walker of this process; None where the objects are not laid out as expected."""
    try:
        return Walker()
    except KernelUnavailable:
        return None
