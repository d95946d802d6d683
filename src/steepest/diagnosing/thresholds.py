"""Where findings begin: one number each, with what it separates.

All of them were set on one set of training runs (`python benchmarks/diagnose_accuracy.py
--calibrate` prints the distributions on both sides of each) and measured on another, with other
problems and other seeds; ``docs/diagnose.md`` has the rates.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["THRESHOLDS", "Thresholds"]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """See `steepest.diagnosing.measures.Measures` for what is compared.

    Attributes:
        peak: A running median over the yardstick: the loss blew up …
        peak_errors: … if that is more deviations of single values above the start.
        lost_again: Of what had been gained: the loss blew up later.
        learned: Less of the yardstick than this was gained: it never learns.
        slow_share: Part of the run until a fifth of the descent is done: slow at first …
        slow_bend: … of which at most this part had come in half that time: it was flat …
        straight: … and less than this for sure, which a straight line has.
        rate_up: Part of the largest rate at that time; below it, a warmup explains it.
        flat: Largest fall over the second half, as a part of the level, that is called flat.
        rate_kept: Rate at the end over the largest one, above which it counts as unlowered.
        converged: Below this part of the yardstick a plateau is the end of the road.
        promise: Fall that the trend before a decay promised, as a part of the level …
        kept: … of which less than this came: lowered too early.
        decay_share: Later decays than this are not looked at.
        gain: What half as many steps again would bring, as a part of the level.
        gap: Validation minus training loss, as a part of the descent: overfitting.
        rise: Of the validation loss from its lowest value, with the gap below …
        rise_errors: … this many standard errors …
        rise_gap: … and at least this gap.
        no_gap: At most this gap …
        level: … at more than this part of the yardstick: underfitting.
        noise: Deviation of single batches over the descent.
        val_noise: Deviation of single evaluations over the descent.
    """

    peak: float = 4.0
    peak_errors: float = 6.0
    lost_again: float = 0.5
    learned: float = 0.06
    slow_share: float = 0.04
    slow_bend: float = 0.25
    straight: float = 0.45
    rate_up: float = 0.8
    flat: float = 0.25
    rate_kept: float = 0.3
    converged: float = 0.08
    promise: float = 0.1
    kept: float = 0.5
    decay_share: float = 0.4
    gain: float = 0.05
    gap: float = 0.12
    rise: float = 0.05
    rise_errors: float = 4.0
    rise_gap: float = 0.05
    no_gap: float = 0.06
    level: float = 0.14
    noise: float = 0.2
    val_noise: float = 0.1


THRESHOLDS = Thresholds()
