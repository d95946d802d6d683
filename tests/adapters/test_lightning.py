"""The optimizers under Lightning's Trainer, and its runs as ledgers."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import steepest
from steepest import optim
from steepest.errors import InputError
from steepest.train.lr_adapter import to_lambda_lr

pytestmark = pytest.mark.filterwarnings("ignore:::lightning")  # advice about workers and folders
STEPS = 12


class Module(pl.LightningModule):
    """A small network; ``make`` gives the optimizers, ``manual`` says who steps them."""

    def __init__(self, make, *, manual=False, returns=True):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.make = make
        self.automatic_optimization = not manual
        self.returns = returns
        self.seen = []
        self.rates = []

    def training_step(self, batch, _):
        x, y = batch
        loss = F.mse_loss(self.net(x), y)
        self.seen.append(loss.item())
        self.log("train_loss", loss)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.lr_schedulers().step()
        return loss if self.returns else None

    def on_before_optimizer_step(self, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def validation_step(self, batch, _):
        x, y = batch
        out = self.net(x)
        self.log("val_loss", F.mse_loss(out, y))
        self.log("val/close", ((out - y).abs() < 1).float().mean())

    def configure_optimizers(self):
        optimizer = self.make(self.net.parameters())
        schedule = to_lambda_lr(optimizer, "cosine(warmup=3)", total=STEPS)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def loader(n, *, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)


class Stop(pl.Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.at:
            raise RuntimeError("pulled the plug")


def fit(folder, module, *, ledger=None, resume=None, stop_at=None, **more):
    torch.manual_seed(0)
    for p in module.parameters():
        nn.init.normal_(p, std=0.3)
    callbacks = [
        # after an epoch: in the middle of one Lightning does not know where the loader was
        ModelCheckpoint(
            folder, "{step}", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=-1
        )
    ]
    if ledger is not None:
        callbacks.append(ledger)
    if stop_at is not None:
        callbacks.append(Stop(stop_at))
    trainer = pl.Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        num_sanity_val_steps=1,
        gradient_clip_val=1.0 if module.automatic_optimization else None,
        **more,
    )
    trainer.fit(module, loader(48, seed=0), loader(16, seed=1), ckpt_path=resume)
    return trainer


@pytest.mark.parametrize("manual", [False, True])
def test_an_optimizer_has_the_losses_of_torchs_own_step_by_step(manual, tmp_path):
    given = {"lr": 0.05, "weight_decay": 0.1}
    theirs = Module(lambda p: torch.optim.NAdam(p, **given), manual=manual)
    ours = Module(lambda p: optim.NAdam(p, **given), manual=manual)
    fit(tmp_path / "a", theirs)
    fit(tmp_path / "b", ours)
    assert len(ours.seen) == STEPS
    np.testing.assert_allclose(ours.seen, theirs.seen, rtol=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["nadam", "schedulefree_adamw", "muon"])
def test_a_run_resumed_from_a_checkpoint_is_the_uninterrupted_one_to_the_bit(name, tmp_path):
    def module():
        made = Module(lambda p: optim.build(name, p, lr=0.05))
        made.net[2].p = 0.0  # Lightning keeps no random state; without dropout none is needed
        return made

    whole, resumed = module(), module()
    fit(tmp_path / "whole", whole)
    fit(tmp_path / "resumed", resumed, resume=tmp_path / "whole" / "step=6.ckpt")
    assert resumed.seen == whole.seen[6:]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("manual", [False, True])
def test_the_ledger_of_a_run_says_what_the_module_saw(manual, tmp_path):
    module = Module(lambda p: optim.Lion(p, lr=0.01), manual=manual)
    ledger = steepest.lightning.LedgerCallback(
        tmp_path / "ledger", task="sums", monitor="val/close", mode="max"
    )
    trainer = fit(tmp_path / "run", module, ledger=ledger)
    result = steepest.load(tmp_path / "ledger")
    ((key, (steps, losses)),) = result.curves("train_loss").items()
    assert steps.tolist() == list(range(1, STEPS + 1))
    np.testing.assert_allclose(losses, module.seen, rtol=1e-6)
    np.testing.assert_allclose(result.curves("lr")[key][1], module.rates, rtol=1e-6)
    assert result.evaluations("val", "loss")[key][0].tolist() == [6, 12]
    final = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert result.runs[0].metrics["val_loss"] == pytest.approx(final["val_loss"])
    assert (result.metric, result.higher_is_better) == ("val_close", True)
    assert result.runs[0].metrics["val_close"] == pytest.approx(final["val/close"])
    assert (result.complete, result.arms[0].schedule) == (True, "LambdaLR")
    result.report()
    steepest.diagnose(tmp_path / "ledger")


def test_accumulated_batches_are_one_step_with_their_mean_loss(tmp_path):
    module = Module(lambda p: optim.SGD(p, lr=0.01))
    ledger = steepest.lightning.LedgerCallback(tmp_path / "ledger")
    fit(tmp_path / "run", module, ledger=ledger, accumulate_grad_batches=2)
    ((_, losses),) = steepest.load(tmp_path / "ledger").curves().values()
    np.testing.assert_allclose(losses, np.reshape(module.seen, (STEPS, 2)).mean(1), rtol=1e-5)


def test_the_ledger_of_a_run_that_failed_and_was_resumed_is_that_of_a_whole_one(tmp_path):
    def once(folder, ledger, **more):
        module = Module(lambda p: optim.NAdam(p, lr=0.05))
        module.net[2].p = 0.0
        fit(folder, module, ledger=steepest.lightning.LedgerCallback(ledger), **more)

    once(tmp_path / "a", tmp_path / "whole")
    with pytest.raises(RuntimeError, match="pulled the plug"):
        once(tmp_path / "b", tmp_path / "parts", stop_at=8)
    (run,) = steepest.load(tmp_path / "parts").runs
    assert (run.status, run.message) == ("failed", "RuntimeError: pulled the plug")
    once(tmp_path / "b", tmp_path / "parts", resume=tmp_path / "b" / "step=6.ckpt")
    whole, parts = steepest.load(tmp_path / "whole"), steepest.load(tmp_path / "parts")
    for read in (lambda r: r.curves("train_loss"), lambda r: r.curves("lr")):
        ((_, a),), ((_, b),) = read(whole).values(), read(parts).values()
        np.testing.assert_array_equal(a, b)
    (a,), (b,) = (r.evaluations("val", "loss").values() for r in (whole, parts))
    np.testing.assert_array_equal(a, b)
    assert parts.runs[0].status == "done"


def test_a_loss_that_is_not_returned_has_to_be_named(tmp_path):
    def module():
        return Module(lambda p: optim.SGD(p, lr=0.01), manual=True, returns=False)

    callback = steepest.lightning.LedgerCallback
    with pytest.raises(InputError, match="return it, or log it and name it"):
        fit(tmp_path / "a", module(), ledger=callback(tmp_path / "one"))
    named = module()
    fit(tmp_path / "b", named, ledger=callback(tmp_path / "two", loss="train_loss"))
    ((_, losses),) = steepest.load(tmp_path / "two").curves().values()
    np.testing.assert_allclose(losses, named.seen, rtol=1e-6)
    with pytest.raises(InputError, match="mode must be"):
        callback(tmp_path / "three", mode="least")
