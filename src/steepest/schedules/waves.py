"""Schedules that rise again."""

# ruff: noqa: D417  (`run` is handed over by the decorator; callers never see it)

from __future__ import annotations

import math

from steepest.errors import InputError
from steepest.schedules._schedule import Multiplier, Run, half_wave, schedule

__all__ = ["cosine_restarts", "cyclic", "one_cycle"]


@schedule
def one_cycle(
    run: Run,
    *,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    anneal: str = "cos",
) -> Multiplier:
    r"""Up to the base learning rate and down to almost nothing, once.

    From 1/D up to 1 at step :math:`s_1 = p\,(T - W) - 1` after the warmup, and down to 1/(D F) at
    the last step, along half waves of a cosine or straight lines. Smith & Topin,
    arXiv:1708.07120, in the two-phase form of `torch.optim.lr_scheduler.OneCycleLR`, whose
    ``max_lr`` is the base learning rate here.

    Args:
        pct_start: p, the part of the cycle that rises.
        div_factor: D > 0: the cycle starts at 1/D.
        final_div_factor: F > 0: it ends at 1/(D F).
        anneal: ``cos`` or ``linear``.

    >>> [round(one_cycle()(s, 100), 3) for s in (0, 29, 99)]
    [0.04, 1.0, 0.0]
    """
    top, last = pct_start * run.rest - 1, run.rest - 1
    if not 0 < top < last:
        raise InputError(
            f"{run.owner}: pct_start={pct_start:g} of {run.rest} steps leaves no step to rise or "
            "to fall; train longer, or choose it between 0.1 and 0.9"
        )
    start, end = 1 / div_factor, 1 / (div_factor * final_div_factor)

    def between(low: float, high: float, share: float) -> float:
        if anneal == "cos":
            return low + (high - low) * (1 - half_wave(share, 0.0))
        return low + (high - low) * share

    def multiplier(s: int) -> float:
        u = min(s - run.warmup, last)
        if u <= top:
            return between(start, 1.0, u / top)
        return between(1.0, end, (u - top) / (last - top))

    return multiplier


@schedule
def cyclic(
    run: Run,
    *,
    period: float = 0.25,
    low: float = 0.1,
    rise: float = 0.5,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Multiplier:
    r"""Triangles between ``low`` and 1.

    With u = s - W, cycle number :math:`c = \lfloor u/P \rfloor` and :math:`x = u/P - c`,

    .. math:: m(s) = l + (1 - l)\; a \;\min\Big(\frac{x}{r}, \frac{1 - x}{1 - r}\Big)

    where a = 1 (``triangular``), :math:`2^{-c}` (``triangular2``) or :math:`\gamma^u`
    (``exp_range``). Smith, arXiv:1506.01186; as `torch.optim.lr_scheduler.CyclicLR`, whose
    ``max_lr`` is the base learning rate here.

    Args:
        period: P, in steps or as a fraction of what follows the warmup.
        low: l, the multiplier at the feet.
        rise: r, the part of a period that rises.
        mode: ``triangular``, ``triangular2`` or ``exp_range``.
        gamma: Factor per step of ``exp_range``.

    >>> [cyclic(period=4, low=0.5)(s, 8) for s in range(5)]
    [0.5, 0.75, 1.0, 0.75, 0.5]
    """
    steps = run.length("period", period)

    def multiplier(s: int) -> float:
        u = s - run.warmup
        cycle = math.floor(u / steps + 1e-9)
        x = max(u / steps - cycle, 0.0)
        height = min(x / rise, (1 - x) / (1 - rise)) if rise < 1 else x
        if mode == "triangular2":
            height /= 2.0**cycle
        elif mode == "exp_range":
            height *= math.pow(gamma, u)
        return low + (1 - low) * height

    return multiplier


@schedule
def cosine_restarts(
    run: Run, *, period: float = 0.25, mult: float = 1.0, final: float = 0.0
) -> Multiplier:
    r"""Half cosine waves that start again at 1: SGDR.

    .. math:: m(s) = f + \tfrac{1 - f}{2}\Big(1 + \cos \pi \frac{u_i}{P_i}\Big), \qquad
        P_i = P\,\mu^i

    with :math:`u_i` the steps since the last restart. Loshchilov & Hutter, arXiv:1608.03983; as
    `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`; with ``period=1/n`` Hugging Face's
    ``get_cosine_with_hard_restarts_schedule_with_warmup``. The end of the run is not a restart.

    Args:
        period: P, length of the first wave, in steps or as a fraction of what follows the warmup.
        mult: μ >= 1: each wave is longer than the one before by this factor.
        final: f, the multiplier at the end of each wave.

    >>> [round(cosine_restarts(period=2)(s, 4), 3) for s in range(5)]
    [1.0, 0.5, 1.0, 0.5, 0.0]
    """
    first = run.length("period", period)

    def multiplier(s: int) -> float:
        u, length = float(s - run.warmup), first
        if mult == 1:
            waves = math.floor(u / length + 1e-9)
            waves -= s == run.total and waves * length >= u - 1e-6
            u -= waves * length
        else:
            while u >= length - 1e-6 and not (s == run.total and u <= length + 1e-6):
                u, length = u - length, length * mult
        return half_wave(max(u, 0.0) / length, final)

    return multiplier
