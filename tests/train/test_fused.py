"""A pass in generated C++ computes what the recorded pass computes, or is not taken."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from tests.train.test_population import (
    IMAGES,
    LABELS,
    MIXED,
    WORDS,
    Conv,
    Mlp,
    Residual,
    Transformer,
    make,
    member,
    solo_of,
    worst,
)  # fmt: skip
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from steepest import optim, tasks
from steepest.errors import TaskError, UnsupportedError
from steepest.kernels import compiler
from steepest.kernels.unavailable import KernelUnavailable
from steepest.train import recorded
from steepest.train.fused import Fused, Unfit, lower, operations
from steepest.train.fused.products import Product
from steepest.train.population import Member, Population
from steepest.train.randomness import batch_order
from steepest.train.recording import record
from steepest.train.task import Task

LONG = 10_000
M = 3


def sgd(n=3, lr=0.05):
    return [Member(lambda p: optim.build("sgd", p, lr=lr), None, seed) for seed in range(n)]


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gradients_of(function, params, batch):
    """What a pass gives: losses, then the gradients of the parameters."""

    def run(*given):
        losses = function(*given)
        wanted = given[: len(params)]
        return [losses, *torch.autograd.grad(losses, wanted, torch.ones_like(losses))]

    return run, [*(p.requires_grad_() for p in params), *batch]


def compare(function, params, batch, tol=1e-11, names=None):
    """Losses and gradients of a function of members, fused and by autograd."""
    run, given = gradients_of(function, params, batch)
    expected = [t.detach() for t in run(*given)]
    found = record(run, given, buffers=len(params), batch=len(params))
    assert not isinstance(found.lowered, str), found.lowered
    losses, grads = Fused(found.lowered, len(given[0]))([t.detach() for t in given])
    names = names or range(len(expected))
    for name, mine, theirs in zip(names, [losses, *grads], expected, strict=True):
        assert mine.shape == theirs.shape, name
        assert mine.dtype == theirs.dtype, name
        far = float((mine - theirs).abs().max())
        assert far <= tol * max(1.0, float(theirs.abs().max())), name


# ------------------------------------------------------------------------------ operations

SMOOTH = {
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_min": lambda x: x.clamp(min=0.1),
    "cos": torch.cos,
    "divide": lambda x: x / (2 + x * x),
    "elu": F.elu,
    "elu(alpha)": functools.partial(F.elu, alpha=0.3),
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "gelu": F.gelu,
    "hardtanh": F.hardtanh,
    "leaky_relu": functools.partial(F.leaky_relu, negative_slope=0.2),
    "log": lambda x: torch.log(1.1 + x * x),
    "log1p": lambda x: torch.log1p(x * x),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "log_softmax(1)": lambda x: F.log_softmax(x, 1),
    "maximum": lambda x: torch.maximum(x, x * x),
    "minimum": lambda x: torch.minimum(x, x * x),
    "pow 2": lambda x: x**2,
    "pow 3": lambda x: x**3,
    "pow 4": lambda x: x**4,
    "reciprocal": lambda x: 1 / (2 + x * x),
    "relu": F.relu,
    "relu6": F.relu6,
    "rsub": lambda x: 1 - x,
    "rsqrt": lambda x: torch.rsqrt(1 + x * x),
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "softmax": lambda x: F.softmax(x, -1),
    "softmax(1)": lambda x: F.softmax(x, 1),
    "softplus": functools.partial(F.softplus, beta=2.0),
    "sqrt": lambda x: torch.sqrt(1 + x * x),
    "tanh": torch.tanh,
    "transposed": lambda x: (x.mT * 2).reshape(x.shape),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
}


def test_what_is_done_element_by_element():
    def losses(*given):
        *weights, x = given
        parts = zip(SMOOTH.values(), weights, strict=True)
        return sum((function(x * w) * x).sum((1, 2)) for function, w in parts)

    weights = [drawn(M, 5, 7, seed=i) for i in range(len(SMOOTH))]
    compare(losses, weights, [drawn(M, 5, 7, seed=99)], names=["losses", *SMOOTH])


REDUCED = {
    "rows": lambda x: x.sum(1).square().sum(1),
    "columns": lambda x: x.sum(2).square().sum(1),
    "kept": lambda x: (x - x.sum(2, keepdim=True)).square().sum((1, 2)),
    "kept first": lambda x: (x - x.mean(1, keepdim=True)).square().sum((1, 2)),
    "mean": lambda x: x.square().mean((1, 2)),
    "mean of rows": lambda x: x.mean(1).square().sum(1),
    "largest": lambda x: x.exp().amax(2).sum(1),
}


def test_sums_over_dimensions():
    def losses(*given):
        *weights, x = given
        return sum(f(x * w) for f, w in zip(REDUCED.values(), weights, strict=True))

    weights = [drawn(M, 5, 7, seed=i) for i in range(len(REDUCED))]
    compare(losses, weights, [drawn(M, 5, 7, seed=99)], names=["losses", *REDUCED])


SIZES = [
    (1, 1, 1), (2, 3, 4), (32, 128, 20), (7, 16, 5), (16, 7, 33), (33, 65, 17), (5, 100, 1),
    (40, 17, 64), (12, 49, 130),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_any_size_and_layout(dtype):
    params, batch, calls = [], [], []
    for m, n, k in SIZES:
        for turned in itertools.product((False, True), repeat=2):
            params.append(drawn(M, *((k, m) if turned[0] else (m, k)), dtype=dtype) / math.sqrt(k))
            batch.append(drawn(M, *((n, k) if turned[1] else (k, n)), dtype=dtype, seed=1))
            calls.append((m, n, k, *turned))

    def losses(*given):
        total = 0
        half = len(given) // 2
        for w, x, (*_, left, right) in zip(given[:half], given[half:], calls, strict=True):
            product = torch.bmm(w.mT if left else w, x.mT if right else x)
            total = total + product.square().sum((1, 2))
        return total

    tol = 2e-5 if dtype == torch.float32 else 1e-12
    compare(losses, params, batch, tol, names=["losses", *map(str, calls)])


def test_the_cheaper_side_of_a_product_lies_along_the_vectors():
    # x [32, 784] @ W.T with W [128, 784]: a copy of x, turned round, is the smaller one
    assert Product.choose(32, 128, 784, a_rows=784, b_columns=784) == Product(True, 784 * 32)
    # g.T @ x: x lies as it is needed
    assert Product.choose(128, 784, 32, a_rows=1, b_columns=1) == Product(False, 0)


SIZED = [-40.0, -3.0, 0.0, 3.0, 40.0, 88.0, 200.0, -200.0, math.nan]


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "erf", "gelu", "silu"])
def test_functions_in_single_precision(name):
    function = SMOOTH[name]
    x = torch.linspace(-1, 1, 4001) + torch.tensor(SIZED)[:, None]
    module = make_fx(lambda x: [x.sum(1), function(x)])(x)
    _, (mine,) = Fused(lower(module, buffers=1, batch=1), len(x))([x])
    for row, given in zip(mine, x, strict=True):
        expected = function(given.double())
        near = 4e-7 * expected.abs() + (2e-7 if name in ("erf", "gelu") else 1e-37)
        wide = expected.float().isinf()  # e^88.8 and the like: too large for float32
        assert torch.equal(row.isnan(), expected.isnan())
        assert torch.equal(row[wide], expected.float()[wide])
        fine = ~wide & ~expected.isnan()
        assert ((row - expected).abs() <= near)[fine].all(), float(given.mean())


def test_classes_are_looked_up_and_weighed():
    def losses(w, x, y):
        each = torch.func.vmap(lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1))
        return each(torch.bmm(x, w), y)

    y = torch.randint(0, 4, (M, 6), generator=torch.Generator().manual_seed(0))
    compare(losses, [drawn(M, 3, 4)], [drawn(M, 6, 3, seed=1), y])


@pytest.mark.parametrize("bad", [4, -1])
def test_a_class_that_is_none_is_not_looked_up(bad):
    def run(w, x, y):
        losses = torch.func.vmap(F.cross_entropy)(torch.bmm(x, w), y)
        return [losses, *torch.autograd.grad(losses, [w], torch.ones_like(losses))]

    y = torch.zeros(M, 6, dtype=torch.int64)
    given = [drawn(M, 3, 4).requires_grad_(), drawn(M, 6, 3, seed=1), y]
    fused = Fused(record(run, given, buffers=1, batch=1).lowered, M)
    assert fused([t.detach() for t in given]) is not None
    y[1, 2] = bad
    assert fused([t.detach() for t in given]) is None


def test_a_batch_of_another_shape_is_not_taken():
    run, given = gradients_of(lambda w, x: (w * x).sum((1, 2)), [drawn(M, 1, 2)], [drawn(M, 5, 2)])
    fused = Fused(record(run, given, buffers=1, batch=1).lowered, M)
    assert fused([given[0].detach(), drawn(M, 4, 2)]) is None
    assert fused([given[0].detach(), drawn(M, 5, 2)]) is not None


def test_a_row_of_which_nothing_may_be_seen_is_zero_and_one_that_is_no_number_stays():
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([[[1.0, 2.0], [-inf, -inf], [-inf, 0.0], [nan, 1.0], [nan, nan]]])
    module = make_fx(lambda x: [x.sum((1, 2)), torch.ops.aten._safe_softmax(x, 2)])(x)
    _, (mine,) = Fused(lower(module, buffers=1, batch=1), 1)([x])
    assert torch.allclose(mine, torch.ops.aten._safe_softmax(x, 2), equal_nan=True)


def test_rows_are_normalized():
    def losses(w, x):
        each = torch.func.vmap(lambda a, b: F.layer_norm(a * b, a.shape[1:]).mul(b).pow(3).sum())
        return each(w, x)

    compare(losses, [drawn(M, 4, 3, 5)], [drawn(M, 4, 3, 5, seed=1)])


def convolved(x, w, **how):
    return torch.func.vmap(lambda a, b: F.conv2d(a, b, **how))(x, w)


CONVOLUTIONS = [  # images, weights, how
    ((4, 3, 8, 9), (5, 3, 3, 3), {}),
    ((4, 1, 8, 8), (6, 1, 3, 3), {"padding": 1}),
    ((3, 2, 9, 11), (1, 2, 3, 2), {"stride": 2}),
    ((3, 2, 11, 9), (17, 2, 3, 4), {"stride": (2, 3), "padding": (2, 1)}),
    ((2, 3, 12, 12), (4, 3, 3, 3), {"dilation": 2, "stride": 2, "padding": 2}),
    ((2, 20, 5, 5), (33, 20, 1, 1), {}),
    ((2, 3, 6, 6), (4, 3, 1, 1), {"stride": 2}),
    ((2, 1, 5, 5), (1, 1, 5, 5), {}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolutions_of_any_kind(dtype):
    params, batch = [], []
    for x, w, _ in CONVOLUTIONS:
        params += [drawn(M, *w, dtype=dtype) / math.sqrt(math.prod(w[1:]))]
        params += [drawn(M, *x, dtype=dtype, seed=2)]
        batch += [drawn(M, *x, dtype=dtype, seed=1)]

    def losses(*given):
        half = len(params)
        total = 0
        for i, (_, _, how) in enumerate(CONVOLUTIONS):
            images = given[2 * i + 1] * given[half + i]
            total = total + convolved(images, given[2 * i], **how).square().sum((1, 2, 3, 4))
        return total

    names = ["losses", *(f"{part} {c}" for c in CONVOLUTIONS for part in ("dw", "dx"))]
    compare(losses, params, batch, 5e-5 if dtype == torch.float32 else 1e-11, names)


def test_convolutions_in_groups_of_their_own_are_refused():
    def losses(w, x):
        each = torch.func.vmap(lambda b, a: F.conv2d(a, b, groups=2))
        return each(w, x).square().sum((1, 2, 3, 4))

    run, given = gradients_of(losses, [drawn(M, 4, 1, 3, 3)], [drawn(M, 2, 2, 6, 6)])
    found = record(run, given, buffers=1, batch=1).lowered
    assert found == "a convolution of another kind than the usual one"


POOLS = {
    "max 2": lambda x: F.max_pool2d(x, 2),
    "max 3, 2": lambda x: F.max_pool2d(x, 3, stride=2),
    "max (2, 3)": lambda x: F.max_pool2d(x, (2, 3)),
    "mean 2": lambda x: F.avg_pool2d(x, 2),
    "mean 3, 1": lambda x: F.avg_pool2d(x, 3, stride=1),
}


def test_pools():
    def losses(*given):
        *weights, x = given
        return sum(
            torch.func.vmap(pool)(x * w).square().sum((1, 2, 3, 4))
            for pool, w in zip(POOLS.values(), weights, strict=True)
        )

    weights = [drawn(M, 2, 3, 7, 8, seed=i) for i in range(len(POOLS))]
    compare(losses, weights, [drawn(M, 2, 3, 7, 8, seed=99)], names=["losses", *POOLS])


def test_a_pool_passes_on_what_is_no_number():
    x = torch.full((1, 2, 1, 4, 4), 1.0)
    x[0, 1, 0, 1, 2] = math.nan
    module = make_fx(lambda x: [x.sum((1, 2, 3, 4)), torch.func.vmap(POOLS["max 2"])(x)])(x)
    _, (mine,) = Fused(lower(module, buffers=1, batch=1), 1)([x])
    assert mine[0, :, 0].isnan().tolist() == [[[False] * 2] * 2, [[False, True], [False, False]]]


REFUSED = {
    "mixes members": (lambda w, x: (w - w.mean(0, keepdim=True)).sum(1), "members"),
    "turns members": (lambda w, x: (w @ w.T).sum(1), "members"),
    "no C++": (lambda w, x: torch.special.bessel_j0(w.detach()).sum(1) + w.sum(1), "no C\\+\\+"),
    "several": (lambda w, x: torch.sort(w * x, 1).values.sum(1), "no C\\+\\+"),
    "half": (lambda w, x: (w.half().float() * x).sum(1), "float16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_cpp_is_said(name):
    function, words = REFUSED[name]
    run, given = gradients_of(function, [drawn(M, 4, dtype=torch.float32)],
                              [drawn(M, 4, dtype=torch.float32, seed=1)])  # fmt: skip
    module = make_fx(run)(*given)
    with pytest.raises(Unfit, match=words):
        lower(module, buffers=1, batch=1)


def test_an_operation_called_in_a_way_that_nobody_thought_of_leaves_the_recording(monkeypatch):
    def stumble(writer, node, args):
        raise IndexError("list index out of range")

    monkeypatch.setitem(operations._OTHERS, torch.ops.aten.sum, stumble)
    run, given = gradients_of(lambda w, x: (w * x).sum(1), [drawn(M, 4)], [drawn(M, 4, seed=1)])
    found = record(run, given, buffers=1, batch=1)
    assert found.lowered == "it cannot be written in C++ (IndexError: list index out of range)"
    losses, _ = found([t.detach() for t in given], found.places(torch.device("cpu")))
    assert torch.equal(losses, (given[0] * given[1]).sum(1).detach())


# ------------------------------------------------------------------------------ populations


class Wide(nn.Module):
    """Everything of a perceptron that is not in the others."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(144, 40)
        self.hidden = nn.Linear(40, 40, bias=False)
        self.last = nn.Linear(40, 5)
        self.norm = nn.LayerNorm(40)
        self.scale = nn.Parameter(torch.ones(40))
        self.last.bias.requires_grad_(False)
        self.drop = nn.Dropout(0.2)
        self.register_buffer("shift", torch.linspace(-1, 1, 40))

    def forward(self, x):
        x = F.gelu(self.first(x.flatten(1)))
        x = x + self.drop(F.silu(self.hidden(self.norm(x)) * self.scale + self.shift))
        return self.last(F.relu(x))


class Attending(nn.Module):
    """An image's rows as words; no two members' attention is computed at once."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 8)
        self.place = nn.Parameter(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)))
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(8, 5)

    def forward(self, x):
        x = self.embed(x.squeeze(1)) + self.place
        a = self.norm(x)
        x = x + self.drop(self.attend(a, a, a, need_weights=False)[0])
        return self.out(F.elu(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(12, 6, batch_first=True)
        self.gru = nn.GRU(6, 4, batch_first=True, bidirectional=True)
        self.out = nn.Linear(8, 5)

    def forward(self, x):
        return self.out(self.gru(self.lstm(x.squeeze(1)[:, ::4])[0])[0].mean(1))


class Normed(nn.Module):
    """Batch norm over examples alone, and over places too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
        self.first = nn.BatchNorm2d(4)
        self.last = nn.BatchNorm1d(8, momentum=0.3)
        self.hidden, self.out = nn.Linear(36, 8, bias=False), nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(self.conv(x))), 2)
        return self.out(torch.tanh(self.last(self.hidden(x.flatten(1)))))


FITS = {
    "mlp": Mlp,
    "wide": Wide,
    "attending": Attending,
    "recurrent": Recurrent,
    "normed": Normed,
    "conv": Conv,
    "residual": Residual,
    "transformer": Transformer,
}


@pytest.mark.parametrize("name", FITS)
def test_a_fused_member_is_its_solo_run_in_double_precision_over_200_steps(name):
    task = make(FITS[name], WORDS if name == "transformer" else IMAGES, dtype=torch.float64)
    population = Population(task, MIXED, steps=LONG)
    chunks = population.advance(200)
    assert population._passes.is_fused, population._passes.not_fused
    for place, given in enumerate(MIXED):
        alone = solo_of(task, given, LONG)
        assert worst(chunks[place].loss, alone.advance(200).loss) < 1.3e-7
        for key, weight in alone.weights().items():
            mine, expected = population.weights(place)[key], weight
            if key == "attend.in_proj_bias":  # see test_population
                mine, expected = (torch.cat((b[:8], b[16:])) for b in (mine, expected))
            assert torch.allclose(mine, expected, rtol=1e-10, atol=1e-11), (place, key)
        for key, buffer in alone.model.named_buffers():
            if key in population.stacks.buffers and buffer.is_floating_point():
                assert torch.allclose(population.stacks.buffers[key][place], buffer, rtol=1e-10)


@pytest.mark.parametrize("name", FITS)
def test_a_fused_member_is_its_solo_run_in_single_precision_over_50_steps(name):
    task = make(FITS[name], WORDS if name == "transformer" else IMAGES)
    given = [member("sgd", s, lr=0.05) for s in range(3)]
    population = Population(task, given, steps=LONG)
    chunks = population.advance(50)
    assert population._passes.is_fused, population._passes.not_fused
    for chunk, one in zip(chunks, given, strict=True):
        assert worst(chunk.loss, solo_of(task, one, LONG).advance(50).loss) < 1e-5


@pytest.mark.parametrize("name", ["mnist", "mnist-mlp", "mnist-logreg"])
def test_the_ready_made_tasks_are_fused(name):
    task = tasks.load(name)
    population = Population(task, sgd(2, lr=1e-3), steps=LONG)
    chunks = population.advance(50)
    assert population._passes.is_fused, population._passes.not_fused
    for chunk, one in zip(chunks, sgd(2, lr=1e-3), strict=True):
        assert worst(chunk.loss, solo_of(task, one, LONG).advance(50).loss) < 1e-5


def test_a_member_does_not_depend_on_how_many_others_there_are_nor_on_threads():
    task = make(Wide, IMAGES)
    found = []
    for places, threads in [([0, 1, 2, 3, 4], 1), ([3], 1), ([4, 3, 0], 2)]:
        torch.set_num_threads(threads)
        population = Population(task, [sgd(5)[i] for i in places], steps=LONG)
        chunks = population.advance(60)
        assert population._passes.is_fused
        at = places.index(3)
        found.append((chunks[at].loss, population.weights(at)))
    torch.set_num_threads(1)
    for losses, weights in found[1:]:
        assert np.array_equal(losses, found[0][0])
        assert all(torch.equal(weights[name], found[0][1][name]) for name in weights)


def test_a_fused_run_goes_on_to_the_same_bits():
    task = make(Wide, IMAGES)
    whole = Population(task, MIXED[:5], steps=LONG)
    losses = [c.loss for c in whole.advance(40)]
    first = Population(task, MIXED[:5], steps=LONG)
    first.advance(17)
    second = Population(task, MIXED[:5], steps=LONG)
    second.restore([first.state(i) for i in range(5)])
    for chunk, expected in zip(second.advance(23), losses, strict=True):
        assert np.array_equal(chunk.loss, expected[17:])
    for i in range(5):
        mine, theirs = second.weights(i), whole.weights(i)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_rows_are_taken_from_any_tensor_of_contiguous_rows():
    x = torch.randn(240, 2, 144, generator=torch.Generator().manual_seed(1))
    for given in (x[:, 0], x[:, 0].contiguous(), x[:, 0].T.contiguous().T):
        task = Task(name="rows", model=lambda: nn.Linear(144, 5), loss=F.cross_entropy,
                    train=(given, LABELS), batch_size=16)  # fmt: skip
        population = Population(task, sgd(), steps=LONG)
        losses = np.stack([c.loss for c in population.advance(30)])
        assert population._passes.is_fused
        plain = Population(task, sgd(), steps=LONG, fused=False)
        expected = np.stack([c.loss for c in plain.advance(30)])
        assert worst(losses, expected) < 1e-5


def test_a_diverged_member_changes_no_bit_of_the_others():
    task = make(Wide, IMAGES)
    calm = Population(task, sgd(4), steps=LONG).advance(40)
    wild = [*sgd(3), Member(lambda p: optim.build("sgd", p, lr=1e38), None, 3)]
    population = Population(task, wild, steps=LONG)
    chunks = population.advance(40)
    assert population._passes.is_fused
    assert population.diverged_at[3] is not None
    for chunk, expected in zip(chunks[:3], calm[:3], strict=True):
        assert np.array_equal(chunk.loss, expected.loss)


def test_a_wrong_class_raises_what_torch_raises():
    labels = LABELS.clone()
    first = batch_order(0, 0, len(LABELS))[0]
    labels[torch.arange(len(LABELS)) != first] = 5  # there are 5 classes, from 0
    task = Task(name="w", model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 5)),
                loss=F.cross_entropy, train=(IMAGES, labels), batch_size=1)  # fmt: skip
    population = Population(task, sgd(1), steps=LONG)
    with pytest.raises(TaskError, match="out of bounds"):
        population.advance(240)


# ------------------------------------------------------------------------------ not taken


def advanced(**changes):
    population = Population(make(Mlp, IMAGES), sgd(), steps=LONG, **changes)
    population.advance(5)
    return population


def test_what_is_not_asked_for_is_not_done():
    population = advanced(fused=False)
    assert not population._passes.is_fused
    assert population._passes.not_fused == "it was not asked for"


def test_without_a_compiler_torch_carries_out_the_recording(monkeypatch):
    def refuse(*args, **kwargs):
        raise KernelUnavailable("no C++ compiler (c++: not found)")

    monkeypatch.setattr(compiler, "load", refuse)
    population = advanced()
    assert not population._passes.is_fused
    assert population._passes.reason == ""
    assert "no C++ compiler" in population._passes.not_fused


def test_a_pass_that_computes_something_else_is_not_taken(monkeypatch):
    class Wrong(Fused):
        def __call__(self, tensors, numbers=None):
            losses, grads = super().__call__(tensors, numbers)
            return losses, [g if g is None else g * 1.01 for g in grads]

    monkeypatch.setattr(recorded, "Fused", Wrong)
    population = advanced()
    assert not population._passes.is_fused
    assert "agrees with torch in 0 of 9 passes only" in population._passes.not_fused


def test_on_another_device_nothing_is_in_cpp():
    passes = advanced(fused=False)._passes
    passes.not_fused = ""
    there = [torch.empty(3, 2, device="meta")]
    passes._fuse(passes._recording, there)
    assert passes.not_fused == "C++ is for the CPU"


def test_few_members_leave_many_threads_to_torch(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    population = advanced()
    assert population._passes.not_fused == "3 members would leave most of 7 threads idle"


def test_a_model_that_changes_unseen_is_found_out():
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(144, 5)

        def forward(self, x):
            return self.fc(x.flatten(1)) * (1.0 if type(self).limit > 0 else 2.0)

    Doubling.limit = 1
    task = make(Doubling, IMAGES)
    population = Population(task, sgd(), steps=LONG)
    population.advance(6)
    assert population._passes.is_fused
    Doubling.limit = 0
    with pytest.raises(UnsupportedError, match="computes something else by now"):
        population.evaluate("val")
