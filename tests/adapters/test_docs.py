"""The examples on the adapters' pages run as they stand there."""

import re
import runpy
import warnings
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["huggingface", "keras", "lightning", "optax"])
def test_the_example_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S)
    assert blocks
    script = tmp_path / "example.py"
    script.write_text("\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("default")  # what the libraries say about themselves
        runpy.run_path(str(script), run_name="__main__")
