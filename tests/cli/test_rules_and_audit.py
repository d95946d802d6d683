"""``steepest rules`` and ``steepest audit`` as a user types them."""

from __future__ import annotations

import json

import pytest

BROKEN = """
import torch

class Forgetful(torch.optim.SGD):
    def state_dict(self):
        saved = super().state_dict()
        saved["state"] = {}
        return saved

class Demanding(torch.optim.SGD):
    def __init__(self, params, colour, lr=0.1):
        super().__init__(params, lr=lr)

def helper(params):
    return None
"""


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    return path


def test_one_rule_is_shown_with_its_dialects(steepest):
    ended = steepest("rules", "nadam")
    assert ended.code == 0
    assert "timm.optim:NAdamW" in ended.out
    assert "momentum_schedule=mlcommons" in ended.out
    body = json.loads(steepest("rules", "nadam", "--json").out)
    assert {row["class"] for row in body["dialects"]} >= {"torch.optim:NAdam", "optax:nadam"}


def test_the_kernel_of_a_rule_can_be_read(steepest):
    cpp = steepest("rules", "adam", "--show", "cpp")
    assert cpp.code == 0
    assert "#pragma omp simd" in cpp.out
    assert "s_exp_avg_sq" in cpp.out
    triton = steepest("rules", "adam", "--show", "triton")
    assert triton.code == 0
    assert "@triton.jit" in triton.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("muon", "--show", "cpp"), "muon has no generated kernel: a rule of kind matrix"),
        (("lamb", "--show", "triton"), "a rule of kind norms"),
        (("adam", "--show", "cp"), "did you mean 'cpp'?"),
        (("--show", "cpp"), "name it: steepest rules adam --show cpp"),
        (("nadm",), "did you mean 'nadam'?"),
    ],
)
def test_what_cannot_be_shown_says_why(steepest, words, message):
    ended = steepest("rules", *words)
    assert ended.code == 2
    assert message in ended.err


def test_an_optimizer_that_is_what_it_says_exits_with_0(steepest):
    ended = steepest("audit", "torch.optim:Adadelta", "--as", "adadelta")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("torch.optim.adadelta:Adadelta follows adadelta\n")
    assert "weight decay, changing lr" in ended.out


def test_one_that_is_not_exits_with_3_and_names_the_term(steepest, broken):
    ended = steepest("audit", f"{broken}:Forgetful", "--as", "sgd", "--json")
    assert ended.code == 3
    body = json.loads(ended.out)
    assert body["follows"] is False
    finding = body["findings"][0]
    assert (finding["scenario"], finding["since"]) == ("save and load", 51)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("torch.optim:Adm", "--as", "adam"), "did you mean 'Adam'?"),
        (("torch.optim:Adam", "--as", "adm"), "did you mean 'adam'?"),
        (("torch.optim", "--as", "adam"), "names no class"),
        (("no_such_module_here:Adam", "--as", "adam"), "cannot import"),
        (("{broken}:helper", "--as", "sgd"), "no torch.optim.Optimizer class"),
        (("{broken}:Demanding", "--as", "sgd"), "needs colour"),
        (("torch.optim:Adam", "--as", "adam", "--set", "lr"), "--set takes name=value"),
        (("torch.optim:Adam", "--as", "adam", "--set", "betas=7"), "cannot make"),
        (("torch.optim:Adam", "--as", "adam", "--map", "momentun=betas"), "momentun"),
    ],
)
def test_what_cannot_be_audited_exits_with_2(steepest, broken, words, message):
    ended = steepest("audit", *(word.format(broken=broken) for word in words))
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_arguments_are_given_and_renamed(steepest, broken):
    given = steepest("audit", f"{broken}:Demanding", "--as", "sgd", "--set", "colour=red")
    assert given.code == 0, given.out
    renamed = steepest("audit", "torch.optim:SGD", "--as", "sgd", "--map", "momentum=dampening")
    assert renamed.code == 3
