"""A checkpoint comes back bit by bit, appears whole or not at all, and says when it is damaged."""

import json
import math
import os

import pytest
import torch
from safetensors.torch import save_file

from steepest.errors import LedgerError, TaskError
from steepest.train.checkpoint import RunState, load, pack, save, unpack


def example():
    tensors = {
        "a": torch.tensor([float("nan"), -0.0, math.inf, 1e-42]),
        "b": torch.arange(6, dtype=torch.int64).view(2, 3),
        "half": torch.randn(3, 1).bfloat16(),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "flag": torch.tensor([True, False]),
    }
    return RunState(tensors=tensors, meta={"x": 0.1, "big": 2**70, "none": None, "nan": math.inf})


def bits(tensor):
    return tensor.dtype, tensor.shape, tensor.flatten().view(torch.uint8).tolist()


def test_a_file_comes_back_bit_by_bit(tmp_path):
    state = example()
    save(tmp_path / "c.safetensors", state)
    back = load(tmp_path / "c.safetensors")
    assert back.meta == state.meta
    assert {k: bits(t) for k, t in back.tensors.items()} == {
        k: bits(t) for k, t in state.tensors.items()
    }
    assert os.listdir(tmp_path) == ["c.safetensors"], "no temporary file is left"


NESTED = {
    "state": {0: {"step": torch.tensor(4.0), "exp_avg": torch.randn(2, 3)}, 1: {}},
    "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "foreach": None}],
    "tuple": ((), [], {}, "text", True, -0.0, math.inf, 2**80),
    1.5: {True: 1},
}


def test_nested_values_come_back_with_their_types():
    tensors = {}
    back = unpack(pack(NESTED, "o", tensors), tensors)
    assert repr(back) == repr(NESTED)
    assert list(back["state"]) == [0, 1]
    assert type(back["tuple"][0]) is tuple


def test_packed_tensors_are_copies():
    tensor, tensors = torch.zeros(3), {}
    pack({"a": tensor, "b": tensor.expand(2, 3)}, "o", tensors)
    tensor.fill_(1)
    assert all((t == 0).all() and t.is_contiguous() for t in tensors.values())


def test_paths_that_look_alike_do_not_collide():
    value = {
        0: torch.zeros(1),
        "0": torch.ones(2),
        "a/b": torch.zeros(2),
        "a": {"b": torch.ones(2)},
    }
    tensors = {}
    back = unpack(pack(value, "o", tensors), tensors)
    assert [back[0].sum().item(), back["0"].sum().item()] == [0, 2]
    assert [back["a/b"].sum().item(), back["a"]["b"].sum().item()] == [0, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"fn": print}, r"o/fn: a checkpoint holds .* got builtins.builtin_function_or_method"),
        ({"a": [1, {2}]}, r"o/a/1: .* got builtins.set"),
        ({(1, 2): 3}, r"o: a checkpoint cannot hold the key \(1, 2\)"),
        (
            {"z": torch.zeros(2, dtype=torch.complex64)},
            r"o/z: .*a tensor of torch.comp",
        ),
        ({"z": torch.eye(2).to_sparse()}, r"o/z: .*cannot hold a tensor of .*sparse"),
    ],
)
def test_what_cannot_be_held_is_refused_with_its_place(value, message):
    with pytest.raises(TaskError, match=message):
        pack(value, "o", {})


def test_every_cut_and_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save(path, example())
    whole = path.read_bytes()
    broken = [whole[:n] for n in (0, 7, 20, len(whole) // 2, len(whole) - 1)]
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(LedgerError, match=r"c.safetensors is damaged .*delete it"):
            load(path)
    for i in (1, 20, 40):
        data = bytearray(whole)
        data[-i] ^= 1
        path.write_bytes(data)
        with pytest.raises(LedgerError, match=r"do not match its checksum.*delete it"):
            load(path)


def test_a_missing_file_and_a_stranger_are_named(tmp_path):
    with pytest.raises(LedgerError, match=r"none.safetensors is missing; delete it"):
        load(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(LedgerError, match=r"other.safetensors is no checkpoint of this version"):
        load(tmp_path / "other.safetensors")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save(path, example())
    before = path.read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerError, match=r"cannot write .*No space left on device; free space"):
        save(path, RunState(tensors={}, meta={}))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c.safetensors"]


def test_an_unwritable_folder_is_named(tmp_path):
    with pytest.raises(LedgerError, match=r"cannot write the checkpoint .*No such file"):
        save(tmp_path / "nowhere" / "c.safetensors", example())


def test_the_memory_layout_of_a_tensor_survives():
    tensors = {}
    turned = torch.arange(6.0).view(2, 3).t()
    packed = json.loads(json.dumps(pack([turned, torch.ones(3, 1).expand(3, 2)], "x", tensors)))
    back, expanded = unpack(packed, tensors)
    assert torch.equal(back, turned)
    assert back.stride() == turned.stride() == (1, 3)
    assert torch.equal(expanded, torch.ones(3, 2))
