"""The space that a bare name is tuned over, for every rule: a table, each number with its source.

What is published is taken over; what is not is chosen, and says so. As comparisons can be turned
round by their spaces (Choi et al., arXiv:1910.05446), rules of one family share their ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steepest import rules
from steepest.errors import InputError
from steepest.tune.space import Space
from steepest.values import Choice, Range

__all__ = ["DEEPOBS_RATES", "PRESETS", "Preset", "preset", "rates_only"]


@dataclass(frozen=True)
class Preset:
    """What a bare name stands for.

    Attributes:
        space: What is searched, and what is fixed beside it.
        schedule: The schedule as an arm writes it; None for rules that have none.
        sources: Where each number of the space comes from, by the hyperparameter's name;
            ``schedule`` for the schedule.

    >>> str(preset("adamw").space), preset("adamw").schedule
    ('lr=0.0001..0.01, beta1=0.5..0.98, weight_decay=0.005..1.0', 'cosine(warmup=0.05)')
    """

    space: Space
    schedule: str | None
    sources: Mapping[str, str]

    @property
    def source(self) -> str:
        """All sources, each once."""
        return "; ".join(dict.fromkeys(self.sources.values()))


# AlgoPerf: "Benchmarking Neural Network Training Algorithms", Dahl et al., arXiv:2306.07179; the
# files reference_algorithms/paper_baselines/<name>/tuning_search_space.json of
# github.com/mlcommons/algorithmic-efficiency. Their one_minus_beta1 is searched on a log scale,
# which is this package's one_minus_log. Label smoothing and dropout belong to the task here.
_ADAMW = "AlgoPerf, AdamW"  # learning_rate 1e-4..1e-2, one_minus_beta1 2e-2..0.5, decay 5e-3..1
_NADAMW = "AlgoPerf, NAdamW"  # one_minus_beta1 4e-3..0.1
_NESTEROV = "AlgoPerf, Nesterov"  # lr 2e-2..5, one_minus_beta1 5e-3..0.3, decay 1e-7..5e-5
_LAMB = "AlgoPerf, LAMB"  # learning_rate 1e-4..1e-2, one_minus_beta1 5e-2..0.3, decay 1e-3..1
_ADAFACTOR = "AlgoPerf, Adafactor"  # lr 1e-4..1e-2, one_minus_beta1 1e-2..0.45, decay 1e-3..1
_WARM_COSINE = "AlgoPerf: warmup over 5 %, then cosine to 0"
_WARM_LINEAR = (
    "AlgoPerf, Nesterov: warmup over 5 %, then a line to 0.01 (there reached after 90 % of the "
    "rest, here at the end)"
)
# "Descending through a Crowded Valley", Schmidt et al., arXiv:2007.01547, table 2; the tried values
# are in the file names of github.com/SirRob1997/Crowded-Valley---Results.
_VALLEY = "Crowded Valley (arXiv:2007.01547)"  # learning rate log-uniform 1e-4..1
_NARROWED = "chosen as adamw's; Crowded Valley (arXiv:2007.01547) has lr over 1e-4..1"
_LION = "Lion (arXiv:2302.06675, section 5): AdamW's rate divided by 3 to 10, its decay times that"
_FREE = "github.com/facebookresearch/schedule_free, README"
_PRODIGY = "github.com/konstmish/prodigy, README: tune d_coef; 2 or 10, 0.5 or even 0.1"


def _like(rule: str) -> str:
    return f"no published space; chosen as {rule}'s"


def _preset(
    rule: str,
    dimensions: Mapping[str, tuple[Range | Choice, str]],
    fixed: Mapping[str, tuple[Any, str]] | None = None,
    schedule: tuple[str | None, str] = ("cosine(warmup=0.05)", _WARM_COSINE),
) -> Preset:
    rows = {**dimensions, **(fixed or {}), "schedule": schedule}
    return Preset(
        Space(
            {name: dimension for name, (dimension, _) in dimensions.items()},
            {name: value for name, (value, _) in (fixed or {}).items()},
            rule,
        ),
        schedule[0],
        {name: source for name, (_, source) in rows.items()},
    )


def _adaptive(rule: str, source: str, **fixed: tuple[Any, str]) -> Preset:
    """Rules that move like Adam, with L2 decay or none."""
    return _preset(
        rule,
        {"lr": (Range(1e-4, 1e-2), source), "beta1": (Range(0.5, 0.98), source)},
        fixed,
    )


def _decoupled(rule: str, source: str, **fixed: tuple[Any, str]) -> Preset:
    """Rules that move like Adam and decay like AdamW."""
    return _preset(
        rule,
        {
            "lr": (Range(1e-4, 1e-2), source),
            "beta1": (Range(0.5, 0.98), source),
            "weight_decay": (Range(5e-3, 1.0), source),
        },
        fixed,
    )


_L2 = "; AdamW's decay is decoupled, so its range is not taken over and this one is not tuned"

PRESETS: dict[str, Preset] = {
    "sgd": _preset(
        "sgd",
        {
            "lr": (Range(2e-2, 5.0), _NESTEROV),
            "momentum": (Range(0.7, 0.995), _NESTEROV),
            "weight_decay": (Range(1e-7, 5e-5), _NESTEROV),
        },
        {"nesterov": (True, _NESTEROV)},
        ("linear(warmup=0.05, final=0.01)", _WARM_LINEAR),
    ),
    "adamw": _decoupled("adamw", _ADAMW),
    "adam": _adaptive("adam", _ADAMW + _L2),
    "nadam": _preset(
        "nadam",
        {
            "lr": (Range(1e-4, 1e-2), _NADAMW + _L2),
            "beta1": (Range(0.9, 0.996), _NADAMW + _L2),
        },
    ),
    "radam": _adaptive("radam", _NARROWED),
    "adamax": _adaptive("adamax", _like("adam")),
    "adabelief": _decoupled("adabelief", _NARROWED),
    "adopt": _preset(
        "adopt",
        {
            "lr": (Range(1e-4, 1e-2), _like("adamw")),
            "beta1": (Range(0.5, 0.98), _like("adamw")),
            "weight_decay": (Range(5e-3, 1.0), _like("adamw")),
        },
        {"decay": ("decoupled", "github.com/iShohei220/adopt has it as an option")},
    ),
    "ademamix": _decoupled("ademamix", _like("adamw")),
    "adan": _preset(
        "adan",
        {
            "lr": (
                Range(5e-4, 5e-2),
                "github.com/sail-sg/Adan, README: 5 to 10 times the rate of AdamW",
            ),
            "beta3": (
                Range(0.9, 0.999),
                "README of Adan: tune beta3 first; the range around its 0.99 is chosen",
            ),
        },
        {"weight_decay": (0.02, "README of Adan: suits all experiments of the paper")},
    ),
    "lamb": _preset(
        "lamb",
        {
            "lr": (Range(1e-4, 1e-2), _LAMB),
            "beta1": (Range(0.7, 0.95), _LAMB),
            "weight_decay": (Range(1e-3, 1.0), _LAMB),
        },
    ),
    "adafactor": _preset(
        "adafactor",
        {
            "lr": (Range(1e-4, 1e-2), _ADAFACTOR),
            "beta1": (Range(0.55, 0.99), _ADAFACTOR),
            "weight_decay": (Range(1e-3, 1.0), _ADAFACTOR),
        },
        {
            "rate": ("plain", _ADAFACTOR + ": the rate is not multiplied by the parameter's size"),
            "eps_mode": ("added", _ADAFACTOR),
            "eps1": (1e-30, _ADAFACTOR),
        },
    ),
    "lion": _preset(
        "lion",
        {"lr": (Range(1e-5, 1e-3), _LION), "weight_decay": (Range(5e-2, 10.0), _LION)},
    ),
    "signum": _preset(
        "signum",
        {
            "lr": (Range(1e-5, 1e-3), _like("lion")),
            "momentum": (Range(0.5, 0.98), _like("adamw") + " beta1"),
            "weight_decay": (Range(5e-2, 10.0), _like("lion")),
        },
    ),
    "adagrad": _preset("adagrad", {"lr": (Range(1e-4, 1.0), _VALLEY)}),
    "rmsprop": _preset(
        "rmsprop",
        {
            "lr": (Range(1e-4, 1.0), _VALLEY),
            "alpha": (Range(0.9, 0.999), "chosen around torch's default of 0.99"),
        },
    ),
    "adadelta": _preset(
        "adadelta",
        {
            "lr": (
                Range(1e-2, 10.0),
                "chosen around torch's default of 1, where the range of Crowded Valley ends",
            ),
            "rho": (Range(0.8, 0.99), "chosen around torch's default of 0.9"),
        },
    ),
    "lars": _preset(
        "lars",
        {
            "lr": (Range(0.1, 10.0), "no published space; chosen around the default of 1"),
            "momentum": (Range(0.7, 0.995), _like("sgd")),
            "weight_decay": (Range(1e-5, 1e-3), "chosen around the paper's 1e-4"),
        },
    ),
    "muon": _preset(
        "muon",
        {
            "lr": (Range(1e-4, 1e-2), _ADAMW),
            "weight_decay": (Range(5e-3, 1.0), _ADAMW),
        },
        {
            "adjust_lr_fn": (
                "match_rms_adamw",
                "arXiv:2502.16982: with it the rate and the decay of AdamW can be reused, which "
                "also fits the parameters that are no matrices and follow AdamW",
            )
        },
    ),
    "soap": _decoupled("soap", _like("adamw"), precondition_frequency=(10.0, "arXiv:2409.11321")),
    "shampoo": _preset(
        "shampoo",
        {
            "lr": (
                Range(1e-2, 1.0),
                "no published space without grafting (AlgoPerf's Shampoo has it); chosen around "
                "the default of 0.1",
            ),
            "momentum": (Range(0.85, 0.99), "AlgoPerf, Shampoo"),
        },
    ),
    "schedulefree_adamw": _preset(
        "schedulefree_adamw",
        {
            "lr": (Range(1e-4, 1e-1), f"{_FREE}: 1 to 10 times the rate of AdamW"),
            "beta1": (Range(0.9, 0.98), f"{_FREE}: 0.9, 0.95 or 0.98"),
            "weight_decay": (Range(5e-3, 1.0), _like("adamw")),
        },
        schedule=("constant(warmup=0.05)", f"{_FREE}: no decay, but a warmup; 5 % as AlgoPerf"),
    ),
    "schedulefree_sgd": _preset(
        "schedulefree_sgd",
        {
            "lr": (Range(0.2, 50.0), f"{_FREE}: 10 to 50 times the usual rate; ten times sgd's"),
            "momentum": (Range(0.9, 0.98), f"{_FREE}: 0.9, 0.95 or 0.98"),
            "weight_decay": (Range(1e-7, 5e-5), _like("sgd")),
        },
        schedule=("constant(warmup=0.05)", f"{_FREE}: no decay, but a warmup; 5 % as AlgoPerf"),
    ),
    # It finds its rate itself: what is tuned is the factor of its estimate, and the decay.
    "prodigy": _preset(
        "prodigy",
        {
            "d_coef": (Range(0.1, 10.0, "log"), _PRODIGY),
            "weight_decay": (Range(5e-3, 1.0), _like("adamw")),
        },
        schedule=(
            "cosine()",
            "github.com/konstmish/prodigy, README: cosine, no warmup",
        ),
    ),
    # The rate is only the size of its first step; its own rule multiplies it from then on.
    "rprop": _preset(
        "rprop",
        {
            "lr": (Range(1e-4, 1e-1), "no published space; chosen around the default of 0.01"),
            "eta_plus": (Range(1.05, 1.5), "chosen around the paper's 1.2"),
        },
        schedule=(None, "a schedule would not reach the step, which the rule keeps itself"),
    ),
    # Its rate decays by its own formula, and what counts is the average.
    "asgd": _preset(
        "asgd",
        {
            "lr": (Range(2e-2, 5.0), _like("sgd")),
            "lambd": (Range(1e-6, 1e-3, "log"), "chosen around the default of 1e-4"),
        },
        schedule=(None, "the rule decays its rate itself"),
    ),
}

DEEPOBS_RATES = (1e-5, 1e2, 36)
"""Ends and number of the log-spaced rates of DeepOBS (Schneider et al., arXiv:1903.05499) for
optimizers of which only the learning rate is tuned."""


def preset(name: str) -> Preset:
    """The space and the schedule that a bare name stands for.

    A modifier around a rule (``cautious(adamw)``) has the preset of the rule.

    Args:
        name: Of a rule, with or without modifiers.

    Raises:
        InputError: For a name that is no rule, or a class of another package: nobody has
            published a space for it, so it must be written.

    >>> preset("torch.optim:Adam")
    Traceback (most recent call last):
        ...
    steepest.errors.InputError: torch.optim:Adam has no preset space, because it is no rule of ...
    """
    if ":" in name:
        raise InputError(
            f"{name} has no preset space, because it is no rule of steepest; write what is to be "
            f"searched, for example {name}(lr=1e-4..1e-1), or {name}() for its defaults"
        )
    rule = rules.get(name)
    base = name.rstrip(")").rpartition("(")[2]
    if base not in PRESETS:
        raise InputError(
            f"{name} has no preset space; write what is to be searched, for example "
            f"{name}(lr=1e-4..1e-1), or {name}() for its defaults"
        )
    found = PRESETS[base]
    if rule.name == base:
        return found
    space = Space(found.space.dimensions, found.space.fixed, rule.name)
    return Preset(space, found.schedule, found.sources)


def rates_only(name: str) -> Space:
    """The learning rate alone, over DeepOBS's seven decades; all else at its defaults.

    >>> str(rates_only("adam"))
    'lr=1e-5..100.0'
    """
    low, high, _ = DEEPOBS_RATES
    return Space({"lr": Range(low, high)}, rule=rules.get(name).name)
