"""Every random number is a function of the seed, the step and its purpose."""

import random

import numpy as np
import pytest
import torch

from steepest.train.randomness import batch_order, derive, isolated, mix, run_key, seed_all

CPU = torch.device("cpu")


def test_derived_numbers_are_those_of_the_documented_hash():
    import hashlib

    expected = hashlib.blake2b(b"int:7\x1fstr:noise\x1fint:12", digest_size=8).digest()
    assert derive(7, "noise", 12) == int.from_bytes(expected, "big") >> 1


def test_purpose_seed_and_step_all_matter_and_cannot_be_confused():
    numbers = [derive(s, p, k) for s in range(5) for p in ("a", "b") for k in range(5)]
    numbers += [derive(1, "1"), derive(1, 1), derive(11), derive(1, "a1"), derive(1, "a", 1)]
    assert len(set(numbers)) == len(numbers) - 1  # (1, "a", 1) is among the first ones


def test_batch_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    torch.manual_seed(5)
    first = batch_order(3, 1, 1000)
    torch.rand(17)
    assert torch.equal(first, batch_order(3, 1, 1000))
    assert torch.equal(first.sort().values, torch.arange(1000))
    assert not torch.equal(first, batch_order(3, 2, 1000))
    assert not torch.equal(first, batch_order(4, 1, 1000))


def test_isolated_restores_every_global_generator_even_after_an_error():
    def snapshot():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = snapshot()

    def draw_and_fail():
        with isolated(CPU):
            seed_all(3, CPU)
            random.random(), np.random.rand(), torch.rand(5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw_and_fail()
    assert snapshot() == before


def test_mix_agrees_on_python_integers_and_int32_tensors():
    values = [0, 1, -1, 2**31 - 1, -(2**31), 12345, -987654321]
    mixed = mix(torch.tensor(values, dtype=torch.int32))
    assert mixed.dtype == torch.int32
    assert mixed.tolist() == [mix(v) for v in values]


def test_mix_flips_each_output_bit_half_the_time_for_each_input_bit():
    x = torch.randint(-(2**31), 2**31, (20_000,), generator=torch.Generator().manual_seed(0))
    x = x.to(torch.int32)
    for bit in range(32):
        flip = torch.tensor(1 << bit if bit < 31 else -(2**31), dtype=torch.int32)
        changed = mix(x) ^ mix(x ^ flip)
        rates = torch.stack([((changed >> b) & 1).double().mean() for b in range(32)])
        assert (rates - 0.5).abs().max() < 0.02, bit  # 5.6 standard errors


def test_run_keys_are_two_signed_words_and_differ_by_seed():
    keys = [run_key(s) for s in range(100)]
    assert len(set(keys)) == 100
    assert all(-(2**31) <= word < 2**31 for key in keys for word in key)
