"""The `postseal` command itself: what it says when it is used wrongly, and what it needs."""

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.main import get_command

from postseal.core.cli import demo
from postseal.core.cli._app import app, run

COMMANDS = ", ".join(map(repr, sorted(get_command(app).commands)))
BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = ["postseal", *{argv!r}]
from postseal.core.cli import main
sys.exit(main())
"""


def run_without(*modules: str, argv: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own where *modules* are not installed."""
    script = BLOCKED.format(blocked=set(modules), argv=argv)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_names_it_in_one_line(missing: str):
    done = run_without(missing, argv=("inspect", "x"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"postseal: the command needs {missing}, which is not installed: pip install 'postseal[cli]'\n"
    )


@pytest.mark.parametrize("missing", ["moto", "boto3", "confluent_kafka"])
def test_without_its_extra_the_demonstration_names_it(missing: str, monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == missing else object())
    assert run(["demo"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"postseal: the demonstration needs {missing}, which is not installed: pip install 'postseal[demo]'\n"
    )


def test_inspect_needs_no_broker_and_no_cloud():
    done = run_without("moto", "boto3", "botocore", "confluent_kafka", argv=("inspect", "--help"))
    assert done.returncode == 0, done.stderr


def test_the_core_loads_nothing_of_the_command():
    code = "import sys, postseal.core; print(sorted({'typer', 'rich', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["inspekt"], "postseal: there is no command 'inspekt'; did you mean 'inspect'?"),
        (["fly"], f"postseal: there is no command 'fly'; there are: {COMMANDS}"),
        ([], f"postseal: no command was given; there are: {COMMANDS}"),
        (["--versoin"], "postseal: there is no option '--versoin'; did you mean '--version'?"),
        (["demo", "--jsn"], "postseal demo: there is no option '--jsn'; did you mean '--json'?"),
        (
            ["inspect", "--encodnig", "hex"],
            "postseal inspect: there is no option '--encodnig'; did you mean '--encoding'?",
        ),
        (
            ["inspect", "--encoding", "base46", "x"],
            "postseal: --encoding is 'base46'; did you mean 'base64'?",
        ),
        (["inspect", "--encoding"], "postseal: option '--encoding' requires an argument"),
        (["inspect", "no\x1b[31m-such"], r"postseal: there is no file 'no\x1b[31m-such'"),
        (["demo", "twice"], "postseal demo: got unexpected extra argument(s) (twice)"),
    ],
)
def test_a_mistake_gets_one_sentence_with_the_nearest_right_answer(
    args, sentence, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == sentence + "\n"


def test_a_hidden_option_is_not_suggested(capsys):
    assert run(["demo", "--sgv"]) == 2
    assert "--svg" not in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"postseal {version('postseal')}\n"


@pytest.mark.parametrize(
    "command", ["archive create", "demo", "group create", "group show", "inspect", "recover", "rewrap"]
)
def test_every_command_has_help_and_json(command, capsys):
    assert run([*command.split(), "-h"]) == 0
    assert "--json" in capsys.readouterr().out


def test_it_completes_its_commands_in_a_shell():
    done = subprocess.run(
        [sys.executable, "-c", "from postseal.core.cli import main; raise SystemExit(main())"],
        capture_output=True,
        text=True,
        check=False,
        env={"_POSTSEAL_COMPLETE": "complete_bash", "COMP_WORDS": "postseal ins", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["inspect"], done.stderr
