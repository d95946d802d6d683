"""How several arms are written after one ``--arms``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand

__all__ = ["SpreadArms", "split_arms", "spread"]


class SpreadArms(TyperCommand):
    """Lets ``--arms`` take everything up to the next option: ``--arms 'adam()' 'sgd(lr=0.1)'``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, which is what the parser understands."""
        return super().parse_args(ctx, spread(args, "--arms"))


def spread(args: Iterable[str], option: str) -> list[str]:
    """Repeat ``option`` before every word that follows it, up to the next option.

    >>> spread(["mnist", "--arms", "adam()", "sgd()", "--seeds", "3"], "--arms")
    ['mnist', '--arms', 'adam()', '--arms', 'sgd()', '--seeds', '3']
    """
    out: list[str] = []
    inside = empty = False
    for word in args:
        if word == option:
            inside = empty = True
            continue
        if word.startswith("-"):
            out += [option] * empty  # nothing came after it: let the parser say so
            inside = empty = False
        out += [option, word] if inside else [word]
        empty = False
    return out + [option] * empty


def split_arms(texts: Iterable[str]) -> list[str]:
    """Arms that share one word, separated by commas outside all brackets.

    >>> split_arms(["adam(lr=1e-3, beta1=0.9),sgd(lr=0.1)", "nadam()"])
    ['adam(lr=1e-3, beta1=0.9)', 'sgd(lr=0.1)', 'nadam()']
    """
    arms: list[str] = []
    for text in texts:
        depth, start = 0, 0
        for place, letter in enumerate(text):
            depth += (letter in "({[") - (letter in ")}]")
            if letter == "," and depth == 0:
                arms.append(text[start:place].strip())
                start = place + 1
        arms.append(text[start:].strip())
    return [arm for arm in arms if arm]
