"""A model's weights on disk, those of one moment: safetensors, written whole or not at all.

What is read back is bit for bit what was written; a file that was changed is refused.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections import deque
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from steepest.errors import InputError, LedgerError
from steepest.train import checkpoint
from steepest.train.checkpoint import RunState, pack, unpack

__all__ = ["KeptWeights"]

_PROMISED = 2  # saved states whose files stay; a crash may come between two savings


class KeptWeights:
    """Keeps a model's weights of one step, and replaces them when others are worth keeping.

    A file that was named in one of the last two states (`state`) stays, so that whoever goes on
    from an older checkpoint finds what it speaks of.

    Args:
        name: Beginning of the file's name; the step follows.
        folder: Where; None: a folder that lasts as long as this object.

    Attributes:
        path: The file, or None before there is one.
        step: Of the weights in it.
    """

    def __init__(self, name: str, folder: str | Path | None) -> None:
        self._name = re.sub(r"[^\w.-]+", "_", name)
        self.folder = None if folder is None else Path(folder)
        self.path: Path | None = None
        self.step: int | None = None
        self._promised: deque[Path] = deque(maxlen=_PROMISED)
        self._own: set[Path] = set()

    def keep(self, model: nn.Module, step: int) -> None:
        """Write the model's parameters and buffers; the file of before goes."""
        tensors: dict[str, Tensor] = {}
        packed = [[name, pack(v, name, tensors)] for name, v in model.state_dict().items()]
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="steepest-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"the weights cannot be kept in {self.folder} ({error.strerror}); name another "
                "folder"
            ) from error
        path = self.folder / f"{self._name}-{step}.safetensors"
        checkpoint.save(path, RunState(tensors, {"step": step, "model": {"dict": packed}}))
        self.path, self.step = path, step
        self._own.add(path)
        self._tidy()

    def drop(self) -> None:
        """Keep nothing any more."""
        self.path = self.step = None
        self._tidy()

    def restore(self, model: nn.Module) -> int:
        """Write the kept weights into the model.

        Returns:
            The step that they are of.

        Raises:
            LedgerError: If the file is gone or damaged.
            InputError: If nothing was kept, or the model is another one.
        """
        if self.path is None:
            raise InputError(
                "no weights were kept yet; hand the model to update(step, ..., model) on the way"
            )
        saved = checkpoint.load(self.path)
        try:
            model.load_state_dict(unpack(saved.meta["model"], saved.tensors))
        except RuntimeError as error:
            why = str(error).splitlines()[-1].strip()
            raise InputError(f"{self.path} holds the weights of another model: {why}") from error
        return int(saved.meta["step"])

    def state(self) -> dict[str, Any]:
        """Plain values for `load_state`; the file that they name stays for a while."""
        if self.path is not None:
            self._promised.append(self.path)
        self._tidy()
        return {"path": None if self.path is None else str(self.path), "step": self.step}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the file that a state names."""
        if state["path"] is None:
            self.path = self.step = None
            return
        path = Path(state["path"])
        if not path.exists() and self.folder is not None:
            path = self.folder / path.name  # the folder was moved
        if not path.exists():
            raise LedgerError(
                f"the weights of step {state['step']} were kept in {path}, which is gone; "
                "give a folder (folder='runs/best'), which outlives the process"
            )
        self.path, self.step = path, state["step"]
        self._own.add(path)
        self._promised.append(path)

    def _tidy(self) -> None:
        for path in self._own.difference([self.path, *self._promised]):
            path.unlink(missing_ok=True)
            self._own.discard(path)
