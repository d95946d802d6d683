"""A user's own task: found by name, and its mistakes told with file and line."""

import sys
import textwrap

import pytest
import torch

from steepest import tasks
from steepest.errors import InputError, TaskError

GOOD = """
    import torch
    from steepest.train.task import Task

    def model():
        return torch.nn.Linear(4, 2)

    def make():
        return Task(name="own", model=model, loss=torch.nn.functional.cross_entropy,
                    train=(torch.ones(8, 4), torch.zeros(8).long()),
                    val=(torch.ones(3, 4), torch.ones(3).long()))

    task = make()
    number = 3
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="my_task.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_names_and_descriptions():
    assert tasks.names() == ("images", "mnist", "mnist-logreg", "mnist-mlp", "text")
    for name in tasks.names()[1:4]:
        assert tasks.describe(name).startswith("MNIST with ")
    assert tasks.describe("text").startswith("Texts with a label each")


@pytest.mark.parametrize("suffix", [":task", ":make", ""])
def test_a_task_or_a_function_in_a_file_is_found(write, suffix):
    assert tasks.load(f"{write(GOOD)}{suffix}").name == "own"


def test_a_task_object_is_taken_as_it_is(write):
    task = tasks.load(f"{write(GOOD)}:task")
    assert tasks.load(task) is task


def test_train_on_all_joins_a_users_own_validation_data(write):
    task = tasks.load(f"{write(GOOD)}:task", train_on="all")
    assert task.val is None
    assert task.train[1].tolist() == [0] * 8 + [1] * 3
    assert torch.equal(task.train[0], torch.ones(11, 4))


def test_a_module_on_the_path_is_found(write, monkeypatch):
    path = write(GOOD, name="a_module_for_this_test.py")
    monkeypatch.syspath_prepend(path.parent)
    assert tasks.load("a_module_for_this_test:task").name == "own"
    with pytest.raises(InputError, match=r"no module 'a_modul' here; .*a_modul.py:task"):
        tasks.load("a_modul:task")


def test_a_file_imports_what_lies_beside_it_and_leaves_the_path_alone(write):
    write("size = 4", name="beside_this_task.py")
    path = list(sys.path)
    loaded = tasks.load(
        f"{write('import beside_this_task' + chr(10) + textwrap.dedent(GOOD))}:task"
    )
    assert loaded.name == "own"
    assert sys.path == path


def test_two_files_of_one_name_do_not_replace_each_other(write, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = tasks.load(f"{write(GOOD, 'a/task.py')}:task")
    second = tasks.load(f"{write(GOOD.replace('own', 'other'), 'b/task.py')}:task")
    assert (first.name, second.name) == ("own", "other")


def test_an_unknown_name_gets_the_nearest(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"unknown task 'minst'; did you mean 'mnist'\?"):
        tasks.load("minst")
    with pytest.raises(InputError, match=r"Known: .*mnist, .*or your own: my_task.py:task"):
        tasks.load("zzz")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(InputError, match=r"did you mean 'mine.py:task'\?"):
        tasks.load("mine")


def test_a_missing_file_says_what_is_there(write):
    path = write(GOOD)
    with pytest.raises(InputError, match=r"there is no file .*my_tsk.py.*there: my_task.py"):
        tasks.load(f"{path.parent}/my_tsk.py:task")


def test_a_missing_attribute_says_what_is_there(write):
    with pytest.raises(TaskError, match=r"has no 'tsk'; tasks there: task$"):
        tasks.load(f"{write(GOOD)}:tsk")
    with pytest.raises(TaskError, match=r"has no 'task'; .*functions there: f, g$"):
        tasks.load(f"{write('def f(): pass' + chr(10) + 'def g(): pass', 'other.py')}:task")
    with pytest.raises(TaskError, match=r"has no 'task'; names there: none$"):
        tasks.load(f"{write('', 'empty.py')}:task")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", r"own.py:2 raised ZeroDivisionError: division by zero$"),
        ("x = (1,\n", r"own.py:1 raised SyntaxError: '\(' was never closed$"),
        ("import nonesuch\n", r"own.py:1 raised ModuleNotFoundError: No module named 'nonesuch'$"),
        ("import sys\nsys.exit('bye')\n", r"own.py:2 raised SystemExit: bye$"),
        (
            "def f():\n    raise KeyError('k')\n\ndef task():\n    return f()\n",
            r"own.py:2 task\(\) raised KeyError: 'k'$",
        ),
        (
            "import torch\ndef task():\n    return torch.zeros(2) @ torch.zeros(3)\n",
            r"own.py:3 task\(\) raised RuntimeError: ",
        ),
        ("task = 3\n", r"own.py:task must be a steepest.Task or a function .* got int$"),
        ("def task(): pass\n", r"own.py:task must be .* got NoneType$"),
        ("def task(n): pass\n", r"task\(\) raised TypeError: task\(\) missing 1 required"),
        (
            "from steepest.train.task import Task\n\nt = Task(name='', model=3, loss=3, train=0)\n",
            r"own.py:3: a task's name must be a non-empty string, got ''$",
        ),
    ],
)
def test_a_file_that_goes_wrong_is_told_with_its_line(write, text, message):
    path = write("", "own.py")
    path.write_text(text)
    with pytest.raises(TaskError, match=message):
        tasks.load(f"{path}:task")


def test_a_spec_with_nothing_on_one_side_is_refused():
    for spec in (":task", "file.py:"):
        with pytest.raises(InputError, match=r"is named file.py:name or package.module:name"):
            tasks.load(spec)
