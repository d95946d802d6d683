"""A tiny BERT with random weights, and sentences for it: no hub, no download."""

import pytest
import torch

WORDS = 40


def make_bert():
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=16,
            num_labels=2,
        )
    )


@pytest.fixture
def bert():
    return make_bert


@pytest.fixture
def sentences():
    """Of 4 to 10 words; the label says whether the first word is in the first half of all."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(48):
        length = int(torch.randint(4, 11, (), generator=generator))
        ids = torch.randint(1, WORDS, (length,), generator=generator).tolist()
        found.append({"input_ids": ids, "labels": int(ids[0] < WORDS // 2), "text": "not an input"})
    return found


def pad(examples):
    """What DataCollatorWithPadding does, without a tokenizer."""
    longest = max(len(one["input_ids"]) for one in examples)
    return {
        "input_ids": torch.tensor(
            [one["input_ids"] + [0] * (longest - len(one["input_ids"])) for one in examples]
        ),
        "attention_mask": torch.tensor(
            [
                [1] * len(one["input_ids"]) + [0] * (longest - len(one["input_ids"]))
                for one in examples
            ]
        ),
        "labels": torch.tensor([one["labels"] for one in examples]),
    }


@pytest.fixture
def collator():
    return pad
