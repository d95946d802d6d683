"""The optimizers under Lightning, and its runs as ledgers. Needs ``pip install
"steepest[lightning]"``.

The optimizers of `steepest.optim` need no adapter: they are `torch.optim.Optimizer`, and Lightning
steps, clips, checkpoints and resumes them as it does torch's own; see docs/lightning.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steepest.extras import need

if TYPE_CHECKING:
    from steepest.adapters._lightning_callback import LedgerCallback

__all__ = ["LedgerCallback"]


def __getattr__(name: str) -> Any:
    if name != "LedgerCallback":
        raise AttributeError(f"module 'steepest.lightning' has no attribute '{name}'")
    need("lightning.pytorch", extra="lightning")
    from steepest.adapters._lightning_callback import LedgerCallback

    return LedgerCallback
