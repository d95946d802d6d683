"""The rules in real runs of Hugging Face's Trainer."""

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

import steepest
from steepest import optim
from steepest.errors import InputError, TaskError
from steepest.train.solo import SoloRun


def arguments(folder, **more):
    given = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 5e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
        "optim": "adamw_torch",
        "dataloader_pin_memory": False,
        **more,
    }
    return TrainingArguments(**given)


def trainer(make, args, sentences, collator, optimizers=None, **more):
    set_seed(0)
    model = make()
    if optimizers is not None:
        more["optimizers"] = optimizers(model)
    return Trainer(model=model, args=args, train_dataset=sentences, data_collator=collator, **more)


def losses(run):
    return [row["loss"] for row in run.state.log_history if "loss" in row]


@pytest.mark.parametrize("way", ["cls_and_kwargs", "optimizers"])
def test_adamw_has_the_losses_of_the_trainers_own_step_by_step(
    way, bert, sentences, collator, tmp_path
):
    set_values = {"weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-4}
    args = arguments(tmp_path, lr_scheduler_type="cosine", warmup_steps=3, **set_values)
    theirs = trainer(bert, args, sentences, collator)
    theirs.train()
    if way == "cls_and_kwargs":
        more = {"optimizer_cls_and_kwargs": steepest.hf.optimizer_cls_and_kwargs("adamw", args)}
    else:
        more = {"optimizers": lambda model: steepest.hf.optimizers(model, "adamw", args)}
    ours = trainer(bert, args, sentences, collator, **more)
    ours.train()
    assert isinstance(ours.optimizer.optimizer, optim.AdamW)
    assert len(losses(ours)) == 12
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)
    ours_then, theirs_then = ours.model.state_dict(), theirs.model.state_dict()
    for name, p in theirs_then.items():
        torch.testing.assert_close(ours_then[name], p, rtol=1e-4, atol=1e-5)
    decayed = [
        [sorted(p.shape for p in group["params"]), group["weight_decay"]]
        for group in theirs.optimizer.param_groups
    ]
    assert decayed == [
        [sorted(p.shape for p in group["params"]), group["weight_decay"]]
        for group in ours.optimizer.param_groups
    ]
    assert [weight for _, weight in decayed] == [0.1, 0.0]


def test_a_schedule_of_ours_is_the_trainers_own_where_both_have_it(
    bert, sentences, collator, tmp_path
):
    args = arguments(tmp_path, max_steps=12, lr_scheduler_type="linear", warmup_steps=3)
    theirs = trainer(bert, args, sentences, collator)
    theirs.train()
    plain = arguments(tmp_path, max_steps=12)
    ours = trainer(
        bert,
        plain,
        sentences,
        collator,
        optimizers=lambda model: steepest.hf.optimizers(model, "adamw + linear(warmup=3)", plain),
    )
    ours.train()

    def rates(run):
        return [row["learning_rate"] for row in run.state.log_history if "learning_rate" in row]

    np.testing.assert_allclose(rates(ours), rates(theirs), rtol=1e-6)
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)


@pytest.mark.parametrize("arm", ["nadam(lr=1e-2) + cosine(warmup=0.2)", "schedulefree_adamw"])
def test_a_run_resumed_from_a_checkpoint_is_the_uninterrupted_one_to_the_bit(
    arm, bert, sentences, collator, tmp_path
):
    def run(folder, resume=None):
        args = arguments(
            folder, max_steps=12, save_strategy="steps", save_steps=5, lr_scheduler_type="constant"
        )
        made = trainer(
            bert,
            args,
            sentences,
            collator,
            optimizers=lambda model: steepest.hf.optimizers(model, arm, args),
        )
        made.train(resume_from_checkpoint=resume)
        return made

    whole = run(tmp_path / "whole")
    other = run(tmp_path / "other", resume=str(tmp_path / "whole" / "checkpoint-5"))
    assert losses(other)[-7:] == losses(whole)[-7:]
    for a, b in zip(whole.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_the_trainers_own_adamw_goes_on_with_ours(
    bert, sentences, collator, tmp_path
):
    def run(folder, resume=None, **more):
        args = arguments(folder, max_steps=12, save_strategy="steps", save_steps=5)
        if resume is not None:
            more = {"optimizer_cls_and_kwargs": steepest.hf.optimizer_cls_and_kwargs("adamw", args)}
        made = trainer(bert, args, sentences, collator, **more)
        made.train(resume_from_checkpoint=resume)
        return made

    theirs = run(tmp_path / "theirs")
    ours = run(tmp_path / "ours", resume=str(tmp_path / "theirs" / "checkpoint-5"))
    assert isinstance(ours.optimizer.optimizer, optim.AdamW)
    np.testing.assert_allclose(losses(ours)[-7:], losses(theirs)[-7:], rtol=1e-5)


def test_anybodys_class_is_an_arm_for_the_trainer(bert, sentences, collator, tmp_path):
    args = arguments(tmp_path, max_steps=3, weight_decay=0.1, lr_scheduler_type="constant")
    made, schedule = steepest.hf.optimizers(bert(), "torch.optim:SGD(momentum=0.9)", args)
    assert schedule is None
    assert (type(made), made.defaults["momentum"]) == (torch.optim.SGD, 0.9)
    assert [(g["lr"], g["weight_decay"]) for g in made.param_groups] == [(5e-3, 0.1), (5e-3, 0.0)]


def test_a_rule_for_matrices_knows_the_embeddings_by_their_names(
    bert, sentences, collator, tmp_path
):
    args = arguments(tmp_path, max_steps=2)
    found = steepest.hf.optimizer_cls_and_kwargs("muon", args, lr=0.02, auxiliary={"lr": 1e-3})
    run = trainer(bert, args, sentences, collator, optimizer_cls_and_kwargs=found)
    run.train()
    rules_of = {one.name: one.rule for one in run.optimizer.optimizer.assignments}
    assert rules_of["bert.embeddings.word_embeddings.weight"] == "adamw"
    assert rules_of["bert.encoder.layer.0.attention.self.query.weight"] == "muon"
    assert len(rules_of) == len(list(run.model.parameters()))


def test_what_was_set_of_adams_numbers_is_the_rules_and_what_was_not_is_not(tmp_path):
    cls, kwargs = steepest.hf.optimizer_cls_and_kwargs("lion", arguments(tmp_path))
    assert (cls, kwargs["lr"]) == (optim.Lion, 5e-3)
    assert "betas" not in kwargs  # Lion's 0.99 is not Adam's 0.999
    _, kwargs = steepest.hf.optimizer_cls_and_kwargs("lion", arguments(tmp_path, adam_beta2=0.95))
    assert kwargs["betas"] == (0.9, 0.95)
    _, kwargs = steepest.hf.optimizer_cls_and_kwargs(
        "lion", arguments(tmp_path, adam_beta2=0.95), beta2=0.9
    )
    assert kwargs["betas"] == (0.9, 0.9)


def test_options_that_torch_has_no_name_for_are_honoured(bert, sentences, collator, tmp_path):
    args = arguments(tmp_path, max_steps=2)
    found = steepest.hf.optimizer_cls_and_kwargs("adam", args, eps_mode="hat")
    run = trainer(bert, args, sentences, collator, optimizer_cls_and_kwargs=found)
    run.train()
    assert run.optimizer.param_groups[0]["eps_mode"] == "hat"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, m: steepest.hf.optimizer_cls_and_kwargs("adm"), "did you mean 'adam'"),
        (lambda a, m: steepest.hf.optimizer_cls_and_kwargs("adam", lr=-1), "lr must be >= 0"),
        (lambda a, m: steepest.hf.optimizer_cls_and_kwargs("adam", b=1), "unknown hyperparameter"),
        (
            lambda a, m: steepest.hf.optimizer_cls_and_kwargs("adamw", weight_decay=0.1),
            "TrainingArguments\\(weight_decay=0.1\\)",
        ),
        (lambda a, m: steepest.hf.optimizer_cls_and_kwargs("muon"), "the parameters' names"),
        (lambda a, m: steepest.hf.optimizers(m(), "adamw + cosine()", a), "how long the run is"),
        (lambda a, m: steepest.hf.optimizers(m(), "adamw + cosin()", a), "did you mean 'cosine'"),
        (lambda a, m: steepest.hf.optimizers(m(), "rprop", a), "rprop has no weight decay"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(call, message, bert, tmp_path):
    with pytest.raises(InputError, match=message):
        call(arguments(tmp_path, weight_decay=0.1), bert)


def accuracy(logits, labels):
    return (logits.argmax(-1) == labels).double().mean().item()


def computed(prediction):
    right = prediction.predictions.argmax(-1) == prediction.label_ids
    return {"accuracy": float(right.mean()), "count": float(len(right))}


def test_a_trainers_setup_is_a_task_with_its_loss_and_its_metrics(
    bert, sentences, collator, tmp_path
):
    task = steepest.hf.task(
        bert,
        sentences[:32],
        val=sentences[32:],
        collator=collator,
        metrics=["accuracy"],
        compute_metrics=computed,
    )
    run = SoloRun(
        task, optimizer=lambda p: torch.optim.AdamW(p, lr=5e-3), schedule=None, seed=1, steps=6
    )
    run.advance(6)
    found = run.evaluate("val")
    args = arguments(tmp_path, per_device_eval_batch_size=8)
    theirs = Trainer(
        model=run.model.model,
        args=args,
        eval_dataset=sentences[32:],
        data_collator=collator,
        compute_metrics=computed,
    ).evaluate()
    assert found["loss"] == pytest.approx(theirs["eval_loss"], rel=1e-5)
    assert found["accuracy"] == theirs["eval_accuracy"]
    decays = {
        tuple(p.shape): g["weight_decay"] for g in run.optimizer.param_groups for p in g["params"]
    }
    assert decays[(24, 16)] == 0.01
    assert decays[(24,)] == 0.0


def test_any_trainer_setup_is_raced(bert, sentences, collator, tmp_path):
    task = steepest.hf.task(
        bert,
        sentences[:32],
        sentences[32:40],
        sentences[40:],
        collator=collator,
        metrics={"accuracy": accuracy},
    )
    again = steepest.hf.task(
        bert,
        sentences[:32],
        sentences[32:40],
        sentences[40:],
        collator=collator,
        metrics={"accuracy": accuracy},
    )
    assert task.fingerprint() == again.fingerprint()
    other = steepest.hf.task(
        bert,
        sentences[1:32],
        sentences[32:40],
        sentences[40:],
        collator=collator,
        metrics={"accuracy": accuracy},
    )
    assert task.fingerprint()["train"] != other.fingerprint()["train"]
    result = steepest.race(
        task,
        ["adamw(lr=1e-2)", "sgd(lr=1e-9)"],
        seeds=2,
        epochs=6,
        out=tmp_path / "race",
        timing=0,
        engine="solo",
    )
    assert {run.status for run in result.runs} == {"done"}
    assert result.ranking[0].label == "adamw(lr=0.01)"
    curves = result.curves("train_loss")
    assert len(curves) >= 2


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"metrics": ["f1"]}, InputError, "give compute_metrics= too"),
        ({"compute_metrics": computed}, InputError, "say which of the numbers"),
        ({"labels": "targets"}, TaskError, "a batch has no 'targets'"),
        ({"val": iter([])}, TaskError, "a stream has no epochs"),
    ],
)
def test_a_setup_that_cannot_be_trained_is_told(more, error, message, bert, sentences, collator):
    def use():
        task = steepest.hf.task(bert, sentences, collator=collator, **more)
        SoloRun(
            task, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), schedule=None, seed=0, steps=1
        )

    with pytest.raises(error, match=message):
        use()


def logged(bert, sentences, collator, folder, ledger, *, resume=None, stop_at=None, **more):
    args = arguments(
        folder,
        max_steps=14,
        eval_strategy="steps",
        eval_steps=7,
        save_strategy="steps",
        save_steps=5,
        metric_for_best_model="accuracy",
        **more,
    )
    run = trainer(
        bert,
        args,
        sentences[:32],
        collator,
        eval_dataset=sentences[32:],
        compute_metrics=computed,
        callbacks=[steepest.hf.LedgerCallback(ledger, task="sentences")],
        optimizers=lambda model: steepest.hf.optimizers(model, "nadam + cosine(warmup=2)", args),
    )
    if stop_at:
        run.add_callback(Stop(stop_at))
    try:
        run.train(resume_from_checkpoint=resume)
    except KeyboardInterrupt:
        callback = next(c for c in run.callback_handler.callbacks if hasattr(c, "folder"))
        callback.close()
    return run


class Stop(TrainerCallback):
    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, **given):
        if state.global_step == self.at:
            raise KeyboardInterrupt


def test_the_ledger_of_a_trainer_run_says_what_the_trainer_says(
    bert, sentences, collator, tmp_path
):
    run = logged(bert, sentences, collator, tmp_path / "run", tmp_path / "ledger")
    result = steepest.load(tmp_path / "ledger")
    (key, (steps, curve)), *_ = result.curves("train_loss").items()
    assert steps.tolist() == list(range(1, 15))
    np.testing.assert_allclose(curve, losses(run), rtol=1e-6)
    rates = [row["learning_rate"] for row in run.state.log_history if "learning_rate" in row]
    np.testing.assert_allclose(result.curves("lr")[key][1], rates, rtol=1e-6)
    evaluated = {
        row["step"]: (row["eval_loss"], row["eval_accuracy"])
        for row in run.state.log_history
        if "eval_loss" in row
    }
    assert result.evaluations("val", "loss")[key][0].tolist() == [7, 14]
    for at, name in enumerate(("loss", "accuracy")):
        found = result.evaluations("val", name)[key][1]
        np.testing.assert_allclose(found, [evaluated[s][at] for s in (7, 14)], rtol=1e-6)
    assert result.metric == "val_accuracy"
    assert result.runs[0].metrics["val_accuracy"] == evaluated[14][1]
    assert (result.complete, result.task, result.arms[0].name) == (
        True,
        "sentences",
        "steepest.optim.faces:NAdam",
    )
    page = result.report().read_text()
    assert "The layers are not compared: the weights of this run stayed with" in page
    diagnosis = steepest.diagnose(tmp_path / "ledger")
    assert len(diagnosis.runs) == 1
    with pytest.raises(steepest.SteepestError, match="belongs to transformers' Trainer"):
        steepest.resume(tmp_path / "ledger")


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_the_ledger_of_a_run_that_was_interrupted_and_resumed_is_that_of_a_whole_one(
    logging_steps, bert, sentences, collator, tmp_path
):
    more = {"logging_steps": logging_steps}
    logged(bert, sentences, collator, tmp_path / "a", tmp_path / "whole", **more)
    logged(bert, sentences, collator, tmp_path / "b", tmp_path / "parts", stop_at=13, **more)
    halfway = steepest.load(tmp_path / "parts")
    assert (halfway.runs[0].status, halfway.runs[0].steps) == ("running", 13)
    logged(
        bert,
        sentences,
        collator,
        tmp_path / "b",
        tmp_path / "parts",
        resume=str(tmp_path / "b" / "checkpoint-10"),
        **more,
    )
    whole, parts = steepest.load(tmp_path / "whole"), steepest.load(tmp_path / "parts")
    (a,), (b,) = whole.curves().values(), parts.curves().values()
    if logging_steps == 1:
        np.testing.assert_array_equal(a[1], b[1])
    else:
        np.testing.assert_array_equal(a[1][:9], b[1][:9])  # step 10 was not logged before
    assert len(a[1]) == len(b[1])
    for name in ("loss", "accuracy"):
        (c,), (d,) = (r.evaluations("val", name).values() for r in (whole, parts))
        np.testing.assert_array_equal(c, d)
    assert parts.runs[0].status == "done"
    steepest.diagnose(tmp_path / "parts")
    parts.report()


def test_another_run_does_not_write_into_a_ledger_that_is_not_its_own(
    bert, sentences, collator, tmp_path
):
    logged(bert, sentences, collator, tmp_path / "a", tmp_path / "ledger")
    with pytest.raises(steepest.SteepestError, match="holds a run already"):
        logged(bert, sentences, collator, tmp_path / "b", tmp_path / "ledger")
    other = tmp_path / "a" / "checkpoint-5"
    with pytest.raises(steepest.SteepestError, match="no ledger of the steps before"):
        logged(bert, sentences, collator, tmp_path / "c", tmp_path / "new", resume=str(other))
