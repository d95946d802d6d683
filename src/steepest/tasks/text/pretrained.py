"""Any encoder of Hugging Face's transformers, by name or from a folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from steepest.errors import TaskError
from steepest.extras import need

__all__ = ["Pretrained", "find"]

_CHUNK = 4096  # texts that are tokenised at a time
_WHAT = "model=... of the task 'text'"


@dataclass(frozen=True)
class Pretrained:
    """An encoder that was found and can be fine-tuned.

    Attributes:
        name: As it was given.
        tokenizer: Its tokenizer.
        model: ``() -> nn.Module``: with its weights, and a classifier drawn afresh.
        notes: What a person should know about its weights.
    """

    name: str
    tokenizer: Any
    model: Callable[[], nn.Module]
    notes: tuple[str, ...]

    def encode(self, texts: list[str], *, length: int) -> Iterator[list[int]]:
        """Token numbers of each text, special tokens included, at most ``length``."""
        with _quiet():
            for first in range(0, len(texts), _CHUNK):
                found = self.tokenizer(
                    texts[first : first + _CHUNK],
                    truncation=True,
                    max_length=length,
                    padding=False,
                    return_attention_mask=False,
                    return_token_type_ids=False,
                )
                yield from found["input_ids"]

    def identity(self) -> str:
        """What its tokens depend on, for the cache of tokens."""
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        if fast is not None:
            return str(fast.to_str())
        words = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        return f"{type(self.tokenizer).__name__}{words}"


class Logits(nn.Module):
    """A classifier of transformers that returns its scores and nothing else."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores of the classes, ``[B, K]``."""
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return found.logits  # type: ignore[no-any-return]


def find(model: Path | str, *, classes: int, length: int) -> Pretrained:
    """An encoder with its tokenizer, tried before a race depends on it.

    Args:
        model: A folder, or a name on the Hugging Face hub.
        classes: How many classes are told apart.
        length: Most tokens of a text.

    Raises:
        UnsupportedError: If transformers is not installed.
        TaskError: If there is no such model, it has no tokenizer, is no encoder that classifies
            texts, or cannot read so many tokens.
    """
    transformers = need("transformers", extra="hf", what=_WHAT)
    shown = f"model '{model}'"
    folder = model if isinstance(model, Path) else None
    if folder is not None and not folder.is_dir():
        raise TaskError(
            f"there is no folder {folder}; give a model's folder, or its name on the hub"
        )
    if folder is not None and not (folder / "config.json").is_file():
        inside = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise TaskError(f"{folder} is no model's folder: it has no config.json, but {inside}")
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise TaskError(f"{shown} cannot be found: {_first(error)}") from error
        if type(config) not in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            raise TaskError(
                f"{shown} is a {type(config).__name__.removesuffix('Config')}, which transformers "
                "cannot make classify texts (it is in no AutoModelForSequenceClassification); "
                "take a text encoder such as BERT, RoBERTa, ELECTRA, DeBERTa"
            )
        tokenizer = _tokenizer(transformers, model, shown)
        most = _longest(config, tokenizer)
        if most is not None and length > most:
            raise TaskError(
                f"{shown} reads at most {most} tokens, max_length={length} was asked for; "
                f"say max_length={most} or less"
            )
        words = getattr(config.get_text_config(), "vocab_size", None)
        if words is not None and max(tokenizer.get_vocab().values()) >= words:
            raise TaskError(
                f"{shown}: its tokenizer knows {len(tokenizer):,} tokens and its weights "
                f"{words:,}; they do not belong together"
            )
        try:
            _, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                model, num_labels=classes, dtype="float32", output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise TaskError(f"{shown}: its weights cannot be read: {_first(error)}") from error
    make = functools.partial(load, model, classes)
    return Pretrained(str(model), tokenizer, make, _fresh(shown, info))


def load(model: Path | str, classes: int) -> nn.Module:
    """The encoder with its weights; the classifier drawn under the current seed."""
    import transformers

    with _quiet():
        found = transformers.AutoModelForSequenceClassification.from_pretrained(
            model, num_labels=classes, dtype="float32", local_files_only=True
        )
    return Logits(found)


def _tokenizer(transformers: Any, model: Path | str, shown: str) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise TaskError(f"{shown} has no tokenizer that can be read: {_first(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # made up from the config alone
        raise TaskError(
            f"{shown} comes without a tokenizer (tokenizer.json, vocab.txt, or a sentencepiece "
            "model); save it there with tokenizer.save_pretrained(folder)"
        )
    if tokenizer.pad_token_id is None:
        raise TaskError(
            f"{shown} has no token for padding, so it is no encoder (a decoder such as GPT-2 has "
            "none); take a text encoder, or set tokenizer.pad_token and save it"
        )
    tokenizer.padding_side = "right"
    return tokenizer


def _longest(config: Any, tokenizer: Any) -> int | None:
    """Most tokens that it reads; None where nothing says."""
    said = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    return min((n for n in said if n is not None and 0 < n < 10**9), default=None)


def _fresh(shown: str, info: dict[str, Any]) -> tuple[str, ...]:
    """A note on parameters of the encoder itself that its file does not have."""
    heads = ("classifier", "score", "pooler", "pre_classifier", "out_proj", "sequence_summary")
    missing = [
        name for name in info["missing_keys"] if not any(part in heads for part in name.split("."))
    ]
    if not missing:
        return ()
    return (
        f"{shown}: {len(missing)} of its parameters are not in its file and start at random, for "
        f"example {sorted(missing)[0]}",
    )


def _first(error: BaseException) -> str:
    lines = str(error).strip().split("\n")
    return lines[0] if lines[0] else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own bars and reports: what matters of them is said otherwise."""
    logging: Any = need("transformers.utils.logging", extra="hf", what=_WHAT)
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
