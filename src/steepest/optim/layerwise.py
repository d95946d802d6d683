"""Optimizers that look at whole tensors: LAMB, LARS, Adafactor, Prodigy."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from steepest.kernels import EngineName
from steepest.optim.facade import Facade

__all__ = ["LAMB", "LARS", "Adafactor", "Prodigy"]


class LAMB(Facade):
    """LAMB: Adam whose step is as long as the layer's weights say.

    Equations: `steepest.rules.lamb`. Arguments: arXiv:1904.00962, algorithm 2.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        betas: Coefficients of the two moments.
        eps: Added to the root.
        weight_decay: Weight decay λ.
        adapt: ``"decayed"``: scale only what is decayed, as timm does.
        trust_clip: Keep the ratio of norms at 1 at most (LAMBC).
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = LAMB([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.8427, -1.8411])
    """

    rule_name = "lamb"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        *,
        adapt: str = "always",
        trust_clip: bool = False,
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
            "eps": eps,
            "weight_decay": weight_decay,
            "adapt": adapt,
            "trust_clip": trust_clip,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class LARS(Facade):
    """LARS: SGD with momentum, with a rate per layer from the norms of weights and gradient.

    Equations: `steepest.rules.lars`. Arguments: arXiv:1708.03888, algorithm 1.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Learning rate.
        momentum: Coefficient of the momentum.
        weight_decay: Weight decay λ.
        trust_coefficient: Factor of the ratio of norms.
        eps: Added to the norm of the gradient.
        nesterov: Nesterov's momentum.
        adapt: ``"decayed"``: scale only what is decayed, as timm does.
        lr_place: ``"step"``: keep the rate out of the momentum.
        ratio: ``"joint"``: the norm of gradient plus decay, as optax does.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = LARS([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.9999, -1.9998])
    """

    rule_name = "lars"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        trust_coefficient: float = 1e-3,
        eps: float = 0.0,
        nesterov: bool = False,
        *,
        adapt: str = "always",
        lr_place: str = "buffer",
        ratio: str = "separate",
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
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "nesterov": nesterov,
            "adapt": adapt,
            "lr_place": lr_place,
            "ratio": ratio,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)


class Adafactor(Facade):
    """Adafactor: a second moment kept as the means of its rows and columns.

    Equations: `steepest.rules.adafactor`. Arguments: torch.optim.Adafactor, whose checkpoints it
    shares.

    The rule's other readings (``rate``, ``eps_mode``, ``beta1``) are entries of parameter groups,
    or arguments of `steepest.optim.build`.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Largest relative step, and the factor of the decay.
        beta2_decay: Exponent of the second moment's weight.
        eps: Smallest second moment (None: the machine epsilon of the parameter's type), and
            smallest size of a parameter.
        d: Largest root mean square of an update.
        weight_decay: Weight decay λ.
        foreach, maximize: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Adafactor([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 0.8419, -1.8419])
    """

    rule_name = "adafactor"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults, engine=engine)


class Prodigy(Facade):
    """Prodigy: Adam that finds its own learning rate; leave ``lr`` at 1.

    Equations: `steepest.rules.prodigy`. Arguments: github.com/konstmish/prodigy.

    Args:
        params: Parameters, named parameters or parameter groups.
        lr: Factor of the rate that it finds; for schedules.
        betas: Coefficients of the two moments.
        beta3: Coefficient of the distance's averages; None: the root of β₂.
        eps: Added to the root.
        weight_decay: Weight decay λ.
        decouple: Decay beside the step instead of an L2 penalty.
        use_bias_correction: Adam's correction of the moments' start.
        safeguard_warmup: Keep a warmup's small rates out of the distance.
        d0: First estimate of the distance.
        d_coef: Factor of the distance.
        growth_rate: Largest growth of the distance per step.
        foreach, maximize, capturable, differentiable, fused: See `steepest.optim.faces`.
        engine: ``"auto"``, ``"eager"`` or ``"kernel"``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Prodigy([weight], lr=0.1)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([ 1.0000, -2.0000])
    """

    rule_name = "prodigy"

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float = float("inf"),
        *,
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
            "beta3": beta3,
            "eps": eps,
            "weight_decay": weight_decay,
            "decouple": decouple,
            "use_bias_correction": use_bias_correction,
            "safeguard_warmup": safeguard_warmup,
            "d0": d0,
            "d_coef": d_coef,
            "growth_rate": growth_rate,
            "foreach": foreach,
            "maximize": maximize,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, engine=engine)
