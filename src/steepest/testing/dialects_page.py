"""Write docs/dialects.md: what one name means in different libraries.

python -m steepest.testing.dialects_page            writes docs/dialects.md
python -m steepest.testing.dialects_page -          prints it
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from typing import Any

from steepest import rules
from steepest.rules import Rule
from steepest.rules._dialects import DIALECTS, PAPERS, VERSIONS, Dialect
from steepest.testing._pages import write_page

__all__ = ["choices_of", "main", "page", "rows_of", "shown"]

_ABOUT = """\
"Adam" in one library is not "Adam" in another: where ε stands, how weight decay couples, whether
the learning rate is inside the momentum. Here every such difference is a named option of the rule,
or another value of a number; torch's meaning is the default. `steepest.optim.build("adam", params,
eps_mode="hat")` and an arm `adam(eps_mode=hat)` speak Keras's dialect."""

_MEASURED = """\
Every row was measured: 120 steps in float64 with a rate that changes every step, once at the
library's defaults and once with decay and a large ε; *off* is the larger of the two largest
distances from the library's parameters, as a part of the distance travelled. `python
benchmarks/dialects.py` measures all of them again, where the libraries are installed; those about
torch are measured by the tests. What a class does beyond its formula (missing gradients, saving,
`maximize`, …) is in [the audit](audit.md)."""


def rows_of(rule: Rule) -> tuple[Dialect, ...]:
    """The measured classes of a rule, with or without modifiers around it.

    >>> from steepest import rules
    >>> [row.path for row in rows_of(rules.get("rprop"))]
    ['torch.optim:Rprop', 'optax:rprop']
    """
    return tuple(row for row in DIALECTS if _is_about(row, rule))


def _is_about(row: Dialect, rule: Rule) -> bool:
    """Whether a row is about this name, be it with modifiers around it."""
    return rule.name in (row.rule.rpartition("(")[2].rstrip(")"), row.rule)


def choices_of(rule: Rule) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The options that have names: the default and all values.

    >>> from steepest import rules
    >>> choices_of(rules.get("nadam"))["momentum_schedule"]
    ('warming', ('warming', 'constant', 'mlcommons'))
    """
    return {
        name: (str(rule.options[name]), values)
        for name, values in rule.choices.items()
        if len(values) > 1
    }


def shown(values: Mapping[str, Any]) -> str:
    """``name=value, ...``; a dash for none."""
    listed = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items()]
    return ", ".join(listed) or "–"


def page() -> str:
    """The page as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in VERSIONS.items())
    lines = [
        "# What one name means in different libraries",
        "",
        "Written by `python -m steepest.testing.dialects_page`; a test checks that it is current.",
        "",
        textwrap.fill(_ABOUT, 100),
        "",
        textwrap.fill(_MEASURED, 100),
        "",
        textwrap.fill(f"Versions: {versions}.", 100),
        "",
    ]
    for name in rules.names():
        lines += _section(rules.get(name))
    return "\n".join(lines)


def _section(rule: Rule) -> list[str]:
    rows, choices = rows_of(rule), choices_of(rule)
    if not rows and not choices:
        return []
    lines = [f"## {rule.name}", "", rule.summary, ""]
    if choices:
        lines += ["| option | default | other values |", "| --- | --- | --- |"]
        for option, (default, values) in choices.items():
            others = ", ".join(f"`{v}`" for v in values if v != default)
            lines.append(f"| `{option}` | `{default}` | {others} |")
        lines.append("")
    papers = {n: v for n, v in PAPERS.items() if n == rule.name or n.endswith(f"({rule.name})")}
    for name, own in papers.items():
        which = "" if name == rule.name else f" of `{name}`"
        lines += [f"The paper's own reading{which} ({_paper(name)}): `{shown(own)}`.", ""]
    if rows:
        lines += ["| class | values that make the rule it | off | |", "| --- | --- | ---: | --- |"]
        lines += [_line(row, rule) for row in rows]
        lines.append("")
    return lines


def _paper(name: str) -> str:
    rule = rules.get(name)
    return rule.modifiers[0].paper if rule.name.startswith("cautious(") else rule.paper


def _line(row: Dialect, rule: Rule) -> str:
    named = "" if row.rule == rule.name else f"`{row.rule}`: "
    values = f"`{shown(row.values)}`" if row.values else "–"
    notes = [row.note] if row.note else []
    notes += ["measured with a constant rate"] if row.constant else []
    notes += ["steps are counted per group"] if row.steps == "group" else []
    told = "; ".join(notes).replace("|", "/")
    return f"| `{row.path}` | {named}{values} | {row.off:.0e} | {told} |"


def main(arguments: list[str]) -> None:
    """Write the page to the given file, docs/dialects.md by default; ``-`` prints it."""
    write_page(page(), arguments, default="docs/dialects.md")


if __name__ == "__main__":
    main(sys.argv[1:])
