"""A model's knowledge for another task."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from steepest.errors import DataError, InputError, UnsupportedError
from steepest.tasks.mnist import ConvNet
from steepest.train.transfer import (
    Features,
    find_head,
    freeze_backbone,
    head_model,
    layer_rates,
    load_backbone,
    read_weights,
    replace_head,
    tail_of,
    with_rates,
)

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.classifier = nn.Linear(8, classes)

    def forward(self, x):
        return self.classifier(self.drop(self.stem(x)))


def test_the_head_is_the_last_linear_layer_or_the_one_that_is_named():
    assert find_head(Net()) == "classifier"
    assert find_head(ConvNet()) == "fc2"
    assert find_head(ConvNet(), "fc1") == "fc1"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clasifier", r"no module 'clasifier'; nearest: classifier \(Linear\)"),
        ("fc", "nearest: classifier"),
        ("drop", r"'drop' \(Dropout\) has no parameters"),
    ],
)
def test_a_head_that_is_not_there_names_the_nearest(name, words):
    with pytest.raises(InputError, match=words):
        find_head(Net(), name)
    with pytest.raises(InputError, match=words):
        replace_head(Net(), name, 3)


def test_a_replaced_head_has_the_classes_and_the_type_of_the_old_one():
    model = replace_head(Net().double(), "classifier", 7)
    assert model(torch.zeros(3, 6).double()).shape == (3, 7)
    conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 1, bias=False))
    replace_head(conv, "1", 5)
    assert conv[1].weight.shape == (5, 8, 1, 1)
    assert conv[1].bias is None
    own = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    assert replace_head(Net(), "classifier", own).classifier is own
    with pytest.raises(InputError, match="is a Sequential; a head is made"):
        replace_head(Net(), "stem", 3)
    with pytest.raises(InputError, match="at least one class, got 0"):
        replace_head(Net(), "classifier", 0)


def test_the_backbone_is_loaded_and_the_head_is_not():
    old, new = Net(9), Net(4)
    old.train()(torch.randn(32, 6))
    head = new.classifier.weight.clone()
    load_backbone(new, old.state_dict(), head="classifier")
    for name, tensor in new.stem.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(tensor, old.stem.state_dict()[name]), name
    assert torch.equal(new.classifier.weight, head)


def test_weights_of_another_model_are_refused():
    with pytest.raises(InputError, match=r"they lack 'stem.0.weight'.* does not have 'conv1"):
        load_backbone(Net(), ConvNet().state_dict(), head="classifier")
    other = Net().state_dict()
    other["stem.0.weight"] = torch.zeros(8, 5)
    with pytest.raises(InputError, match=r"shape \(8, 5\) in the weights and \(8, 6\)"):
        load_backbone(Net(), other, head="classifier")


def test_weights_are_read_from_both_kinds_of_files_and_code_never_runs(tmp_path):
    from safetensors.torch import save_file

    state = Net().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "c.pth")
    for name in ("a.safetensors", "b.pth", "c.pth"):
        found = read_weights(tmp_path / name)
        assert all(torch.equal(found[k], t) for k, t in state.items())
    torch.save(Net(), tmp_path / "module.pth")  # a pickled object, which would run code
    (tmp_path / "text.pth").write_text("nothing")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("module.pth", "text.pth", "list.pth", "none.pth"):
        with pytest.raises(DataError, match=name):
            read_weights(tmp_path / name)


def test_frozen_the_head_alone_moves_and_batch_norm_stands_still():
    model = freeze_backbone(Net(), "classifier")
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1
    )
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(16, 6) * 3 + 1).square().sum().backward()
        optimizer.step()
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved == {"classifier.weight", "classifier.bias"}


def test_rates_rise_geometrically_from_the_input_to_the_head_whatever_the_depth():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(2, 2)
            self.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
            self.act = nn.ReLU()
            self.fc = nn.Linear(2, 2)

    rates = layer_rates(Deep(), head="fc", least=0.01)
    stages = ["stem", "blocks.0", "blocks.1", "blocks.2", "fc"]
    found = [rates[f"{stage}.weight"] for stage in stages]
    np.testing.assert_allclose(found, np.logspace(-2, 0, 5))
    assert len(rates) == 10
    assert set(layer_rates(Deep(), head="fc", least=1.0).values()) == {1.0}
    with pytest.raises(InputError, match="least must be greater than 0"):
        layer_rates(Deep(), head="fc", least=0.0)


def test_every_layer_steps_by_its_own_rate():
    model = ConvNet()
    rates = layer_rates(model, head="fc2", least=0.1)
    make = with_rates(torch.optim.SGD, list(rates.values()), 0.5)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make(list(model.parameters()))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        step = (before[name] - p.detach()).mean().item()
        assert step == pytest.approx(0.5 * rates[name], rel=1e-3), name


@pytest.mark.parametrize(
    ("after", "expected"), [(nn.Identity(), "nothing"), (nn.LogSoftmax(1), "log_softmax"),
                            (nn.Softmax(1), "softmax")]
)  # fmt: skip
def test_a_head_on_features_answers_as_the_whole_model(after, expected, tmp_path):
    model = nn.Sequential(Net(), after)
    x = torch.randn(20, 6)
    assert tail_of(model, "0.classifier", x) == expected
    features = Features(tmp_path).of(model, [x[:7], x[7:]], head="0.classifier", device=CPU)
    tail = head_model(model, "0.classifier", expected)
    torch.testing.assert_close(tail(features), model.eval()(x))


def test_a_head_whose_output_is_not_the_answer_is_refused():
    class Doubles(Net):
        def forward(self, x):
            return super().forward(x) * 2

    with pytest.raises(UnsupportedError, match="something else than a softmax"):
        tail_of(Doubles(), "classifier", torch.randn(4, 6))

    class Ignores(Net):
        def forward(self, x):
            return x

    with pytest.raises(UnsupportedError, match="did not use it"):
        tail_of(Ignores(), "classifier", torch.randn(4, 6))


def test_features_are_computed_once_and_found_by_weights_and_data(tmp_path):
    class Counts(Net):
        calls = 0

        def forward(self, x):
            Counts.calls += 1
            return super().forward(x)

    model, x = Counts().train(), torch.randn(20, 6)
    cache = Features(tmp_path / "features")
    first = cache.of(model, [x], head="classifier", device=CPU)
    assert model.training
    assert first.shape == (20, 8)
    again = cache.of(model, [x], head="classifier", device=CPU)
    assert torch.equal(first, again)
    assert Counts.calls == 1
    model.classifier.weight.data.add_(1)  # the head is not part of the backbone
    cache.of(model, [x], head="classifier", device=CPU)
    assert Counts.calls == 1
    cache.of(model, [x + 1], head="classifier", device=CPU)
    assert Counts.calls == 2
    model.stem[0].weight.data.add_(1)
    cache.of(model, [x], head="classifier", device=CPU)
    assert Counts.calls == 3
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(b"damaged")
    cache.of(model, [x], head="classifier", device=CPU)
    assert Counts.calls == 4
    with pytest.raises(InputError, match="no example"):
        cache.of(model, [], head="classifier", device=CPU)
