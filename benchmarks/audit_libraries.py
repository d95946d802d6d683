"""Audit the optimizers of other libraries, and write docs/audit.md.

pip install pytorch_optimizer timm schedulefree torch-optimi heavyball lion-pytorch prodigyopt \
    torch_optimizer adabelief-pytorch adan-pytorch galore-torch bitsandbytes transformers
python benchmarks/audit_libraries.py                     all that is installed: the page
python benchmarks/audit_libraries.py timm schedulefree   these, printed
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from steepest.auditing import Audit, audit
from steepest.errors import SteepestError

PAGE = Path("docs/audit.md")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@dataclass(frozen=True)
class Case:
    """One class, the rule that it is said to follow, and what its source says about the outcome."""

    path: str
    rule: str
    seen: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


_RUNNING = (
    "the source debiases the averages' coefficients by the group's step "
    "(`debias_beta`), which is the same only while no gradient is missing"
)
_FLOOR = "`eps_sqrt`: the root is clamped at eps from below"
_LIBRARIES: dict[str, tuple[str, tuple[Case, ...]]] = {
    "timm": (
        "timm.optim",
        (
            Case(
                "AdaBelief",
                "adabelief",
                "where it rectifies, it divides by the plain moment and not by the largest",
            ),
            Case(
                "Adafactor",
                "adafactor",
                "of more than two axes it factors the first two, as convolutions have them; "
                "the rule the last two",
                {"min_dim_size_to_factor": 0},
            ),
            Case("AdamWLegacy", "adamw"),
            Case("Adan", "adan"),
            Case("Adopt", "adopt"),
            Case(
                "Lamb",
                "clip_global_norm(lamb)",
                "what is left is the 1e-6 that torch adds to the norm when clipping",
            ),
            Case("Lars", "lars"),
            Case("Lion", "lion"),
            Case("Muon", "muon", "Newton-Schulz runs in bfloat16"),
            Case("NAdamLegacy", "nadam"),
            Case("NAdamW", "nadam"),
            Case("RAdamLegacy", "radam", "it computes in `p.float()`"),
            Case("RMSpropTF", "rmsprop"),
            Case("SGDW", "sgd"),
        ),
    ),
    "pytorch_optimizer": (
        "pytorch_optimizer",
        (
            Case("ADOPT", "adopt", "`clip` is `step ** 0.25`"),
            Case("ASGD", "asgd", "another algorithm, with an estimated smoothness"),
            Case("AdEMAMix", "ademamix"),
            Case("AdaBelief", "adabelief"),
            Case("AdaDelta", "adadelta"),
            Case(
                "AdaFactor",
                "adafactor",
                "",
                {"relative_step": False, "momentum_dtype": torch.float64},
            ),
            Case("AdaMax", "adamax"),
            Case(
                "Adan",
                "adan",
                "the first gradient is remembered before `maximize` turns its sign",
            ),
            Case("LARS", "lars"),
            Case(
                "Lamb",
                "lamb",
                "eps stands in the ratio of the norms too; the decay shrinks p before the step",
            ),
            Case("Lion", "lion"),
            Case("Prodigy", "prodigy"),
            Case("RAdam", "radam", "`degenerated_to_sgd=False`: no step until the rate adapts"),
            Case("RAdam", "radam", "", {"degenerated_to_sgd": True}),
            Case("SGDW", "sgd"),
            Case(
                "SOAP",
                "soap",
                "QR in float32; the decay follows the step; steps are counted per group",
                {"shampoo_beta": 0.95},
            ),
            Case("ScheduleFreeAdamW", "schedulefree_adamw"),
            Case("ScheduleFreeSGD", "schedulefree_sgd"),
            Case("Shampoo", "shampoo", "its momentum holds the preconditioned gradient"),
            Case("SignSGD", "signum"),
        ),
    ),
    "schedulefree": (
        "schedulefree",
        (
            Case("AdamWScheduleFree", "schedulefree_adamw"),
            Case("AdamWScheduleFreePaper", "schedulefree_adamw"),
            Case("AdamWScheduleFreeReference", "schedulefree_adamw"),
            Case("SGDScheduleFree", "schedulefree_sgd"),
            Case("SGDScheduleFreeReference", "schedulefree_sgd"),
        ),
    ),
    "torch-optimi": (
        "optimi",
        (
            Case("Adam", "adam", _RUNNING),
            Case("AdamW", "adamw", _RUNNING),
            Case("Adan", "adan", _RUNNING),
            Case("Lion", "lion"),
            Case("RAdam", "radam", _RUNNING),
            Case("SGD", "sgd"),
        ),
    ),
    "torch_optimizer": (
        "torch_optimizer",
        (
            Case("AdaBelief", "adabelief", "`rectify=True` begins with uncorrected SGD steps"),
            Case("LARS", "lars"),
            Case("Lamb", "lamb", "`debias=False` by default"),
            Case(
                "RAdam",
                "radam",
                "the groups share one buffer of step sizes, the learning rate included",
            ),
            Case("SGDW", "sgd", "`p.data.add_(weight_decay, alpha=-lr)`: p itself is missing"),
            Case(
                "Shampoo",
                "shampoo",
                "the right second moment is that of the gradient already preconditioned",
            ),
        ),
    ),
    "heavyball": (
        "heavyball",
        (
            Case("ADOPT", "adopt", "nothing is clipped, and both averages are debiased"),
            Case("AdEMAMix", "ademamix", _FLOOR),
            Case("AdamW", "adamw", _FLOOR),
            Case("NAdam", "nadam", _FLOOR),
            Case("RMSprop", "rmsprop", "debiased as Adam is, as its docstring says"),
            Case(
                "SFAdamW",
                "schedulefree_adamw",
                f"{_FLOOR}; a step's weight is its own rate and not the largest so far",
            ),
            Case("SGD", "sgd"),
        ),
    ),
    "bitsandbytes": (
        "bitsandbytes.optim",
        (
            Case("Adagrad32bit", "adagrad"),
            Case("Adam32bit", "adam", "the argument `amsgrad` is not used"),
            Case("AdamW32bit", "adamw", "the argument `amsgrad` is not used"),
            Case("LAMB32bit", "lamb"),
            Case("Lion32bit", "lion"),
            Case("RMSprop32bit", "rmsprop", "on a CPU the momentum is not used"),
        ),
    ),
    "lion-pytorch": ("lion_pytorch", (Case("Lion", "lion"),)),
    "prodigyopt": ("prodigyopt", (Case("Prodigy", "prodigy"),)),
    "adabelief-pytorch": (
        "adabelief_pytorch",
        (
            Case(
                "AdaBelief",
                "adabelief",
                "where it rectifies, it divides by the plain moment and not by the largest",
                {"print_change_log": False},
            ),
        ),
    ),
    "adan-pytorch": (
        "adan_pytorch",
        (Case("Adan", "adan", "the first gradient enters no average (`if step > 0`)"),),
    ),
    "galore-torch": (
        "galore_torch",
        (
            Case("GaLoreAdamW", "adamw", "as transformers' own AdamW was"),
            Case("GaLoreAdafactor", "adafactor", "", {"relative_step": False}),
        ),
    ),
    "transformers": (
        "transformers.optimization",
        (Case("Adafactor", "adafactor", "", {"relative_step": False}),),
    ),
    "torch": (
        "torch.optim",
        (
            Case("ASGD", "asgd"),
            Case("Adadelta", "adadelta"),
            Case("Adafactor", "adafactor"),
            Case("Adagrad", "adagrad"),
            Case("Adam", "adam"),
            Case("AdamW", "adamw"),
            Case("Adamax", "adamax"),
            Case("Muon", "muon", "Newton-Schulz runs in bfloat16"),
            Case("NAdam", "nadam"),
            Case("RAdam", "radam"),
            Case("RMSprop", "rmsprop"),
            Case("Rprop", "rprop"),
            Case("SGD", "sgd"),
        ),
    ),
}

_ABOUT = """\
# What other libraries' optimizers really do

`steepest audit package.module:Class --as rule`, and `steepest.audit(Class, "rule")`, drive any
`torch.optim.Optimizer` class with fixed gradients, and compare it with the float64 formula of a
rule in all its dialects. One thing at a time: plain steps, every option that it has, other
coefficients, a large ε, a changing rate, weight decay, missing gradients, a `state_dict` into a
fresh instance, groups, `maximize`, a rate in a tensor; at last through all of them at once.

```console
$ steepest audit torch.optim:NAdam --as nadam
$ steepest audit my_optimizer.py:MyAdam --as adam --set nesterov=False --map momentum=mu --json
```

The exit code is 0 if it follows the rule in one of its dialects, 3 if it follows none, 2 if it
cannot be audited. Where it follows none, the audit looks for the one change to the rule that goes
exactly where the optimizer goes, and names it, with the first step at which it shows and how far
it leads away, as a part of the distance travelled. What no such change explains is said to be
unexplained, with the slots of the rule that are, and are not, in the optimizer's state.

How much is rounding? The formula itself is run in float32, and its distance from float64 shows
how much it amplifies rounding; a float64 optimizer may be 64 times what that makes in float64
away, and never needs to be nearer than 8 roundings per step. "To float32's rounding" means that
the distance is larger than that, but no larger than float32 explains.

## The table

Written by `python benchmarks/audit_libraries.py`: 120 steps in float64 on the CPU. *Off* is the
largest distance in any scenario from the reading that fits best. The last column is what the
source says, where the audit alone does not tell the reason. A deviation is not always a mistake;
some are choices, and some concern only settings that few use.
"""


def run(library: str) -> list[tuple[Case, Audit | str]]:
    """Audit every class of one library."""
    module, cases = _LIBRARIES[library]
    if library == "heavyball":
        import heavyball.utils

        heavyball.utils.compile_mode = None  # seconds per scenario otherwise
    found: list[tuple[Case, Audit | str]] = []
    for case in cases:
        began = time.perf_counter()
        try:
            outcome: Audit | str = audit(
                f"{module}:{case.path}", case.rule, arguments=case.arguments
            )
            told = outcome.sentence()
        except SteepestError as error:
            outcome = told = str(error)
        print(f"{library} {case.path}: {told} [{time.perf_counter() - began:.0f} s]", flush=True)
        if isinstance(outcome, Audit):
            for finding in outcome.findings[1:]:
                print(f"    also {finding}", flush=True)
        found.append((case, outcome))
    return found


def row(case: Case, outcome: Audit | str) -> str:
    """One line of the table."""
    name = case.path + "".join(f", {k}={v}" for k, v in case.arguments.items())
    if isinstance(outcome, str):
        return f"| `{name}` | `{case.rule}` | cannot be audited: {outcome} | | {case.seen} |"
    told = ", ".join(f"`{k}={_shown(v)}`" for k, v in outcome.dialect.items())
    if outcome.follows:
        verdict = "follows" + (f" with {told}" if told else "")
        verdict += ", counting steps per group" if outcome.per_group else ""
        if outcome.precision != outcome.dtype:
            verdict += f", to {outcome.precision}'s rounding"
    else:
        verdict = "**deviates**: " + "; ".join(str(f).replace("|", "/") for f in _first(outcome))
    return f"| `{name}` | `{case.rule}` | {verdict} | {outcome.off:.0e} | {case.seen} |"


def _first(outcome: Audit) -> list[Any]:
    """All explained findings, and the first of those that are not."""
    unexplained = [f for f in outcome.findings if not f.explained][:1]
    return [f for f in outcome.findings if f.explained or f in unexplained]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print, or write the page."""
    wanted = sys.argv[1:]
    sections = []
    for library in wanted or _LIBRARIES:
        if importlib.util.find_spec(_LIBRARIES[library][0].partition(".")[0]) is None:
            print(f"{library} is not installed")
            continue
        version = importlib.metadata.version(library).split("+")[0]
        lines = [
            f"### {library} {version}",
            "",
            "| class | rule | outcome | off | in the source |",
            "| --- | --- | --- | ---: | --- |",
        ]
        lines += [row(case, outcome) for case, outcome in run(library)]
        sections.append("\n".join(lines) + "\n")
    if not wanted:
        torchs = torch.__version__.split("+")[0]
        PAGE.write_text("\n".join([_ABOUT, f"On torch {torchs}.\n", *sections]), encoding="utf-8")
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
