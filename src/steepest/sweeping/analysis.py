r"""What a range test says: where training stops being stable, and where it learns the fastest.

    R     learning rates, rising         u  their logarithms to base 10
    S     seeds
    N     steps of every run
    y_RS  end loss of a run: the mean of the losses of its last fifth of the steps

**Edge of stability.** A run is unstable if its loss stops being finite, or if its end loss lies
above its start by more than the noise of such means allows: three standard errors, from how much
the losses of the slowest run move between neighbouring steps. The edge of a seed lies between its
highest stable rate and the next higher one; the edge is the geometric mean over seeds, with
Student's interval of the logarithms, widened by what the spacing of the rates leaves open.

**Suggestion.** The rate at which the end loss falls the fastest over u: the lowest point of the
slope of a locally quadratic fit of the mean over seeds (tricube weights; Cleveland 1979,
doi:10.1080/01621459.1979.10481038), over the rates that are stable with most seeds. Its interval
is that of the same over curves drawn again: seeds with replacement, and what a smooth curve leaves
over of every run with a random sign (Wu 1986, doi:10.1214/aos/1176350142).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from steepest.errors import InputError

__all__ = [
    "Edge",
    "Findings",
    "Suggestion",
    "analyse",
    "bracket",
    "edge_of",
    "end_losses",
    "local_fit",
    "noise_of_ends",
    "notes_of",
    "suggest",
    "unstable_runs",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_SHARE = 0.2  # of the steps at a run's end whose losses are averaged
_BANDWIDTH = 0.55  # decades on either side that a local fit looks at
_DRAWS = 400  # of the bootstrap
_SEED = 20260701
_CLEAR, _ROUGH = 4.0, 16.0  # widths of the suggestion's interval, upper end over lower end


@dataclass(frozen=True)
class Edge:
    """The edge of stability.

    Attributes:
        value: The rate; None where it was not met.
        low: Lower end of its interval.
        high: Upper end.
        per_seed: Of every seed; infinite where its highest rate was stable, 0 where none was.
        said: ``found``; ``above`` the highest rate that was tried; ``below`` the lowest.
    """

    value: float | None
    low: float
    high: float
    per_seed: tuple[float, ...]
    said: Literal["found", "above", "below"]


@dataclass(frozen=True)
class Suggestion:
    """The rate to begin with.

    Attributes:
        value: Where the loss falls the fastest; None where nothing falls.
        low: Lower end of its interval.
        high: Upper end.
        sure: ``clear``, ``rough`` or ``vague``: the interval spans at most a factor of 4, of 16,
            or more; ``none`` without a value.
        reason: Why there is none.
    """

    value: float | None
    low: float = math.nan
    high: float = math.nan
    sure: Literal["clear", "rough", "vague", "none"] = "none"
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Findings:
    """All of it.

    Attributes:
        rates: ``[R]``.
        ends: ``[R, S]``, infinite for runs that diverged.
        start: ``[S]``: the loss before the first step.
        unstable: ``[R, S]``.
        noise: Standard error of an end loss.
        grid: ``[G]``: rates at which the fit is known.
        fit: ``[G]``: the smoothed mean end loss.
        slope: ``[G]``: its fall per decade of the rate.
        edge: The edge of stability.
        suggestion: The rate to begin with.
        level: Of the intervals.
        notes: What to know before believing it.
    """

    rates: Floats = field(repr=False)
    ends: Floats = field(repr=False)
    start: Floats = field(repr=False)
    unstable: Bools = field(repr=False)
    noise: float
    grid: Floats = field(repr=False)
    fit: Floats = field(repr=False)
    slope: Floats = field(repr=False)
    edge: Edge
    suggestion: Suggestion
    level: float
    notes: tuple[str, ...] = ()

    @property
    def lowest(self) -> float | None:
        """The rate at which the fit is the lowest; None where nothing was learned."""
        if self.suggestion.value is None:
            return None
        return float(self.grid[int(np.argmin(self.fit))])


def end_losses(losses_RSN: npt.ArrayLike) -> Floats:
    """The mean of the last fifth of the losses of every run; infinite where one is not finite.

    >>> end_losses([[[4.0, 3.0, 2.0, 1.0, 0.5]]])
    array([[0.5]])
    """
    losses = np.asarray(losses_RSN, float)
    count = max(1, int(_SHARE * losses.shape[-1]))
    finite = np.isfinite(losses).all(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        ends = losses[..., -count:].mean(-1)
    return np.where(finite & np.isfinite(ends), ends, np.inf)


def noise_of_ends(losses_RSN: npt.ArrayLike) -> float:
    """Standard error of an end loss, from what the slowest runs do between neighbouring steps.

    Half the mean square of successive differences estimates a variance without being moved by a
    trend (von Neumann 1941).
    """
    losses = np.asarray(losses_RSN, float)
    finite = losses[np.isfinite(losses).all((-1, -2))]
    if not len(finite) or losses.shape[-1] < 3:
        return 0.0
    slowest = finite[0]
    variance = float(0.5 * np.mean(np.diff(slowest, axis=-1) ** 2))
    return math.sqrt(variance / max(1, int(_SHARE * losses.shape[-1])))


def unstable_runs(ends_RS: Floats, start_S: Floats, noise: float) -> Bools:
    """Which runs diverged or ended above where they started, by more than noise."""
    # the start is one batch, the end a mean of several: both vary
    return ~(ends_RS <= start_S + 3 * noise + 1e-9 * np.abs(start_S))


def bracket(rates: Floats, unstable_RS: Bools) -> tuple[float, float] | None:
    """The lowest and highest rate between which the edges of all seeds lie, if they do."""
    highest = _highest_stable(unstable_RS)
    if (highest < 0).any() or (highest == len(rates) - 1).any():
        return None
    return float(rates[highest.min()]), float(rates[highest.max() + 1])


def _highest_stable(unstable_RS: Bools) -> npt.NDArray[np.int64]:
    """``[S]``: the index of the highest stable rate; -1 where there is none."""
    R = len(unstable_RS)
    stable = ~unstable_RS
    last: npt.NDArray[np.int64] = R - 1 - np.argmax(stable[::-1], axis=0)
    return np.where(stable.any(0), last, -1)


def edge_of(rates: Floats, unstable_RS: Bools, level: float) -> Edge:
    """The edge of stability, from which runs were unstable."""
    highest = _highest_stable(unstable_RS)
    R = len(rates)
    middle = np.sqrt(rates[np.maximum(highest, 0)] * rates[np.minimum(highest + 1, R - 1)])
    per_seed = np.where(highest < 0, 0.0, np.where(highest == R - 1, np.inf, middle))
    edges = tuple(float(edge) for edge in per_seed)
    if not np.isfinite(per_seed).all():
        return Edge(None, float(rates[-1]), math.inf, edges, "above")
    if (per_seed == 0).any():
        return Edge(None, 0.0, float(rates[0]), edges, "below")
    logs = np.log(per_seed)
    center = float(logs.mean())
    # an edge is known to lie between two rates, evenly anywhere: half of that on either side
    spacing = float(np.mean(np.log(rates[highest + 1] / rates[highest]))) / 2
    half = spacing
    if len(logs) > 1:
        error = float(logs.std(ddof=1)) / math.sqrt(len(logs))
        half += error * float(stats.t.ppf((1 + level) / 2, len(logs) - 1))
    value = math.exp(center)
    return Edge(value, math.exp(center - half), math.exp(center + half), edges, "found")


def local_fit(
    u: Floats, y: Floats, at: Floats, *, bandwidth: float = _BANDWIDTH
) -> tuple[Floats, Floats]:
    """A locally quadratic fit: values and slopes at some places.

    Args:
        u: Places of the data, rising.
        y: The data, in columns where there are several sets.
        at: Where the fit is wanted.
        bandwidth: How far it looks; further where fewer than five points are so near.

    Returns:
        Values and slopes, ``[len(at), …]``.
    """
    values, slopes = _smoother(u, at, bandwidth)
    return values @ y, slopes @ y


def _smoother(u: Floats, at: Floats, bandwidth: float = _BANDWIDTH) -> tuple[Floats, Floats]:
    """The fit is linear in the data: the matrices that give its values and its slopes."""
    values, slopes = [], []
    for place in at:
        distance = np.abs(u - place)
        reach = max(bandwidth, 1.001 * float(np.sort(distance)[min(5, len(u)) - 1]))
        weight = np.clip(1 - (distance / reach) ** 3, 0, None) ** 3
        x = u - place
        # near the ends a parabola swings; a straight line is what the data there can carry
        inside = place - u[0] > reach / 4 and u[-1] - place > reach / 4 and (weight > 0).sum() > 4
        design = np.stack([np.ones_like(x), x, *([x * x] if inside else [])], axis=1)
        root = np.sqrt(weight)
        solved = np.linalg.pinv(design * root[:, None]) * root
        values.append(solved[0])
        slopes.append(solved[1])
    return np.array(values), np.array(slopes)


def _grid(u: Floats) -> Floats:
    """Places between the ends, about twenty to a decade."""
    return np.linspace(u[0], u[-1], max(16, int(20 * (u[-1] - u[0]))))


def _again(u: Floats, y_RS: Floats) -> Floats:
    """The mean curve as it might have come out otherwise, ``[R, draws]``.

    What a seed shifts as a whole is drawn again seed by seed; what is left of every run, with a
    random sign. Both are spread out by what fitting them has taken away.
    """
    S = y_RS.shape[1]
    rng = np.random.default_rng(_SEED)
    mean_R = y_RS.mean(1)
    smooth, _ = _smoother(u, u)
    fitted_R = smooth @ mean_R
    # how much of every point its own fit follows
    left = np.sqrt(1 - np.clip(np.diag(smooth), 0.0, 0.9))[:, None]
    signs = rng.choice([-1.0, 1.0], (_DRAWS, *y_RS.shape))
    if S == 1:
        own_RS = (y_RS - fitted_R[:, None]) / left
        return np.asarray(fitted_R[:, None] + (signs * own_RS).mean(2).T)
    apart_RS = (y_RS - mean_R[:, None]) * math.sqrt(S / (S - 1))
    smooth_RS = smooth @ apart_RS
    own_RS = (apart_RS - smooth_RS) / left
    drawn = rng.integers(0, S, (_DRAWS, S))
    return np.asarray(fitted_R[:, None] + smooth_RS[:, drawn].mean(2) + (signs * own_RS).mean(2).T)


def suggest(
    rates: Floats, ends_RS: Floats, unstable_RS: Bools, start_S: Floats, noise: float, level: float
) -> tuple[Suggestion, Floats, Floats, Floats]:
    """The suggestion with its interval; grid, fit and slope for the picture."""
    S: int = ends_RS.shape[1]
    most = unstable_RS.mean(1) <= 0.5
    upto = len(rates) - int(np.argmax(most[::-1])) if most.any() else 0
    keep = np.arange(len(rates)) < upto
    nothing = np.zeros(0)
    if keep.sum() < 5:
        reason = "fewer than five of the rates were stable; begin with a lower one"
        return Suggestion(None, reason=reason), nothing, nothing, nothing
    u = np.log10(rates[keep])
    # a run that blew up among stable ones counts as one that learned nothing
    y_RS = np.minimum(np.where(np.isfinite(ends_RS), ends_RS, np.inf), start_S)[keep]
    at = _grid(u)
    to_values, to_slopes = _smoother(u, at)
    values, slopes = to_values @ y_RS.mean(1), to_slopes @ y_RS.mean(1)
    best = at[int(np.argmin(slopes))]
    fall = float(start_S.mean() - values.min())
    if fall <= 3 * noise / math.sqrt(S) or slopes.min() >= 0:
        reason = "no rate made the loss fall by more than its noise; give more steps"
        return Suggestion(None, reason=reason), 10**at, values, slopes
    picks = at[np.argmin(to_slopes @ _again(u, y_RS), axis=0)]
    low, high = (float(np.quantile(picks, q)) for q in ((1 - level) / 2, (1 + level) / 2))
    width = 10 ** (high - low)
    sure: Literal["clear", "rough", "vague"] = (
        "clear" if width <= _CLEAR else "rough" if width <= _ROUGH else "vague"
    )
    value = 10 ** float(best)
    return Suggestion(value, 10**low, 10**high, sure), 10**at, values, slopes


def analyse(
    rates: npt.ArrayLike,
    losses_RSN: npt.ArrayLike,
    start_S: npt.ArrayLike,
    *,
    fine_rates: npt.ArrayLike | None = None,
    fine_losses: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> Findings:
    """What a range test at constant rates says.

    Args:
        rates: ``[R]``, rising.
        losses_RSN: Training loss of every step of every run; not-a-number after it diverged.
        start_S: Loss before the first step, by seed.
        fine_rates: Rates between those, around the edge.
        fine_losses: Their runs, ``[F, S, N]``.
        level: Of the intervals.

    Raises:
        InputError: For rates that are not positive and rising, or fewer than five.
    """
    rates_R = np.asarray(rates, float)
    losses, start = np.asarray(losses_RSN, float), np.asarray(start_S, float)
    if rates_R.ndim != 1 or len(rates_R) < 5:
        raise InputError(f"a range test needs at least 5 rates, got {rates_R.size}")
    if not (np.isfinite(rates_R).all() and (rates_R > 0).all() and (np.diff(rates_R) > 0).all()):
        raise InputError("learning rates must be finite, > 0 and rising")
    if losses.shape[:2] != (len(rates_R), len(start)) or losses.ndim != 3:
        raise InputError(
            f"losses must be [rates, seeds, steps] = [{len(rates_R)}, {len(start)}, …], got "
            f"{list(losses.shape)}"
        )
    ends, noise = end_losses(losses), noise_of_ends(losses)
    unstable = unstable_runs(ends, start, noise)
    all_rates, all_unstable = rates_R, unstable
    if fine_rates is not None and fine_losses is not None:
        fine_ends = end_losses(fine_losses)
        all_rates = np.concatenate([rates_R, np.asarray(fine_rates, float)])
        order = np.argsort(all_rates)
        both = np.concatenate([unstable, unstable_runs(fine_ends, start, noise)])
        all_rates, all_unstable = all_rates[order], both[order]
    edge = edge_of(all_rates, all_unstable, level)
    suggestion, grid, fit, slope = suggest(rates_R, ends, unstable, start, noise, level)
    return Findings(
        rates_R,
        ends,
        start,
        unstable,
        noise,
        grid,
        fit,
        slope,
        edge,
        suggestion,
        level,
        notes_of(rates_R, edge, suggestion, len(start)),
    )


def notes_of(rates: Floats, edge: Edge, suggestion: Suggestion, seeds: int) -> tuple[str, ...]:
    """What to know before believing it."""
    notes = []
    if edge.said == "above":
        notes.append(
            "With some seed even the highest rate was stable, so the edge lies above it; give a "
            "wider range to find it."
        )
    if edge.said == "below":
        notes.append("With some seed no rate was stable; give lower rates.")
    if suggestion.value is None:
        notes.append(f"There is no suggestion: {suggestion.reason}.")
    elif suggestion.value < rates[0] * 1.3 or suggestion.value > rates[-1] / 1.3:
        notes.append(
            "The steepest rate lies at an end of the range; the best may lie beyond: widen it."
        )
    if seeds == 1:
        notes.append("One seed: the intervals know nothing of how much starts and batches matter.")
    return tuple(notes)
