"""The optimizers of torch.optim: torch's signatures and defaults, our formulas and engines.

Every class takes what the class of the same name in `torch.optim` takes, and reads and writes the
same checkpoints. What the flags mean here:

* ``maximize``: go up the gradient.
* ``differentiable``: autograd records the step; always eager.
* ``capturable``: the number of steps lies on the device, so that a captured graph advances it.
* ``fused``: `torch.amp.GradScaler` hands its scale to the step instead of dividing the gradients
  first, and the number of steps lies beside the parameter; refused where torch refuses it.
* ``foreach``: `zero_grad` zeroes all gradients in one call.

Which implementation computes the step depends on neither ``foreach`` nor ``fused`` but on
``engine``, which torch does not have: ``"kernel"`` is generated code, ``"eager"`` plain torch
operations, ``"auto"`` the fastest that can do it; ``optimizer.refusals`` says why others could not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from steepest.errors import InputError
from steepest.kernels import EngineName
from steepest.optim.facade import Facade

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
]


class SGD(Facade):
    """Stochastic gradient descent, with momentum and Nesterov's momentum."""

    rule_name = "sgd"
    sparse = "whole"
    has_step = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)

    def _check_entries(self, entries: Mapping[str, Any]) -> None:
        super()._check_entries(entries)
        plain = not isinstance(entries["momentum"], Tensor) and entries["momentum"] <= 0
        if entries["nesterov"] and (plain or entries["dampening"] != 0):
            raise InputError(
                "Nesterov momentum requires a momentum and zero dampening; got "
                f"momentum={entries['momentum']!r}, dampening={entries['dampening']!r}"
            )


class Adagrad(Facade):
    """A rate per element that falls with the squared gradients seen so far."""

    rule_name = "adagrad"
    sparse = "rows"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)
        for group in self.param_groups:  # torch's, too, has its state before the first step
            for p in group["params"]:
                self._create(group, p, self.rule.slots, values=self.face.values(group))

    def share_memory(self) -> None:
        """Move the sums to shared memory, for several processes training one model."""
        for held in self.state.values():
            held["sum"].share_memory_()


class RMSprop(Facade):
    """The gradient over the root of its running mean square."""

    rule_name = "rmsprop"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, engine=engine)


class Adadelta(Facade):
    """Steps in the units of the parameter."""

    rule_name = "adadelta"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-06,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, engine=engine)


class Adam(Facade):
    """Adam, with ``amsgrad`` AMSGrad, with ``decoupled_weight_decay`` AdamW."""

    rule_name = "adam"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, engine=engine)

    def _check_entries(self, entries: Mapping[str, Any]) -> None:
        lr, betas = entries["lr"], entries["betas"]
        eager = entries["foreach"] and not entries["capturable"]
        if isinstance(lr, Tensor) and eager:
            raise InputError(
                "lr as a Tensor is not supported for capturable=False and foreach=True"
            )
        super()._check_entries(entries)
        if {type(beta) for beta in betas} not in ({float}, {Tensor}):
            raise InputError(f"betas must be either both floats or both Tensors, got {betas!r}")
        if isinstance(betas[0], Tensor) and eager:
            raise InputError(
                "betas[0] as a Tensor is not supported for capturable=False and foreach=True"
            )


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    rule_name = "adamw"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        engine: EngineName = "auto",
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            engine=engine,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state.get("param_groups", ()):  # also in what an Adam has saved
            group["decoupled_weight_decay"] = True
        super().__setstate__(state)


class NAdam(Facade):
    """Adam with Nesterov's momentum."""

    rule_name = "nadam"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, engine=engine)


class RAdam(Facade):
    """Adam whose adaptive rate waits until its variance is tractable."""

    rule_name = "radam"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, engine=engine)


class Adamax(Facade):
    """Adam in the infinity norm."""

    rule_name = "adamax"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, engine=engine)


class ASGD(Facade):
    """Stochastic gradient descent whose iterates are averaged."""

    rule_name = "asgd"
    numbers_on_device = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        lambd: float = 0.0001,
        alpha: float = 0.75,
        t0: float = 1000000.0,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        *,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, engine=engine)


class Rprop(Facade):
    """Only the signs of the gradient, with a step size per element."""

    rule_name = "rprop"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-06, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, engine=engine)
