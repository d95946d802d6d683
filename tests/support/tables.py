"""Small tables with something to learn in them."""

from __future__ import annotations

import csv
import random
from pathlib import Path

ENGLISH = {"spam": ("win", "cash", "free", "offer"), "ham": ("lunch", "team", "code", "review")}
KOREAN = {"광고": ("무료", "당첨", "할인", "클릭"), "일반": ("회의", "점심", "보고서", "일정")}


def rows_of(words: dict[str, tuple[str, ...]], n: int) -> list[tuple[str, str]]:
    """Sentences in which one of six words tells the class."""
    dice = random.Random(0)
    filler = [f"단어{i}" if "광고" in words else f"word{i}" for i in range(30)]
    found = []
    for i in range(n):
        label = list(words)[i % len(words)]
        sentence = [*dice.sample(filler, dice.randint(2, 9)), dice.choice(words[label])]
        dice.shuffle(sentence)
        found.append((" ".join(sentence) + f" {i}", label))
    return found


def write_csv(path: Path, rows: list[tuple[object, ...]], *, encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)
    return path
