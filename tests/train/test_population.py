"""A member of a population is the run that it would have been alone."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from steepest import optim, schedules, tasks
from steepest.errors import InputError, TaskError, UnsupportedError
from steepest.train.population import Member, Population
from steepest.train.solo import SoloRun
from steepest.train.task import Task

G = torch.Generator().manual_seed(0)
IMAGES = torch.randn(240, 1, 12, 12, generator=G)
WORDS = torch.randint(0, 20, (240, 7), generator=G)
LABELS = torch.randint(0, 5, (240,), generator=G)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(144, 24), nn.Tanh(), nn.AlphaDropout(0.1), nn.Linear(24, 5)
        )


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.drop = nn.Dropout2d(0.2)
        self.fc = nn.Linear(150, 5)

    def forward(self, x):
        x = self.drop(F.avg_pool2d(torch.tanh(self.conv(x)), 2))
        return self.fc(x.flatten(1))


class Residual(nn.Module):
    """Batch norm with running statistics, a skip, a frozen stem, a buffer of its own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.stem.requires_grad_(False)
        self.block = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.SiLU(),
            nn.Conv2d(4, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
        )
        self.head = nn.Linear(4, 5)
        self.register_buffer("scale", torch.rand(5) + 0.5)

    def forward(self, x):
        x = self.stem(x)
        x = F.silu(x + self.block(x))
        return self.head(x.mean((2, 3))) * self.scale


class Transformer(nn.Module):
    """Embedding, attention, layer norm, dropout; the output weights are the embedding's."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.place = nn.Parameter(torch.randn(7, 8) * 0.1)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 8))
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        x = self.embed(x) + self.place
        a = self.norm1(x)
        x = x + self.drop(self.attend(a, a, a, need_weights=False)[0])
        x = x + self.drop(self.mlp(self.norm2(x)))
        return self.out(x.mean(1))[:, :5]


class Lstm(nn.Module):
    """Two layers with dropout between them, states that are learned."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.read = nn.LSTM(6, 8, num_layers=2, dropout=0.2, batch_first=True)
        self.h, self.c = (nn.Parameter(torch.randn(2, 1, 8) * 0.1) for _ in range(2))
        self.out = nn.Linear(8, 5)

    def forward(self, x):
        h, c = (state.expand(2, len(x), 8).contiguous() for state in (self.h, self.c))
        return self.out(self.read(self.embed(x), (h, c))[0].mean(1))


class Gru(nn.Module):
    """The rows of an image, read from both ends; what is left in the end."""

    def __init__(self):
        super().__init__()
        self.read = nn.GRU(12, 6, batch_first=True, bidirectional=True)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(12, 5)

    def forward(self, x):
        _, last = self.read(x.squeeze(1))
        return self.out(self.drop(torch.cat((last[0], last[1]), 1)))


def accuracy(outputs, targets):
    return (outputs.argmax(1) == targets).double().mean()


def make(model, x, *, dtype=torch.float32, **changes):
    def build():
        return model().to(dtype)

    x = x.to(dtype) if x.is_floating_point() else x
    given = {
        "name": "t",
        "model": build,
        "loss": F.cross_entropy,
        "train": (x[:180], LABELS[:180]),
        "val": (x[180:], LABELS[180:]),
        "metrics": {"accuracy": accuracy},
        "batch_size": 16,
        "eval_batch_size": 25,
    }
    return Task(**(given | changes))


ZOO = {
    "mlp": (Mlp, IMAGES),
    "conv": (Conv, IMAGES),
    "residual": (Residual, IMAGES),
    "transformer": (Transformer, WORDS),
    "lstm": (Lstm, WORDS),
    "gru": (Gru, IMAGES),
}


def member(name, seed=0, schedule=None, **values):
    parsed = None if schedule is None else schedules.parse(schedule)
    return Member(lambda p: optim.build(name, p, **values), parsed, seed)


def solo_of(task, given, steps):
    return SoloRun(
        task,
        optimizer=given.optimizer,
        schedule=given.schedule,
        seed=given.seed,
        steps=steps,
    )


def worst(a, b):
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-3)))


MIXED = [
    member("sgd", 0, lr=0.05, momentum=0.9),
    member("adam", 0, "cosine(warmup=0.1)", lr=1e-2),
    member("sgd", 1, lr=0.1),
    member("adamw", 1, "linear", lr=1e-3, weight_decay=0.1),
    member("nadam", 2, lr=1e-3),
    Member(lambda p: torch.optim.SGD(p, lr=0.02), None, 2),
]


@pytest.mark.parametrize("name", ZOO)
def test_a_member_is_its_solo_run_in_double_precision_over_200_steps(name):
    model, x = ZOO[name]
    task = make(model, x, dtype=torch.float64)
    population = Population(task, MIXED, steps=200)
    chunks = population.advance(200)
    numbers = population.evaluate("val")
    for place, given in enumerate(MIXED):
        alone = solo_of(task, given, 200)
        chunk = alone.advance(200)
        # chunks are float32: losses that agree to 1e-10 differ at most in how they were rounded
        assert worst(chunks[place].loss, chunk.loss) < 1.3e-7
        assert (chunks[place].lr == chunk.lr).all()
        assert population.start_hashes[place] == alone.start_hash
        assert population.order_hash(place) == alone.order_hash
        for key, expected in alone.weights().items():
            value = expected
            mine = population.weights(place)[key]
            if key == "attend.in_proj_bias":
                # attention does not depend on the keys' bias: its gradient is rounding error,
                # which Adam divides by its own size
                mine, value = (torch.cat((b[:8], b[16:])) for b in (mine, value))
            assert torch.allclose(mine, value, rtol=1e-10, atol=1e-11), (name, place, key)
        expected = alone.evaluate("val")
        assert numbers[place]["accuracy"] == expected["accuracy"]
        assert math.isclose(numbers[place]["loss"], expected["loss"], rel_tol=1e-10)


@pytest.mark.parametrize("name", ZOO)
def test_a_member_is_its_solo_run_in_single_precision_over_50_steps(name):
    model, x = ZOO[name]
    task = make(model, x)
    members = [member("sgd", s, lr=0.05, momentum=0.9) for s in range(3)]
    members += [member("sgd", 0, "cosine", lr=0.1)]
    chunks = Population(task, members, steps=50).advance(50)
    for chunk, given in zip(chunks, members, strict=True):
        assert worst(chunk.loss, solo_of(task, given, 50).advance(50).loss) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "mnist-mlp", "mnist-logreg"])
def test_a_member_of_a_ready_made_task_is_its_solo_run(name):
    task = tasks.load(name)
    # at larger rates a last bit now and then decides which pixel a max-pool takes
    members = [member("sgd", 0, lr=1e-3), member("sgd", 1, lr=3e-3), member("adam", 0, lr=1e-5)]
    chunks = Population(task, members, steps=50).advance(50)
    for chunk, given in zip(chunks, members, strict=True):
        assert worst(chunk.loss, solo_of(task, given, 50).advance(50).loss) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "mnist-mlp", "mnist-logreg"])
def test_a_member_of_a_ready_made_task_is_its_solo_run_in_double_precision(name):
    made = tasks.load(name)
    x, y = made.train
    task = dataclasses.replace(
        made,
        model=lambda: made.model().double(),
        train=(x[:1000].double(), y[:1000]),
        val=None,
        test=None,
    )
    members = [member("adam", 0, "cosine", lr=1e-3), member("sgd", 1, lr=0.05, momentum=0.9)]
    population = Population(task, members, steps=200)
    chunks = population.advance(200)
    for place, given in enumerate(members):
        alone = solo_of(task, given, 200)
        # chunks are float32: losses that agree to 1e-10 differ at most in how they were rounded
        assert worst(chunks[place].loss, alone.advance(200).loss) < 1.3e-7
        for key, value in alone.weights().items():
            assert torch.allclose(population.weights(place)[key], value, rtol=1e-10, atol=1e-11)


RULES = ["sgd", "adagrad", "rmsprop", "adadelta", "adam", "nadam", "radam", "adamax"]


def test_eight_rules_with_four_rates_and_three_schedules_train_together():
    task = make(Mlp, IMAGES, dtype=torch.float64)
    members = [
        member(rule, 0, schedule, lr=lr)
        for rule in RULES
        for lr in (1e-4, 1e-3, 3e-3, 1e-2)
        for schedule in (None, "cosine(warmup=0.1)", "step(every=10, gamma=0.5)")
    ]
    population = Population(task, members, steps=40)
    assert len(population.steppers.launches) == len(RULES)
    chunks = population.advance(40)
    for place, given in enumerate(members):
        alone = solo_of(task, given, 40)
        assert worst(chunks[place].loss, alone.advance(40).loss) < 1.3e-7
        assert (chunks[place].lr[-1]) > 0


def test_every_schedule_gives_a_member_the_rates_and_losses_of_its_solo_run():
    task = make(Mlp, IMAGES, dtype=torch.float64)
    texts = [f"{name}(warmup=3)" for name in schedules.names()]
    members = [member("adam", 0, text, lr=1e-2) for text in texts]
    chunks = Population(task, members, steps=40).advance(40)
    for chunk, given, text in zip(chunks, members, texts, strict=True):
        expected = [1e-2 * schedules.parse(text)(step, 40) for step in range(40)]
        assert chunk.lr == pytest.approx(expected, rel=1e-6)  # recorded in float32
        assert worst(chunk.loss, solo_of(task, given, 40).advance(40).loss) < 1.3e-7
    assert len({tuple(chunk.lr) for chunk in chunks}) == len(texts) - 1  # polynomial is linear


def test_the_others_do_not_matter():
    task = make(Conv, IMAGES)
    members = [member("sgd", s, lr=0.02 * (s + 1)) for s in range(6)]
    every = Population(task, members, steps=30).advance(30)
    fewer = Population(task, members[2:4], steps=30).advance(30)
    turned = Population(task, members[::-1], steps=30).advance(30)
    for place in (2, 3):
        assert worst(fewer[place - 2].loss, every[place].loss) < 1e-5
        assert worst(turned[5 - place].loss, every[place].loss) < 1e-5


def test_a_diverging_member_changes_no_bit_of_the_31_others():
    task = make(Residual, IMAGES)
    members = [member("sgd", s, lr=0.01) for s in range(32)]
    sick = [*members[:7], member("sgd", 7, lr=1e30), *members[8:]]
    well, ill = Population(task, members, steps=40), Population(task, sick, steps=40)
    for _ in range(4):
        chunks = [p.advance(10) for p in (well, ill)]
        for place in (i for i in range(32) if i != 7):
            assert (chunks[0][place].loss == chunks[1][place].loss).all()
    assert ill.diverged_at[7] is not None
    assert ill.alive == [i for i in range(32) if i != 7]
    assert ill.evaluate("val")[7] is None
    assert not len(chunks[1][7].loss)
    alone = solo_of(task, sick[7], 40)
    alone.advance(40)
    assert ill.diverged_at[7] == alone.diverged_at
    assert ill.order_hash(7) == alone.order_hash
    for name, value in well.weights(3).items():
        assert (value == ill.weights(3)[name]).all()


def test_a_population_without_its_frozen_members_goes_on():
    task = make(Mlp, IMAGES)
    members = [member("sgd", s, lr=0.01) for s in range(3)] + [member("sgd", 0, lr=3e38)]
    population = Population(task, members, steps=40)
    population.advance(20)
    assert population.alive == [0, 1, 2]
    smaller, places = population.compacted()
    assert places == [0, 1, 2]
    assert (len(smaller), smaller.position) == (3, 20)
    for mine, other in zip(smaller.advance(20), population.advance(20), strict=False):
        assert worst(mine.loss, other.loss) < 1e-5
    assert smaller.order_hash(1) == population.order_hash(1)


@pytest.mark.parametrize("cut", [1, 13])
def test_going_on_from_saved_states_is_bitwise(cut):
    task = make(Residual, IMAGES)
    members = [*MIXED, member("sgd", 3, lr=1e30), member("schedulefree_adamw", 4)]
    whole, part = (Population(task, members, steps=30) for _ in range(2))
    expected = [c.loss[cut:] for c in whole.advance(30)]
    part.advance(cut)
    part.evaluate("val")
    states = [part.state(i) for i in range(len(members))]
    again = Population(task, members, steps=30)
    again.advance(3)
    again.restore(states)
    for place, chunk in enumerate(again.advance(30)):
        assert np.array_equal(chunk.loss, expected[place], equal_nan=True)
        assert again.order_hash(place) == whole.order_hash(place)
        for name, value in whole.weights(place).items():
            assert torch.equal(value, again.weights(place)[name]), (place, name)
    assert again.evaluate("val") == whole.evaluate("val")


def test_a_members_state_goes_on_in_a_solo_run_and_back():
    task = make(Mlp, IMAGES, dtype=torch.float64)
    whole = Population(task, MIXED, steps=30)
    expected = whole.advance(30)
    part = Population(task, MIXED, steps=30)
    part.advance(10)
    states = []
    for place, given in enumerate(MIXED):
        alone = solo_of(task, given, 30)
        alone.restore(part.state(place))
        assert worst(alone.advance(10).loss, expected[place].loss[10:20]) < 1.3e-7
        states.append(alone.state())
    part.restore(states)
    for place, chunk in enumerate(part.advance(10)):
        assert worst(chunk.loss, expected[place].loss[20:]) < 1.3e-7


def test_states_that_do_not_belong_together_are_refused():
    task = make(Mlp, IMAGES)
    population = Population(task, MIXED[:2], steps=30)
    early = [population.state(i) for i in range(2)]
    population.advance(5)
    late = [population.state(i) for i in range(2)]
    with pytest.raises(InputError, match="do not belong together"):
        population.restore([early[0], late[1]])
    with pytest.raises(InputError, match="its seed is 1"):
        Population(task, [MIXED[0]], steps=30).restore(
            [Population(task, [MIXED[2]], steps=30).state(0)]
        )
    with pytest.raises(InputError, match="needs a state of each"):
        population.restore([None, None])


def test_a_rule_that_sums_over_all_parameters_does_not_mix_members():
    task = make(Mlp, IMAGES, dtype=torch.float64)
    members = [member("prodigy", s) for s in range(3)]
    population = Population(task, members, steps=20)
    assert len(population.steppers.launches) == 3
    chunks = population.advance(20)
    for chunk, given in zip(chunks, members, strict=True):
        assert worst(chunk.loss, solo_of(task, given, 20).advance(20).loss) < 1.3e-7


def test_inputs_may_be_tuples_or_dicts_and_several_groups_have_their_own_rates():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(12, 5), nn.Linear(12, 5)

        def forward(self, left, right):
            return self.a(left) * self.b(right)

    def groups(p):
        p = list(p)
        return optim.SGD([{"params": p[:2], "lr": 0.3}, {"params": p[2:]}], lr=0.01)

    left, right = IMAGES[:, 0, 0], IMAGES[:, 0, 1]
    for x in ((left, right), {"left": left, "right": right}):
        task = Task(name="two", model=Two, loss=F.cross_entropy, train=(x, LABELS), batch_size=16)
        members = [Member(groups, schedules.parse("cosine"), s) for s in range(3)]
        population = Population(task, members, steps=20)
        assert len(population.steppers.launches) == 1
        for chunk, given in zip(population.advance(20), members, strict=True):
            assert worst(chunk.loss, solo_of(task, given, 20).advance(20).loss) < 1e-5
        assert [n["loss"] for n in population.evaluate("train")] == pytest.approx(
            [_after(task, m, 20).evaluate("train")["loss"] for m in members], rel=1e-5
        )


def _after(task, given, steps):
    run = solo_of(task, given, steps)
    run.advance(steps)
    return run


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Noisy(nn.Linear):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.1, training=self.training)


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


class Custom(nn.Linear):
    def forward(self, x):
        return _Double.apply(super().forward(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [(Branching, "data-dependent"), (Noisy, "random"), (Custom, "vmap|setup_context")],
)
def test_a_model_that_cannot_be_mapped_is_refused_with_the_reason(model, words):
    task = make(lambda: nn.Sequential(nn.Flatten(), model(144, 5)), IMAGES)
    population = Population(task, [member("sgd", s, lr=0.1) for s in range(2)], steps=5)
    with pytest.raises(TaskError, match=words):
        population.advance(1)


def test_what_cannot_be_stacked_is_refused_with_the_reason():
    data = list(zip(IMAGES, LABELS.tolist(), strict=True))

    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, i):
            return data[i]

    def refused(task, members, words, error=UnsupportedError):
        with pytest.raises(error, match=words):
            Population(task, members, steps=5)

    two = [member("sgd", s, lr=0.1) for s in range(2)]
    refused(make(Mlp, IMAGES, train=Items()), two, "come from a Dataset")
    loader = lambda: torch.utils.data.DataLoader(Items(), 4)  # noqa: E731
    refused(make(Mlp, IMAGES, train=loader), two, "come from a DataLoader")
    lbfgs = Member(torch.optim.LBFGS, None, 0)
    refused(make(Mlp, IMAGES), [lbfgs], "asks for the loss again")

    def uneven():
        return nn.Sequential(nn.Flatten(), nn.Linear(144, int(torch.randint(5, 200, ()))))

    refused(make(uneven, IMAGES), two, "members need equal shapes")
    one = Mlp()
    refused(make(lambda: one, IMAGES), two, "same object twice", error=TaskError)
    refused(make(Mlp, IMAGES, batch_size=500), two, "larger than the data", error=TaskError)
    refused(make(Mlp, IMAGES), [], "at least one member", error=InputError)


def test_memory_does_not_grow():
    task = make(Mlp, IMAGES)
    population = Population(task, [member("adam", s, lr=1e-3) for s in range(4)], steps=3000)
    population.advance(100)
    before = _tensors()
    population.advance(2000)
    assert _tensors() <= before + 2


def _tensors():
    import gc

    gc.collect()
    return sum(1 for x in gc.get_objects() if type(x) in (torch.Tensor, nn.Parameter))


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    population = Population(make(Conv, IMAGES), MIXED, steps=5)
    population.advance(5)
    population.evaluate("val")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_compiled_population_computes_what_an_eager_one_computes():
    task = make(Mlp, IMAGES, dtype=torch.float64)
    members = [member("sgd", s, lr=0.1) for s in range(3)]
    eager = Population(task, members, steps=10).advance(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler uses what torch has deprecated
        compiled = Population(task, members, steps=10, compiled=True).advance(10)
    for a, b in zip(eager, compiled, strict=True):
        assert worst(a.loss, b.loss) < 1.3e-7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_a_member_is_its_solo_run(compiled):
    task = make(Conv, IMAGES, dtype=torch.float64)
    members = [member("sgd", s, lr=0.05) for s in range(4)]
    chunks = Population(task, members, steps=20, device="cuda", compiled=compiled).advance(20)
    for chunk, given in zip(chunks, members, strict=True):
        run = SoloRun(
            task, optimizer=given.optimizer, schedule=None, seed=given.seed, steps=20, device="cuda"
        )
        assert worst(chunk.loss, run.advance(20).loss) < 1.3e-7
