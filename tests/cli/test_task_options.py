"""A ready-made task's options are flags of a command that takes a task."""

import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from steepest.cli.task_options import takes_task_options


def maker(*, data: Path, length: int = 64, lower: bool = True, train_on: str = "train") -> None:
    """A task for these tests.

    Args:
        data: The file to read.
        length: How long.
        lower: Whether to.
    """


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setattr(
        sys.modules["steepest.tasks.load"],
        "_READY_MADE",
        {"table": maker, "plain": lambda *, train_on="train": None},
    )

    @takes_task_options
    def one(
        task: Annotated[str, typer.Argument(help="What.")],
        length: Annotated[int, typer.Option(help="The command's own.")] = 1,
    ) -> None:
        """Do it."""
        typer.echo(f"{task} {length}")

    @takes_task_options
    def many(task: Annotated[list[str], typer.Argument(help="What.")]) -> None:
        """Do them."""
        typer.echo("; ".join(task))

    app = typer.Typer()
    app.command()(one)
    app.command()(many)
    return app


def test_flags_become_the_tasks_text(app, tmp_path):
    run = CliRunner().invoke(app, ["one", "table", "--data", f"{tmp_path}/a b.csv", "--no-lower"])
    assert run.stdout == f"table(data='{tmp_path}/a b.csv', lower=false) 1\n"


def test_a_command_keeps_its_own_flag_of_that_name(app):
    run = CliRunner().invoke(app, ["one", "plain", "--length", "5"])
    assert run.stdout == "plain 5\n"


def test_several_tasks_get_the_flags_alike(app, tmp_path):
    run = CliRunner().invoke(app, ["many", "table", "table", "--data", f"{tmp_path}/a"])
    assert run.stdout == f"table(data={tmp_path}/a); table(data={tmp_path}/a)\n"


def test_of_several_tasks_each_gets_what_it_takes(app, tmp_path):
    run = CliRunner().invoke(app, ["many", "plain", "table", "--data", f"{tmp_path}/a"])
    assert run.stdout == f"plain; table(data={tmp_path}/a)\n"
    run = CliRunner().invoke(app, ["many", "plain", "own.py:task", "--data", f"{tmp_path}/a"])
    assert "--data is an option of the task table" in str(run.exception)


def test_help_says_of_which_task_a_flag_is(app):
    text = CliRunner().invoke(app, ["many", "--help"], env={"COLUMNS": "160"}).stdout
    assert "[table] The file to read." in text
    assert "[table] How long. Default: 64." in text
