"""All that a rule's name can mean: the combinations of what an optimizer has no argument for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from steepest import rules
from steepest.auditing.names import Names
from steepest.auditing.walk import Reading
from steepest.rules import Rule
from steepest.rules._dialects import DIALECTS, PAPERS

__all__ = ["fixed", "like", "readings"]

_MOST = 20_000
_OTHER_READINGS: dict[tuple[str, str], tuple[float, ...]] = {
    ("shampoo", "root"): (2.0,),  # torch_optimizer
}


def fixed(rule: Rule, names: Names) -> dict[str, Any]:
    """The options that an argument of the optimizer sets."""
    return {name: value for name, value in names.values(rule).items() if name in rule.options}


def readings(rule: Rule, names: Names, given: Mapping[str, Any]) -> list[Reading]:
    """Every combination of options and known numbers, those nearest to the rule's own first.

    Args:
        rule: The rule.
        names: What the optimizer has arguments for.
        given: Values of the rule that are known beforehand.
    """
    known = names.values(rule)
    dimensions: dict[str, tuple[Any, ...]] = {}
    for name, default in rule.options.items():
        if name in given:
            continue
        if name == "decay":
            dimensions[name] = _decays(rule, names)
        elif name not in known and isinstance(default, str):
            others = tuple(v for v in rule.choices[name] if v != default)
            dimensions[name] = (default, *others)
        elif name not in known:
            dimensions[name] = (default, not default)
    for name, number in rule.hyperparameters.items():
        if name in known or name in given or name in ("lr", "weight_decay"):
            continue
        rows = [row.values for row in DIALECTS if row.rule == rule.name]
        seen = [values[name] for values in rows if name in values]
        seen += [PAPERS[rule.name][name]] if name in PAPERS.get(rule.name, {}) else []
        seen += _OTHER_READINGS.get((rule.name, name), ())
        dimensions[name] = tuple(dict.fromkeys((number, *seen)))
    while _count(dimensions) > _MOST:  # the options with the most choices stay at their default
        largest = max(dimensions, key=lambda name: len(dimensions[name]))
        dimensions[largest] = dimensions[largest][:1]
    combined = [
        Reading({**given, **dict(zip(dimensions, chosen, strict=True))})
        for chosen in itertools.product(*dimensions.values())
    ]
    first = {name: choices[0] for name, choices in dimensions.items()}

    def changed(reading: Reading) -> int:
        return sum(reading.values[k] != v for k, v in first.items())

    return sorted(combined, key=changed)


def _count(dimensions: Mapping[str, tuple[Any, ...]]) -> int:
    count = 1
    for choices in dimensions.values():
        count *= len(choices)
    return count


def _decays(rule: Rule, names: Names) -> tuple[Any, ...]:
    """The meanings of weight decay that the rule's name leaves open.

    A flag such as ``decoupled_weight_decay`` says nothing: lion-pytorch's is off by default, and
    what it switches is whether the decay is independent of the rate.
    """
    default, known = rule.options["decay"], rule.choices["decay"]
    if "weight_decay" not in names:
        return (default,)
    same = {r.options.get("decay") for r in map(rules.get, rules.names()) if r.bare is rule.bare}
    excluded = same - {default}  # decoupled is all that AdamW is, beside Adam
    if default == "l2":
        excluded = set()
    return (default, *(v for v in known if v != default and v not in excluded))


def like(rule: Rule, reading: Reading) -> tuple[str, ...]:
    """The classes of other libraries that are known to speak exactly this dialect."""
    own = {**rule.options, **reading.values}
    out = []
    for row in DIALECTS:
        if row.rule == rule.name and row.exact:
            meant = {**rule.options, **row.values}
            options = [n for n, v in rule.options.items() if isinstance(v, str)]
            if all(meant[name] == own[name] for name in options):
                out.append(row.path)
    return tuple(out)
