"""Counter-based dropout: the meaning of torch's layers, masks from (seed, step) alone."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from steepest.errors import TaskError
from steepest.train.dropout import KeyedDropout, key_dropout
from steepest.train.keyed import KEY, Counter, step_words
from steepest.train.randomness import run_key

KINDS = {
    nn.Dropout: (8, 6, 4, 4),
    nn.Dropout1d: (8, 6, 10),
    nn.Dropout2d: (8, 6, 4, 4),
    nn.Dropout3d: (8, 6, 2, 3, 4),
    nn.AlphaDropout: (8, 6, 4),
    nn.FeatureAlphaDropout: (8, 6, 4, 4),
}


def keyed(p=0.5, n_layers=1, kind=nn.Dropout):
    model = nn.Sequential(nn.Identity(), *(kind(p) for _ in range(n_layers)))
    return model, key_dropout(model)


def kept(model, key, words, n):
    key.copy_(words)
    return model(torch.ones(n)) > 0


@pytest.fixture(scope="module")
def signs():
    """``[4000 steps, 512 elements]`` of ±1 at p = 1/2, from one run."""
    model, key = keyed()
    words = run_key(0)
    rows = [kept(model, key, step_words(words, s), 512) for s in range(4000)]
    return torch.stack(rows).double() * 2 - 1


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_rate_is_p(p):
    model, key = keyed(p)
    rates = [kept(model, key, step_words(run_key(1), s), 100_000) for s in range(10)]
    rate = torch.stack(rates).double().mean().item()
    assert rate == pytest.approx(1 - p, abs=4 * math.sqrt(p * (1 - p) / 1e6))


def test_elements_are_uncorrelated_across_steps(signs):
    steps, n = signs.shape
    z = (signs.T @ signs) / math.sqrt(steps)
    z = z[~torch.eye(n, dtype=torch.bool)]
    assert z.std().item() == pytest.approx(1, abs=0.01)
    assert z.abs().max() < 6  # the largest of 131,000 standard normals lies near 4.9


def test_steps_are_uncorrelated_across_elements(signs):
    signs = signs[:2000]
    z = (signs @ signs.T) / math.sqrt(signs.shape[1])
    z = z[~torch.eye(len(signs), dtype=torch.bool)]
    assert z.std().item() == pytest.approx(1, abs=0.01)
    assert z.abs().max() < 6.5


def test_no_triple_of_elements_is_correlated(signs):
    c = signs[:, :48]
    z = torch.einsum("si,sj,sk->ijk", c, c, c) / math.sqrt(len(c))
    i, j, k = torch.meshgrid(*[torch.arange(48)] * 3, indexing="ij")
    z = z[(i < j) & (j < k)]
    assert z.std().item() == pytest.approx(1, abs=0.03)
    assert z.abs().max() < 6


def test_counts_per_step_and_per_element_vary_as_binomial_counts_do(signs):
    for dim in (0, 1):
        sums = signs.sum(dim)
        ratio = sums.var().item() / signs.shape[dim]
        assert ratio == pytest.approx(1, abs=4 * math.sqrt(2 / len(sums)))


def test_seeds_give_uncorrelated_masks():
    model, key = keyed()
    rows = [kept(model, key, step_words(run_key(s), 7), 512) for s in range(1000)]
    c = torch.stack(rows).double() * 2 - 1
    z = (c @ c.T / math.sqrt(512))[~torch.eye(1000, dtype=torch.bool)]
    assert z.std().item() == pytest.approx(1, abs=0.01)
    assert z.abs().max() < 6.5


def test_runs_of_eight_neighbours_show_all_patterns_equally_often():
    model, key = keyed()
    bits = kept(model, key, step_words(run_key(2), 0), 1 << 20).view(-1, 8).long()
    counts = torch.bincount((bits * 2 ** torch.arange(8)).sum(1), minlength=256).double()
    expected = counts.sum() / 256
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert 170 < chi_square < 360  # 255 degrees of freedom: mean 255, sd 22.6


def test_layers_and_repeated_calls_in_one_pass_have_masks_of_their_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Dropout(0.5), nn.Dropout(0.5)

        def forward(self, x):
            return torch.stack([self.a(x), self.a(x), self.b(x)])

    model = Twice()
    key_dropout(model).copy_(step_words((3, 4), 0))
    masks = (model(torch.ones(10_000)) > 0).double() * 2 - 1
    z = (masks @ masks.T / 100)[~torch.eye(3, dtype=torch.bool)]
    assert z.abs().max() < 5
    again = (model(torch.ones(10_000)) > 0).double() * 2 - 1
    assert torch.equal(masks, again), "a second pass of the same step meets the same masks"


def test_a_count_past_two_to_the_32_takes_a_new_lap_with_other_masks():
    counter = Counter()
    assert counter.take(100) == 0
    counter.taken = 2**32 - 50
    assert counter.take(100) == 2**32
    key = step_words((1, 2), 0)
    layer = KeyedDropout(0.5, kind="element", key=key, counter=counter).train()
    counter.taken = 0
    first = layer(torch.ones(10_000)) > 0
    counter.taken = 2**32
    second = layer(torch.ones(10_000)) > 0
    agreement = (first == second).double().mean().item()
    assert agreement == pytest.approx(0.5, abs=0.025)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_each_layer_drops_what_its_namesake_drops_and_passes_in_eval_mode(kind):
    x = torch.randn(KINDS[kind], generator=torch.Generator().manual_seed(0)) + 3
    torch.manual_seed(0)
    reference = kind(0.4).train()(x)
    model, key = keyed(0.4, kind=kind)
    key.copy_(step_words((5, 6), 0))
    ours = model(x)
    # An element has two possible values; where torch and we decide alike they must be equal.
    dropped = _dropped(x, reference), _dropped(x, ours)
    agree = dropped[0] == dropped[1]
    assert 0.2 < agree.double().mean() < 0.9
    torch.testing.assert_close(ours[agree], reference[agree], rtol=1e-6, atol=1e-6)
    if kind.__name__ not in ("Dropout", "AlphaDropout"):
        per_channel = dropped[1].flatten(2)
        assert (per_channel == per_channel[..., :1]).all()
    assert torch.equal(model.eval()(x), x)


def _dropped(x, y):
    """Dropped elements no longer depend on x: recognised by their value, 0 or alpha's floor."""
    values, counts = y.flatten().round(decimals=4).unique(return_counts=True)
    return (y - values[counts.argmax()]).abs() < 1e-3


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout])
def test_the_ends_of_p_are_torchs(p, kind):
    x = torch.randn(50)
    model, _ = keyed(p, kind=kind)
    assert torch.equal(model(x), kind(p).train()(x))


def test_alpha_dropout_keeps_mean_and_variance():
    model, key = keyed(0.3, kind=nn.AlphaDropout)
    key.copy_(step_words((9, 9), 3))
    y = model(torch.randn(1_000_000, generator=torch.Generator().manual_seed(1)))
    assert y.mean().item() == pytest.approx(0, abs=0.01)
    assert y.var().item() == pytest.approx(1, abs=0.02)


def test_the_gradient_passes_through_the_kept_elements_only():
    model, key = keyed(0.25)
    key.copy_(step_words((1, 1), 1))
    x = torch.ones(1000, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert set(y.tolist()) == {0.0, y.max().item()}
    assert y.max().item() == pytest.approx(4 / 3, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_scale_is_exact_in_every_type(dtype):
    model, key = keyed(0.3)
    key.copy_(step_words((1, 1), 1))
    y = model(torch.ones(100, dtype=dtype))
    assert y.dtype == dtype
    assert y.max() == torch.tensor(1 / 0.7, dtype=torch.float64).to(dtype)


def test_inplace_layers_write_into_their_input():
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.5, inplace=True))
    key_dropout(model)
    x = torch.ones(100)
    assert model(x) is x
    assert 20 < (x == 0).sum() < 80


def test_names_state_dict_and_hooks_of_the_users_model_stay():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1), nn.Sequential(nn.Dropout2d(0.2)))
    before = list(model.state_dict()), [n for n, _ in model.named_modules()]
    key_dropout(model)
    assert (list(model.state_dict()), [n for n, _ in model.named_modules()]) == before
    model.load_state_dict(model.state_dict(), strict=True)
    assert [n for n, _ in model.named_buffers()] == [f"1.{KEY}"], "one key, shared"


def test_a_shared_layer_stays_shared_and_a_subclass_is_left_alone():
    class Mine(nn.Dropout):
        pass

    layer = nn.Dropout(0.5)
    model = nn.Sequential(layer, nn.ReLU(), layer, Mine(0.5))
    key_dropout(model)
    assert model[0] is model[2]
    assert type(model[3]) is Mine
    assert key_dropout(nn.Sequential(nn.Linear(2, 2))) is None


def test_a_deep_copy_counts_for_itself():
    model, key = keyed(0.5, n_layers=2)
    key.copy_(step_words((1, 2), 3))
    twin = copy.deepcopy(model)
    x = torch.ones(100)
    assert torch.equal(model(x), twin(x))
    assert torch.equal(model(x), twin(x))
    assert twin[1].counter is twin[2].counter is not model[1].counter


def test_masks_do_not_depend_on_the_global_generator_nor_move_it():
    model, _ = keyed(0.5)
    torch.manual_seed(0)
    first, state = model(torch.ones(50)), torch.get_rng_state()
    assert torch.equal(state, torch.Generator().manual_seed(0).get_state())
    torch.rand(3)
    assert torch.equal(first, model(torch.ones(50)))


def test_a_stack_of_keys_under_vmap_gives_each_member_its_solo_masks():
    """What a population does: the key is a buffer like any other, stacked per member."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Dropout2d(0.3), nn.Flatten(), nn.Linear(144, 8), nn.Dropout(0.5)
    ).double()
    key_dropout(model)
    name = next(n for n, _ in model.named_buffers())
    x = torch.randn(5, 16, 1, 8, 8, dtype=torch.float64)
    members = torch.tensor([run_key(s) for s in range(5)], dtype=torch.int32)
    keys = step_words(members, 11)
    assert keys.tolist() == [step_words(run_key(s), 11).tolist() for s in range(5)]

    def member(key, x):
        return functional_call(model, {name: key}, (x,))

    together = torch.vmap(member)(keys, x)
    alone = torch.stack([member(k, xs) for k, xs in zip(keys, x, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    assert not torch.equal(together[0] == 0, together[1] == 0)


@pytest.mark.slow
def test_compiled_masks_are_the_eager_ones_without_a_graph_break_or_recompilation():
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Dropout(0.2))
    key = key_dropout(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(32, 8)
    with torch._dynamo.config.patch(error_on_recompile=False):
        for step in range(4):
            key.copy_(step_words((1, 2), step))
            expected = model(x)
            if step == 2:
                torch._dynamo.config.error_on_recompile = True
            torch.testing.assert_close(compiled(x), expected)


class _Checkpointed(nn.Module):
    def __init__(self, calls):
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.dropout = nn.Dropout(0.5)
        self.calls = calls

    def block(self, x):
        return self.dropout(torch.tanh(self.linear(x)))

    def forward(self, x):
        for _ in range(self.calls):
            x = checkpoint(self.block, x, use_reentrant=False)
        return x


def test_activation_checkpointing_recomputes_the_same_mask():
    torch.manual_seed(0)
    model = _Checkpointed(1)
    key_dropout(model).copy_(step_words((1, 2), 3))
    x = torch.randn(4, 16)
    model(x).pow(2).sum().backward()
    checkpointed = model.linear.weight.grad.clone()
    model.zero_grad()
    model.dropout.counter.taken = 0
    model.dropout.starts.clear()
    model.block(x).pow(2).sum().backward()
    assert torch.equal(model.linear.weight.grad, checkpointed)


def test_a_mask_that_checkpointing_could_not_recompute_is_refused():
    model = _Checkpointed(2)
    key_dropout(model)
    loss = model(torch.randn(4, 16)).sum()
    with pytest.raises(TaskError, match="runs 2 times per forward pass under activation"):
        loss.backward()


def test_wrong_shapes_and_a_bare_dropout_layer_are_refused():
    model, _ = keyed(0.5, kind=nn.Dropout2d)
    with pytest.raises(TaskError, match=r"expects \[batch, channel, ...\], got .*\(7,\)"):
        model(torch.ones(7))
    with pytest.raises(TaskError, match="nothing to train"):
        key_dropout(nn.Dropout(0.5))
