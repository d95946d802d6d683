"""What other libraries mean by the rules' names: packages of optimizers; see `_dialects`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from steepest.rules._dialect import Dialect

__all__ = ["PACKAGES"]

_DECAY: Mapping[str, Any] = {"weight_decay": 0.1}
_EPS: Mapping[str, Any] = {"eps": 0.1}
_BOTH: Mapping[str, Any] = {"weight_decay": 0.1, "eps": 0.1}

_row = partial(Dialect, library="timm")
_TIMM = (
    _row("lion", "timm.optim:Lion", stress=_DECAY, stressed=_DECAY, off=1.5e-15),
    _row(
        "cautious(lion)",
        "timm.optim:Lion",
        stress={"caution": True, "weight_decay": 0.1},
        stressed=_DECAY,
        off=1.9e-15,
        at_defaults=False,
        note="with caution=True",
    ),
    _row(
        "cautious(adamw)",
        "timm.optim:AdamWLegacy",
        stress={"caution": True, "weight_decay": 0.1, "eps": 0.1},
        stressed=_BOTH,
        off=4.0e-15,
        at_defaults=False,
        note="with caution=True",
    ),
    _row(
        "adopt",
        "timm.optim:Adopt",
        values={"clip_exponent": 0.333},
        stress=_BOTH,
        stressed=_BOTH,
        off=4.1e-16,
        note="a decoupled decay leaves out the first step",
    ),
    _row(
        "adabelief",
        "timm.optim:AdaBelief",
        values={"rectify": True},
        stress=_BOTH,
        stressed=_BOTH,
        off=9.1e-15,
    ),
    _row("adan", "timm.optim:Adan", stress=_BOTH, stressed=_BOTH, off=1.2e-14, steps="group"),
    _row(
        "nadam",
        "timm.optim:NAdamW",
        values={"momentum_schedule": "mlcommons", "decay": "decoupled", "weight_decay": 0.01},
        stress=_BOTH,
        stressed=_BOTH,
        off=8.5e-15,
    ),
    _row(
        "clip_global_norm(lamb)",
        "timm.optim:Lamb",
        values={"adapt": "decayed"},
        stress=_BOTH,
        stressed=_BOTH,
        off=1.7e-07,
        steps="group",
        note="the clipping lacks the 1e-6 of torch's",
    ),
    _row(
        "lars",
        "timm.optim:Lars",
        values={
            "lr_place": "step",
            "adapt": "decayed",
            "eps": 1e-08,
            "weight_decay": 0.0,
            "momentum": 0.0,
        },
        stress={"momentum": 0.9, "trust_coeff": 0.1, "weight_decay": 0.1},
        stressed={"momentum": 0.9, "trust_coefficient": 0.1, "weight_decay": 0.1},
        off=7.9e-16,
    ),
    _row(
        "rmsprop",
        "timm.optim:RMSpropTF",
        values={
            "alpha": 0.9,
            "eps": 1e-10,
            "eps_mode": "inside",
            "lr_place": "buffer",
            "initial_accumulator_value": 1.0,
        },
        stress={"momentum": 0.9, "weight_decay": 0.1, "eps": 0.1},
        stressed={"momentum": 0.9, "weight_decay": 0.1, "eps": 0.1},
        off=8.9e-16,
    ),
    _row(
        "adafactor",
        "timm.optim:Adafactor",
        values={"eps_mode": "added", "eps1": 1e-30, "rate": "plain", "decay": "relative"},
        stress={"min_dim_size_to_factor": 0, "weight_decay": 0.1},
        stressed=_DECAY,
        off=8.0e-15,
        at_defaults=False,
        note=(
            "factors only axes longer than 16 by default, here 0; with a given lr the "
            "parameter's size has no part in it"
        ),
    ),
    _row(
        "muon",
        "timm.optim:Muon",
        values={
            "adjust_lr_fn": "match_rms_adamw",
            "ns_coefficients": "quintic",
            "nesterov": False,
            "weight_decay": 0.0,
        },
        stress=_DECAY,
        stressed=_DECAY,
        off=1.9e-03,
        shapes="matrix",
        note="Newton-Schulz runs in bfloat16; 4e-15 where that conversion is taken out",
    ),
    _row(
        "sgd",
        "timm.optim:SGDW",
        values={"decay": "decoupled"},
        stress={"momentum": 0.9, "weight_decay": 0.1},
        stressed={"momentum": 0.9, "weight_decay": 0.1},
        off=9.2e-16,
    ),
)

_row = partial(Dialect, library="pytorch_optimizer")
_PYTORCH_OPTIMIZER = (
    _row(
        "lion", "pytorch_optimizer:Lion", stress=_DECAY, stressed=_DECAY, off=1.5e-15, steps="group"
    ),
    _row(
        "signum",
        "pytorch_optimizer:SignSGD",
        stress=_DECAY,
        stressed=_DECAY,
        off=2.6e-15,
        steps="group",
    ),
    _row(
        "adopt",
        "pytorch_optimizer:ADOPT",
        stress=_BOTH,
        stressed=_BOTH,
        off=1.2e-02,
        steps="group",
        note="clips at t**0.25, where the authors have (t - 1)**0.25",
    ),
    _row(
        "adabelief",
        "pytorch_optimizer:AdaBelief",
        stress=_BOTH,
        stressed=_BOTH,
        off=1.5e-14,
        steps="group",
    ),
    _row(
        "adan", "pytorch_optimizer:Adan", stress=_BOTH, stressed=_BOTH, off=1.2e-14, steps="group"
    ),
    _row(
        "ademamix",
        "pytorch_optimizer:AdEMAMix",
        values={"alpha_slow": 5.0, "decay": "l2"},
        stress={"t_alpha_beta3": 50.0, "weight_decay": 0.1, "eps": 0.1},
        stressed={"alpha_warmup": 50.0, "beta3_warmup": 50.0, "weight_decay": 0.1, "eps": 0.1},
        off=7.3e-16,
        steps="group",
    ),
    _row(
        "adamax",
        "pytorch_optimizer:AdaMax",
        stress=_BOTH,
        stressed=_BOTH,
        off=1.1e-15,
        steps="group",
    ),
    _row(
        "adadelta",
        "pytorch_optimizer:AdaDelta",
        stress=_BOTH,
        stressed=_BOTH,
        off=1.6e-15,
        steps="group",
    ),
    _row(
        "radam",
        "pytorch_optimizer:RAdam",
        stress={
            "degenerated_to_sgd": True,
            "weight_decouple": True,
            "weight_decay": 0.1,
            "eps": 0.1,
        },
        stressed={"decay": "decoupled", "weight_decay": 0.1, "eps": 0.1},
        off=1.2e-14,
        steps="group",
        at_defaults=False,
        note="with degenerated_to_sgd=True; by default the first steps are left out",
    ),
    _row(
        "lamb",
        "pytorch_optimizer:Lamb",
        values={"weight_decay": 0.0},
        stress=_BOTH,
        stressed=_BOTH,
        off=9.3e-01,
        steps="group",
        note=("no bias correction of the second moment, and the norm of the weights is at most 10"),
    ),
    _row(
        "lars",
        "pytorch_optimizer:LARS",
        values={"lr_place": "step", "eps": 0.0, "weight_decay": 0.0},
        stress={"momentum": 0.9, "weight_decay": 0.1},
        stressed={"momentum": 0.9, "weight_decay": 0.1},
        off=1.0e00,
        steps="group",
        note="vectors keep the plain rate and have no decay",
    ),
    _row(
        "prodigy",
        "pytorch_optimizer:Prodigy",
        stress={"d0": 0.001, "weight_decay": 0.01, "eps": 0.1},
        stressed={"d0": 0.001, "weight_decay": 0.01, "eps": 0.1},
        off=2.9e-14,
        steps="group",
        at_defaults=False,
    ),
    _row(
        "shampoo",
        "pytorch_optimizer:Shampoo",
        stress={"preconditioning_compute_steps": 1, "matrix_eps": 0.1},
        stressed=_EPS,
        off=7.9e-15,
        shapes="matrix",
        at_defaults=False,
    ),
    _row(
        "soap",
        "pytorch_optimizer:SOAP",
        values={"weight_decay": 0.01},
        stress=_BOTH,
        stressed=_BOTH,
        off=5.9e-03,
        steps="group",
        shapes="square",
        note=(
            "QR in float32, and the decay shrinks the parameter after the step and not before"
            " (6e-3)"
        ),
    ),
    _row(
        "schedulefree_sgd",
        "pytorch_optimizer:ScheduleFreeSGD",
        stress=_DECAY,
        stressed=_DECAY,
        off=6.2e-15,
        steps="group",
    ),
    _row(
        "schedulefree_adamw",
        "pytorch_optimizer:ScheduleFreeAdamW",
        stress=_BOTH,
        stressed=_BOTH,
        off=1.3e-14,
        steps="group",
    ),
)

_row = partial(Dialect, library="schedulefree", steps="group")
_SCHEDULEFREE = (
    _row(
        "schedulefree_sgd",
        "schedulefree:SGDScheduleFree",
        stress={"warmup_steps": 20, "r": 0.5, "weight_decay": 0.1},
        stressed={"warmup_steps": 20.0, "r": 0.5, "weight_decay": 0.1},
        off=5.1e-15,
    ),
    _row(
        "schedulefree_adamw",
        "schedulefree:AdamWScheduleFree",
        stress={"warmup_steps": 20, "weight_decay": 0.1, "eps": 0.1},
        stressed={"warmup_steps": 20.0, "weight_decay": 0.1, "eps": 0.1},
        off=1.3e-14,
    ),
)

_row = partial(Dialect, library="prodigyopt", steps="group")
_PRODIGYOPT = (
    _row(
        "prodigy",
        "prodigyopt:Prodigy",
        stress={
            "d0": 0.001,
            "use_bias_correction": True,
            "safeguard_warmup": True,
            "growth_rate": 1.02,
            "weight_decay": 0.01,
            "eps": 0.1,
        },
        stressed={
            "d0": 0.001,
            "use_bias_correction": True,
            "safeguard_warmup": True,
            "growth_rate": 1.02,
            "weight_decay": 0.01,
            "eps": 0.1,
        },
        off=2.5e-13,
        at_defaults=False,
    ),
)

_row = partial(Dialect, library="lion-pytorch")
_LION_PYTORCH = (_row("lion", "lion_pytorch:Lion", stress=_DECAY, stressed=_DECAY, off=1.5e-15),)

_row = partial(Dialect, library="torch-optimi")
_TORCH_OPTIMI = (
    _row(
        "adamw",
        "optimi:AdamW",
        values={"beta2": 0.99, "eps": 1e-06, "weight_decay": 0.01},
        stress=_BOTH,
        stressed=_BOTH,
        off=5.2e-15,
        steps="group",
    ),
    _row(
        "adam",
        "optimi:Adam",
        values={"beta2": 0.99, "eps": 1e-06},
        stress=_BOTH,
        stressed=_BOTH,
        off=1.5e-15,
        steps="group",
    ),
    _row(
        "radam",
        "optimi:RAdam",
        values={"beta2": 0.99, "eps": 1e-06, "eps_mode": "outside"},
        stress=_BOTH,
        stressed=_BOTH,
        off=2.3e-15,
        steps="group",
    ),
    _row(
        "adan",
        "optimi:Adan",
        values={"eps": 1e-06, "weight_decay": 0.02},
        stress=_BOTH,
        stressed=_BOTH,
        off=2.6e-14,
        steps="group",
    ),
    _row("lion", "optimi:Lion", stress=_DECAY, stressed=_DECAY, off=1.5e-15),
)

_row = partial(Dialect, library="transformers")
_TRANSFORMERS = (
    _row(
        "adafactor",
        "transformers.optimization:Adafactor",
        values={"eps_mode": "added", "eps1": 1e-30, "rate": "scaled", "decay": "relative"},
        stress={"relative_step": False, "beta1": 0.9, "weight_decay": 0.1},
        stressed={"beta1": 0.9, "weight_decay": 0.1},
        off=6.9e-15,
        at_defaults=False,
        note="with relative_step=False; relative_step=True is rate='relative' with lr=0.01",
    ),
)

PACKAGES: tuple[Dialect, ...] = (
    *_TIMM,
    *_PYTORCH_OPTIMIZER,
    *_SCHEDULEFREE,
    *_PRODIGYOPT,
    *_LION_PYTORCH,
    *_TORCH_OPTIMI,
    *_TRANSFORMERS,
)
