"""One Triton kernel per traced rule and dtype, over the same table of pointers as on the CPU.

    n        tensors          k    element slots          R    rows (chunks of BLOCK elements)

Two ways to the scalars. Where steps are counted on the host, the host runs the scalar program, as
on the CPU. Where they are counted on the device (``capturable=True``, ``fused=True``), a second
generated kernel runs it there in float64, one program per tensor, and counts: then nothing of a
step depends on the host, and a captured CUDA graph advances by itself.

Rules that need sums over all tensors run it twice there: once for what leads to those sums, with
what the state holds put aside, and once for what follows from them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import ModuleType
from typing import Any

import torch

from steepest.kernels import cache, cuda_rows
from steepest.kernels.cuda_text import LINES, line_values, statements
from steepest.kernels.symbols import Node, ordered
from steepest.kernels.trace import Program
from steepest.kernels.unavailable import KernelUnavailable

__all__ = ["BLOCK", "DTYPES", "Kernel", "build", "source"]

BLOCK = 1_024
"""Elements per program. Measured on an H200: best at 1,024 to 2,048, with 4 warps."""

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
"""Element types that a kernel takes, and what they are called in Triton."""

_HEAD = """import triton
import triton.language as tl


"""

# as tl.sum has it, which is not interpreted unless TRITON_INTERPRET was set before the first import
_ADD = ("", "@triton.jit", "def add(a, b):", "    return a + b", "")

# The same bits as in kernels/cpu.py, whose comments say what they are.
_NOISE = """@triton.jit
def mix(x):
    x += tl.full((), 0x9e3779b97f4a7c15, tl.uint64)
    x = (x ^ (x >> 30)) * tl.full((), 0xbf58476d1ce4e5b9, tl.uint64)
    x = (x ^ (x >> 27)) * tl.full((), 0x94d049bb133111eb, tl.uint64)
    return x ^ (x >> 31)


@triton.jit
def scatter(x, a, b):
    x ^= a
    x ^= x >> 16
    x *= tl.full((), 0x7feb352d, tl.uint32)
    x ^= x >> 15
    x += b
    x *= tl.full((), 0x846ca68b, tl.uint32)
    return x ^ (x >> 16)


@triton.jit
def rounded(x, noise):
    up = (x.to(tl.uint32, bitcast=True) + noise) >> 16
    bits = tl.where(x != x, tl.full((), 0x7fc0, tl.uint32), up)
    return bits.to(tl.uint16).to(tl.bfloat16, bitcast=True)


"""


@dataclass(frozen=True)
class Kernel:
    """The generated functions of a rule.

    Attributes:
        program: What they compute.
        elements: Does the rows.
        scalars: Runs the scalar program on the device.
        passes: Pairs of functions to call before ``elements``: sums of rows, numbers of tensors.
            After the first ``program.early`` of them the sums over all tensors are known.
        source: Their text.
        lines: For rules that have numbers of rows and columns: what follows each pass, and last
            what is done when all elements have been. Each is to be called once per ``matrix``,
            ``row`` or ``column``, which is told beside it.
    """

    program: Program
    elements: Any
    scalars: Any
    passes: tuple[tuple[Any, Any], ...]
    source: str
    lines: tuple[tuple[tuple[str, Any], ...], ...] = ()


def _loads(
    program: Program, real: str, kind: str, slot_kind: str, *, stage: int
) -> tuple[list[str], dict[Node, str]]:
    """What every kernel over elements begins with, and the names of what is there then.

    Args:
        program: The traced rule.
        real: The type to compute with.
        kind: The parameters' type.
        slot_kind: The slots' type.
        stage: How many passes have been done before.
    """
    head = [
        "    row = tl.program_id(0).to(tl.int64)",
        "    tensor = tl.load(rows + 3 * row)",
        "    offset = tl.load(rows + 3 * row + 1)",
        "    length = tl.load(rows + 3 * row + 2)",
        "    address = tl.load(grads + tensor)",
        "    line = scalars + tl.load(scalar_row + tensor) * COLUMNS",
        "    wide_factor = tl.load(line)",
        "    if (address != 0) & (wide_factor != 0):",  # 0: found_inf
        f"        factor = wide_factor.to(tl.{real})",
    ]
    names: dict[Node, str] = {}
    for i, node in enumerate(program.columns):
        names[node] = f"c{i}"
        head.append(f"        c{i} = tl.load(line + {i + 1}).to(tl.{real})")
    for i, node in enumerate(program.tensor_columns):
        if node.stage <= stage:
            names[node] = f"w{i}"
            head.append(f"        w{i} = tl.load(own + tensor * WIDTH + {i}).to(tl.{real})")
    head.append("        at = offset + tl.arange(0, BLOCK)")
    head.append("        inside = tl.arange(0, BLOCK) < length")
    if program.view != "none":
        more, small = line_values(program, real, stage=stage)
        names |= small
        head += [f"        {text}" for text in more]
    pointers = {"p": ("tl.load(params + tensor)", kind), "g": ("address", kind)}
    for i, slot in enumerate(program.element_slots):
        pointers[f"s_{slot}"] = (f"tl.load(slots + {i} * n + tensor)", slot_kind)
    for name, (where, what) in pointers.items():
        pointer = f"({where}).to(tl.pointer_type(tl.{what}))"
        head.append(f"        {name} = tl.multiple_of({pointer}, ALIGN)")
    head.append(f"        x_p = tl.load(p + at, mask=inside, other=0.0).to(tl.{real})")
    head.append(f"        x_g = factor * tl.load(g + at, mask=inside, other=0.0).to(tl.{real})")
    for slot in program.element_slots:
        loaded = f"tl.load(s_{slot} + at, mask=inside, other=0.0)"
        head.append(f"        x_{slot} = {loaded}.to(tl.{real})")
    return head, names


def _with_inputs(names: dict[Node, str], roots: Sequence[Node]) -> dict[Node, str]:
    inputs = (n for n in ordered(roots, known=frozenset(names)) if n.op == "element")
    return {**names, **{node: f"x_{node.name}" for node in inputs}}


def _element_kernel(
    program: Program, real: str, kind: str, slot_kind: str, *, noisy: bool
) -> Iterator[str]:
    yield "@triton.jit"
    yield "def elements(rows, params, grads, slots, scalar_row, scalars, own, keys, n,"
    if program.view != "none":
        yield f"             {LINES}"
    yield "             COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ALIGN: tl.constexpr,"
    yield "             BLOCK: tl.constexpr):"
    head, names = _loads(program, real, kind, slot_kind, stage=sys.maxsize)
    yield from head
    names = _with_inputs(names, program.element_roots)
    for line in statements(program.element_roots, names, real, elements=True):
        yield f"        {line}"
    stored = [("p", f"x_p + {names[program.step]}", kind)]
    for slot in program.element_slots:
        if slot in program.new_slots:
            new = names[program.new_slots[slot]]
            full = f"{new} + tl.full((BLOCK,), 0.0, tl.{real})"  # it may be one number for all
            stored.append((f"s_{slot}", full, slot_kind))
    if noisy:
        yield f"        t = tl.load(line + {1 + len(program.columns)}).to(tl.int64)"
        yield "        key = tl.load(keys + tensor).to(tl.uint64) + t.to(tl.uint64)"
        yield "        key = mix(mix(key) + (offset >> 32).to(tl.uint64))"
        yield "        key_a = (key & 0xffffffff).to(tl.uint32)"
        yield "        key_b = (key >> 32).to(tl.uint32)"
    count = 0
    for place, value, what in stored:
        if not (noisy and what == "bfloat16"):
            yield f"        tl.store({place} + at, ({value}).to(tl.{what}), mask=inside)"
            continue
        if count % 2 == 0:  # 32 random bits are good for two values, as in kernels/cpu.py
            start = "(at & 0xffffffff).to(tl.uint32)" if count == 0 else "noise"
            yield f"        noise = scatter({start}, key_a, key_b)"
        bits = "noise & 0xffff" if count % 2 == 0 else "noise >> 16"
        yield f"        tl.store({place} + at, rounded({value}, {bits}), mask=inside)"
        count += 1


def _reduction_kernels(
    program: Program, index: int, real: str, kind: str, slot_kind: str
) -> Iterator[str]:
    """Sums of every row; then, a program per tensor, the rows' sums and what follows from them."""
    one = program.passes[index]
    width = len(one.sums)
    totals = program.totals if index + 1 == program.early else ()
    yield "@triton.jit"
    yield f"def reduce_{index}(rows, params, grads, slots, scalar_row, scalars, own, partial, n,"
    if program.view != "none":
        yield f"             {LINES}"
    yield "             COLUMNS: tl.constexpr, WIDTH: tl.constexpr, ALIGN: tl.constexpr,"
    yield "             BLOCK: tl.constexpr):"
    head, names = _loads(program, real, kind, slot_kind, stage=one.stage - 1)
    yield from head
    summed = [node.args[0] for node in one.sums]
    names = _with_inputs(names, summed)
    for line in statements(summed, names, real, elements=True):
        yield f"        {line}"
    for i, node in enumerate(summed):
        wide = f"tl.where(inside, {names[node]}, 0.0).to(tl.float64)"
        yield f"        tl.store(partial + row * {width} + {i}, tl.reduce({wide}, 0, add))"
    yield ""
    yield ""
    yield "@triton.jit"
    yield f"def numbers_{index}(grads, first_row, sizes, scalar_row, scalars, own, partial, shares,"
    if program.view != "none":
        yield "             geometry,"
    yield "             COLUMNS: tl.constexpr, WIDTH: tl.constexpr, SPAN: tl.constexpr):"
    yield "    tensor = tl.program_id(0).to(tl.int64)"
    yield "    here = tl.load(grads + tensor) != 0"
    yield "    line = scalars + tl.load(scalar_row + tensor) * COLUMNS"
    yield "    first = tl.load(first_row + tensor)"
    yield "    end = tl.load(first_row + tensor + 1)"
    for i in range(width):
        yield f"    sum_{i} = tl.full((SPAN,), 0.0, tl.float64)"
    yield "    for start in range(first, end, SPAN):"
    yield "        at = start + tl.arange(0, SPAN)"
    for i in range(width):
        loaded = f"tl.load(partial + at * {width} + {i}, mask=at < end, other=0.0)"
        yield f"        sum_{i} += {loaded}"
    own = {node: i for i, node in enumerate(program.tensor_columns)}
    names = {}
    for i, node in enumerate(program.columns):
        names[node] = f"c{i}"
        yield f"    c{i} = tl.load(line + {i + 1})"
    for node, i in own.items():
        if node.stage < one.stage:
            names[node] = f"w{i}"
            yield f"    w{i} = tl.load(own + tensor * WIDTH + {i})"
    for i, node in enumerate(one.sums):
        names[node] = f"a{i}"
        yield f"    a{i} = tl.reduce(sum_{i}, 0, add)"
    for node in ordered((*one.columns, *totals), known=frozenset(names)):
        if node.op in cuda_rows.FACTS:
            names[node] = f"n_{node.op}"
            yield f"    n_{node.op} = {cuda_rows.FACTS[node.op]}"
    for line in statements((*one.columns, *totals), names, "float64", elements=False):
        yield f"    {line}"
    for node in (*one.sums, *one.columns):
        yield f"    tl.store(own + tensor * WIDTH + {own[node]}, ({names[node]}).to(tl.float64))"
    for i, node in enumerate(totals):
        share = f"tl.where(here, {names[node]}, 0.0).to(tl.float64)"
        yield f"    tl.store(shares + tensor * {len(totals)} + {i}, {share})"


def _scalar_kernel(program: Program, *, noisy: bool) -> Iterator[str]:
    yield "@triton.jit"
    yield "def scalars(grads, steps, numbers, values, value_row, factors, table, n, t, scale,"
    yield "            found, aside, totals, COUNTED: tl.constexpr, NUMBERS: tl.constexpr,"
    yield "            COLUMNS: tl.constexpr, VALUES: tl.constexpr, SCALED: tl.constexpr,"
    yield "            FOUND: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr):"
    yield "    tensor = tl.program_id(0)"
    yield "    block = tl.load(value_row + tensor)"
    yield "    go = tl.load(grads + tensor) != 0"
    yield "    factor = tl.load(factors + block)"
    yield "    if SCALED:"
    yield "        factor = factor / tl.load(scale).to(tl.float64)"
    yield "    if FOUND:"
    yield "        go = go & (tl.load(found) == 0)"
    yield "    tl.store(table + tensor * COLUMNS, tl.where(go, factor, 0.0))"
    yield "    x_t = t + tl.full((), 0.0, tl.float64)"
    yield "    if COUNTED:"
    yield "        step = tl.load(steps + tensor).to(tl.pointer_type(NUMBERS))"
    yield "        x_t = tl.load(step).to(tl.float64) + 1"
    yield "        tl.store(step, x_t.to(NUMBERS), mask=go & LAST)"
    names: dict[Node, str] = {}
    for node in ordered(program.scalar_roots):
        if node.op != "scalar":
            continue
        names[node] = f"x_{node.name}"
        if node.name in program.numbers:
            at = program.numbers.index(node.name)
            yield f"    x_{node.name} = tl.load(values + block * VALUES + {at})"
    for at, slot in enumerate(program.tensor_slots):
        address = f"tl.load(numbers + {at} * n + tensor)"
        yield f"    q_{slot} = {address}.to(tl.pointer_type(NUMBERS))"
        if not program.totals:
            yield f"    x_{slot} = tl.load(q_{slot}).to(tl.float64)"
            continue
        # put aside: a number that all tensors share is overwritten by the quickest of them
        yield f"    a_{slot} = aside + {at} * n + tensor"
        yield "    if FIRST:"
        yield f"        tl.store(a_{slot}, tl.load(q_{slot}).to(tl.float64))"
        yield f"    x_{slot} = tl.load(q_{slot} if FIRST else a_{slot}).to(tl.float64)"
    for node in ordered(program.scalar_roots):
        if node.op == "total":
            names[node] = f"z_{node.value:.0f}"
            yield f"    z_{node.value:.0f} = tl.load(totals + {node.value:.0f})"
    for line in statements(program.scalar_roots, names, "float64", elements=False):
        yield f"    {line}"
    for at, node in enumerate(program.columns):
        yield f"    tl.store(table + tensor * COLUMNS + {at + 1}, ({names[node]}).to(tl.float64))"
    if noisy:
        yield f"    tl.store(table + tensor * COLUMNS + {1 + len(program.columns)}, x_t)"
    for slot in program.tensor_slots:
        new = f"({names[program.new_slots[slot]]}).to(NUMBERS)"
        yield f"    tl.store(q_{slot}, {new}, mask=go & LAST)"


def source(
    program: Program, dtype: torch.dtype, slot_dtype: torch.dtype, *, noisy: bool = False
) -> str:
    """The text of a rule's kernels.

    Args:
        program: The traced rule.
        dtype: Of parameters and gradients.
        slot_dtype: Of the slots that have the parameter's shape.
        noisy: Round bfloat16 stochastically.
    """
    real = "float64" if dtype is torch.float64 else "float32"
    elements = _element_kernel(program, real, DTYPES[dtype], DTYPES[slot_dtype], noisy=noisy)
    lines = [f"# {program.fixed}", *elements, "", "", *_scalar_kernel(program, noisy=noisy), ""]
    lines += _ADD if program.passes else ()
    for index in range(len(program.passes)):
        kinds = (real, DTYPES[dtype], DTYPES[slot_dtype])
        lines += ["", *_reduction_kernels(program, index, *kinds), ""]
    if program.view != "none":
        lines += cuda_rows.kernels(program, real, DTYPES[dtype], DTYPES[slot_dtype])
    return _HEAD + (_NOISE if noisy else "") + "\n".join(lines)


_BUILT: dict[tuple[Program, torch.dtype, torch.dtype, bool], Kernel] = {}


def build(
    program: Program, dtype: torch.dtype, slot_dtype: torch.dtype, *, noisy: bool = False
) -> Kernel:
    """The kernels of a traced rule; made at most once. Triton compiles and caches them itself.

    Raises:
        KernelUnavailable: If Triton is not installed, or there is no private cache folder.
    """
    key = (program, dtype, slot_dtype, noisy)
    if key not in _BUILT:
        if importlib.util.find_spec("triton") is None:
            raise KernelUnavailable(
                "Triton is not installed; CUDA builds of torch bring it, else: pip install triton"
            )
        text = source(program, dtype, slot_dtype, noisy=noisy)
        module = _imported(text)
        passes = tuple(
            (getattr(module, f"reduce_{i}"), getattr(module, f"numbers_{i}"))
            for i in range(len(program.passes))
        )
        after = tuple(
            tuple((extent, getattr(module, name)) for extent, name in names)
            for names in cuda_rows.names(program)
        )
        _BUILT[key] = Kernel(program, module.elements, module.scalars, passes, text, after)
    return _BUILT[key]


def _imported(text: str) -> ModuleType:
    """A module with that text. Triton reads a kernel's text from the file that it stands in."""
    name = f"triton_{blake2b(text.encode(), digest_size=16).hexdigest()}"
    path = cache.folder() / f"{name}.py"
    if not path.exists() or path.read_text() != text:
        with cache.place(path) as made:
            made.write_text(text)
    cache.check_private(path)
    spec = importlib.util.spec_from_file_location(f"steepest.kernels.generated.{name}", path)
    if spec is None or spec.loader is None:
        raise KernelUnavailable(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
