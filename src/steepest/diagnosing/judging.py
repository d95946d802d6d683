"""From what was measured to what is said.

A run that blew up or that never learned gets that one finding: whatever else its curves show is
a consequence of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from steepest.diagnosing.curves import Curves
from steepest.diagnosing.findings import Finding, Kind, RunDiagnosis, Span
from steepest.diagnosing.measures import Flatness, Gain, Measures, measure
from steepest.diagnosing.thresholds import THRESHOLDS, Thresholds
from steepest.numbers import amount, significant

__all__ = ["judge"]

NO_RATE = "the learning rate is not in the record (lr='constant' says that it never changed)"
FEWEST = 10  # values of a curve below which only a blow-up can be told


def judge(curves: Curves, *, thresholds: Thresholds = THRESHOLDS) -> RunDiagnosis:
    """What the curves of one run say.

    >>> import numpy as np
    >>> from steepest.diagnosing.curves import Series
    >>> at = np.arange(1, 401)
    >>> judge(Curves(name="r", train_loss=Series(at, np.full(400, 2.3)))).kinds
    ('never_learning',)
    """
    m, t = measure(curves), thresholds
    blown = _exploding(curves, m, t)
    if blown is not None:
        return RunDiagnosis(curves, (blown,), {})
    if m.points < FEWEST:
        reason = f"the curve has {amount(m.points, 'value')}; {FEWEST} are needed"
        return RunDiagnosis(curves, (), dict.fromkeys(_CHECKS, reason))
    stuck = _never_learning(curves, m, t)
    if stuck is not None:
        return RunDiagnosis(curves, (stuck,), {})
    found: dict[Kind, Finding] = {}
    unchecked: dict[Kind, str] = {}
    for kind, check in _CHECKS.items():
        said = check(curves, m, t)
        if isinstance(said, Finding):
            found[kind] = said
        elif isinstance(said, str):
            unchecked[kind] = said
    for kind, stronger in _ANSWERED_BY.items():
        if any(other in found for other in stronger):
            found.pop(kind, None)
    return RunDiagnosis(curves, tuple(found.values()), unchecked)


Said = Finding | str | None  # found, why it could not be looked for, or not there


def _exploding(curves: Curves, m: Measures, t: Thresholds) -> Finding | None:
    advice = (
        "Lower the learning rate by 3 to 10 (steepest sweep shows where the edge is), add a "
        "warmup, or clip the gradient's norm; look for overflow where the numbers are 16-bit."
    )
    if math.isfinite(m.rise.first_not_finite):
        at = m.rise.first_not_finite
        return Finding(
            "exploding",
            f"The loss is not a number from {_at(curves, at)} on.",
            advice,
            {"first_not_finite": at},
            (Span(at, at, "not finite"),),
        )
    if m.rise.peak > t.peak and m.rise.peak_errors > t.peak_errors:
        at = m.rise.peak_at
        return Finding(
            "exploding",
            f"The loss rises to {significant(m.rise.peak)} times {_yard(curves)} at "
            f"{_at(curves, at)}; it began at {significant(m.start)}.",
            advice,
            {"peak": m.rise.peak},
            (Span(at, at, "blows up"),),
        )
    if m.rise.back > t.lost_again and m.descent > t.learned * m.yard:
        at = m.rise.back_at
        return Finding(
            "exploding",
            f"At {_at(curves, at)} the loss climbs back over {m.rise.back:.0%} of all that it had "
            "gained.",
            advice,
            {"lost_again": m.rise.back},
            (Span(at, at, "climbs back"),),
        )
    return None


def _never_learning(curves: Curves, m: Measures, t: Thresholds) -> Finding | None:
    if not m.fall < t.learned:
        return None
    rates = curves.lr
    zero = rates is not None and len(rates) > 0 and not (rates.values > 0).any()
    advice = (
        "The learning rate is 0: check the schedule."
        if zero
        else "Check in this order: does the optimizer hold the model's parameters, and is its rate "
        "not far too small (or so large that all units died at once)? Do gradients reach the "
        "first layer, or are units dead or frozen (initialisation, biases, saturated "
        "activations)? Do the targets belong to their inputs, and are the inputs scaled?"
    )
    first = curves.main.at
    return Finding(
        "never_learning",
        f"From {significant(m.start)} the loss gains {_part(m.fall)} of {_yard(curves)} in "
        f"{significant(curves.end)} {curves.unit}s.",
        advice,
        {"fall": m.fall},
        (Span(float(first[0]), curves.end, "no progress"),),
    )


def _slow_start(curves: Curves, m: Measures, t: Thresholds) -> Said:
    if m.points < 30:
        return f"it needs 30 values of the loss; there are {m.points}"
    if not m.start_known:
        return "the record does not reach back to the first steps"
    flat = m.slow_bend <= t.slow_bend and m.slow_bend_high <= t.straight
    if not (m.slow_share >= t.slow_share and flat):
        return None
    if m.slow_rate < t.rate_up:  # false where the rate is not known
        return None
    if m.descent < 0.1 * m.yard:
        return None
    at = m.slow.at
    doubt = (
        f" (between {significant(m.slow.low)} and {significant(m.slow.high)})"
        if m.slow.high > m.slow.low
        else ""
    )
    return Finding(
        "slow_start",
        f"The loss stays near {significant(m.start)} until {_at(curves, at)}{doubt}, "
        f"{m.slow_share:.0%} of the run, and falls then.",
        "A prime suspect is the initialisation: weights too small, or units that start saturated. "
        "Use the one that belongs to the activation (He for ReLU, Glorot for tanh), normalise "
        "inputs and layers, or start the last layer at the log-frequencies of the classes."
        + ("" if curves.lr is not None else " A long warmup of the rate looks the same."),
        {"share": m.slow_share, "bend": m.slow_bend},
        (Span(float(curves.main.at[0]), at, "flat at first"),),
    )


def _plateau(curves: Curves, m: Measures, t: Thresholds) -> Said:
    if curves.lr is None:
        return NO_RATE
    if m.rate_left < t.rate_kept:
        return None
    flat, where = _end_flatness(curves, m)
    if math.isnan(flat.fall):
        return "it needs 8 values of the loss"
    if not (flat.high <= t.flat and m.level > t.converged) or _goes_on(curves, m, t):
        return None
    return Finding(
        "plateau",
        f"Since {_at(curves, flat.since)} the {where} loss stays where it is, at "
        f"{m.rate_left:.0%} of the largest rate: over the second half it fell by "
        f"{_part(flat.fall)} of its level (at most {_part(flat.high)}).",
        "Lower the learning rate (divide it by 5 to 10 here, or use cosine or linear "
        "decay over the whole run): what is left is mostly the noise of the steps.",
        {"fall": flat.fall, "fall_high": flat.high, "rate_left": m.rate_left},
        (Span(flat.since, curves.end, "plateau"),),
    )


def _decayed_too_early(curves: Curves, m: Measures, t: Thresholds) -> Said:
    if curves.lr is None:
        return NO_RATE
    d = m.decay
    if not (d.share <= t.decay_share and d.predicted_low >= t.promise and d.kept <= t.kept):
        return None
    return Finding(
        "decayed_too_early",
        f"At {_at(curves, d.at)} ({d.share:.0%} of the run) the rate fell to "
        f"{_part(d.factor)} of its largest value while the loss was still falling: the trend "
        f"promised {_part(d.predicted)} of the level there, and {_part(max(0.0, d.kept))} of that "
        "came.",
        "Keep the rate up for longer and lower it where the loss has become flat, or spread the "
        "decay over the whole run.",
        {"share": d.share, "promised": d.predicted, "kept": d.kept, "factor": d.factor},
        (Span(d.at, d.at, "rate lowered"), Span(d.at, curves.end, "hardly moves")),
    )


def _still_improving(curves: Curves, m: Measures, t: Thresholds) -> Said:
    if curves.lr is None:
        return NO_RATE
    if m.rate_left < t.rate_kept:
        return None  # the schedule is over: its end says nothing about more steps at a rate
    gain, which = _end_gain(curves, m)
    if math.isnan(gain.mean):
        return "it needs 5 values in the second half of the run"
    if not (gain.low >= t.gain):
        return None
    return Finding(
        "still_improving",
        f"The {which} loss still falls at the end: at this pace half as many {curves.unit}s again "
        f"would bring {_part(gain.mean)} of its level (at least {_part(gain.low)}).",
        "Train longer, or raise the learning rate if the loss has been falling this slowly from "
        "the start; compare optimizers only after that.",
        {"gain": gain.mean, "gain_low": gain.low},
        (Span(gain.since, curves.end, "still falling"),),
    )


def _overfitting(curves: Curves, m: Measures, t: Thresholds) -> Said:
    reason = _no_pair(curves, m)
    if reason:
        return reason
    wide = m.gap >= t.gap
    rising = m.val_rise >= t.rise and m.val_rise_errors >= t.rise_errors and m.gap >= t.rise_gap
    if not (wide or rising):
        return None
    text = (
        f"At the end the validation loss is {significant(m.val_final)}, the training loss "
        f"{significant(m.final)}: a gap of {_part(m.gap)} of all that training gained."
    )
    spans: tuple[Span, ...] = (Span(0.9 * curves.end, curves.end, "gap"),)
    if rising:
        text += (
            f" The validation loss was lowest at {_at(curves, m.val_best)} and has risen by "
            f"{_part(m.val_rise)} since ({significant(m.val_rise_errors)} standard errors)."
        )
        spans = (Span(m.val_best, curves.end, "validation loss rises"),)
    return Finding(
        "overfitting",
        text,
        "Regularise more (weight decay, dropout, augmentation, label smoothing), get more data, "
        "use a smaller model"
        + (f", or stop at {_at(curves, m.val_best)} (early stopping)." if rising else ".")
        + (_accuracy_note(curves, m) if rising else ""),
        {"gap": m.gap, "rise": m.val_rise, "rise_errors": m.val_rise_errors},
        spans,
    )


def _underfitting(curves: Curves, m: Measures, t: Thresholds) -> Said:
    reason = _no_pair(curves, m)
    if reason:
        return reason
    if not m.start_known:
        return "the record begins after the start, so there is no yardstick; give a baseline"
    if not (m.gap <= t.no_gap and m.level > t.level) or _goes_on(curves, m, t):
        return None
    return Finding(
        "underfitting",
        f"Training loss {significant(m.final)} and validation loss {significant(m.val_final)} are "
        f"alike, and still {_part(m.level)} of {_yard(curves)}.",
        "There is room: a larger model, less regularisation, better features or a better rate. If "
        "the targets themselves are noisy, this may be all that there is to learn.",
        {"gap": m.gap, "level": m.level},
        (Span(0.9 * curves.end, curves.end, "no gap"),),
    )


def _noise(curves: Curves, m: Measures, t: Thresholds) -> Said:
    if math.isnan(m.noise):
        return "it needs three values in the second half of the run"
    batches, evaluations = m.noise >= t.noise, m.val_noise >= t.val_noise
    if not (batches or evaluations):
        return None
    which = "Training" if curves.train_loss is not None else "Validation"
    text = (
        f"{which} losses jump by {_part(m.noise)} of all that training gained from one value to "
        "the next"
        if batches
        else f"The validation loss jumps by {_part(m.val_noise)} of all that training gained from "
        "one evaluation to the next"
    )
    middle = (float(curves.main.at[0]) + curves.end) / 2
    return Finding(
        "noise",
        f"{text} (standard deviation in the second half).",
        "Take larger batches (or accumulate gradients), or lower the learning rate; judge the run "
        "by a moving average, and its end by averaged weights.",
        {"noise": m.noise, "val_noise": m.val_noise},
        (Span(middle, curves.end, "noise"),),
    )


_CHECKS: dict[Kind, Callable[[Curves, Measures, Thresholds], Said]] = {
    "slow_start": _slow_start,
    "plateau": _plateau,
    "decayed_too_early": _decayed_too_early,
    "still_improving": _still_improving,
    "overfitting": _overfitting,
    "underfitting": _underfitting,
    "noise": _noise,
}
# What a finding would say is said by another one already, which is to be mended first.
_ANSWERED_BY: dict[Kind, tuple[Kind, ...]] = {
    "plateau": ("still_improving", "overfitting"),
    "still_improving": ("overfitting",),
    "underfitting": ("plateau", "still_improving", "overfitting", "decayed_too_early"),
}


def _end_gain(curves: Curves, m: Measures) -> tuple[Gain, str]:
    """Of the validation loss where it can be told, else of the training loss."""
    if math.isfinite(m.val_gain.mean):
        return m.val_gain, "validation"
    return m.gain, "training" if curves.train_loss is not None else "validation"


def _goes_on(curves: Curves, m: Measures, t: Thresholds) -> bool:
    """More steps at this rate would bring something, as far as one can see."""
    gain = _end_gain(curves, m)[0]
    return gain.mean >= t.gain and gain.low > 0 and not m.rate_left < t.rate_kept


def _end_flatness(curves: Curves, m: Measures) -> tuple[Flatness, str]:
    """Of the validation loss where it can be told, else of the training loss."""
    if (
        math.isfinite(m.val_flat.fall)
        and m.val_flat.high - m.val_flat.low < m.flat.high - m.flat.low
    ):
        return m.val_flat, "validation"
    return m.flat, "training" if curves.train_loss is not None else "validation"


def _no_pair(curves: Curves, m: Measures) -> str:
    if curves.train_loss is None:
        return "there is no training loss"
    if m.val_points < 1:
        return "there is no validation loss"
    return "" if math.isfinite(m.gap) else "the training loss never fell"


def _accuracy_note(curves: Curves, m: Measures) -> str:
    """Where the metric goes on improving, a rising loss is overconfidence."""
    for name, series in curves.metrics.items():
        if "val" not in name or "acc" not in name or len(series) < 5:
            continue
        then = series.values[(abs(series.at - m.val_best)).argmin()]
        if math.isfinite(m.val_best) and series.values[-1] > then:
            return (
                f" {name} has risen since then, from {significant(float(then))} to "
                f"{significant(float(series.values[-1]))}: the model is overconfident rather than "
                "worse; label smoothing or temperature scaling help."
            )
    return ""


def _at(curves: Curves, position: float) -> str:
    return f"{curves.unit} {significant(position)}"


def _yard(curves: Curves) -> str:
    return "the baseline" if curves.baseline is not None else "the loss at the start"


def _part(share: float) -> str:
    """A part in per cent.

    >>> _part(0.1234), _part(0.00123), _part(3.2)
    ('12 %', '0.12 %', '320 %')
    """
    return f"{significant(100 * share, 2)} %"
