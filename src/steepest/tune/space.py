"""What is searched: ranges and choices of hyperparameters, on the scales that are customary.

d      number of dimensions
unit   a point of the unit cube [0, 1]^d, one coordinate per dimension, in their order
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steepest import rules
from steepest.errors import InputError
from steepest.rules import DOMAINS, Domain
from steepest.values import Choice, Range, Scale, write_value

__all__ = [
    "EDGE_SHARE",
    "Edge",
    "Space",
    "customary_scale",
]

Side = Literal["low", "high"]

EDGE_SHARE = 0.1
"""A value is near the edge of its range in the outermost tenth of it, measured in its scale. A
value that has nothing to do with the result lies there in two searches out of ten."""

_CLOSE = 1 / 2000  # of a range's width: values are the shortest decimals this near to their place
_OTHERS = 3  # fewer others say nothing by lying all on one side
_COUNTS = frozenset({"ns_steps", "precondition_frequency", "update_freq"})  # read with int()
_SYNONYMS = {"learning_rate": "lr", "epsilon": "eps", "betas": "beta1"}  # names in other packages
_PART = re.compile(r"(\w+)\[(\d+)\]")


def customary_scale(name: str, low: float) -> Scale:
    """The scale on which a hyperparameter of that name is searched unless another is written.

    Rates, epsilons and decays: the logarithm. Coefficients of averages, momentum among them: the
    logarithm of 1 - x. Everything else, and every range that begins at exactly 0 on a scale that
    has no 0: linear.

    >>> customary_scale("lr", 1e-4), customary_scale("lr", 0.0), customary_scale("beta1", 0.8)
    ('log', 'linear', 'one_minus_log')
    """
    base = _base(name)
    domain = DOMAINS.get(_SYNONYMS.get(base, base))
    scale = domain.scale if domain else "linear"
    return "linear" if scale == "log" and low == 0 else scale


@dataclass(frozen=True)
class Edge:
    """A value that lies near an end of its range, where a better one may lie beyond.

    Attributes:
        name: Of the hyperparameter.
        side: Of the range.
        value: The value.
        bound: The end.
        outermost: It is not near the end, but nothing beyond it was tried.

    >>> str(Edge("lr", "high", 0.09, 0.1))
    'lr=0.09 is near the high end of its range, 0.1'
    """

    name: str
    side: Side
    value: float
    bound: float
    outermost: bool = False

    def __str__(self) -> str:
        value, bound = write_value(self.value), write_value(self.bound)
        if self.outermost:
            which, to = ("lowest", "down") if self.side == "low" else ("highest", "up")
            return f"{self.name}={value} is the {which} that was tried, in a range {to} to {bound}"
        return f"{self.name}={value} is near the {self.side} end of its range, {bound}"


@dataclass(frozen=True)
class Space:
    """The settings among which an arm's is chosen.

    Attributes:
        dimensions: What is searched, in the order of the unit cube's coordinates. ``betas[0]`` is
            an element of a tuple.
        fixed: What is not.
        rule: The rule that the values are for; its names and domains are then checked, also those
            of the fixed values. None for anybody's class, which checks itself.

    >>> space = Space({"lr": Range(1e-4, 1e-2), "nesterov": Choice((True, False))},
    ...               {"momentum": 0.9}, rule="sgd")
    >>> space.dim, str(space)
    (2, 'lr=0.0001..0.01, nesterov={true, false}, momentum=0.9')
    >>> space.at([0.5, 0.0])
    {'lr': 0.001, 'nesterov': True, 'momentum': 0.9}
    >>> space.position({"lr": 1e-3, "nesterov": True, "momentum": 0.9}).round(6).tolist()
    [0.5, 0.25]
    """

    dimensions: Mapping[str, Range | Choice]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    rule: str | None = None

    def __post_init__(self) -> None:
        settled: dict[str, Range | Choice] = {}
        for name, dimension in self.dimensions.items():
            if name in self.fixed:
                raise InputError(f"{name} is both searched and fixed; leave one of them out")
            if not isinstance(dimension, (Range, Choice)):
                raise InputError(f"{name} must be a Range or a Choice, got {dimension!r}")
            settled[name] = _settled(name, dimension)
        object.__setattr__(self, "dimensions", settled)
        object.__setattr__(self, "fixed", dict(self.fixed))
        if self.rule is not None:
            self._check(rules.get(self.rule))

    def _check(self, rule: rules.Rule) -> None:
        rule.check(self.fixed)
        for name, dimension in self.dimensions.items():
            if isinstance(dimension, Choice):
                ends = dimension.values
            else:
                ends = (dimension.low, dimension.high)
                if name in _COUNTS:
                    raise InputError(
                        f"{rule.name}: {name} counts something, so that a range has values in it "
                        f"that are none; write the choice, {name}={{{ends[0]:g}, {ends[1]:g}}}"
                    )
            for end in ends:
                rule.check({name: end})

    @classmethod
    def of(cls, values: Mapping[str, Any], *, rule: str | None = None) -> Space:
        """The space of an arm's arguments: ranges and choices are searched, all else is fixed.

        >>> space = Space.of({"lr": Range(1e-4, 1e-2), "betas": (Range(0.8, 0.99), 0.999)})
        >>> list(space.dimensions), space.at([1.0, 0.0])
        (['lr', 'betas[0]'], {'lr': 0.01, 'betas': (0.8, 0.999)})
        """
        flat: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, (tuple, list)) and any(map(_is_searched, value)):
                flat |= {f"{name}[{at}]": part for at, part in enumerate(value)}
            else:
                flat[name] = value
        searched = {name: value for name, value in flat.items() if _is_searched(value)}
        return cls(searched, {k: v for k, v in flat.items() if k not in searched}, rule)

    @property
    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.dimensions)

    @property
    def size(self) -> float:
        """How many different settings there are: infinite as soon as there is a range."""
        lengths = [
            len(d.values) if isinstance(d, Choice) else math.inf for d in self.dimensions.values()
        ]
        return math.prod(lengths)

    def at(self, unit: ArrayLike) -> dict[str, Any]:
        """The setting at a point of the unit cube, fixed values included.

        A value is the shortest decimal within 1/2000 of its range of the exact place.

        Args:
            unit: Shape (d,), from 0 to 1.

        Raises:
            InputError: For another shape, or a coordinate outside of [0, 1].
        """
        point = np.asarray(unit, dtype=np.float64)
        if point.shape != (self.dim,) or not ((point >= 0) & (point <= 1)).all():
            raise InputError(f"expected {self.dim} numbers from 0 to 1, got {unit!r}")
        searched = {
            name: _value(dimension, float(u))
            for (name, dimension), u in zip(self.dimensions.items(), point, strict=True)
        }
        return _joined(searched | dict(self.fixed))

    def position(self, values: Mapping[str, Any]) -> NDArray[np.float64]:
        """The point of the unit cube at which a setting lies, shape (d,).

        Values of a choice lie in the middle of their share.

        Raises:
            InputError: For a value that is missing or not in the space.
        """
        flat = self._flat(values)
        units = []
        for name, dimension in self.dimensions.items():
            value = flat[name]
            if isinstance(dimension, Choice):
                inside = value in dimension.values
            else:
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                inside = number and dimension.low <= value <= dimension.high
            if not inside:
                shown = self._shown()[name]
                raise InputError(f"{name}={write_value(value)} is not in {shown}")
            units.append(_unit(dimension, value))
        return np.array(units, dtype=np.float64)

    def _flat(self, values: Mapping[str, Any]) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name in self.dimensions:
            part = _PART.fullmatch(name)
            given = values.get(name, values.get(part[1]) if part else None)
            if part and name not in values and given is not None:
                given = given[int(part[2])] if int(part[2]) < len(given) else None
            if given is None and name not in values and not (part and part[1] in values):
                raise InputError(f"the setting has no {name}: {dict(values)}")
            flat[name] = tuple(given) if isinstance(given, list) else given
        return flat

    def edges(
        self, values: Mapping[str, Any], *, tried: Iterable[Mapping[str, Any]] = ()
    ) -> tuple[Edge, ...]:
        """The values of a setting that lie at an end of their range.

        They lie in its outermost tenth (`EDGE_SHARE`), or further out than all others that were
        tried, if these are at least three: of few trials, none may lie in that tenth, and of two
        or three nearly every one is an outermost one. An end that is the domain's own, such as
        a weight decay of 0, is no edge, since nothing lies beyond; neither is any value of a
        choice.

        Args:
            values: The setting.
            tried: The other settings of the search.

        >>> space = Space({"lr": Range(1e-4, 1e-2), "weight_decay": Range(0, 0.1)}, rule="adamw")
        >>> [str(edge) for edge in space.edges({"lr": 0.009, "weight_decay": 0.0})]
        ['lr=0.009 is near the high end of its range, 0.01']
        >>> one = Space({"lr": Range(1e-4, 1e-2)})
        >>> others = [{"lr": 0.001}, {"lr": 0.002}, {"lr": 0.0005}]
        >>> [str(edge) for edge in one.edges({"lr": 0.005}, tried=others)]
        ['lr=0.005 is the highest that was tried, in a range up to 0.01']
        """
        units = self.position(values)
        others = [self.position(other) for other in tried if other != values]
        flat = self._flat(values)
        found: list[Edge] = []
        for at, (name, dimension) in enumerate(self.dimensions.items()):
            if isinstance(dimension, Choice):
                continue
            domain = _domain(name, dimension)
            value, unit = float(flat[name]), float(units[at])
            inside = EDGE_SHARE < unit < 1 - EDGE_SHARE
            told = inside and len(others) >= _OTHERS
            lowest = told and all(unit < other[at] for other in others)
            highest = told and all(unit > other[at] for other in others)
            if (unit <= EDGE_SHARE or lowest) and dimension.low != domain.low:
                found.append(Edge(name, "low", value, dimension.low, outermost=lowest))
            elif (unit >= 1 - EDGE_SHARE or highest) and dimension.high != domain.high:
                found.append(Edge(name, "high", value, dimension.high, outermost=highest))
        return tuple(found)

    def widened(self, factor: float, edges: Iterable[Edge]) -> Space:
        """The space with the flagged ends moved outwards, by one rule for every arm.

        Each flagged end moves by ``factor`` of its range's width in the range's own scale, and
        stops at the end of the hyperparameter's domain.

        Args:
            factor: Share of the width, > 0.
            edges: Of this space, from `edges`.

        >>> space = Space({"lr": Range(1e-4, 1e-2)}, rule="adamw")
        >>> str(space.widened(0.5, space.edges({"lr": 0.01})))
        'lr=0.0001..0.1'
        """
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"the factor must be > 0, got {factor!r}; 0.5 adds half of the width")
        wider = dict(self.dimensions)
        for edge in edges:
            dimension = self.dimensions.get(edge.name)
            if not isinstance(dimension, Range):
                raise InputError(f"{edge.name} is no range of this space: {self}")
            end = _grown(edge.name, dimension, edge.side, factor)
            now = cast("Range", wider[edge.name])  # whose other end may have been moved already
            ends = {"low": now.low, "high": now.high} | {edge.side: end}
            wider[edge.name] = Range(ends["low"], ends["high"], now.scale)
        return replace(self, dimensions=wider)

    def spec(self) -> dict[str, Any]:
        """As plain values that JSON keeps, for the ledger.

        >>> Space({"lr": Range(1e-4, 1e-2)}, {"momentum": 0.9}).spec()["dimensions"]
        [{'name': 'lr', 'low': 0.0001, 'high': 0.01, 'scale': 'log'}]
        """
        dimensions: list[dict[str, Any]] = []
        for name, d in self.dimensions.items():
            if isinstance(d, Choice):
                dimensions.append({"name": name, "values": [_plain(name, v) for v in d.values]})
            else:
                dimensions.append({"name": name, "low": d.low, "high": d.high, "scale": d.scale})
        fixed = {name: _plain(name, value) for name, value in self.fixed.items()}
        return {"dimensions": dimensions, "fixed": fixed, "rule": self.rule}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Space:
        """The space that `spec` described.

        >>> space = Space({"lr": Range(1e-4, 1e-2)}, {"betas": (0.9, 0.99)})
        >>> Space.from_spec(space.spec()) == space
        True
        """
        dimensions: dict[str, Range | Choice] = {}
        for d in spec["dimensions"]:
            if "values" in d:
                dimensions[d["name"]] = Choice(tuple(map(_from_plain, d["values"])))
            else:
                dimensions[d["name"]] = Range(d["low"], d["high"], d["scale"])
        return cls(dimensions, {k: _from_plain(v) for k, v in spec["fixed"].items()}, spec["rule"])

    def __str__(self) -> str:
        """The arguments of the arm, as the grammar reads them."""
        joined = _joined({**self._shown(), **self.fixed})
        return ", ".join(f"{name}={write_value(value)}" for name, value in joined.items())

    def _shown(self) -> dict[str, Range | Choice]:
        """The dimensions, with a scale only where it is not the customary one."""
        return {
            name: replace(d, scale=None)
            if isinstance(d, Range) and d.scale == customary_scale(name, d.low)
            else d
            for name, d in self.dimensions.items()
        }


def _is_searched(value: Any) -> bool:
    return isinstance(value, (Range, Choice))


def _base(name: str) -> str:
    """``betas`` for ``betas[0]``."""
    part = _PART.fullmatch(name)
    return part[1] if part else name


def _domain(name: str, dimension: Range) -> Domain:
    """Where values of that name may lie: by the table of rules, if the range keeps to it."""
    base = _base(name)
    known = DOMAINS.get(_SYNONYMS.get(base, base))
    if known is not None and dimension.low in known and dimension.high in known:
        return known
    if dimension.scale == "log":
        return Domain(name, 0.0, open_low=True)
    return Domain(name, -math.inf)


def _settled(name: str, dimension: Range | Choice) -> Range | Choice:
    """A range with the scale that is customary for its name, where none was written."""
    if isinstance(dimension, Choice) or dimension.scale is not None:
        return dimension
    try:
        return replace(dimension, scale=customary_scale(name, dimension.low))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _value(dimension: Range | Choice, unit: float) -> Any:
    """The value at a place from 0 to 1; the ends of a range are exact."""
    if isinstance(dimension, Choice):  # equal shares of [0, 1]
        return dimension.values[min(int(unit * len(dimension.values)), len(dimension.values) - 1)]
    if unit <= 0 or unit >= 1:
        return dimension.low if unit <= 0 else dimension.high
    a, b = _ends(dimension)
    short = _shortest(dimension, _unscaled(a + unit * (b - a), dimension.scale), unit)
    return min(max(short, dimension.low), dimension.high)


def _shortest(dimension: Range, exact: float, unit: float) -> float:
    """The shortest decimal within 1/2000 of the range's width of a value at that place."""
    scale = dimension.scale
    for digits in range(2, 17):
        short = float(f"{exact:.{digits}g}")
        on_scale = (scale != "log" or short > 0) and (scale != "one_minus_log" or short < 1)
        if on_scale and abs(_unit(dimension, short) - unit) <= _CLOSE:
            return short
    return exact


def _unit(dimension: Range | Choice, value: Any) -> float:
    """The place of a value: in the range's own scale, or the middle of the choice's share."""
    if isinstance(dimension, Choice):
        return (dimension.values.index(value) + 0.5) / len(dimension.values)
    a, b = _ends(dimension)
    return (_scaled(value, dimension.scale) - a) / (b - a)


def _grown(name: str, dimension: Range, side: Side, factor: float) -> float:
    """An end, moved outwards by a share of the range's width, but not past the domain."""
    a, b = _ends(dimension)
    unit = -factor if side == "low" else 1 + factor
    domain = _domain(name, dimension)
    old, end = (dimension.low, domain.low) if side == "low" else (dimension.high, domain.high)
    exact = _unscaled(a + unit * (b - a), dimension.scale)
    if dimension.scale == "one_minus_log" and exact >= 1:
        return old  # there is no number left between it and 1
    if exact not in domain:
        return end if end in domain else (old + end) / 2
    short = _shortest(dimension, exact, unit)
    return short if short in domain else exact


def _ends(dimension: Range) -> tuple[float, float]:
    return _scaled(dimension.low, dimension.scale), _scaled(dimension.high, dimension.scale)


def _scaled(value: float, scale: Scale | None) -> float:
    if scale == "log":
        return math.log(value)
    return -math.log1p(-value) if scale == "one_minus_log" else value


def _unscaled(place: float, scale: Scale | None) -> float:
    if scale == "log":
        return math.exp(place)
    return -math.expm1(-place) if scale == "one_minus_log" else place


def _joined(flat: Mapping[str, Any]) -> dict[str, Any]:
    """With ``betas[0]`` and ``betas[1]`` as the tuple ``betas``."""
    joined: dict[str, Any] = {}
    parts: dict[str, dict[int, Any]] = {}
    for name, value in flat.items():
        part = _PART.fullmatch(name)
        if part is None:
            joined[name] = value
        else:
            joined.setdefault(part[1], ())
            parts.setdefault(part[1], {})[int(part[2])] = value
    for name, of in parts.items():
        joined[name] = tuple(of[at] for at in sorted(of))
    return joined


def _plain(name: str, value: Any) -> Any:
    """A value as JSON keeps it: infinity, which JSON lacks, as {"number": "inf"}."""
    if isinstance(value, (tuple, list)):
        return [_plain(name, part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(f"{name}={value!r} cannot be kept in a ledger; use numbers, texts and tuples")


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_from_plain, value))
    return float(value["number"]) if isinstance(value, dict) else value
