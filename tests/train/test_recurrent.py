"""Recurrent layers of a population compute what torch's own compute, with noise by (seed, step)."""

import copy
import warnings

import pytest
import torch
from tests.train.test_population import IMAGES, Lstm, make, member, solo_of, worst
from torch import nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from steepest.errors import TaskError, UnsupportedError
from steepest.train.dropout import KeyedDropout, key_dropout
from steepest.train.keyed import KEY, Counter, step_words
from steepest.train.population import Population
from steepest.train.recurrent import batch_recurrent
from steepest.train.solo import SoloRun

M, T, B, D, H = 3, 5, 4, 6, 7  # members, time steps, examples, inputs, hidden values
SHAPES = [
    {},
    {"bias": False},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "bias": False, "batch_first": True},
    {"bidirectional": True, "batch_first": True},
]
CASES = [(kind, given) for kind in (nn.LSTM, nn.GRU, nn.RNN) for given in SHAPES]
CASES += [(nn.RNN, {"nonlinearity": "relu"} | given) for given in SHAPES[1:3]]
CASES += [(nn.LSTM, {"proj_size": 3} | given) for given in SHAPES[:4]]
CELLS = [(kind, {"bias": bias}) for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
         for bias in (True, False)]  # fmt: skip
CELLS += [(nn.RNNCell, {"nonlinearity": "relu"})]


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def leaves(nested):
    return [nested] if isinstance(nested, torch.Tensor) else [t for n in nested for t in leaves(n)]


def mapped(module):
    twin = copy.deepcopy(module)
    batch_recurrent(twin)
    return twin


def outputs_and_gradients(outputs, given):
    # a weight of its own for every element, so that none can stand in for another
    loss = sum((t * torch.linspace(0.1, 1, t.numel()).view(t.shape)).sum() for t in outputs)
    return [*outputs, *torch.autograd.grad(loss, given)]


def compare(module, x_M, states_M):
    """Members that are mapped, and torch's module for one after the other."""
    params = {
        name: torch.stack([p.detach() * (1 + 0.1 * m) for m in range(M)]).requires_grad_()
        for name, p in module.named_parameters()
    }
    inputs = [t.requires_grad_() for t in (x_M, *states_M)]
    given = [*inputs, *params.values()]

    def call(model, params, x, *states):
        state = states if len(states) > 1 else (*states, None)[0]
        return tuple(leaves(functional_call(model, params, (x, state))))

    twin = mapped(module)
    together = torch.vmap(lambda p, *inputs: call(twin, p, *inputs))(params, *inputs)
    alone = [call(module, {n: p[m] for n, p in params.items()}, *(t[m] for t in inputs))
             for m in range(M)]  # fmt: skip
    alone = [torch.stack(each) for each in zip(*alone, strict=True)]
    found, wanted = (outputs_and_gradients(outputs, given) for outputs in (together, alone))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("kind", "given"), CASES)
def test_mapped_layers_give_torchs_outputs_and_gradients(kind, given, batched, with_state):
    module = kind(D, H, **given)
    lead = ((B, T) if module.batch_first else (T, B)) if batched else (T,)
    rows = module.num_layers * (2 if module.bidirectional else 1)
    sizes = [module.proj_size or H, H][: 2 if kind is nn.LSTM else 1]
    states = [torch.randn(M, rows, *([B] if batched else []), size) for size in sizes]
    compare(module, torch.randn(M, *lead, D), states if with_state else [])


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("kind", "given"), CELLS)
def test_mapped_cells_give_torchs_outputs_and_gradients(kind, given, batched, with_state):
    lead = [M, B] if batched else [M]
    states = [torch.randn(*lead, H) for _ in range(2 if kind is nn.LSTMCell else 1)]
    compare(kind(D, H, **given), torch.randn(*lead, D), states if with_state else [])


def test_members_may_share_their_inputs():
    module = nn.GRU(D, H, batch_first=True)
    twin = mapped(module)
    params = {n: torch.stack([p.detach(), 2 * p.detach()]) for n, p in module.named_parameters()}
    x = torch.randn(B, T, D)
    out, last = torch.vmap(lambda p: functional_call(twin, p, (x,)))(params)
    for m in range(2):
        wanted = functional_call(module, {n: p[m] for n, p in params.items()}, (x,))
        torch.testing.assert_close((out[m], last[m]), wanted)


def test_mapped_layers_can_be_compiled():
    twin = mapped(nn.GRU(D, H, bidirectional=True))
    params = {n: torch.stack([p.detach()] * M).requires_grad_() for n, p in twin.named_parameters()}

    def run(x_M):
        return torch.vmap(lambda p, x: functional_call(twin, p, (x,)))(params, x_M)

    x_M = torch.randn(M, T, B, D)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler uses what torch has deprecated
        found, wanted = (
            outputs_and_gradients(way(x_M), [*params.values()])
            for way in (torch.compile(run, backend="aot_eager"), run)
        )
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_model_of_16_bits_stays_one(kind):
    module = kind(D, H).bfloat16()
    twin = mapped(module)
    x = torch.randn(T, B, D, dtype=torch.bfloat16)
    for mine, theirs in zip(leaves(twin(x)), leaves(module(x)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.05, atol=0.02)  # types are compared, too


def test_what_torch_refuses_is_refused():
    twin = mapped(nn.LSTM(D, H))
    with pytest.raises(RuntimeError, match=r"input\.size"):
        twin(torch.randn(T, B, D + 1))
    with pytest.raises(RuntimeError, match="Expected hidden"):
        twin(torch.randn(T, B, D), (torch.randn(1, B + 1, H), torch.randn(1, B, H)))
    with pytest.raises(TaskError, match="2 or 3 dimensions, got 4"):
        twin(torch.randn(1, T, B, D))


# ---------------------------------------------------------------------- dropout between layers


def keyed(kind=nn.LSTM, **given):
    module = kind(D, H, **({"num_layers": 3, "dropout": 0.4} | given))
    plain = copy.deepcopy(module)
    key = key_dropout(module)
    key.copy_(step_words((1, 2), 3))
    return module, plain, key


@pytest.mark.parametrize("p", [0.4, 1.0])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_layers_drop_between_them_by_the_key(kind, bidirectional, batch_first, p):
    """The oracle: modules of one layer each, and dropout layers between them."""
    module, plain, key = keyed(
        kind, bidirectional=bidirectional, batch_first=batch_first, dropout=p
    )
    wide = 2 * H if bidirectional else H
    drop = KeyedDropout(p, kind="element", key=key, counter=Counter())
    noise = drop(torch.ones(2, T, B, wide))
    x = out = torch.randn(T, B, D)
    for number in range(3):
        one = kind(D if number == 0 else wide, H, bidirectional=bidirectional)
        names = [n for n, _ in one.named_parameters()]
        one.load_state_dict(
            {n: getattr(plain, n.replace("_l0", f"_l{number}")).detach() for n in names}
        )
        out = one(out)[0] * (noise[number] if number < 2 else 1.0)
    given = x.transpose(0, 1) if batch_first else x
    for model in (module, mapped(module)):
        found = model(given)[0]
        torch.testing.assert_close(found.transpose(0, 1) if batch_first else found, out)
        model.train(False)
        torch.testing.assert_close(model(given), plain.eval()(given))


def test_another_step_drops_others():
    module, _, key = keyed()
    x = torch.randn(T, B, D)
    first = module(x)[0]
    module.counter.taken = 0
    key.copy_(step_words((1, 2), 4))
    assert not torch.equal(first, module(x)[0])


def test_a_keyed_module_is_the_users_own_object():
    module = nn.LSTM(D, H, num_layers=2, dropout=0.1)
    model = nn.Sequential(nn.Linear(D, D), module)
    before = list(model.state_dict()), [id(p) for p in model.parameters()]
    key_dropout(model)
    assert (list(model.state_dict()), [id(p) for p in model.parameters()]) == before
    assert model[1] is module
    assert isinstance(module, nn.LSTM)
    assert [n for n, _ in model.named_buffers()] == [f"1.{KEY}"]
    twin = copy.deepcopy(model)
    assert twin[1].counter is not module.counter
    x = torch.randn(T, B, D)
    torch.testing.assert_close(model(x), twin(x))


def test_what_drops_nothing_and_what_may_mean_something_else_is_left_alone():
    class Mine(nn.LSTM):
        pass

    assert key_dropout(nn.Sequential(nn.LSTM(D, H, num_layers=2))) is None
    with pytest.warns(UserWarning, match="non-zero dropout expects num_layers"):
        alone = nn.GRU(D, H, dropout=0.5)
    assert key_dropout(nn.Sequential(alone)) is None
    mine = Mine(D, H, num_layers=2, dropout=0.5)
    assert key_dropout(nn.Sequential(mine)) is None
    batch_recurrent(mine)
    assert "forward" not in vars(mine)


def test_a_recomputed_pass_meets_the_same_masks():
    class Saving(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.saves = nn.LSTM(D, H, num_layers=3, dropout=0.4), False

        def forward(self, x):
            return (checkpoint(self.read, x, use_reentrant=False) if self.saves else self.read(x))[
                0
            ]

    model = Saving()
    key_dropout(model)
    x = torch.randn(T, B, D, requires_grad=True)
    (wanted,) = torch.autograd.grad(model(x).sum(), x)
    model.saves = True
    (found,) = torch.autograd.grad(model(x).sum(), x)
    assert torch.equal(found, wanted)


# ---------------------------------------------------------------------- in a population


class Steps(nn.Module):
    """A loop of one's own over cells of all three kinds."""

    def __init__(self):
        super().__init__()
        self.first, self.then = nn.LSTMCell(12, 6), nn.GRUCell(6, 6)
        self.last, self.out = nn.RNNCell(6, 6), nn.Linear(6, 5)

    def forward(self, x):
        state = g = r = None
        for row in x.squeeze(1).unbind(1):
            state = self.first(row, state)
            g = self.then(state[0], g)
            r = self.last(g, r)
        return self.out(r)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.read = nn.LSTM(12, 6, num_layers=2, dropout=0.2, batch_first=True)
        self.out = nn.Linear(6, 5)

    def forward(self, x):
        lengths = torch.arange(len(x)) % 12 + 1
        packed = pack_padded_sequence(x.squeeze(1), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.read(packed)[0], batch_first=True)
        return self.out(out.mean(1))


TWO = [member("sgd", seed, lr=0.1) for seed in range(2)]


def test_cells_in_a_loop_are_those_of_the_solo_run_and_are_recorded():
    task = make(Steps, IMAGES[:, :, :4], dtype=torch.float64)
    population = Population(task, TWO, steps=1000)
    chunks = population.advance(20)
    assert population._passes.reason == ""
    for chunk, given in zip(chunks, TWO, strict=True):
        assert worst(chunk.loss, solo_of(task, given, 1000).advance(20).loss) < 1.3e-7


def test_packed_sequences_are_refused_and_train_alone():
    task = make(Packed, IMAGES, dtype=torch.float64)
    with pytest.raises(UnsupportedError, match=r"nn\.LSTM is given a PackedSequence"):
        Population(task, TWO, steps=5).advance(1)
    losses = [solo_of(task, TWO[0], 5).advance(5).loss for _ in range(2)]
    assert (losses[0] == losses[1]).all()


def test_a_loop_too_long_to_pay_is_not_recorded():
    words = torch.randint(0, 20, (240, 90))
    population = Population(make(Lstm, words), TWO, steps=1000)
    population.advance(2)
    assert "a loop over 90 time steps" in population._passes.reason


def test_in_bf16_a_member_is_its_solo_run_within_what_bf16_rounds():
    torch.set_default_dtype(torch.float32)
    task = make(Lstm, torch.randint(0, 20, (240, 7)))
    population = Population(task, TWO, steps=1000, precision="bf16")
    for chunk, given in zip(population.advance(20), TWO, strict=True):
        alone = SoloRun(task, optimizer=given.optimizer, schedule=None, seed=given.seed,
                        steps=1000, precision="bf16")  # fmt: skip
        assert worst(chunk.loss, alone.advance(20).loss) < 1e-2
    assert population._passes.reason == ""
