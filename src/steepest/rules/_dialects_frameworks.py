"""What other libraries mean by the rules' names: the frameworks themselves; see `_dialects`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from steepest.rules._dialect import Dialect

__all__ = ["FRAMEWORKS"]

_DECAY: Mapping[str, Any] = {"weight_decay": 0.1}
_EPS: Mapping[str, Any] = {"eps": 0.1}
_BOTH: Mapping[str, Any] = {"weight_decay": 0.1, "eps": 0.1}
_KERAS_BOTH: Mapping[str, Any] = {"weight_decay": 0.1, "epsilon": 0.1}

_row = partial(Dialect, library="torch")
_TORCH = (
    _row(
        "sgd",
        "torch.optim:SGD",
        stress={"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        stressed={"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        off=2.3e-16,
    ),
    _row(
        "adagrad",
        "torch.optim:Adagrad",
        stress={"lr_decay": 0.1, "weight_decay": 0.1, "eps": 0.1},
        stressed={"lr_decay": 0.1, "weight_decay": 0.1, "eps": 0.1},
        off=1.6e-15,
    ),
    _row(
        "rmsprop",
        "torch.optim:RMSprop",
        stress={"momentum": 0.9, "centered": True, "weight_decay": 0.1, "eps": 0.1},
        stressed={"momentum": 0.9, "centered": True, "weight_decay": 0.1, "eps": 0.1},
        off=8.4e-16,
    ),
    _row("adadelta", "torch.optim:Adadelta", stress=_BOTH, stressed=_BOTH, off=1.6e-15),
    _row(
        "adam",
        "torch.optim:Adam",
        stress={"amsgrad": True, "weight_decay": 0.1, "eps": 0.1},
        stressed={"amsgrad": True, "weight_decay": 0.1, "eps": 0.1},
        off=7.5e-16,
    ),
    _row(
        "adamw",
        "torch.optim:AdamW",
        stress={"amsgrad": True, "weight_decay": 0.1, "eps": 0.1},
        stressed={"amsgrad": True, "weight_decay": 0.1, "eps": 0.1},
        off=1.4e-14,
    ),
    _row("nadam", "torch.optim:NAdam", stress=_BOTH, stressed=_BOTH, off=1.2e-14),
    _row("radam", "torch.optim:RAdam", stress=_BOTH, stressed=_BOTH, off=4.6e-16),
    _row("adamax", "torch.optim:Adamax", stress=_BOTH, stressed=_BOTH, off=1.1e-15),
    _row(
        "asgd",
        "torch.optim:ASGD",
        stress={"t0": 20.0, "lambd": 0.1, "weight_decay": 0.1},
        stressed={"t0": 20.0, "lambd": 0.1, "weight_decay": 0.1},
        off=4.4e-15,
    ),
    _row(
        "adafactor",
        "torch.optim:Adafactor",
        values={"eps1": 2.0**-52},
        stress={"eps": [0.1, 0.5], "weight_decay": 0.1},
        stressed={"eps1": 0.1, "eps2": 0.5, "weight_decay": 0.1},
        off=1.8e-14,
        note="eps1 is by default the machine epsilon of the parameter's dtype: here float64's",
    ),
    _row("rprop", "torch.optim:Rprop", off=0.0),
    _row(
        "muon",
        "torch.optim:Muon",
        stress={"weight_decay": 0.2, "adjust_lr_fn": "match_rms_adamw", "nesterov": False},
        stressed={"weight_decay": 0.2, "adjust_lr_fn": "match_rms_adamw", "nesterov": False},
        off=4.1e-03,
        shapes="matrix",
        note="Newton-Schulz runs in bfloat16; 3e-15 where that conversion is taken out",
    ),
)

_row = partial(Dialect, library="keras", steps="group")
_KERAS = (
    _row(
        "sgd",
        "keras.optimizers:SGD",
        values={"lr_place": "buffer", "decay": "decoupled"},
        stress={"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        stressed={"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        off=1.7e-15,
    ),
    _row(
        "adam",
        "keras.optimizers:Adam",
        values={"eps_mode": "hat", "eps": 1e-07, "decay": "decoupled"},
        stress={"amsgrad": True, "weight_decay": 0.1, "epsilon": 0.1},
        stressed={"amsgrad": True, "weight_decay": 0.1, "eps": 0.1},
        off=4.7e-15,
    ),
    _row(
        "adamw",
        "keras.optimizers:AdamW",
        values={"eps_mode": "hat", "eps": 1e-07, "weight_decay": 0.004},
        stress=_KERAS_BOTH,
        stressed=_BOTH,
        off=1.3e-14,
    ),
    _row(
        "nadam",
        "keras.optimizers:Nadam",
        values={"momentum_decay": 1.0, "eps": 1e-07, "decay": "decoupled"},
        stress=_KERAS_BOTH,
        stressed=_BOTH,
        off=1.3e-14,
    ),
    _row(
        "adamax",
        "keras.optimizers:Adamax",
        values={"eps_mode": "outside", "eps": 1e-07, "decay": "decoupled"},
        stress=_KERAS_BOTH,
        stressed=_BOTH,
        off=9.6e-15,
    ),
    _row(
        "adagrad",
        "keras.optimizers:Adagrad",
        values={
            "eps_mode": "inside",
            "eps": 1e-07,
            "initial_accumulator_value": 0.1,
            "decay": "decoupled",
        },
        stress=_KERAS_BOTH,
        stressed=_BOTH,
        off=1.8e-14,
    ),
    _row(
        "adadelta",
        "keras.optimizers:Adadelta",
        values={"rho": 0.95, "eps": 1e-07, "decay": "decoupled"},
        stress=_KERAS_BOTH,
        stressed=_BOTH,
        off=1.2e-14,
    ),
    _row(
        "rmsprop",
        "keras.optimizers:RMSprop",
        values={
            "alpha": 0.9,
            "eps_mode": "inside",
            "lr_place": "buffer",
            "eps": 1e-07,
            "decay": "decoupled",
        },
        stress={"momentum": 0.9, "centered": True, "weight_decay": 0.1, "epsilon": 0.1},
        stressed={"momentum": 0.9, "centered": True, "weight_decay": 0.1, "eps": 0.1},
        off=1.8e-15,
    ),
    _row("lion", "keras.optimizers:Lion", stress=_DECAY, stressed=_DECAY, off=4.9e-15),
    _row(
        "lamb",
        "keras.optimizers:Lamb",
        values={"eps": 1e-07, "weight_decay": 0.0},
        stress={"epsilon": 0.1},
        stressed=_EPS,
        off=5.5e-16,
        note=(
            "weight_decay is not part of what is rescaled: it shrinks the parameter by lr * "
            "weight_decay before the step"
        ),
    ),
    _row(
        "adafactor",
        "keras.optimizers:Adafactor",
        values={"eps_mode": "added", "eps1": 1e-30},
        stress={"epsilon_2": 0.5},
        stressed={"eps2": 0.5},
        off=6.0e-08,
        note=(
            "some of its numbers are float32; with decay the size of the parameter is taken "
            "after it was shrunk (9e-4)"
        ),
    ),
    _row(
        "muon",
        "keras.optimizers:Muon",
        values={"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.004},
        stress=_DECAY,
        stressed=_DECAY,
        off=2.0e-08,
        shapes="matrix",
        note="1e-7 is added to the norm, where torch takes the larger one",
    ),
    _row(
        "schedulefree_adamw",
        "keras.optimizers:ScheduleFreeAdamW",
        values={"weight_lr_power": 0.0},
        stress={"epsilon": 0.1, "warmup_steps": 20},
        stressed={"eps": 0.1, "warmup_steps": 20.0},
        off=1.4e-13,
        note=(
            "every step has the same weight in the average, whatever the rate; weight_decay "
            "shrinks y and leaves z where it is"
        ),
    ),
)

_row = partial(Dialect, library="optax", steps="group")
_OPTAX = (
    _row(
        "sgd",
        "optax:sgd",
        stress={"momentum": 0.9, "nesterov": True},
        stressed={"momentum": 0.9, "nesterov": True},
        off=3.2e-16,
    ),
    _row(
        "adam",
        "optax:adam",
        stress=_EPS,
        stressed=_EPS,
        off=7.5e-16,
        note="eps_root is eps_mode='inside' where eps is 0",
    ),
    _row(
        "adamw",
        "optax:adamw",
        values={"weight_decay": 0.0001},
        stress=_BOTH,
        stressed=_BOTH,
        off=7.5e-16,
    ),
    _row(
        "adam",
        "optax:amsgrad",
        values={"amsgrad": True, "max_of": "corrected"},
        stress=_EPS,
        stressed=_EPS,
        off=9.9e-16,
    ),
    _row(
        "nadam",
        "optax:nadam",
        values={"momentum_schedule": "constant"},
        stress=_EPS,
        stressed=_EPS,
        off=1.6e-15,
    ),
    _row(
        "nadam",
        "optax:nadamw",
        values={"momentum_schedule": "constant", "decay": "decoupled", "weight_decay": 0.0001},
        stress=_BOTH,
        stressed=_BOTH,
        off=7.8e-16,
    ),
    _row(
        "radam",
        "optax:radam",
        values={"eps_mode": "outside"},
        stress=_EPS,
        stressed=_EPS,
        off=1.8e-15,
    ),
    _row("adamax", "optax:adamax", stress=_EPS, stressed=_EPS, off=4.7e-15),
    _row(
        "adagrad",
        "optax:adagrad",
        values={"eps_mode": "inside", "eps": 1e-07, "initial_accumulator_value": 0.1},
        stress=_EPS,
        stressed=_EPS,
        off=2.3e-15,
    ),
    _row(
        "adadelta",
        "optax:adadelta",
        stress=_BOTH,
        stressed=_BOTH,
        off=1.6e-15,
        note="weight_decay is an L2 penalty, where optax's others decay beside the step",
    ),
    _row(
        "rmsprop",
        "optax:rmsprop",
        values={"alpha": 0.9, "eps_mode": "inside", "lr_place": "buffer"},
        stress={"momentum": 0.9, "centered": True, "initial_scale": 0.5, "eps": 0.1},
        stressed={"momentum": 0.9, "centered": True, "initial_accumulator_value": 0.5, "eps": 0.1},
        off=2.1e-15,
    ),
    _row(
        "rprop",
        "optax:rprop",
        off=9.7e-01,
        constant=True,
        note=(
            "every step moves by the step before it, or not at all where the sign has "
            "changed; the first moves nothing"
        ),
    ),
    _row(
        "lion",
        "optax:lion",
        values={"weight_decay": 0.001},
        stress=_DECAY,
        stressed=_DECAY,
        off=3.7e-16,
    ),
    _row("signum", "optax:signum", off=0.0),
    _row(
        "adabelief",
        "optax:adabelief",
        stress={"eps": 0.1, "eps_root": 0.1},
        stressed=_EPS,
        off=9.2e-16,
    ),
    _row(
        "adan",
        "optax:adan",
        values={"difference": "one_minus_beta2", "decay": "decoupled", "eps": 1e-08},
        stress={"eps_root": 0.0, "weight_decay": 0.1, "eps": 0.1},
        stressed=_BOTH,
        off=5.0e-08,
        note=(
            "1 - beta2 stands where the paper and every other library have beta2 (in this "
            "convention): 2e-1 from them; eps_root=1e-8 by default"
        ),
    ),
    _row(
        "ademamix",
        "optax.contrib:ademamix",
        values={"alpha_slow": 5.0},
        stress={"alpha": 4.0, "weight_decay": 0.1, "eps": 0.1},
        stressed={"alpha_slow": 4.0, "weight_decay": 0.1, "eps": 0.1},
        off=5.2e-16,
    ),
    _row("adopt", "optax.contrib:adopt", stress=_EPS, stressed=_EPS, off=4.1e-16),
    _row(
        "schedulefree_adamw",
        "optax.contrib:schedule_free_adamw",
        values={"beta1": 0.9},
        stress=_BOTH,
        stressed=_BOTH,
        off=1.1e-13,
        constant=True,
        note="with a schedule the weights take the rate of the step after, 1e-2",
    ),
    _row(
        "lamb",
        "optax:lamb",
        values={"weight_decay": 0.0},
        stress=_BOTH,
        stressed=_BOTH,
        off=4.4e-16,
    ),
    _row(
        "lars",
        "optax:lars",
        values={"ratio": "joint", "weight_decay": 0.0},
        stress=_BOTH,
        stressed=_BOTH,
        off=0.0,
    ),
    _row(
        "adafactor",
        "optax:adafactor",
        values={"eps_mode": "added", "eps1": 1e-30, "rate": "scaled"},
        stress={"min_dim_size_to_factor": 1},
        off=6.6e-08,
        at_defaults=False,
        note="factors only axes of at least 128 by default, here 1; decay in float32",
    ),
    _row(
        "prodigy",
        "optax.contrib:prodigy",
        values={"use_bias_correction": True},
        stress={"estim_lr0": 0.001, "weight_decay": 0.01, "eps": 0.1},
        stressed={"d0": 0.001, "weight_decay": 0.01, "eps": 0.1},
        off=4.8e-15,
        at_defaults=False,
    ),
    _row(
        "muon",
        "optax.contrib:muon",
        values={"correct_bias": True, "eps": 1e-08, "weight_decay": 0.0},
        stress=_DECAY,
        stressed=_DECAY,
        off=5.4e-09,
        shapes="square",
        note=(
            "a matrix is (in, out): for others than square ones 'original' has columns over "
            "rows; eps is added to the norm"
        ),
    ),
)

FRAMEWORKS: tuple[Dialect, ...] = (*_TORCH, *_KERAS, *_OPTAX)
