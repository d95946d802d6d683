"""Optimizers for the matrices inside a network: Muon, Shampoo, SOAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from steepest.kernels import EngineName
from steepest.optim.routing import Routed

__all__ = ["SOAP", "Muon", "Shampoo"]


class Muon(Routed):
    """Muon: momentum made orthogonal, and AdamW for what is no matrix.

    Equations: `steepest.rules.muon`. Arguments: torch.optim.Muon, whose checkpoints it shares, and
    github.com/KellerJordan/Muon.

    The auxiliary groups have Keller Jordan's values (lr 3e-4, betas (0.9, 0.95), eps 1e-10, no
    decay); with ``adjust_lr_fn="match_rms_adamw"`` the matrices' lr and decay, as Moonshot has it
    (arXiv:2502.16982). Unlike torch's, the Newton-Schulz steps have the parameters' precision
    and not bfloat16.

    Args:
        params: Named parameters (names tell embeddings from matrices), parameters or groups.
        lr: Learning rate of the matrices.
        weight_decay: Their weight decay λ.
        momentum: Coefficient of the momentum.
        nesterov: Nesterov's momentum.
        ns_coefficients: Coefficients of the Newton-Schulz steps, or the name of a table of
            `rules.muon`.
        eps: Smallest norm that a matrix is divided by.
        ns_steps: Number of Newton-Schulz steps.
        adjust_lr_fn: ``"original"`` (None) or ``"match_rms_adamw"``; see `rules.muon`.
        auxiliary: Entries of the groups for what is no matrix, under torch's names or the rule's.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    >>> optimizer = Muon(model.named_parameters(), lr=0.02)
    >>> [(one.name, one.rule) for one in optimizer.assignments[::3]]
    [('0.weight', 'muon'), ('1.bias', 'adamw')]
    >>> optimizer.assignments[-1].reason
    'it has 1 axis; a matrix has at least 2'
    """

    rule_name = "muon"
    has_step = False
    own: ClassVar[Mapping[str, Any]] = {
        "lr": 3e-4,
        "betas": (0.9, 0.95),
        "eps": 1e-10,
        "weight_decay": 0.0,
    }

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] | str = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        auxiliary: Mapping[str, Any] | None = None,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults, engine=engine, auxiliary=auxiliary)

    def _keeps_step(self, group: Mapping[str, Any]) -> bool:
        return bool(group.get("correct_bias")) or super()._keeps_step(group)

    def _auxiliary_entries(self, group: Mapping[str, Any]) -> dict[str, Any]:
        entries = super()._auxiliary_entries(group)
        if group.get("adjust_lr_fn") == "match_rms_adamw":
            alike = {key: group[key] for key in ("lr", "weight_decay")}
            entries = {**entries, **alike, "eps": 1e-8, **self._given}
        return entries


class Shampoo(Routed):
    """Shampoo: the gradient between roots of its second moments; Adagrad for what is no matrix.

    Equations: `steepest.rules.shampoo`. Arguments: arXiv:1802.09568, algorithm 1.

    The auxiliary groups take over ``lr`` and ``weight_decay``.

    Args:
        params: Named parameters (names tell embeddings from matrices), parameters or groups.
        lr: Learning rate.
        momentum: Coefficient of the average of the gradients.
        weight_decay: Weight decay λ.
        eps: Added to the second moments' diagonals.
        update_freq: Steps between two preconditioners.
        root: Which root is taken.
        auxiliary: Entries of the groups for what is no matrix, under torch's names or the rule's.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    >>> optimizer = Shampoo(model.named_parameters(), lr=0.02)
    >>> [(one.name, one.rule) for one in optimizer.assignments[::3]]
    [('0.weight', 'shampoo'), ('1.bias', 'adagrad')]
    >>> optimizer.assignments[-1].reason
    'it has 1 axis; a matrix has at least 2'
    """

    rule_name = "shampoo"
    inherited = ("lr", "weight_decay")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        eps: float = 1e-4,
        update_freq: float = 1,
        *,
        root: float = 4.0,
        auxiliary: Mapping[str, Any] | None = None,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eps": eps,
            "update_freq": update_freq,
            "root": root,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine, auxiliary=auxiliary)


class SOAP(Routed):
    """SOAP: Adam in the eigenbasis of Shampoo's second moments; AdamW for what is no matrix.

    Equations: `steepest.rules.soap`. Arguments: github.com/nikhilvyas/SOAP.

    The auxiliary groups take over ``lr``, ``betas``, ``eps`` and ``weight_decay``, as there.

    Args:
        params: Named parameters (names tell embeddings from matrices), parameters or groups.
        lr: Learning rate.
        betas: Coefficients of the two moments.
        shampoo_beta: Coefficient of the preconditioners' averages.
        eps: Added to the root.
        weight_decay: Weight decay λ.
        precondition_frequency: Steps between two turns of the basis.
        correct_bias: Adam's correction of the moments' start.
        auxiliary: Entries of the groups for what is no matrix, under torch's names or the rule's.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    >>> optimizer = SOAP(model.named_parameters(), lr=0.02)
    >>> [(one.name, one.rule) for one in optimizer.assignments[::3]]
    [('0.weight', 'soap'), ('1.bias', 'adamw')]
    >>> optimizer.assignments[-1].reason
    'it has 1 axis; a matrix has at least 2'
    """

    rule_name = "soap"
    inherited = ("lr", "betas", "eps", "weight_decay")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        shampoo_beta: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: float = 10,
        correct_bias: bool = True,
        *,
        auxiliary: Mapping[str, Any] | None = None,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "shampoo_beta": shampoo_beta,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "correct_bias": correct_bias,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine, auxiliary=auxiliary)
