"""Case study: "AdamW is far better than Adam", on 1,000 spreadsheet rows. Writes its page.

python benchmarks/case_adam_adamw.py path/to/ads.xlsx --model path/to/encoder

Three minutes of one core; without --model the part with a pretrained encoder is left out.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import steepest
from steepest import tasks
from steepest.numbers import amount, p_text, significant
from steepest.tasks.options import write
from steepest.train.checkpoint import load
from steepest.train.data import open_source
from steepest.train.randomness import derive, seed_all
from steepest.train.task import Task, build_model, hash_tensors

PAGE = Path(__file__).parents[1] / "docs" / "case-studies" / "adam-adamw-text.md"
CPU = torch.device("cpu")


@dataclass
class Turn:
    """What one optimizer did in the loop.

    Attributes:
        name: The optimizer.
        start: Hash of the weights that it started from.
        end: Hash of the weights that it left.
        first_loss: Training loss of the first epoch.
        accuracy: On the test data, in the end.
    """

    name: str
    start: str
    end: str
    first_loss: float
    accuracy: float


def hash_of(model: nn.Module) -> str:
    """The first eight digits over all parameters."""
    return hash_tensors(dict(model.named_parameters()))[:8]


def train(task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> float:
    """A plain loop, in the order of the rows; the training loss of its first epoch."""
    source = open_source(task.train, CPU, where="train")
    assert source is not None
    steps = source.examples // task.batch_size
    first: list[float] = []
    model.train()
    for epoch in range(epochs):
        order = source.order(0, epoch, task.batch_size)
        for k in range(steps):
            seed_all(derive(0, "case", epoch, k), CPU)
            optimizer.zero_grad()
            rows = order[k * task.batch_size : (k + 1) * task.batch_size]
            loss, _ = task.compute_loss(model, source.batch(rows))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if epoch == 0:
                first.append(loss.item())
    return sum(first) / len(first)


def accuracy(task: Task, model: nn.Module) -> float:
    """The share of test texts that are told right."""
    source = open_source(task.test, CPU, where="test")  # type: ignore[arg-type]
    assert source is not None
    model.eval()
    with torch.no_grad():
        x, y = source.batch(torch.arange(source.examples))
        return float((model(**x).argmax(1) == y).double().mean())


def one_loop(
    task: Task, snapshot: Callable[[dict[str, Any]], dict[str, Any]], *, lr: float, epochs: int
) -> list[Turn]:
    """Two optimizers, one model, the initial weights put back in between."""
    model = build_model(task, 0)
    initial = snapshot(model.state_dict())
    turns = []
    for name, kind in (("Adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)):
        model.load_state_dict(initial)
        start = hash_of(model)
        loss = train(task, model, kind(model.parameters(), lr=lr), epochs)
        turns.append(Turn(name, start, hash_of(model), loss, accuracy(task, model)))
    return turns


def turn_table(turns: list[Turn]) -> str:
    """The two turns as a table."""
    rows = [
        "| optimizer | starts from | ends at | loss of its first epoch | test accuracy |",
        "| --- | --- | --- | --: | --: |",
    ]
    rows += [
        f"| {t.name} | `{t.start}` | `{t.end}` | {t.first_loss:.7f} | {100 * t.accuracy:.1f} % |"
        for t in turns
    ]
    return "\n".join(rows)


def pair_table(result: Any) -> str:
    """What the race says of every pair."""
    rows = [
        "| pair | mean difference in test accuracy | 95 % interval | adjusted p | verdict |",
        "| --- | --: | --: | --: | --- |",
    ]
    for pair in result.verdict.pairs:
        c = pair.comparison
        points = f"{100 * c.difference:+.2f} points"
        interval = f"{100 * c.low:+.2f} … {100 * c.high:+.2f}"
        p = p_text(pair.p_adjusted)
        rows.append(f"| {pair.a} − {pair.b} | {points} | {interval} | {p} | {pair.decision} |")
    return (
        "\n".join(rows)
        .replace("-", "\N{MINUS SIGN}")
        .replace("| \N{MINUS SIGN}\N{MINUS SIGN}\N{MINUS SIGN}", "| ---")
        .replace("\N{MINUS SIGN}\N{MINUS SIGN}:", "--:")
    )


def arm_table(result: Any, arms: dict[str, str], decays: dict[str, float], steps: int) -> str:
    """Arms with what decay alone does to a weight, and what came out."""
    rows = [
        "| arm | as written | decay alone leaves of a weight | mean test accuracy | norm of the "
        "matrices |",
        "| --- | --- | --: | --: | --: |",
    ]
    means = {row.label: row.mean for row in result.ranking}
    for label, text in arms.items():
        left = f"{100 * math.exp(-decays[label] * steps):.2f} %" if label in decays else "–"
        norms = []
        for run in result.final_runs:
            if run.arm == label:
                end = load(result.folder / "weights" / f"{run.run_id}.safetensors").tensors
                norms.append(
                    sum(float(p.square().sum()) for p in end.values() if p.ndim > 1) ** 0.5
                )
        norm = sum(norms) / len(norms)
        rows.append(
            f"| {label} | `{text}` | {left} | {100 * means[label]:.2f} % | {significant(norm)} |"
        )
    return "\n".join(rows)


def race(text: str, arms: dict[str, str], *, seeds: int, epochs: int) -> Any:
    """The fair race, in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="case-")
    return steepest.race(
        text, arms, seeds=seeds, epochs=epochs, timing=0, engine="solo", out=folder
    )


def gap(turns: list[Turn]) -> str:
    """First-epoch losses side by side."""
    return f"{turns[0].first_loss:.7f} against {turns[1].first_loss:.7f}"


def encoder_part(data: Path, model: Path | None) -> str:
    """One epoch of fine-tuning each from the same start, with a real encoder."""
    if model is None:
        return ""
    task = tasks.load(write("text", {"data": data, "model": model, "max_length": 32}))
    turns = one_loop(task, copy.deepcopy, lr=5e-5, epochs=1)
    parameters = sum(p.numel() for p in build_model(task, 0).parameters())
    steps = len(task.train) // task.batch_size  # type: ignore[arg-type]
    apart = significant(abs(turns[0].first_loss - turns[1].first_loss), 2)
    return f"""
## The same with a pretrained encoder

`{model.parent.name}`, {parameters:,} parameters, one epoch at learning rate 5e-5 and at most 32
tokens, each from the same start:

{turn_table(turns)}

The losses differ by {apart}. In that time decay alone takes {significant(5e-5 * steps, 2)} % of a
weight (5e-5 × 0.01 × {steps} steps).
"""


def main() -> None:
    """Run all of it and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, help="also fine-tune this encoder")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    text = write("text", {"data": given.data.resolve(), "max_length": 64})
    task = tasks.load(text)
    lr, epochs, seeds = 1e-3, given.epochs, given.seeds
    steps = len(task.train) // task.batch_size * epochs  # type: ignore[arg-type]

    leaky = one_loop(task, dict.copy, lr=lr, epochs=epochs)
    assert leaky[1].start == leaky[0].end != leaky[0].start
    clean = one_loop(task, copy.deepcopy, lr=lr, epochs=epochs)
    assert clean[1].start == clean[0].start

    plain = {"Adam": f"adam(lr={lr})", "AdamW": f"adamw(lr={lr})"}
    fair = race(text, plain, seeds=seeds, epochs=epochs)
    far = {
        "AdamW, λ 0.01": f"adamw(lr={lr})",
        "AdamW, λ 100": f"adamw(lr={lr}, weight_decay=100.0)",
        "Adam, L2 0.01": f"adam(lr={lr}, weight_decay=0.01)",
    }
    decays = {"AdamW, λ 0.01": lr * 0.01, "AdamW, λ 100": lr * 100}
    matters = race(text, far, seeds=seeds, epochs=epochs)
    command = f"python benchmarks/case_adam_adamw.py path/to/{given.data.name}"
    command += " --model path/to/encoder" if given.model else ""
    command += f" --seeds {seeds} --epochs {epochs}"
    parameters = sum(p.numel() for p in build_model(task, 0).parameters())
    taken = {rate: 100 * (1 - math.exp(-rate * 0.01 * steps)) for rate in (lr, 5e-5)}
    runs = len(plain) * len(fair.seeds) + len(far) * len(matters.seeds)
    given.out.write_text(
        f"""# "AdamW is far better than Adam"

Two optimizers, one loop, 1,000 rows of a spreadsheet, and a clear winner. This page repeats how
such a result comes about, and what is left of it. Everything below was written by

```console
$ {command}
```

on {platform.machine()} with {amount(torch.get_num_threads(), "thread")}, torch {torch.__version__}:
{task.describe.split(";")[0]}; {len(task.train)} of them to train on, {len(task.test)} to test on.
The model is the small encoder of [`text`](../text.md) ({parameters:,} parameters, from scratch),
because it can be trained {runs} times within minutes.

## How it was done

```python
initial = model.state_dict().copy()          # meant as: keep the initial weights
for name, optimizer_class in [("Adam", torch.optim.Adam), ("AdamW", torch.optim.AdamW)]:
    model.load_state_dict(initial)           # meant as: start again
    train(model, optimizer_class(model.parameters(), lr={lr}), epochs={epochs})
```

{turn_table(leaky)}

AdamW starts from `{leaky[1].start}`, which is where Adam ended. `dict.copy()` copies the dictionary
and not the tensors in it: `initial` holds the model's own weights, which training changes in
place, and `load_state_dict` then copies every weight onto itself. What looks like AdamW's merit, a
loss of {significant(leaky[1].first_loss)} in its first epoch where Adam has
{significant(leaky[0].first_loss)}, is {amount(epochs, "epoch")} of Adam.

## The same loop with `copy.deepcopy`

{turn_table(clean)}

Both start from `{clean[0].start}`. The losses of the first epoch are {gap(clean)}, a
difference of {significant(abs(clean[0].first_loss - clean[1].first_loss), 2)}.

## The fair race

`steepest race` gives every arm the same start, the same batches and the same dropout masks, and
repeats that for {amount(len(fair.seeds), "seed")}, {amount(epochs, "epoch")} each:

{pair_table(fair)}

{fair.verdict.text}

Why there is so little to see: Adam's weight decay is 0 by default and AdamW's is 0.01, and without
decay they are the same formula. Decoupled decay multiplies a weight by 1 − lr × λ in every step.
Here that is 0.01 × {lr}, {steps} times: {significant(taken[lr], 2)} % off a weight that
nothing else moves. In a fine-tuning of as many steps at learning rate 5e-5 it would be
{significant(taken[5e-5], 2)} %.

## When decay does matter

Its work grows with lr × λ × steps: it takes a larger λ, a larger rate, or a longer training to
move the weights at all. The norm is that of all weight matrices together (biases and gains are not
decayed), mean over {amount(len(matters.seeds), "seed")}:

{arm_table(matters, far, decays, steps)}

{pair_table(matters)}

{matters.verdict.text}

L2 regularisation in Adam is another thing again: there λ p is added to the gradient and then
divided by the root of the second moment, so that weights with small gradients are pulled as hard
as those with large ones ([arXiv:1711.05101](https://arxiv.org/abs/1711.05101)).
{encoder_part(given.data.resolve(), given.model)}""",
        encoding="utf-8",
    )
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
