"""What a task may be trained on, and how batches come out of it in a fixed order.

    x, y     inputs and targets        a tensor, or a tuple or dict of tensors, first dim examples
    split    (x, y) | map-style Dataset | callable () -> DataLoader

A training epoch hands out full batches only: the last, incomplete one is dropped (its examples
come first or in the middle of other epochs), because the members of a population need equal
shapes. Evaluation reads every example. A DataLoader factory is the exception: what the loader
yields is what is trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, default_collate

from steepest.errors import InputError, TaskError
from steepest.train.randomness import batch_order, derive, seed_all

__all__ = [
    "Batch",
    "Data",
    "LoaderStream",
    "Opens",
    "OrderStream",
    "Source",
    "Stream",
    "TensorSource",
    "check_batch_size",
    "check_data",
    "eval_batches",
    "join",
    "map_tensors",
    "open_source",
    "open_stream",
    "sample",
    "tensors_of",
]

Data: TypeAlias = "tuple[Any, Any] | Opens | Dataset[Any] | Callable[[], DataLoader[Any]]"
Batch: TypeAlias = tuple[Any, Any]


def map_tensors(fn: Callable[[Tensor], Tensor], nested: Any) -> Any:
    """Apply ``fn`` to every tensor of a tensor, tuple, list or dict; leave the rest alone."""
    if isinstance(nested, Tensor):
        return fn(nested)
    if isinstance(nested, Mapping):
        return {name: map_tensors(fn, value) for name, value in nested.items()}
    if isinstance(nested, (tuple, list)):
        return tuple(map_tensors(fn, value) for value in nested)
    return nested


def tensors_of(nested: Any) -> list[Tensor]:
    """All tensors of a tensor, tuple, list or dict, in order."""
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, Mapping):
        nested = tuple(nested.values())
    if isinstance(nested, (tuple, list)):
        return [tensor for part in nested for tensor in tensors_of(part)]
    return []


def check_data(data: object, *, where: str) -> None:
    """Raise `TaskError` unless ``data`` is one of the three kinds and is not empty.

    Args:
        data: What the user gave.
        where: How messages call it: ``task 'digits': train``.
    """
    if isinstance(data, (tuple, list)):
        if len(data) != 2:
            raise TaskError(f"{where} must be a pair (x, y), got {len(data)} values")
        sizes: dict[str, int] = {}
        for part, value in zip("xy", data, strict=True):
            named = _named_tensors(part, value)
            if not named:
                raise TaskError(
                    f"{where}: {part} must be a tensor, or a tuple or dict of tensors, got "
                    f"{type(value).__name__}; convert it with torch.as_tensor"
                )
            for name, tensor in named.items():
                if not isinstance(tensor, Tensor):
                    raise TaskError(
                        f"{where}: {name} must be a tensor, got {type(tensor).__name__}; "
                        "convert it with torch.as_tensor"
                    )
                if tensor.dim() == 0:
                    raise TaskError(f"{where}: {name} has no dimension of examples (it is 0-d)")
                sizes[name] = len(tensor)
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{name} has {n}" for name, n in sizes.items())
            raise TaskError(f"{where}: inputs and targets must have equally many examples; {shown}")
        if 0 in sizes.values():
            raise TaskError(f"{where} is empty: it has no example")
    elif isinstance(data, Dataset):
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise TaskError(
                f"{where}: {type(data).__name__} is no map-style Dataset (it needs __len__ and "
                "__getitem__); for a stream give a function that returns a DataLoader"
            )
        if len(data) == 0:
            raise TaskError(f"{where} is empty: it has no example")
    elif isinstance(data, DataLoader):
        raise TaskError(
            f"{where} is a DataLoader; give a function that returns one (lambda: DataLoader(...)), "
            "so that every run can have its own"
        )
    elif not callable(data):
        raise TaskError(
            f"{where} must be a pair of tensors (x, y), a map-style Dataset, or a function that "
            f"returns a DataLoader; got {type(data).__name__}"
        )


def _named_tensors(name: str, value: object) -> dict[str, object]:
    if isinstance(value, Mapping):
        return {f"{name}[{key!r}]": v for key, v in value.items()}
    if isinstance(value, (tuple, list)):
        return {f"{name}[{i}]": v for i, v in enumerate(value)}
    return {name: value} if isinstance(value, Tensor) else {}


class Source(Protocol):
    """Examples that can be asked for by number."""

    examples: int

    def order(self, seed: int, epoch: int, batch_size: int) -> Tensor:
        """The numbers of the examples in the order in which an epoch visits them."""
        ...

    def batch(self, indices: Tensor) -> Batch:
        """The examples of these numbers, on the run's device."""
        ...


@runtime_checkable
class Opens(Protocol):
    """A Dataset that hands out whole batches itself, such as `steepest.train.sequences`."""

    def open(self, device: torch.device) -> Source:
        """Its examples on a device."""
        ...

    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds, for telling it from a changed one."""
        ...


class TensorSource:
    """Tensors, moved to the device once."""

    def __init__(self, pair: Sequence[Any], device: torch.device) -> None:
        self.x, self.y = (map_tensors(lambda t: t.to(device), part) for part in pair)
        self.examples = len(tensors_of(self.y)[0])
        self.device = device

    @property
    def rows(self) -> list[Tensor] | None:
        """The tensors whose rows a batch is made of; None if it is made of more than rows."""
        return [*tensors_of(self.x), *tensors_of(self.y)]

    def order(self, seed: int, epoch: int, batch_size: int) -> Tensor:
        """A permutation."""
        return batch_order(seed, epoch, self.examples)

    def batch(self, indices: Tensor) -> Batch:
        """Gathered on the device."""
        indices = indices.to(self.device)
        x, y = self.x, self.y
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return x.index_select(0, indices), y.index_select(0, indices)
        return tuple(map_tensors(lambda t: t.index_select(0, indices), part) for part in (x, y))


class DatasetSource:
    """A map-style Dataset: items are read one by one and collated as torch's DataLoader does."""

    def __init__(self, dataset: Any, device: torch.device, *, where: str) -> None:
        self.dataset = dataset
        self.examples = len(dataset)
        self.device = device
        self.where = where

    def order(self, seed: int, epoch: int, batch_size: int) -> Tensor:
        """A permutation."""
        return batch_order(seed, epoch, self.examples)

    def batch(self, indices: Tensor) -> Batch:
        """Read, collated, moved."""
        items = [self.dataset[i] for i in indices.tolist()]
        try:
            batch = default_collate(items)
        except (RuntimeError, TypeError) as error:
            raise TaskError(
                f"{self.where}: the examples cannot be put into one batch: {_first_line(error)}; "
                "make them equal in shape, or give a function that returns a DataLoader with its "
                "own collate_fn"
            ) from error
        return _pair(batch, self.device, self.where)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def _pair(batch: Any, device: torch.device, where: str) -> Batch:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TaskError(
            f"{where}: an example must be a pair (x, y); got {type(batch).__name__}"
            + (f" of {len(batch)}" if hasattr(batch, "__len__") else "")
            + "; put several inputs into one tuple or dict: ((x1, x2), y)"
        )
    x, y = (map_tensors(lambda t: t.to(device), part) for part in batch)
    return x, y


def open_source(data: Data, device: torch.device, *, where: str) -> Source | None:
    """The examples by number; None for a DataLoader factory, which has an order of its own."""
    if isinstance(data, (tuple, list)):
        return TensorSource(data, device)
    if isinstance(data, Opens):
        return data.open(device)
    if isinstance(data, Dataset):
        return DatasetSource(data, device, where=where)
    return None


def _make_loader(data: Data, where: str) -> DataLoader[Any]:
    """Call the user's function; what it draws (``random_split``) is the same in every run."""
    seed_all(derive(0, "loader"), torch.device("cpu"))
    loader = cast("Callable[[], DataLoader[Any]]", data)()
    if not isinstance(loader, DataLoader):
        raise TaskError(
            f"{where}: the function must return a torch DataLoader, got {type(loader).__name__}"
        )
    return loader


class Stream(Protocol):
    """The training batches of one run: a function of (seed, step)."""

    steps_per_epoch: int

    @property
    def digest(self) -> bytes:
        """A hash over what was handed out so far, and in which order."""
        ...

    def batch(self, step: int) -> Batch:
        """The batch of this step; the digest moves on by what was handed out."""
        ...

    def restore(self, steps: int, digest: bytes) -> None:
        """Go to where so many batches were handed out, with this digest."""
        ...


def _chain(digest: bytes, more: Any) -> bytes:
    """A running hash that can be stored in the middle: each link hashes the one before."""
    return hashlib.blake2b(more, key=digest, digest_size=16).digest()


class OrderStream:
    """Batches of a source in its order.

    The digest runs over the numbers that are handed out, epoch by epoch: each epoch's hash is keyed
    with the one before it. So it can be had again for any number of steps, without the steps.
    """

    def __init__(self, source: Source, *, seed: int, batch_size: int) -> None:
        self.source = source
        self.seed = seed
        self.batch_size = batch_size
        self.steps_per_epoch = source.examples // batch_size
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)
        self._counted = 0  # the epoch that the hash is of
        self._hash = hashlib.blake2b(key=bytes(16), digest_size=16)
        self._noisy = isinstance(source, DatasetSource)
        self._cpu = torch.device("cpu")

    def indices(self, step: int, steps: int = 1) -> Tensor:
        """The numbers of the examples of this step's batch, and of further ones of its epoch."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = self.source.order(self.seed, epoch, self.batch_size)
            self._epoch = epoch
        first = position * self.batch_size
        return self._order[first : first + steps * self.batch_size]

    def count_in(self, step: int, indices: Tensor) -> None:
        """Hash the numbers of examples that were handed out, in steps of one epoch."""
        epoch = step // self.steps_per_epoch
        if epoch != self._counted:
            self._hash = hashlib.blake2b(key=self._hash.digest(), digest_size=16)
            self._counted = epoch
        self._hash.update(indices.numpy().data)

    @property
    def digest(self) -> bytes:
        """Of what was handed out so far."""
        return self._hash.digest()

    def restore(self, steps: int, digest: bytes) -> None:
        """Go to where so many batches were handed out.

        Raises:
            InputError: If they were others.
        """
        self._counted = 0
        self._hash = hashlib.blake2b(key=bytes(16), digest_size=16)
        for first in range(0, steps, self.steps_per_epoch):
            self.count_in(first, self.indices(first, min(self.steps_per_epoch, steps - first)))
        if self.digest != digest:
            raise InputError(
                "this checkpoint belongs to another run: its batches came in another order"
            )

    def batch(self, step: int) -> Batch:
        """Gather, and hash the numbers of the examples."""
        indices = self.indices(step)
        self.count_in(step, indices)
        if self._noisy:  # augmentation inside a Dataset draws from the global generators
            seed_all(derive(self.seed, "data", step), self._cpu)
        return self.source.batch(indices)


class LoaderStream:
    """Batches of a user's DataLoader, made a function of (seed, epoch) by seeding.

    Every random choice that the loader makes in this process is seeded per (seed, step), its
    workers' per (seed, epoch). Going to a step in the middle of an epoch reads and forgets the
    batches before it, since only the loader knows them.
    """

    def __init__(self, make: Data, *, seed: int, device: torch.device, where: str) -> None:
        self.seed = seed
        self.device = device
        self.where = where
        self.loader = _make_loader(make, where)
        try:
            self.steps_per_epoch = len(self.loader)
        except TypeError as error:
            raise TaskError(
                f"{where}: the DataLoader has no length, so an epoch has no end; give its dataset "
                "a __len__"
            ) from error
        if self.steps_per_epoch == 0:
            raise TaskError(f"{where} is empty: its DataLoader yields no batch")
        self.digest = bytes(16)
        self._iterator: Iterator[Any] = iter(())
        self._next = -1

    def batch(self, step: int) -> Batch:
        """Read on (or up to the step), and hash the bytes of the batch."""
        if step != self._next or step % self.steps_per_epoch == 0:
            self._next = step - step % self.steps_per_epoch
            self._iterator = self._start(self._next)
            while self._next < step:
                self._read()
        batch = _pair(self._read(), self.device, self.where)
        for tensor in tensors_of(batch):
            data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            self.digest = _chain(self.digest, data.numpy())
        return batch

    def restore(self, steps: int, digest: bytes) -> None:
        """Take the digest over; where the reading goes on, the next step says."""
        self.digest = digest

    def _start(self, step: int) -> Iterator[Any]:
        value = derive(self.seed, "order", step // self.steps_per_epoch)
        seed_all(value, torch.device("cpu"))
        for owner in (self.loader, self.loader.sampler, self.loader.batch_sampler):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(value)
        return iter(self.loader)

    def _read(self) -> Any:
        # Not before an epoch's first batch: a sampler draws its order there or, with workers,
        # in iter(); undisturbed it draws the same numbers in both cases.
        if self._next % self.steps_per_epoch:
            seed_all(derive(self.seed, "data", self._next), torch.device("cpu"))
        self._next += 1
        try:
            return next(self._iterator)
        except StopIteration:
            raise TaskError(
                f"{self.where}: the DataLoader ended before its len() of {self.steps_per_epoch} "
                "batches; make __len__ tell the truth"
            ) from None


def open_stream(
    data: Data, *, seed: int, batch_size: int | None, default: int, device: torch.device, where: str
) -> Stream:
    """The training batches of a run.

    Args:
        data: The training split.
        seed: The run's seed.
        batch_size: What the caller asked for; None: ``default``.
        default: The task's own batch size.
        device: Where batches are needed.
        where: How messages call the split.
    """
    source = open_source(data, device, where=where)
    if source is None:
        stream = LoaderStream(data, seed=seed, device=device, where=where)
        if batch_size not in (None, stream.loader.batch_size):
            raise TaskError(
                f"{where}: batch size {batch_size} was asked for, but its DataLoader makes batches "
                f"of {stream.loader.batch_size}; leave the batch size out or change the loader"
            )
        return stream
    size = default if batch_size is None else batch_size
    return OrderStream(source, seed=seed, batch_size=check_batch_size(size, source, where=where))


def check_batch_size(size: int, source: Source, *, where: str) -> int:
    """The size, if batches of it can be made; `TaskError` otherwise."""
    if size < 1:
        raise TaskError(f"{where}: the batch size must be at least 1, got {size}")
    if size > source.examples:
        raise TaskError(
            f"{where}: a batch of {size} is larger than the data ({source.examples} examples); "
            f"choose a batch size of at most {source.examples}"
        )
    return size


def eval_batches(
    data: Data, *, batch_size: int, device: torch.device, where: str
) -> Iterator[Batch]:
    """All examples in their own order, the last batch incomplete."""
    source = open_source(data, device, where=where)
    if source is None:
        for batch in _make_loader(data, where):
            yield _pair(batch, device, where)
        return
    for start in range(0, source.examples, batch_size):
        yield source.batch(torch.arange(start, min(start + batch_size, source.examples)))


def sample(data: Data, n: int, *, where: str) -> Batch:
    """About ``n`` examples spread evenly over the split (the first batch of a DataLoader)."""
    cpu = torch.device("cpu")
    source = open_source(data, cpu, where=where)
    if source is None:
        return next(eval_batches(data, batch_size=n, device=cpu, where=where))
    n = min(n, source.examples)
    return source.batch(torch.linspace(0, source.examples - 1, n).round().long())


def join(first: Data, second: Data, *, where: str) -> Data:
    """Two splits as one: tensors one after the other, Datasets concatenated."""
    if isinstance(first, (tuple, list)) and isinstance(second, (tuple, list)):
        x, y = (_join(a, b) for a, b in zip(first, second, strict=True))
        return x, y
    if isinstance(first, Dataset) and isinstance(second, Dataset):
        return ConcatDataset([first, second])
    raise TaskError(
        f"{where}: train and val can be trained on together only where both are tensors or both "
        "are Datasets; give one function that returns a DataLoader over both"
    )


def _join(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor):
        return torch.cat((a, b))
    if isinstance(a, Mapping):
        return {name: _join(a[name], b[name]) for name in a}
    return tuple(_join(p, q) for p, q in zip(a, b, strict=True))
