"""The table of the commands: what each is for, where it is, and an example, which ends its help. The order is that of the help."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

import typer

from cc_executor import __version__
from cc_executor.cli.group import Group, Row

COMMANDS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "run": Row(
            "Run an agent, show what it does, and exit with a code for its outcome.",
            "run:run_command",
            "run --max-cost 1 'Mend tests/test_parse.py.'",
        ),
        "list": Row("List runs, newest first.", "listing:list_command", "list --limit 5"),
        "show": Row(
            "Show the text and the receipt of a run that has ended; of one that goes on, how it stands.",
            "show:show_command",
            "show 01a1fd6e",
        ),
        "attach": Row("Show a run from its beginning until it has ended.", "run:attach_command", "attach 01a1fd6e"),
        "tail": Row("Show the last lines of a run's text.", "tail:tail_command", "tail --follow"),
        "pause": Row("Let every process of a run stand still; its clocks stand still, too.", "control:pause_command", "pause 01a1fd6e"),
        "resume": Row("Let a paused run go on.", "control:resume_command", "resume 01a1fd6e"),
        "cancel": Row("End a run and everything that it started.", "control:cancel_command", "cancel 01a1fd6e"),
        "answer": Row("Answer what a run's agent asks.", "answer:answer_command", "answer 01a1fd6e --deny --reason 'not on Fridays'"),
        "undo": Row(
            "Bring back what was in the folder before a run: contents, modes and links; what it made is removed.",
            "undo:undo_command",
            "undo --dry-run",
        ),
        "report": Row(
            "Report a run or a task list, from its receipt and its recorded events alone.",
            "report:report_command",
            "report --html report.html",
        ),
        "verify": Row(
            "Examine receipts against their digest, signature, the journal, and the agent's own transcript.",
            "receipts:verify_command",
            "verify analysis.ipynb",
        ),
        "lift": Row(
            "Copy receipts from the outputs of a notebook file to its metadata, and repair outputs that missed the end of their run.",
            "receipts:lift_command",
            "lift analysis.ipynb",
        ),
        "estimate": Row(
            "Say how long a run will take and what it will cost, from the runs that there were.",
            "estimate:estimate_command",
            "estimate 'Mend tests/test_parse.py.'",
        ),
        "lint": Row("Say what may be wrong with a prompt, and how many tokens it has.", "lint:lint_command", "lint prompt.txt"),
        "validate": Row(
            "Say everything that is wrong with files, each problem with its place.",
            "validate:validate_command",
            "validate nightly.yaml prompt.txt",
        ),
        "trust": Row(
            "Let a folder's own settings, hooks and MCP servers take effect in every run there, until it is replaced or `untrust` takes it back.",
            "trust:trust_command",
            "trust ~/parser",
        ),
        "untrust": Row("Take back the trust in a folder.", "trust:untrust_command", "untrust ~/parser"),
        "doctor": Row("Say what this machine has and lacks for running agents.", "doctor:doctor_command", "doctor"),
        "config": Row(
            "Show every setting, its value in a new notebook or server, and where it comes from.", "config:config_command", "config"
        ),
        "stress": Row(
            "Do many runs at once and say how they ended, how long they took from start to receipt, and what they left running.",
            "stress:stress_command",
            "stress --shell --runs 2",
        ),
        "completion": Row(
            "Print a script that makes a shell complete commands and options.", "completion:completion_command", "completion bash"
        ),
        "mcp": Row("Serve runs as tools, over standard input and output.", "mcp:mcp_command", "mcp --cwd ~/parser"),
        "prompt": Row(
            "Print the instructions for an agent that has a shell: how it hands a task to a fresh agent by this command.",
            "mcp:prompt_command",
            "prompt > cc_execute.md",
        ),
        "tasks": Row("Run lists of dependent tasks, and look at and command them."),
        "tasks run": Row("Run a list to its end.", "tasks:run_command", "tasks run nightly.yaml --max-cost 5"),
        "tasks check": Row(
            "Say what is wrong with a list, everything at once, or in which order its tasks would run.",
            "tasks:check_command",
            "tasks check nightly.yaml",
        ),
        "tasks list": Row("The lists that are kept, the one that changed last first.", "tasklook:list_command", "tasks list"),
        "tasks show": Row("Where each task of a list stands.", "tasklook:show_command", "tasks show"),
        "tasks graph": Row("Print what needs what.", "tasks:graph_command", "tasks graph nightly.yaml --mermaid"),
        "tasks schema": Row(
            "Print the JSON Schema of task lists, by which editors complete and check them.",
            "tasks:schema_command",
            "tasks schema > task-list.schema.json",
        ),
        "tasks pause": Row("Hold a list: nothing is started, and what runs stands still.", "taskcontrol:pause_command", "tasks pause"),
        "tasks resume": Row("Let a list go on.", "taskcontrol:resume_command", "tasks resume"),
        "tasks stop": Row("End what runs of a list, and start nothing further.", "taskcontrol:stop_command", "tasks stop"),
        "tasks now": Row(
            "Do not wait any longer: a task that waits, for the end of a usage limit or before it is tried again, goes on at once.",
            "taskcontrol:now_command",
            "tasks now review",
        ),
        "tasks skip": Row("Leave a task out; what needs it is skipped, too.", "taskcontrol:skip_command", "tasks skip review"),
        "tasks retry": Row(
            "Do a task again, with what was kept from running by it.", "taskcontrol:retry_command", "tasks retry review --onward"
        ),
        "tasks edit": Row(
            "Give a task that has not begun another prompt or command.",
            "taskcontrol:edit_command",
            "tasks edit review 'Review src/parse.py alone.'",
        ),
        "tasks undo": Row(
            "Undo the tasks of a list, the newest first: all of them, or nothing.",
            "undo:undo_list_command",
            "tasks undo --from review --dry-run",
        ),
        "history": Row(
            "Past runs: what was asked, how it ended, how long it took, what it cost, and what had been predicted.",
            "history:history_command",
            "history --since 7d --outcome failed",
        ),
        "history rebuild": Row("Make the history anew from the receipts.", "history:rebuild_command", "history rebuild"),
        "history prune": Row(
            "Remove the journals of old runs, which are most of what runs hold; shows sizes, and does nothing without --yes.",
            "prune:prune_command",
            "history prune --older-than 30d",
        ),
        "history share": Row("Send what waits to the Redis that CC_EXECUTOR_REDIS names.", "sharing:share_command", "history share"),
        "history shared": Row(
            "Past runs of all machines that share their history by CC_EXECUTOR_REDIS; the newest 10,000 are looked at.",
            "sharing:shared_command",
            "history shared --since 7d",
        ),
        "server": Row("Jupyter servers of yours that run now."),
        "server status": Row(
            "Say which Jupyter servers of yours run, and whether cc_executor answers there, in which version, with how many runs at work.",
            "server:status_command",
            "server status",
        ),
        "key": Row("The key that signs receipts. It is made with the first receipt."),
        "key show": Row("Show the key's fingerprint, and those of the keys before it.", "key:show_command", "key show"),
        "key export": Row(
            "Write the public key as PEM, for whoever verifies your receipts: `cc-executor verify --key FILE`.",
            "key:export_command",
            "key export > me.pem",
        ),
        "key rotate": Row("Make a new key for the receipts from now on.", "key:rotate_command", "key rotate"),
    }
)


class Listed(Group):
    """A group of this table."""

    table = COMMANDS


app: Final = typer.Typer(
    cls=Listed,
    help="Run coding agents, and look at, command and verify their runs. The same runs as in a notebook.",
    epilog="To try it, without a login and free of charge: `cc-executor run --rehearse hello 'Greet the reader.'`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    del version
