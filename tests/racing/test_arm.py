from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from steepest.errors import InputError, LedgerError
from steepest.racing.arm import parse, resolve, restore

FILE = """
import torch
class Mine(torch.optim.SGD):
    def __init__(self, params, lr=0.5, power=1):
        if power > 3:
            raise RuntimeError("too strong")
        super().__init__(params, lr=lr)
def make(params):
    return torch.optim.SGD(params, lr=0.25)
"""


def parameter() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(3))]


def test_a_class_arm_makes_that_class_with_those_values() -> None:
    arm = parse("torch.optim:Adam(lr=1e-2, betas=(0.8, 0.95))")
    optimizer = arm.factory()(parameter())
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-2
    assert optimizer.defaults["betas"] == (0.8, 0.95)
    assert arm.label == arm.text == "torch.optim:Adam(lr=0.01, betas=(0.8, 0.95))"


def test_a_rule_arm_makes_our_optimizer_of_that_rule() -> None:
    arm = parse("sgd(momentum=0.9, lr=0.5, nesterov=true)")
    group = arm.factory()(parameter()).param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.5, 0.9, True)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("adam ( )", "adam()"),
        ("adam(beta2=0.99, lr=1e-3)", "adam(lr=0.001, beta2=0.99)"),
        ("adam(betas=(0.8,0.9))", "adam(beta1=0.8, beta2=0.9)"),
        ("sgd(lr=1e-5)", "sgd(lr=1e-5)"),
        ("rprop(etas=(0.4, 1.3))", "rprop(eta_minus=0.4, eta_plus=1.3)"),
        ("adam(lr=1e-3)+cosine(warmup=5e-2)", "adam(lr=0.001) + cosine(warmup=0.05)"),
    ],
)
def test_the_canonical_text_is_one_and_reads_back(text: str, canonical: str) -> None:
    arm = parse(text)
    assert arm.text == canonical
    assert parse(arm.text) == arm


REFUSED = {
    "adm()": "did you mean 'adam'?",
    "adam(momentun=0.9)": "unknown hyperparameter of adam 'momentun'",
    "adam(beta_1=0.9)": "did you mean 'beta1'?",
    "adam(lr=-1)": "lr must be >= 0, got -1",
    "adam(lr=abc)": "lr must be a number >= 0, got 'abc'",
    "adam(lr=true)": "lr must be a number",
    "adam(beta1=1)": "beta1 must be in [0, 1), got 1",
    "adam(betas=0.9)": "betas must be (beta1, beta2), got 0.9",
    "adam(decay=cubic)": "decay must be one of",
    "adam(lr=1e-1..1e-4)": "the range 0.1..0.0001 is empty; write the smaller end first",
    "adam(lr=1..1)": "the range 1.0..1.0 is a single value; write 1.0",
    "adam(lr=-1..1)": "cannot be searched on a log scale, which begins above 0",
    "adam(lr=linear(-1..1))": "lr must be >= 0, got -1",
    "adam(beta1=0.9..1.5)": "ends below 1",
    "adam(lr={})": "a choice needs at least one value",
    "adam(lr={0.1, 0.1})": "has 0.1 twice",
    "adam(beta1=1.5, lr=1e-4..1e-1)": "beta1 must be in [0, 1), got 1.5",
    "torch.optim:Adam": "only rules have one; write torch.optim:Adam() for its defaults",
    "torch.optim:Adam(lr=linear(-1..1))": "cannot be built: ValueError: Invalid learning rate",
    "adam() + cosin()": "did you mean 'cosine'?",
    "torch.optim:Adm()": "did you mean 'Adam'?",
    "torch.optim:Adam(lrr=1)": "did you mean 'lr'?",
    "torch.optim:Adam(lr=-1)": "cannot be built: ValueError: Invalid learning rate",
    "torch.optim:Adam(lr=abc)": "cannot be built: ",
    "torch.nn:Linear()": "which is no torch.optim.Optimizer class",
    "no_such_module:Adam()": "cannot import module 'no_such_module': ModuleNotFoundError",
    "no_such_file.py:Adam()": "there is no file no_such_file.py",
}


@pytest.mark.parametrize("text", REFUSED)
def test_an_arm_that_cannot_be_is_refused_before_the_race(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert REFUSED[text] in str(caught.value)


def test_a_class_in_a_file_is_an_arm(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    arm = parse(f"{file}:Mine(lr=0.125)")
    assert arm.factory()(parameter()).param_groups[0]["lr"] == 0.125
    assert arm.source
    with pytest.raises(InputError, match="RuntimeError: too strong"):
        parse(f"{file}:Mine(power=4)")


def test_a_file_that_raises_says_what_it_raised(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1 / 0\n")
    with pytest.raises(InputError, match=r"broken\.py: ZeroDivisionError: division by zero"):
        parse(f"{file}:Mine()")


def test_an_edited_class_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    settings = parse(f"{file}:Mine()").settings()
    assert restore(settings).text == settings["text"]
    file.write_text(FILE.replace("lr=lr", "lr=2 * lr"))
    with pytest.raises(LedgerError, match=r"source code of the arm .* has changed"):
        restore(settings)


def test_every_way_to_write_an_arm_in_python_works() -> None:
    def warm(params):
        return torch.optim.Adagrad(params, lr=0.5)

    arms = resolve(
        {
            "text": "torch.optim:SGD(lr=0.1)",
            "class": torch.optim.Adam,
            "partial": functools.partial(torch.optim.Adam, lr=0.25),
            "function": warm,
            "lambda": lambda params: torch.optim.SGD(params, lr=0.5),
            "arm": parse("torch.optim:SGD(lr=0.75)"),
        }
    )
    assert [arm.label for arm in arms] == ["text", "class", "partial", "function", "lambda", "arm"]
    rates = [arm.factory()(parameter()).param_groups[0]["lr"] for arm in arms]
    assert rates == [0.1, 1e-3, 0.25, 0.5, 0.5, 0.75]
    assert arms[2].text == "torch.optim.adam:Adam(lr=0.25)"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([], "at least one arm"),
        ("adam()", "a list or a mapping"),
        (["torch.optim:SGD()", "torch.optim:SGD( )"], "two arms are called 'torch.optim:SGD()'"),
        ([torch.optim.Adam(parameter())], "pass the class"),
        ([lambda params: torch.optim.SGD(params)], "a lambda has no name"),  # noqa: PLW0108
        ([torch.nn.Linear], "an arm is a text, an optimizer class or a function"),
        ([3], "an arm is a text, an optimizer class or a function"),
    ],
)
def test_arms_that_make_no_race_are_refused(arms: object, message: str) -> None:
    with pytest.raises(InputError, match="(?s)" + message.replace("(", r"\(").replace(")", r"\)")):
        resolve(arms)


def test_equal_arms_under_two_labels_are_allowed() -> None:
    a, b = resolve({"a": "torch.optim:SGD()", "b": "torch.optim:SGD()"})
    assert a.text == b.text


def test_a_class_in_a_file_is_found_again_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    arm = parse("mine.py:Mine(lr=0.125)")
    assert arm.label == "mine.py:Mine(lr=0.125)"
    searched = parse("mine.py:Mine(lr=0.01..1)").at({"lr": 0.5})
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert restore(arm.settings()).factory()(parameter()).param_groups[0]["lr"] == 0.125
    assert restore(searched.settings()).factory()(parameter()).param_groups[0]["lr"] == 0.5


def test_a_bare_name_has_its_preset_space_and_schedule_unless_one_is_written() -> None:
    from steepest.tune import preset

    arm, own = parse("adamw"), parse("adamw + linear()")
    assert arm.space == own.space == preset("adamw").space
    assert (arm.schedule.spec(), own.schedule.spec()) == (preset("adamw").schedule, "linear()")
    assert (arm.text, own.text) == ("adamw", "adamw + linear()")
    assert restore(arm.settings()) == arm
    assert arm.untuned().text == "adamw()"
    assert own.untuned().text == "adamw() + linear()"
    with pytest.raises(InputError, match="is searched, so it is no one optimizer"):
        arm.factory()


def test_a_preset_that_is_not_what_it_was_is_not_resumed_with() -> None:
    settings = parse("adamw").settings()
    settings["space"]["dimensions"][0]["high"] *= 2
    with pytest.raises(LedgerError, match="planned by a steepest with another preset"):
        restore(settings)


def test_tuples_of_a_class_can_be_searched_in_part() -> None:
    arm = parse("torch.optim:Adam(lr=1e-3, betas=(0.8..0.99, 0.999), eps=1e-8)")
    assert list(arm.space.dimensions) == ["betas[0]"]
    one = arm.at(arm.space.at([1.0]))
    assert one.factory()(parameter()).param_groups[0]["betas"] == (0.99, 0.999)
    assert restore(one.settings()).values == one.values
    assert arm.untuned().values == {"lr": 1e-3, "eps": 1e-8}
