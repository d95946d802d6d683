"""Schedules that only fall (after the warmup)."""

# ruff: noqa: D417  (`run` is handed over by the decorator; callers never see it)

from __future__ import annotations

import math

from steepest.errors import InputError
from steepest.schedules._schedule import Multiplier, Run, half_wave, schedule

__all__ = [
    "constant",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "linear",
    "polynomial",
    "step",
    "wsd",
]


@schedule
def constant(run: Run) -> Multiplier:
    """The base learning rate throughout: m = 1.

    >>> constant(warmup=4)(1, 100), constant(warmup=4)(50, 100)
    (0.25, 1.0)
    """
    return lambda s: 1.0


@schedule
def step(
    run: Run,
    *,
    every: float | None = None,
    milestones: tuple[float, ...] | None = None,
    gamma: float = 0.1,
) -> Multiplier:
    r"""Falls by a factor at the milestones, or every so many steps.

    .. math:: m(s) = \gamma^{\#\{i : M_i \le s\}} \quad\text{or}\quad \gamma^{\lfloor s/E \rfloor}

    Milestones and multiples of ``every`` are counted from the start of the run, warmup included.
    As `torch.optim.lr_scheduler.MultiStepLR` and `StepLR`.

    Args:
        every: E, in steps or as a fraction of the run. With neither of the two: a third.
        milestones: M, in steps or as fractions of the run.
        gamma: The factor.

    >>> [round(step(every=30)(s, 90), 4) for s in (0, 29, 30, 89)]
    [1.0, 1.0, 0.1, 0.01]
    >>> step(milestones=[0.5, 0.75], gamma=0.5)(60, 100)
    0.5
    """
    whole = Run(run.total, 0, run.owner)
    if milestones is not None:
        at = sorted(whole.length("a milestone", milestone) for milestone in milestones)
        return lambda s: gamma ** sum(m <= s + 1e-9 for m in at)
    period = whole.length("every", every if every is not None else 1 / 3)
    return lambda s: gamma ** math.floor(min(s, run.total - 1) / period + 1e-9)


@schedule
def linear(run: Run, *, final: float = 0.0) -> Multiplier:
    r"""A straight line to ``final`` at the end.

    .. math:: m(s) = 1 - (1 - f)\,\frac{s - W}{T - W}

    As Hugging Face's ``get_linear_schedule_with_warmup``.

    Args:
        final: f, the multiplier at the end.
    """
    return lambda s: 1 - (1 - final) * run.progress(s)


@schedule
def cosine(run: Run, *, final: float = 0.0) -> Multiplier:
    r"""Half a cosine wave to ``final`` at the end.

    .. math:: m(s) = f + \tfrac{1 - f}{2}\Big(1 + \cos \pi \frac{s - W}{T - W}\Big)

    Loshchilov & Hutter, arXiv:1608.03983, without restarts; as
    `torch.optim.lr_scheduler.CosineAnnealingLR` and Hugging Face's
    ``get_cosine_schedule_with_warmup``.

    Args:
        final: f, the multiplier at the end.
    """
    return lambda s: half_wave(run.progress(s), final)


@schedule
def inverse_sqrt(run: Run, *, timescale: int | None = None) -> Multiplier:
    r"""Falls with the square root of the step, whatever the length of the run.

    .. math:: m(s) = \sqrt{\frac{\tau}{s - W + \tau}}

    Vaswani et al., arXiv:1706.03762 (there τ = W, so that :math:`m = \sqrt{W/s}`); as Hugging
    Face's ``get_inverse_sqrt_schedule``.

    Args:
        timescale: τ in steps; without it the length of the warmup, or 10,000 without a warmup.

    >>> inverse_sqrt(warmup=100)(400, 1000)
    0.5
    """
    tau = timescale or run.warmup or 10_000
    return lambda s: math.sqrt(tau / (s - run.warmup + tau))


@schedule
def exponential(run: Run, *, final: float | None = None, gamma: float | None = None) -> Multiplier:
    r"""Falls by the same factor in every step.

    .. math:: m(s) = f^{(s - W)/(T - W)} \quad\text{or}\quad \gamma^{s - W}

    As `torch.optim.lr_scheduler.ExponentialLR` stepped once per step.

    Args:
        final: f > 0, the multiplier at the end. With neither of the two: 0.01.
        gamma: The factor per step.

    >>> round(exponential(final=0.01)(50, 100), 6)
    0.1
    """
    if gamma is not None:
        return lambda s: math.pow(gamma, s - run.warmup)
    end = 0.01 if final is None else final
    return lambda s: math.pow(end, run.progress(s))


@schedule
def polynomial(run: Run, *, power: float = 1.0, final: float = 0.0) -> Multiplier:
    r"""A power of the part of the run that is left.

    .. math:: m(s) = f + (1 - f)\Big(1 - \frac{s - W}{T - W}\Big)^p

    As `torch.optim.lr_scheduler.PolynomialLR` (f = 0) and Hugging Face's
    ``get_polynomial_decay_schedule_with_warmup``.

    Args:
        power: p > 0; 1 is `linear`.
        final: f, the multiplier at the end.
    """
    return lambda s: final + (1 - final) * math.pow(1 - run.progress(s), power)


@schedule
def wsd(run: Run, *, decay: float = 0.2, final: float = 0.0, shape: str = "linear") -> Multiplier:
    r"""Warmup, stable, decay: the base learning rate until the last D steps, then down.

    .. math:: m(s) = f + (1 - f)\; h\Big(\frac{s - (T - D)}{D}\Big)

    with h(x) = 1 - x (``linear``), half a cosine wave (``cosine``) or :math:`1 - \sqrt x`
    (``sqrt``). Hu et al., arXiv:2404.06395; Hägele et al., arXiv:2405.18392 (``sqrt``, D = 0.2 T).

    Args:
        decay: D, in steps or as a fraction of the run.
        final: f, the multiplier at the end.
        shape: ``linear``, ``cosine`` or ``sqrt``.

    >>> [wsd(decay=0.5)(s, 8) for s in (0, 4, 6, 8)]
    [1.0, 1.0, 0.5, 0.0]
    """
    steps = run.steps(decay)
    if steps < 1 or steps > run.rest:
        raise InputError(
            f"{run.owner}: a decay of {steps} steps does not fit into what the warmup of "
            f"{run.warmup} leaves of {run.total} steps; give between 1 and {run.rest} steps"
        )

    def multiplier(s: int) -> float:
        x = max(0.0, (s - (run.total - steps)) / steps)
        if shape == "cosine":
            return half_wave(x, final)
        return final + (1 - final) * (1 - (math.sqrt(x) if shape == "sqrt" else x))

    return multiplier
