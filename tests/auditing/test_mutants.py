"""Optimizers that are wrong in one way each: the audit names the term and the first step."""

from __future__ import annotations

import math

import pytest
import torch

from steepest.auditing import audit


class Written(torch.optim.Optimizer):
    """Adam written out, with one place for each mistake."""

    keeps_step = True
    first, second = True, True  # bias corrections
    late = 0
    eps_mode = "outside"

    def __init__(
        self,
        params,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        maximize=False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def decayed(self, p, g, group):
        return g + group["weight_decay"] * p

    def gradient(self, p, group):
        g = -p.grad if group["maximize"] else p.grad
        return self.decayed(p, g, group)

    def start(self, p):
        return {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}

    def root(self, v, c, eps):
        return (v / c).sqrt() + eps

    def land(self, p, step, group):
        p.add_(step)

    def betas(self, group):
        return group["betas"]

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            b1, b2 = self.betas(group)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                for name, value in self.start(p).items():
                    state.setdefault(name, value)
                state["step"] += 1
                t = state["step"] + self.late
                g = self.gradient(p, group)
                state["exp_avg"].mul_(b1).add_(g, alpha=1 - b1)
                state["exp_avg_sq"].mul_(b2).addcmul_(g, g, value=1 - b2)
                c1 = 1 - b1**t if self.first else 1.0
                c2 = 1 - b2**t if self.second else 1.0
                root = self.root(state["exp_avg_sq"], c2, group["eps"])
                self.land(p, -group["lr"] * state["exp_avg"] / c1 / root, group)

    def state_dict(self):
        saved = super().state_dict()
        if not self.keeps_step:
            for state in saved["state"].values():
                del state["step"]
        return saved


class NoCorrection(Written):
    first = second = False


class NoFirstCorrection(Written):
    first = False


class NoSecondCorrection(Written):
    second = False


class OneTooMany(Written):
    late = 1


class StepIsLost(Written):
    keeps_step = False


class EpsUnderUncorrectedRoot(Written):
    def root(self, v, c, eps):
        return (v + eps).sqrt() / math.sqrt(c)


class EpsIgnored(Written):
    def root(self, v, c, eps):
        return (v / c).sqrt() + 1e-8 * (eps == 1e-8)


class DecayTwiceTheRate(Written):
    def decayed(self, p, g, group):
        return g

    def land(self, p, step, group):
        p.sub_(group["lr"] ** 2 * group["weight_decay"] * p).add_(step)


class DecayIgnored(Written):
    def decayed(self, p, g, group):
        return g


class DecayAfterwards(Written):
    def decayed(self, p, g, group):
        return g

    def land(self, p, step, group):
        p.add_(step).mul_(1 - group["lr"] * group["weight_decay"])


class DecayOfTheFirstRate(Written):
    def decayed(self, p, g, group):
        return g

    def land(self, p, step, group):
        group.setdefault("initial_lr", group["lr"])
        p.add_(step - group["initial_lr"] * group["weight_decay"] * p)


class CoupledAdamW(Written):
    def __init__(self, params, lr=1e-3, weight_decay=1e-2):
        super().__init__(params, lr, weight_decay=weight_decay)


class MaximizeIgnored(Written):
    def gradient(self, p, group):
        return self.decayed(p, p.grad, group)


class MaximizeGrowsTheWeights(Written):
    def gradient(self, p, group):
        g = self.decayed(p, p.grad, group)
        return -g if group["maximize"] else g


class BetasIgnored(Written):
    def betas(self, group):
        return 0.9, 0.999


class BetasExchanged(Written):
    def betas(self, group):
        return group["betas"][::-1]


class FirstGroupOnly(Written):
    def land(self, p, step, group):
        p.add_(step * (self.param_groups[0]["lr"] / group["lr"]))


class RateOfTheConstructor(Written):
    def land(self, p, step, group):
        group.setdefault("initial_lr", group["lr"])
        p.add_(step * (group["initial_lr"] / group["lr"]))


class HalfAsLong(Written):
    def land(self, p, step, group):
        p.add_(step / 2)


class Uphill(Written):
    def land(self, p, step, group):
        p.sub_(step)


class MomentIsLost(Written):
    def state_dict(self):
        saved = super().state_dict()
        for state in saved["state"].values():
            del state["exp_avg_sq"]
        return saved


class ZeroForMissing(Written):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        super().step()


class BufferBeginsAtZero(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if group["momentum"] and p.grad is not None and not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        super().step(closure)


class NesterovIgnored(torch.optim.SGD):
    def step(self, closure=None):
        kept = [group["nesterov"] for group in self.param_groups]
        for group in self.param_groups:
            group["nesterov"] = False
        super().step(closure)
        for group, nesterov in zip(self.param_groups, kept, strict=True):
            group["nesterov"] = nesterov


class ProductIsForgotten(torch.optim.NAdam):
    def step(self, closure=None):
        super().step(closure)
        for state in self.state.values():
            state["mu_product"].fill_(1.0)


class RaisesWithATensor(torch.optim.Adam):
    def step(self, closure=None):
        for group in self.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                raise TypeError("float, please")
        super().step(closure)


MUTANTS = [
    (NoCorrection, "adam", "bias correction", "plain", 1, "none"),
    (NoFirstCorrection, "adam", "bias correction of the first moment", "plain", 1, "none"),
    (NoSecondCorrection, "adam", "bias correction of the second moment", "plain", 1, "none"),
    (OneTooMany, "adam", "step number", "plain", 1, "one step too many"),
    (Uphill, "adam", "sign", "plain", 1, "up"),
    (HalfAsLong, "adam", "length", "plain", 1, "0.5 times"),
    (BetasIgnored, "adam", "betas", "other coefficients", 2, "0.9, 0.999"),
    (BetasExchanged, "adam", "betas", "plain", 2, "exchanged"),
    (EpsUnderUncorrectedRoot, "adam", "eps", "plain", 1, "before the bias correction"),
    (EpsIgnored, "adam", "eps", "large eps", 1, "ignored"),
    (RateOfTheConstructor, "adam", "learning rate", "changing lr", 2, "not seen"),
    (DecayIgnored, "adam", "weight decay", "weight decay", 1, "ignored"),
    (DecayTwiceTheRate, "adam", "weight decay", "weight decay", 1, "lr twice"),
    (DecayAfterwards, "adam", "weight decay", "weight decay", 1, "after the step"),
    (DecayOfTheFirstRate, "adam", "weight decay", "weight decay, changing lr", 2, "first step"),
    (CoupledAdamW, "adamw", "weight decay", "weight decay", 1, "L2 penalty"),
    (ZeroForMissing, "adam", "missing gradients", "missing gradients", 3, "zeros"),
    (StepIsLost, "adam", "save and load", "save and load", 51, "number of the step"),
    (MomentIsLost, "adam", "save and load", "save and load", 51, "exp_avg_sq"),
    (FirstGroupOnly, "adam", "groups", "groups", 1, "the lr of the first"),
    (MaximizeIgnored, "adam", "maximize", "maximize", 1, "ignored"),
    (MaximizeGrowsTheWeights, "adam", "maximize", "maximize, weight decay", 1, "L2 penalty"),
    (RaisesWithATensor, "adam", "lr in a tensor", "lr in a tensor", None, "float, please"),
    (BufferBeginsAtZero, "sgd", "momentum", "dampening", 1, "at zero"),
    (NesterovIgnored, "sgd", "nesterov", "nesterov=True", 1, "nesterov=False"),
    (ProductIsForgotten, "nadam", "mu_product", "plain", 2, "forgotten"),
]


@pytest.mark.parametrize(
    ("mutant", "rule", "term", "scenario", "since", "text"),
    MUTANTS,
    ids=[mutant[0].__name__ for mutant in MUTANTS],
)
def test_a_mistake_is_named_where_and_since_when(mutant, rule, term, scenario, since, text):
    found = audit(mutant, rule)
    assert found.exit_code == 3
    first = found.findings[0]
    assert (first.term, first.scenario, first.since) == (term, scenario, since)
    assert text in first.text
    assert len(found.findings) == 1, "one mistake is one finding"
    assert first.by > 1e-6 or since is None
    assert first.explained


def test_without_a_mistake_it_is_adam():
    found = audit(Written, "adam")
    assert found.follows
    assert found.off < 1e-13
