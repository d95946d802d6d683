"""A vocabulary made from the texts themselves: frequent words, and pieces for the others.

It is learnt from the training texts alone, needs no package, and is the same on every machine. A
word that is frequent is one token. Any other is cut from the left into the longest pieces that are
known: so a Korean word with a rare ending, or a word with a slip, still shares tokens with its kin.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

__all__ = ["CLS", "PAD", "UNK", "Vocabulary", "words_of"]

PAD, UNK, CLS = 0, 1, 2
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]")
_WORD = re.compile(r"\w+|[^\w\s]")
_LONGEST = 6  # characters of a piece
_RARE = 3  # what occurs less often is no token of its own
_LOOKED_AT = 50_000  # most frequent words that pieces are taken from


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, in one form of writing, without case.

    >>> words_of("Ｆree  광고입니다!")
    ['free', '광고입니다', '!']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Vocabulary:
    """Pieces of text and their numbers.

    Attributes:
        pieces: By number; the first three are padding, unknown, and the begin of a text.

    >>> vocabulary = Vocabulary.learn(["광고입니다 광고 입니다"] * 5, size=100)
    >>> [vocabulary.pieces[i] for i in vocabulary.encode("광고!", length=8)]
    ['[CLS]', '광고', '[UNK]']
    """

    def __init__(self, pieces: Iterable[str]) -> None:
        self.pieces = (*_SPECIAL, *pieces)
        self._number = {piece: number for number, piece in enumerate(self.pieces)}
        self._known: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self.pieces)

    @classmethod
    def learn(cls, texts: Iterable[str], *, size: int = 8192) -> Vocabulary:
        """The vocabulary of some texts.

        Args:
            texts: To learn from.
            size: Most tokens: at most a quarter characters, then words and pieces by turns.
        """
        words: Counter[str] = Counter()
        for text in texts:
            words.update(words_of(text))
        characters: Counter[str] = Counter()
        for word, count in words.items():
            for character in word:
                characters[character] += count
        parts: Counter[str] = Counter()
        for word, count in _frequent(words)[:_LOOKED_AT]:
            for n in range(2, min(_LONGEST, len(word)) + 1):
                for i in range(len(word) - n + 1):
                    parts[word[i : i + n]] += count * (n - 1)  # the tokens that it saves
        chosen = [c for c, n in _frequent(characters) if n >= _RARE][: size // 4]
        whole = [w for w, n in _frequent(words) if n >= _RARE and len(w) > 1]
        pieces = [p for p, n in _frequent(parts) if n >= _RARE * (len(p) - 1)]
        room = size - len(_SPECIAL) - len(chosen)
        found = dict.fromkeys(chosen)
        for word in whole[: room // 2]:
            found[word] = None
        for piece in pieces:
            if len(found) >= room + len(chosen):
                break
            found[piece] = None
        return cls(found)

    def encode(self, text: str, *, length: int) -> list[int]:
        """Numbers of a text's pieces, at most ``length`` of them."""
        numbers = [CLS]
        for word in words_of(text):
            numbers += self._of(word)
            if len(numbers) >= length:
                return numbers[:length]
        return numbers

    def _of(self, word: str) -> tuple[int, ...]:
        found = self._known.get(word)
        if found is None:
            found = self._known[word] = tuple(self._cut(word))
        return found

    def _cut(self, word: str) -> Iterable[int]:
        if word in self._number:
            yield self._number[word]
            return
        at = 0
        while at < len(word):
            for n in range(min(_LONGEST, len(word) - at), 0, -1):
                number = self._number.get(word[at : at + n])
                if number is not None:
                    break
            else:
                n, number = 1, UNK
            yield number
            at += n


def _frequent(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first; equal ones in the order of their characters."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
