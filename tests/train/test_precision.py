"""Runs compute in the precision that was asked for, whatever the process has set."""

from __future__ import annotations

import itertools
import warnings
from collections import namedtuple

import numpy as np
import pytest
import torch
from tests.train.test_population import IMAGES, LABELS, WORDS, accuracy, worst
from torch import nn
from torch.nn import functional as F

from steepest import optim, tasks
from steepest.errors import InputError, TaskError
from steepest.train import checkpoint
from steepest.train.agreement import why_not_together
from steepest.train.group import Group, how_to_train
from steepest.train.population import Member, Population
from steepest.train.precision import Precision, _allowed, _products
from steepest.train.solo import SoloRun
from steepest.train.task import Task, hash_tensors

CPU = torch.device("cpu")
G = torch.Generator().manual_seed(0)


class Mlp(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(144, 24), nn.Tanh(), nn.Dropout(0.1), nn.Linear(24, 5)
        )


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout2d(0.2)
        self.fc = nn.Linear(150, 5)

    def forward(self, x):
        x = self.drop(F.avg_pool2d(torch.tanh(self.norm(self.conv(x))), 2))
        return self.fc(x.flatten(1))


class Transformer(nn.Module):
    """Embedding, attention, layer norm; the output weights are the embedding's."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x):
        x = self.embed(x)
        a = self.norm(x)
        x = x + self.attend(a, a, a, need_weights=False)[0]
        return self.out((x + self.mlp(x)).mean(1))[:, :5]


ZOO = {"mlp": (Mlp, IMAGES), "conv": (Conv, IMAGES), "transformer": (Transformer, WORDS)}


def make(model=Mlp, x=IMAGES, **changes):
    given = {
        "name": "t",
        "model": model,
        "loss": F.cross_entropy,
        "train": (x[:180], LABELS[:180]),
        "val": (x[180:], LABELS[180:]),
        "metrics": {"accuracy": accuracy},
        "batch_size": 16,
        "eval_batch_size": 25,
    }
    return Task(**(given | changes))


def member(seed=0, name="sgd", **values):
    values = values or {"lr": 0.05, "momentum": 0.9}
    return Member(lambda p: optim.build(name, p, **values), None, seed)


def solo(task, given=None, *, steps=30, **more):
    given = given or member()
    return SoloRun(
        task, optimizer=given.optimizer, schedule=None, seed=given.seed, steps=steps, **more
    )


def bits(run):
    return {name: hash_tensors({"": tensor}) for name, tensor in run.state().tensors.items()}


def bits_of(population):
    return {name: hash_tensors({"": t}) for name, t in population.state(0).tensors.items()}


class Seeing(Mlp):
    """Remembers the type of what its last layer was given, of its weight, and what it gave."""

    seen: list[tuple[torch.dtype, ...]] = []  # noqa: RUF012  of all instances

    def forward(self, x):
        hidden = nn.Sequential(*list(self)[:-1])(x)
        out = self[-1](hidden)
        self.seen.append((hidden.dtype, self[-1].weight.dtype, out.dtype))
        return out


def together(task, *, precision, steps=30):
    return Population(task, [member(0), member(1)], steps=steps, precision=precision)


@pytest.mark.parametrize("start", [solo, together])
@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_activations_have_the_precision_and_parameters_gradients_and_slots_stay_float32(
    start, precision, dtype
):
    asked = []

    def loss(outputs, targets):
        asked.append(outputs.dtype)
        return F.cross_entropy(outputs, targets)

    def metric(outputs, targets):
        asked.append(outputs.dtype)
        return accuracy(outputs, targets)

    task = make(Seeing, loss=loss, metrics={"accuracy": metric})
    run = start(task, precision=precision)
    Seeing.seen.clear()
    asked.clear()
    run.advance(3)
    run.evaluate("val")
    assert set(Seeing.seen) == {(dtype, torch.float32, dtype)}
    assert set(asked) == {torch.float32}  # what loss and metrics get
    if start is solo:
        kept = [*run.model.parameters(), *(p.grad for p in run.model.parameters())]
        kept += [s["momentum_buffer"] for s in run.optimizer.state.values()]
    else:
        kept = list(run.stacks.params.values())
        kept += list(run.state(0).tensors.values())
    assert {t.dtype for t in kept if t.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("start", [solo, together])
def test_what_the_process_has_set_changes_no_bit(start, precision):
    def first(run):
        found = run.advance(12)
        return found if start is solo else found[0]

    plain = first(start(make(), precision=precision)).loss
    with torch.autocast("cpu", dtype=torch.float16):
        inside = start(make(), precision=precision)
        assert np.array_equal(first(inside).loss, plain)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert np.array_equal(first(start(make(), precision=precision)).loss, plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_bf16_differs_from_float32_by_its_rounding():
    for name, (model, x) in ZOO.items():
        task = make(model, x)
        plain, low = (solo(task, precision=p).advance(3).loss for p in ("float32", "bf16"))
        assert 1e-5 < worst(low, plain) < 5e-3, name


# Losses of members and solo runs are at most 6.2e-4, 5.7e-4 and 1.9e-3 apart over these 50 steps,
# where bf16 and float32 are 1.3e-3, 4.7e-4 and 1.6e-3 apart (one thread, AVX-512 with bf16).
@pytest.mark.parametrize(("name", "far"), [("mlp", 3e-3), ("conv", 3e-3), ("transformer", 1e-2)])
def test_a_member_of_a_bf16_population_is_its_solo_run(name, far):
    task = make(*ZOO[name])
    members = [
        member(0, lr=0.05),
        member(1, "adam", lr=1e-3),
        member(2, "nadam", lr=1e-3),
        Member(lambda p: torch.optim.SGD(p, lr=0.05), None, 3),
    ]
    population = Population(task, members, steps=50, precision="bf16")
    chunks, numbers = population.advance(50), population.evaluate("val")
    for place, given in enumerate(members):
        alone = solo(task, given, steps=50, precision="bf16")
        expected = alone.advance(50)
        assert worst(chunks[place].loss[:3], expected.loss[:3]) < 3e-3
        assert worst(chunks[place].loss, expected.loss) < far
        assert worst(numbers[place]["loss"], alone.evaluate("val")["loss"]) < far
        assert population.start_hashes[place] == alone.start_hash
        assert population.order_hash(place) == alone.order_hash


@pytest.mark.parametrize("name", ZOO)
def test_bf16_runs_repeat_and_resume_bitwise_also_in_populations(name, tmp_path):
    task = make(*ZOO[name])
    whole, begun, resumed = (solo(task, precision="bf16") for _ in range(3))
    losses = whole.advance(20).loss
    begun.advance(9)
    checkpoint.save(tmp_path / "run.safetensors", begun.state())
    resumed.restore(checkpoint.load(tmp_path / "run.safetensors"))
    assert np.array_equal(resumed.advance(11).loss, losses[9:])
    assert bits(resumed) == bits(whole)

    whole, begun, resumed = (together(task, precision="bf16") for _ in range(3))
    chunks = whole.advance(20)
    begun.advance(9)
    resumed.restore([begun.state(0), begun.state(1)])
    for mine, all_of_it in zip(resumed.advance(11), chunks, strict=True):
        assert np.array_equal(mine.loss, all_of_it.loss[9:])
    for name in whole.stacks.params:
        assert torch.equal(whole.stacks.params[name], resumed.stacks.params[name])
    assert resumed.compacted()[0].precision == whole.precision


@pytest.mark.parametrize("name", ZOO)
def test_each_precision_has_its_own_recording_and_is_compared_in_it(name):
    task, members = make(*ZOO[name]), [member(s, lr=0.05) for s in range(3)]
    for precision in ("float32", "bf16"):
        more = {"steps": 400, "precision": precision}
        repeated = Population(task, members, fused=False, **more)
        written = Population(task, members, recorded=False, **more)
        with torch.autocast("cpu"):  # somebody else's
            for a, b in zip(repeated.advance(20), written.advance(20), strict=True):
                assert np.array_equal(a.loss, b.loss)
            assert bits_of(repeated) == bits_of(written)  # looked at, so compared once more
        assert "same bits" not in repeated._passes.reason, repeated._passes.reason


@pytest.mark.slow
def test_a_compiled_bf16_population_computes_what_an_eager_one_computes():
    members = [member(s, lr=0.05) for s in range(3)]
    eager = Population(make(), members, steps=5, precision="bf16").advance(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler uses what torch has deprecated
        compiled = Population(make(), members, steps=5, precision="bf16", compiled=True)
        for a, b in zip(eager, compiled.advance(5), strict=True):
            assert 0 < worst(a.loss, b.loss) < 3e-3  # seen: 4e-4


def test_outputs_keep_their_packing_and_losses_in_bf16_are_recorded_as_float32():
    Packed = namedtuple("Packed", "logits, more")

    class Packing(Mlp):
        def forward(self, x):
            out = super().forward(x)
            return Packed(out, {"logits": [out]})

    def loss(outputs, targets):
        assert isinstance(outputs, Packed)
        rows = outputs.more["logits"][0]
        return (rows @ rows.T).mean()  # a product: in bf16, so is the loss

    task = make(Packing, loss=loss, metrics={})
    for run in (solo(task, precision="bf16"), together(task, precision="bf16")):
        chunk = run.advance(3)
        losses = chunk[0].loss if isinstance(chunk, list) else chunk.loss
        assert losses.dtype == np.float32
        assert np.isfinite(losses).all()


def test_float64_models_stay_what_they_are():
    task = make(lambda: Mlp().double(), IMAGES.double())
    plain, low = (solo(task, precision=p).advance(5).loss for p in ("float32", "bf16"))
    assert np.array_equal(plain, low)
    chunks = together(task, precision="bf16").advance(5)
    assert worst(chunks[0].loss, plain) < 1e-6


@pytest.mark.parametrize("start", [solo, together])
@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("bf61", r"unknown precision 'bf61'; did you mean 'bf16'\? Known: bf16, float32, tf32"),
        (None, "unknown precision 'None'"),
        ("tf32", r"'tf32' is a format of CUDA's matrix units, and the device is 'cpu'; use"),
    ],
)
def test_what_cannot_be_is_refused(start, precision, message):
    with pytest.raises(InputError, match=message):
        start(make(), precision=precision)


def test_groups_and_the_way_they_are_trained_have_it_too():
    task, members = make(Seeing), [member(s) for s in range(3)]
    for both in (True, False):
        group = Group(task, members, steps=5, together=both, precision="bf16")
        Seeing.seen.clear()
        group.advance(2)
        assert {dtypes[0] for dtypes in Seeing.seen} == {torch.bfloat16}
    Seeing.seen.clear()
    how_to_train(task, members, steps=30, batch_size=16, device="cpu", precision="bf16")
    assert {dtypes[0] for dtypes in Seeing.seen} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("name", ["mnist-mlp", "mnist"])
def test_ready_made_tasks_agree_in_bf16(name):
    members = [member(s, lr=0.05, momentum=0.9) for s in range(2)]
    assert why_not_together(tasks.load(name), members, steps=10, precision="bf16") is None


def test_shared_noise_below_the_rounding_of_bf16_is_found():
    class Noisy(Mlp):
        def forward(self, x):
            return super().forward(x) + torch.eye(5)[0] * 0.1 * np.random.rand()

    reason = why_not_together(make(Noisy), [member(0), member(1)], steps=10, precision="bf16")
    assert reason is not None
    assert "draws something that members would share" in reason
    there, alone = (
        np.array([float(v) for v in part.split(")")[0].split(",")])
        for part in reason.split("(")[1:3]
    )
    assert 1e-3 < worst(there, alone) < 2e-2  # in bf16 alone it would have passed


# ---------------------------------------------------------------------- torch's own settings

B = torch.backends
PLACES = [B, B.cudnn, B.cuda.matmul, B.cudnn.conv, B.cudnn.rnn, B.mkldnn.matmul, B.mkldnn.conv]


def older():
    """The older settings, or that torch refuses to read them beside the newer ones."""
    found = []
    for read in (
        torch.get_float32_matmul_precision,
        lambda: B.cuda.matmul.allow_tf32,
        lambda: B.cudnn.allow_tf32,
    ):
        try:
            found.append(read())
        except RuntimeError:
            found.append("refused")
    return found


def settings():
    return [place.fp32_precision for place in PLACES], older()


def set_to(place, value):
    with _allowed():  # another test of this process may have imported torch's own
        place.fp32_precision = value


def set_cudnn(fast):
    with _allowed():
        B.cudnn.allow_tf32 = fast


USERS = {
    "nothing": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "no cudnn": lambda: set_cudnn(False),
    "all tf32": lambda: set_to(B, "tf32"),
    "all ieee": lambda: set_to(B, "ieee"),
    "new matmul": lambda: set_to(B.cuda.matmul, "tf32"),
    "new conv": lambda: set_to(B.cudnn.conv, "ieee"),
    "cudnn": lambda: set_to(B.cudnn, "ieee"),
    "mixed": lambda: (
        torch.set_float32_matmul_precision("medium"),
        set_to(B.cuda.matmul, "ieee"),
        set_to(B.mkldnn.conv, "bf16"),
    ),
}


@pytest.fixture
def _settings():
    """Torch's settings as they are by default, before and after."""

    def default():
        for place, value in itertools.product((B, B.cudnn), ("ieee", "none")):
            set_to(place, value)
        for place in (B.mkldnn.matmul, B.mkldnn.conv, B.mkldnn.rnn):
            set_to(place, "none")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.set_float32_matmul_precision("highest")
            set_cudnn(True)
        set_to(B.cuda.matmul, "none")
        set_to(B.mkldnn.matmul, "none")

    default()
    yield
    default()


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("wanted", ["ieee", "tf32"])
def test_settings_hold_for_cuda_agree_with_the_older_ones_and_come_back(user, wanted):
    USERS[user]()
    before = settings()
    with _products("cuda", wanted):
        held = [B.cuda.matmul.fp32_precision, B.cudnn.conv.fp32_precision]
        held.append(B.cudnn.rnn.fp32_precision)
        assert {value == "tf32" for value in held} == {wanted == "tf32"}
        now = older()
        if "refused" not in before[1]:  # torch's compiler and cudnn.flags read them
            assert now[1:] == [wanted == "tf32"] * 2
            assert now[0] == {"ieee": "highest", "tf32": "high"}[wanted] or now[0] == before[1][0]
            with B.cudnn.flags(enabled=False, allow_tf32=wanted == "tf32"):
                pass
    assert settings() == before
    with pytest.raises(ZeroDivisionError), _products("cuda", wanted):
        _ = 1 / 0
    assert settings() == before


@pytest.mark.usefixtures("_settings")
def test_settings_hold_where_torchs_own_test_suite_has_forbidden_changes(monkeypatch):
    own = torch.backends.flags_frozen.__globals__  # the module itself is wrapped in another
    monkeypatch.setitem(own, "__allow_nonbracketed_mutation_flag", False)
    before = settings()
    with pytest.raises(RuntimeError, match="not allowed to set"):
        B.cudnn.allow_tf32 = False
    with _products("cuda", "tf32"):
        assert B.cuda.matmul.fp32_precision == "tf32"
    assert settings() == before


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("user", USERS)
def test_settings_hold_on_the_cpu_and_come_back(user):
    USERS[user]()
    before = settings()
    with _products("cpu", "ieee"):
        held = {B.mkldnn.matmul.fp32_precision, B.mkldnn.conv.fp32_precision}
        assert held <= {"ieee", "none"}
        assert settings()[0][:5] == before[0][:5]  # CUDA's are let alone
    assert settings() == before


@pytest.mark.usefixtures("_settings")
def test_what_followed_the_general_setting_follows_it_afterwards():
    set_to(B, "tf32")
    with _products("cuda", "ieee"), _products("cpu", "ieee"):
        pass
    set_to(B, "ieee")
    assert B.cuda.matmul.fp32_precision == "ieee"
    assert B.mkldnn.conv.fp32_precision == "ieee"


@pytest.mark.usefixtures("_settings")
@pytest.mark.parametrize("start", [solo, together])
def test_a_run_holds_its_settings_in_every_part_of_a_step_and_returns_them_when_it_raises(start):
    seen = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(B.mkldnn.matmul.fp32_precision)
            return super().step(closure)

    def loss(outputs, targets):
        seen.append(B.mkldnn.matmul.fp32_precision)
        if broken:
            raise ValueError("enough")
        return F.cross_entropy(outputs, targets)

    broken = []
    given = Member(lambda p: Watching(p, lr=0.1), None, 0)
    task = make(loss=loss, metrics={})
    run = solo(task, given) if start is solo else Population(task, [given, given], steps=30)
    torch.set_float32_matmul_precision("medium")
    seen.clear()
    run.advance(2)
    run.evaluate("val")
    assert set(seen) <= {"ieee", "none"}
    assert B.mkldnn.matmul.fp32_precision == "bf16"
    broken.append(True)
    with pytest.raises(TaskError, match="enough"):
        run.advance(9)
    with pytest.raises(TaskError, match="enough"):
        run.evaluate("val")
    assert torch.get_float32_matmul_precision() == "medium"
    assert B.mkldnn.matmul.fp32_precision == "bf16"
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("user", ["nothing", "high", "all tf32"])
@pytest.mark.usefixtures("_settings")
def test_on_a_gpu_products_and_convolutions_are_float32_or_tf32_as_asked(user):
    USERS[user]()
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this device has no TF32")
    cuda = torch.device("cuda")
    a = torch.randn(256, 1024, generator=G).to(cuda)
    x = torch.randn(8, 64, 32, 32, generator=G).to(cuda)
    w = torch.randn(64, 64, 3, 3, generator=G).to(cuda)
    exact = [a.double() @ a.double().T, F.conv2d(x.double(), w.double())]
    for precision, low, high in (("float32", 0.0, 1e-5), ("tf32", 5e-5, 5e-3)):
        with Precision(precision, cuda).held():
            found = [a @ a.T, F.conv2d(x, w)]
        for mine, true in zip(found, exact, strict=True):
            error = float((mine - true).abs().max() / true.abs().max())
            assert low <= error < high, precision


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "far"), [("float32", 1e-4), ("tf32", 3e-3), ("bf16", 2e-2)])
def test_on_a_gpu_a_member_is_its_solo_run_in_every_precision(precision, far, compiled):
    task = make(Conv)
    members = [member(s, lr=0.05) for s in range(4)]
    more = {"steps": 5, "device": "cuda", "precision": precision}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chunks = Population(task, members, compiled=compiled, **more).advance(5)
    for chunk, given in zip(chunks, members, strict=True):
        assert worst(chunk.loss, solo(task, given, **more).advance(5).loss) < far
