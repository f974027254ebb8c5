"""Claims about the command line as a whole: quick, and one line for whatever goes wrong."""

import os
import re
import subprocess
import sys

import pytest
import typer

from gcattn import __version__, cli
from gcattn.cli import cores, program


def run(capsys, *arguments):
    """Run a command and return its exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def fail_with(monkeypatch, error):
    """Make a command that raises `error`, and return its name."""
    app = typer.Typer(cls=program.Group)

    @app.command()
    def fail():
        raise error

    @app.command()
    def other():
        pass

    monkeypatch.setattr(cli, "app", app)
    return "fail"


def test_help_lists_every_command_in_the_order_of_use(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    lines = re.findall(r"^[^\w-]*([a-z]+) {2,}", out, re.M)
    assert lines == [command for command in cli.ORDER if command in lines]
    assert {"data", "train", "eval", "generate", "memory", "ask"} <= set(lines)
    assert len(lines) <= 8
    assert "gcattn verify FOLDER" in " ".join(out.split())


def test_the_version_is_that_of_the_package(capsys):
    assert run(capsys, "--version") == (0, f"gcattn {__version__}\n", "")


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from gcattn.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'datasets', 'accelerate', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & sys.modules.keys()) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "gcattn.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"gcattn {__version__}\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("wrong\n  in two lines."), "wrong in two lines."),
        (
            FileNotFoundError(2, "No such file or directory", "a.txt"),
            "No such file or directory: a",
        ),
        (PermissionError("Can't write to x."), "Can't write to x."),
        (ImportError("No module named 'matplotlib'"), 'pip install "gcattn[eval]"'),
        (ImportError("needs `accelerate>=1.1`"), 'pip install "gcattn[train]"'),
        (ValueError(), "ValueError"),
    ],
)
def test_errors_are_one_line(capsys, monkeypatch, error, message):
    code, out, err = run(capsys, fail_with(monkeypatch, error))
    assert (code, out) == (2, "")
    assert err.startswith(f"gcattn: error: {message}") or message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["train"], ["generate", "m", "--max-new-tokens", "0"], ["eval", "x"]],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_line(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("gcattn: error: ")
    assert err.count("\n") == 1


def test_a_traceback_is_shown_when_asked_for(monkeypatch):
    monkeypatch.setenv(program.TRACEBACK_VARIABLE, "1")
    name = fail_with(monkeypatch, ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        cli.main([name])


@pytest.mark.parametrize("error", [TypeError("bug"), ImportError("cannot import name 'x'")])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    name = fail_with(monkeypatch, error)
    with pytest.raises(type(error)):
        cli.main([name])


def test_ctrl_c_is_one_line_and_the_exit_code_of_shells(capsys, monkeypatch):
    code, _, err = run(capsys, fail_with(monkeypatch, KeyboardInterrupt()))
    assert (code, err) == (130, "gcattn: error: interrupted\n")


def test_a_command_may_choose_its_exit_code(capsys, monkeypatch):
    assert run(capsys, fail_with(monkeypatch, typer.Exit(143))) == (143, "", "")


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, cores.SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_give_up_their_core_soon_unless_the_user_chose_otherwise(given, spins):
    program = (
        "import os; from gcattn.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: print(os.environ.get('GOMP_SPINCOUNT'))\n"
    )
    kept = {name: x for name, x in os.environ.items() if name not in cores._VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=kept | given
    )
    assert done.stdout.splitlines()[1:] == [str(spins)]


def test_a_process_that_has_loaded_pytorch_keeps_its_environment(monkeypatch):
    import torch  # noqa: F401

    for name in cores._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    cores.share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ
