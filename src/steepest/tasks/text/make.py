"""The task ``text``: from a spreadsheet to something that optimizers can be raced on."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.numbers import amount
from steepest.tasks.scores import ClassWeights, judged, name_part, sizes
from steepest.tasks.splitting import Splits, split
from steepest.tasks.text import pretrained
from steepest.tasks.text.columns import EmptyCells, Labelled, choose_columns, labelled
from steepest.tasks.text.encoder import SmallEncoder
from steepest.tasks.text.reading import read_table
from steepest.tasks.text.tokenising import tokenise
from steepest.tasks.text.vocabulary import Vocabulary
from steepest.train.decay import vectors
from steepest.train.sequences import Sequences
from steepest.train.task import Task

__all__ = ["text"]

_CUT = 0.01  # share of texts that are cut, from which it is said


def text(
    *,
    data: Path,
    text_column: str | None = None,
    label_column: str | None = None,
    sheet: str | None = None,
    encoding: str | None = None,
    model: Path | str | None = None,
    max_length: int = 128,
    val: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    empty_cells: EmptyCells = "refuse",
    class_weights: ClassWeights = "auto",
    decay_all: bool = False,
    limit_mb: int = 100,
    train_on: Literal["train", "all"] = "train",
) -> Task:
    """Texts with a label each, from a table; any Hugging Face encoder, or a small one from scratch.

    Args:
        data: A table: .xlsx, .csv, .tsv, .jsonl or .parquet; its first row names the columns.
        text_column: The column of the texts; found out where that is plain.
        label_column: The column of the labels; found out where that is plain.
        sheet: Of a workbook; without it the first.
        encoding: Of a text file; without it found out (UTF-8, UTF-16, cp949).
        model: A Hugging Face encoder: its name on the hub or its folder; without it a small
            transformer from scratch.
        max_length: Most tokens of a text; longer ones are cut.
        val: Share of the data that is held out for choices.
        test: Share of the data that is held out for the verdict.
        split_seed: Another one splits otherwise.
        empty_cells: What to do with rows that lack a text or a label: refuse or skip.
        class_weights: Of the loss: balanced (every class counts the same), equal (every example
            does), or auto: balanced from a ratio of 2 between the largest and the smallest class.
        decay_all: Decay biases and gains of norms too, which no arm does otherwise.
        limit_mb: Largest file that is read, in megabytes.
        train_on: ``"all"`` trains on the validation data too.
    """
    if max_length < 4:
        raise InputError(f"max_length must be at least 4 tokens, got {max_length}")
    table = read_table(data, encoding=encoding, sheet=sheet, limit_mb=limit_mb)
    text_name, label_name, guessed = choose_columns(table, text_column, label_column)
    found = labelled(table, text_name, label_name, empty_cells=empty_cells)
    parts = split(
        [_same(one) for one in found.texts],
        found.labels,
        names=found.classes,
        val=val,
        test=test,
        seed=split_seed,
    )
    notes = [*table.notes, *guessed, *found.notes, *_leaks(parts)]
    learn_from = [found.texts[i] for i in parts.train]
    make, encode, identity, described, more = _encoder(model, learn_from, found, max_length)
    tokens, lengths, uncached = tokenise(found.texts, encode, identity=identity, length=max_length)
    cut = int((lengths >= max_length).sum())
    if cut > _CUT * len(lengths):
        notes.append(
            f"{cut:,} of {len(lengths):,} texts have {max_length} tokens or more and are cut there "
            "(max_length)"
        )
    notes += [*more, *([uncached] if uncached else [])]
    counts = Counter(found.labels[i] for i in parts.train)
    loss, metrics, weighted = judged(counts, found.classes, class_weights)
    notes += weighted
    labels = torch.tensor(found.labels)
    held_sizes = sizes(Counter(found.labels), found.classes)
    first = parts.train + parts.val if train_on == "all" else parts.train
    held = functools.partial(_sequences, tokens, lengths, labels)
    return Task(
        name=f"text-{name_part(data.stem)}",
        model=make,
        loss=loss,
        train=held(sorted(first)),
        val=None if train_on == "all" else held(parts.val),
        test=held(parts.test),
        metrics=metrics,
        batch_size=16,
        eval_batch_size=64,
        describe=f"{len(found.texts):,} texts of {data.name} ('{text_name}'), {held_sizes} "
        f"('{label_name}'); {len(first):,} to train, {len(parts.test):,} to test; {described}",
        no_decay=None if decay_all else vectors,
        notes=tuple(notes),
    )


def _same(one: str) -> str:
    """Texts that differ in white space, case or form of Unicode only are the same."""
    return " ".join(unicodedata.normalize("NFKC", one).casefold().split())


def _leaks(parts: Splits) -> list[str]:
    if not parts.repeated:
        return []
    note = (
        f"duplicates: {amount(parts.repeated, 'row')} with a text that stands there already (but "
        "for case and white space); equal texts are kept in one split"
    )
    if parts.contradicting:
        note += f"; {amount(parts.contradicting, 'text')} with more than one label"
    return [note]


_Encoder = tuple[Callable[[], nn.Module], Callable[[list[str]], Any], str, str, tuple[str, ...]]


def _encoder(
    model: Path | str | None, learn_from: list[str], found: Labelled, length: int
) -> _Encoder:
    """How to make the model and the tokens, what the tokens depend on, and words for both."""
    classes = len(found.classes)
    if model is not None:
        encoder = pretrained.find(model, classes=classes, length=length)
        return (
            encoder.model,
            functools.partial(encoder.encode, length=length),
            encoder.identity(),
            f"encoder {Path(model).name if isinstance(model, Path) else model}",
            encoder.notes,
        )
    vocabulary = Vocabulary.learn(learn_from)

    def encode(texts: list[str]) -> list[list[int]]:
        return [vocabulary.encode(one, length=length) for one in texts]

    make = functools.partial(
        SmallEncoder, vocabulary=len(vocabulary), classes=classes, length=length
    )
    described = f"a small transformer from scratch, {len(vocabulary):,} tokens of its own"
    return make, encode, "\0".join(vocabulary.pieces), described, ()


def _sequences(tokens: Tensor, lengths: Tensor, labels: Tensor, rows: list[int]) -> Sequences:
    """Some of the texts, short ones first, so that an evaluation pads little."""
    chosen = torch.tensor(rows)
    chosen = chosen[lengths[chosen].sort(stable=True).indices]
    return Sequences(tokens[chosen], lengths[chosen], labels[chosen])
