"""The kernel engine: all blocks in as few launches as there are different kernels, usually one."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import is_not
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from steepest.errors import UnsupportedError
from steepest.kernels import Block, cpu, cuda, shards, walk
from steepest.kernels.device import DeviceLaunch, counts_on_device
from steepest.kernels.device_lines import DeviceLinesLaunch
from steepest.kernels.lines import LinesLaunch, why_no_lines
from steepest.kernels.reducing import ReducingLaunch
from steepest.kernels.symbols import Untraceable
from steepest.kernels.table import Launch, alike, same_layout
from steepest.kernels.trace import Specialisation, specialise, trace
from steepest.kernels.unavailable import KernelUnavailable

__all__ = ["KERNEL", "ONLY_KERNEL", "Kernels", "Work"]

_FOUND: tuple[Literal["same", "values", "changed"], ...] = ("same", "values", "changed")
_PLAIN = (Tensor, torch.nn.Parameter)
_WIDE = ("element", "row", "column")
_REAL = (torch.float32, torch.float64)


class Work:
    """What the engine has prepared for a set of blocks, good for many steps.

    Attributes:
        blocks: What is to be done each step.
    """

    def __init__(self, blocks: Sequence[Block], *, triton: bool = False) -> None:
        self.blocks = tuple(blocks)
        self.triton = triton
        self._launches: list[Launch] = []
        self._places: dict[int, tuple[Launch, int]] = {}
        self._fixed: dict[int, Specialisation] = {}
        for alike_blocks, fixed in _sorted(blocks):
            first = alike_blocks[0]
            program = trace(first.rule, fixed)
            launch: Launch
            noisy = first.noise is not None
            if _takes_triton(first, self.triton):
                triton_kernel = cuda.build(program, *_dtypes(first), noisy=noisy)
                there = DeviceLinesLaunch if program.view != "none" else DeviceLaunch
                launch = there(alike_blocks, program, triton_kernel)
            else:
                reducing = LinesLaunch if program.view != "none" else ReducingLaunch
                kind = reducing if program.passes else Launch
                kernel = cpu.build(program, *_dtypes(first), noisy=noisy)
                launch = kind(alike_blocks, program, kernel)
            self._launches.append(launch)
            for index, block in enumerate(alike_blocks):
                self._places[id(block)] = launch, index
                self._fixed[id(block)] = fixed
        self._walker = walk.walker()
        if self._walker is not None and not all(x.aim(self._walker) for x in self._launches):
            self._walker = None
        self._held = [x for launch in self._launches for x in launch.held[launch.n :]]
        self._data = [x.data_ptr() for x in self._held]
        self._handles = [self._walker.handle(x) for x in self._held] if self._walker else []
        self.watch([])

    def watch(self, groups: list[dict[str, Any]]) -> None:
        """Notice changes also in these parameter groups and in their parameters' gradients.

        Args:
            groups: The optimizer's ``param_groups``.
        """
        working = {id(p) for launch in self._launches for p in launch.params}
        self._lists = [groups, *(g["params"] for g in groups)]
        self._contents = [list(x) for x in self._lists]
        self._entries = [tuple(g.items()) for g in groups]
        self._idle = [p for params in self._contents[1:] for p in params if id(p) not in working]
        if self._walker is None:
            return
        idle = [self._walker.handle(x) for x in self._idle]
        if None in idle or None in self._handles:
            self._walker = None
            return
        items = [x for content in self._contents for x in content]
        self._arrays = {
            "dict": _array([id(g) for g in groups]),
            "list": _array([id(x) for x in self._lists]),
            "list_first": _array([0, *accumulate(map(len, self._contents))]),
            "items": _array([id(x) for x in items]),
            "watch": _array(self._handles),
            "watched_data": _array(self._data),
            "idle_params": _array(idle),
        }
        self._structure = walk.Structure(
            dicts=len(groups),
            lists=len(self._lists),
            idle=len(self._idle),
            watched=len(self._held),
        )
        self._note_entries()

    def _note_entries(self) -> None:
        entries = [entry for group in self._entries for entry in group]
        self._arrays["dict_first"] = _array([0, *accumulate(map(len, self._entries))])
        self._arrays["keys"] = _array([id(key) for key, _ in entries])
        self._arrays["values"] = _array([id(value) for _, value in entries])
        for name, array in self._arrays.items():
            setattr(self._structure, name, int(array.ctypes.data))

    def look(self) -> Literal["same", "values", "changed"]:
        """Whether all is as it was; reads this step's gradients and steps on the way."""
        walker = self._walker
        return _FOUND[self._look_in_python() if walker is None else self._look(walker)]

    def _look(self, walker: walk.Walker) -> int:
        found = walker.structure(self._structure)
        if found == walk.CHANGED:
            return found
        for launch in self._launches:
            if walker.gather(launch.gather) != walk.SAME:
                return walk.CHANGED
        return found

    def _look_in_python(self) -> int:
        for now, before in zip(self._lists, self._contents, strict=True):
            if len(now) != len(before) or any(map(is_not, now, before)):
                return walk.CHANGED
        if any(p.grad is not None for p in self._idle):
            return walk.CHANGED
        if [x.data_ptr() for x in self._held] != self._data:
            return walk.CHANGED
        if not all(launch.gather_in_python() for launch in self._launches):
            return walk.CHANGED
        same = all(
            len(group) == len(entries) and all(v is group.get(k) for k, v in entries)
            for group, entries in zip(self._lists[0], self._entries, strict=True)
        )
        return walk.SAME if same else walk.VALUES

    def renew(self, block: Block, values: Mapping[str, Any]) -> bool:
        """Go on with other hyperparameters; False if they need another kernel."""
        fixed = self._fixed[id(block)]
        if any(values.get(name, 0.0) != 0 for name in fixed.zeros):
            return False
        if any(values.get(name, value) != value for name, value in fixed.options):
            return False
        slots = block.rule.slots
        ndim = 2 if any(slots[name].only == "matrix" for name in fixed.slots) else 1
        if block.rule.active_slots(values, ndim=ndim) != fixed.slots:
            return False
        launch, index = self._places[id(block)]
        launch.set_values(index, values)
        block.values = values
        return True

    def accept(self) -> bool:
        """Take the groups' entries as they should be now; False if they have other parameters."""
        groups = self._lists[0]
        if any(g["params"] is not x for g, x in zip(groups, self._lists[1:], strict=True)):
            return False
        before, self._entries = self._entries, [tuple(g.items()) for g in groups]
        if self._walker is None:
            return True
        if [*map(len, before)] == [*map(len, self._entries)]:
            self._arrays["keys"][:] = [id(key) for group in groups for key in group]
            self._arrays["values"][:] = [id(x) for group in groups for x in group.values()]
        else:
            self._note_entries()
        return True

    def run(self, *, grad_scale: Tensor | None = None, found_inf: Tensor | None = None) -> None:
        """Do the step whose gradients the last `look` has read."""
        scale = 1.0
        if not all(launch.on_device for launch in self._launches):
            if found_inf is not None and found_inf.item():
                return
            scale = 1.0 if grad_scale is None else 1.0 / grad_scale.item()
        shares: list[Tensor] = []
        for launch in self._launches:
            share = (
                launch.sums_there(grad_scale, found_inf)
                if isinstance(launch, DeviceLaunch) and launch.on_device
                else launch.sums(scale)
            )
            if share is not None:
                shares.append(share)
        totals = _added(shares)
        here = None  # read on the host only where somebody needs it there: that waits for a GPU
        for launch in self._launches:
            if isinstance(launch, DeviceLaunch) and launch.on_device:
                there = None if totals is None else totals.to(launch.device)
                launch.run_there(grad_scale, found_inf, there)
            else:
                here = [] if totals is None else here or totals.tolist()
                launch.run(scale, here)
        for launch in self._launches:
            if self._walker is None:
                launch.commit_in_python()
            else:
                self._walker.commit(launch.gather)


class Kernels:
    """Runs blocks with generated kernels: C++ on the CPU, Triton on CUDA.

    Attributes:
        name: How users call it.
        optional: Another engine will do what this one cannot; then it is said, once, that
            there are no kernels on this machine at all.
        triton: Triton on the CPU too; for its interpreter (``TRITON_INTERPRET=1``).
    """

    name = "kernel"

    def __init__(self, *, optional: bool, triton: bool = False) -> None:
        self.optional = optional
        self.triton = triton

    def refuse(self, block: Block) -> str | None:
        """Why there is no kernel for that block, in words; None if there is one."""
        if shards.is_sharded(block):
            return shards.refusal(block) or self.refuse(shards.local(block))
        if block.cache is None:
            block.cache = (self._unfit(block),)
        reason: str | None = block.cache[0]
        if reason is not None:
            return reason
        for p, g in zip(block.params, block.grads, strict=True):
            if g is not None and (type(g) not in _PLAIN or not alike(g, p)):
                return (
                    f"a gradient ({g.layout}, {g.dtype}, strides {_strides(g)}) is not laid out "
                    f"like its parameter ({p.dtype}, strides {p.stride()})"
                )
        return None

    def _unfit(self, block: Block) -> str | None:
        reason = _unfit(block, triton=self.triton)
        if reason is not None:
            return reason
        try:
            program = trace(block.rule, _fixed(block))
            if program.view != "none":
                reasons = (why_no_lines(p, program.view) for p in block.params)
                reason = next(filter(None, reasons), None)
                if reason is not None:
                    return reason
            if _takes_triton(block, self.triton):
                cuda.build(program, *_dtypes(block), noisy=block.noise is not None)
            else:
                cpu.build(program, *_dtypes(block), noisy=block.noise is not None)
                walk.walker()
        except KernelUnavailable as error:
            if self.optional and not _SAID:
                _SAID.append(str(error))
                warnings.warn(
                    f"optimizers run on plain torch operations, several times slower: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return str(error)
        except Untraceable as error:
            return f"{block.rule.name} cannot become a kernel: {error}"
        return None

    def prepare(self, blocks: Sequence[Block], groups: list[dict[str, Any]]) -> Work | None:
        """Be ready to repeat the step for these blocks; not for shards, found anew each step."""
        if any(map(shards.is_sharded, blocks)):
            return None
        work = self._known(blocks) or Work(blocks, triton=self.triton)
        work.watch(groups)
        return work

    def step(
        self,
        blocks: Sequence[Block],
        *,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> None:
        """Do one optimization step for all parameters of all blocks."""
        if not blocks:
            return
        spread = [block for block in blocks if shards.is_sharded(block)]
        blocks = [shards.local(b) if b in spread else b for b in blocks]
        work = self._known(blocks)
        if work is None or work.look() == "changed":
            work = Work(blocks, triton=self.triton)
            if work.look() == "changed":
                raise UnsupportedError(
                    "the gradients of this step are not those that their parameters hold"
                )
        work.run(grad_scale=grad_scale, found_inf=found_inf)
        blocks[0].cache = (None, work)
        for block in spread:
            shards.release(block)

    def _known(self, blocks: Sequence[Block]) -> Work | None:
        """What was prepared for these blocks in an earlier step, if it still holds."""
        cache = blocks[0].cache
        if cache is None or len(cache) < 2:
            return None
        work: Work = cache[1]
        if len(work.blocks) != len(blocks) or any(map(is_not, work.blocks, blocks)):
            return None
        return work if all(work.renew(block, block.values) for block in blocks) else None


KERNEL = Kernels(optional=True)
ONLY_KERNEL = Kernels(optional=False)
_SAID: list[str] = []


def _added(shares: Sequence[Tensor]) -> Tensor | None:
    """The sums over all tensors, from what each launch contributes."""
    if not shares:
        return None
    total = shares[0]
    for share in shares[1:]:
        total = total + share.to(total.device)
    return total


def _array(values: Sequence[int | None]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(values, dtype=np.uint64)


def _strides(x: Tensor) -> tuple[int, ...] | str:
    return x.stride() if x.layout is torch.strided else "none"


def _dtypes(block: Block) -> tuple[torch.dtype, torch.dtype]:
    dtype = block.params[0].dtype
    for slot, column in zip(block.rule.slots.values(), block.slots, strict=True):
        if column and slot.per in _WIDE:
            return dtype, column[0].dtype
    return dtype, dtype


def _fixed(block: Block, *, keep: Iterable[str] = ()) -> Specialisation:
    """What a block's values fix."""
    # a rule that keeps something else for matrices has blocks of only vectors or only matrices
    matrices = any(
        column and slot.only == "matrix"
        for slot, column in zip(block.rule.slots.values(), block.slots, strict=True)
    )
    ndim = 2 if matrices else 1
    return specialise(block.rule, block.values, keep=keep, ndim=ndim)


def _sorted(blocks: Sequence[Block]) -> list[tuple[list[Block], Specialisation]]:
    """Blocks that can share a kernel, with what it is specialised for."""
    alike: dict[Any, list[Block]] = {}
    for block in blocks:
        fixed = _fixed(block)
        steps = block.steps if isinstance(block.steps, int) else block.steps[0].dtype
        place = (block.params[0].device, counts_on_device(block), block.noise is None)
        key = (block.rule.formula, fixed.options, fixed.slots, _dtypes(block), steps, place)
        alike.setdefault(key, []).append(block)
    result = []
    for members in alike.values():
        zeros = [frozenset(_fixed(b).zeros) for b in members]
        keep = frozenset[str]().union(*zeros) - zeros[0].intersection(*zeros[1:])
        result.append((members, _fixed(members[0], keep=keep)))
    return result


def _takes_triton(block: Block, everywhere: bool) -> bool:
    return everywhere or block.params[0].device.type == "cuda"


def _unfit(block: Block, *, triton: bool) -> str | None:
    rule = block.rule
    if rule.kind == "matrix":
        return f"{rule.name} is a rule for matrices: their products are torch's business"
    if block.noise is not None and block.params[0].dtype is not torch.bfloat16:
        return f"stochastic rounding is for bfloat16, not for {block.params[0].dtype}"
    if block.differentiable:
        return "autograd cannot look into a kernel (differentiable=True)"
    if block.sparse:
        return "the gradients are sparse"
    for p in block.params:
        if type(p) not in _PLAIN:
            return f"a parameter is a {type(p).__name__}, not a plain tensor"
        if p.is_inference():
            return "a parameter is an inference tensor"
        if p.device.type not in ("cpu", "cuda"):
            return f"there is no kernel for {p.device.type}"
        if p.dtype not in cpu.DTYPES:
            return f"there is no kernel for {p.dtype}"
        if not _dense(p):
            return f"a parameter of shape {tuple(p.shape)} has gaps (strides {p.stride()})"
    if block.capturable and not _takes_triton(block, triton):
        return "capturable=True has no meaning on a CPU"
    return _unfit_state(block)


def _unfit_state(block: Block) -> str | None:
    kinds: set[torch.dtype] = set()
    for (name, slot), column in zip(block.rule.slots.items(), block.slots, strict=True):
        for p, x in zip(block.params, column or (), strict=False):
            if type(x) not in _PLAIN or (slot.per in _WIDE and x.device != p.device):
                return f"the slot {name} is not a plain tensor beside its parameter"
            if slot.per not in _WIDE:
                if x.dtype not in _REAL or x.numel() != 1:
                    return f"the slot {name} is {x.dtype} of shape {tuple(x.shape)}"
                continue
            kinds.add(x.dtype)
            if slot.per != "element":
                if block.noise is not None and x.dtype is torch.bfloat16:
                    return (
                        f"the numbers of rows and columns in the slot {name} are bfloat16, and "
                        "they are rounded to nearest; give them slot_dtype=torch.float32"
                    )
                if not x.is_contiguous():
                    return f"the slot {name} has gaps (strides {x.stride()})"
                continue
            if not same_layout(x, p):
                return f"the slot {name} is not laid out like its parameter"
    dtype = block.params[0].dtype
    if len(kinds) > 1 or not kinds <= {dtype, torch.float32}:
        return f"{dtype} parameters have slots of {', '.join(sorted(map(str, kinds)))}"
    if not isinstance(block.steps, int) and {s.dtype for s in block.steps} - set(_REAL):
        return "the steps are not float32 or float64"
    if not isinstance(block.steps, int) and len({s.dtype for s in block.steps}) > 1:
        return "the steps are of several types"
    return None


def _dense(p: Tensor) -> bool:
    """Whether the elements fill one piece of memory, in whatever order."""
    if p.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(p.stride(), p.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True
