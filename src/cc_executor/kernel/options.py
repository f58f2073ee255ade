"""The options of `%%cc_execute`, said once: parser, help, completion and reference are made from this table, and from that of `%%cc_tasks`. Imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
import keyword
import os
import shlex
from typing import Any, Final, NoReturn, TypeAlias

from cc_executor.errors import InvalidRequest

Options: TypeAlias = tuple[tuple[tuple[str, ...], dict[str, Any], str], ...]  # (flags, keywords of argparse, help)

OPTIONS: Final[Options] = (
    (("-o", "--out"), {"metavar": "NAME"}, "Bind the Result to this variable."),
    (("--agent",), {"metavar": "NAME"}, "claude (the default) or shell, which runs the cell as a command."),
    (("--model",), {"metavar": "NAME"}, "The agent's model."),
    (("--fallback-model",), {"metavar": "NAME"}, "Model to fall back on when the first is overloaded."),
    (("--cwd",), {"metavar": "FOLDER"}, "Where the agent works; the kernel's folder if not given."),
    (("--add-dir",), {"metavar": "FOLDER", "action": "append", "dest": "add_dirs"}, "Another folder that the agent may use; repeatable."),
    (("--tools",), {"metavar": "LIST"}, 'Tools allowed without asking, comma-separated: "Bash(git *),Write".'),
    (("--permission-mode",), {"metavar": "MODE"}, "acceptEdits (the default), default, plan, dontAsk or bypassPermissions."),
    (("--timeout",), {"metavar": "SECONDS", "type": float}, "End the run after this time; the clock stands still while it is paused."),
    (("--stall-timeout",), {"metavar": "SECONDS", "type": float}, "End the run after this time without a sign of life: 600 for an agent; 0 for no limit."),
    (("--max-cost",), {"metavar": "DOLLARS", "type": float}, "End the run when it has cost this much."),
    (("--max-cost-per-day",), {"metavar": "DOLLARS", "type": float}, "Start nothing when today's runs have cost this much; what is left of it bounds the run."),
    (("--on-limit",), {"metavar": "POLICY", "choices": ("stop", "wait")}, "What a usage limit with a known end does: stop (the default), or wait until then and go on."),
    (("--limit-wait-max",), {"metavar": "SECONDS", "type": float}, "How far away that end may be; 21600 (six hours) if not given."),
    (("--on-output-limit",), {"metavar": "POLICY", "choices": ("stop", "continue", "concise", "outline")},
     "An answer that was cut: stop (the default), continue it in its session, or ask for a concise one or for an outline with files."),
    (("--reask",), {"action": "store_true"}, "With --schema: ask once more, in the same session, for a structured result that is missing."),
    (("--loop-guard",), {"metavar": "POLICY", "choices": ("off", "tell", "stop")},
     "When an agent repeats a call with the same result 12 times: tell (the default), stop or off."),
    (("--max-turns",), {"metavar": "N", "type": int}, "End the run after this many agent turns."),
    (("--linger",), {"metavar": "SECONDS", "type": float}, "How long the agent may stay after its last word for what runs in the background; 60 if not given."),
    (("--journal-limit",), {"metavar": "SIZE"}, "How much of the output is kept, such as 500MB; 20GB if not given, none for no limit. The end is kept always."),
    (("--schema",), {"metavar": "NAME"}, "Variable with a JSON Schema or pydantic model that the result must meet; the object is in Result.data."),
    (("--resume",), {"metavar": "SESSION"}, "Continue this session of the agent."),
    (("--append-system-prompt",), {"metavar": "TEXT"}, "Add to the agent's system prompt."),
    (("--verify",), {"metavar": "CMD"}, "Command to run afterwards, outside the agent; exit code 0 means verified."),
    (("--expect",), {"metavar": "FILE", "action": "append"}, "File that the run must create or change; repeatable."),
    (("--lint",), {"action": "store_true"}, "Say before the start what may be wrong with the prompt; it is sent as it stands."),
    (("--lint-off",), {"metavar": "IDS", "action": "append"}, "Rules that are not asked, comma-separated; all for every one."),
    (("--lint-apply",), {"metavar": "IDS", "action": "append"}, "Put the suggested text of these rules into the prompt, and show what was changed."),
    (("--vars",), {"action": "store_true"}, "Replace {{name}} in cell and options by the notebook's variables; without it the cell is sent as it stands."),
    (
        ("--once",),
        {"action": "store_true"},
        "If this very cell has run with outcome ok before, show its receipt again and spend nothing, unless a file that it expects is gone.",
    ),
    (("--bg",), {"action": "store_true"}, "Do not wait: the cell ends at once, the run goes on even without the kernel."),
    (("--ask",), {"action": "store_true"}, "Show the agent's requests for leave and its questions, and let somebody answer; where nobody can, they are refused at once."),
    (("--no-raise-error",), {"action": "store_true"}, "Do not raise for an outcome other than ok; the Result tells."),
    (("--rehearse",), {"metavar": "SCRIPT"}, "Play this script through the real agent instead of calling a model; spends nothing."),
    (("--rehearse-without-login",), {"metavar": "SCRIPT"}, "The same, but only when nobody is logged in to the agent."),
    (("--shell",), {"metavar": "SHELL"}, "For --agent shell: the shell that reads the cell (bash, zsh, sh); without it the cell is one command's words."),
    (("--cli",), {"metavar": "PATH"}, "The agent's executable."),
    (("--env",), {"metavar": "NAME", "action": "append", "dest": "env_names"}, "Another environment variable for the agent; repeatable."),
    (("--keep-background",), {"action": "store_true"}, "Leave processes alone that outlive the agent, or its --linger."),
    (("--trust-workspace",), {"action": "store_true"}, "Let the folder's own settings, hooks and MCP servers take effect."),
    (("--no-undo",), {"action": "store_const", "const": False, "dest": "undo"}, "Do not look at the folder before and after the agent's run: it cannot be undone then."),
    (("--undo",), {"action": "store_const", "const": True, "dest": "undo"}, "Look at the folder before and after, for `%cc undo`; for agents that is the default."),
    (("--notify",), {"metavar": "TARGET", "action": "append"}, "Whom to tell of the end and of questions: browser, command:…, an https address, env:NAME; repeatable."),
    (("--notify-after",), {"metavar": "SECONDS", "type": float}, "Of what took less nobody is told; 30 if not given."),
    (("--notify-on",), {"metavar": "LIST"}, "What of: done, failed, input, comma-separated; all if not given."),
    (("--label",), {"metavar": "TEXT"}, "A name for lists."),
)  # fmt: skip


HELP: Final = ("-h", "--help")  # near to options that are meant by nobody who writes this
DASHES: Final = ("-", "–", "—")  # what editors and chats make of two hyphens is one, too


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{self._refused(message)} `{self.prog}?` prints the options.")

    def _refused(self, message: str) -> str:
        """What argparse says as a sentence, with the option that was probably meant by one that there is not, or what words are doing there."""
        said = f"{message[:1].upper()}{message[1:]}."
        _, is_unknown, words = message.partition("unrecognized arguments: ")
        word = words.split(" ")[0].split("=")[0]
        if not is_unknown or word in HELP:
            return said
        if not word.startswith(DASHES):
            return f"{said} This line holds options alone: the text stands below it, and a value with spaces in quotes."
        known = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(word, known, 1)
        return f"{said} Did you mean {near[0]}?" if near else said


def words_of(line: str) -> list[str]:
    """The words of a line. Raises `InvalidRequest`."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(f"The line cannot be split into words ({str(error).lower()}). Close the quotes.") from error


def path_of(name: str) -> str:
    """The path that a name in a line means: no shell has put in the home folder and the variables, as one does in a terminal."""
    return os.path.expanduser(os.path.expandvars(name))


def parse(line: str, *, magic: str = "%%cc_execute", options: Options = OPTIONS) -> argparse.Namespace:
    """The line's options.

    Raises
    ------
    InvalidRequest
        Unknown option, missing or ill-typed value, two dashes alone, text that is no option, unclosed quote.
    """
    parser = _Parser(prog=magic, add_help=False, allow_abbrev=False, exit_on_error=True)
    for flags, keywords, _ in options:
        # Without the text, which nobody asks of it: since Python 3.14 it looks at a % in that as at a format.
        parser.add_argument(*flags, **keywords)
    words = words_of(line)
    if any(
        word == "--" or (word.startswith("-") and word.partition("=")[2] == "--") for word in words
    ):  # argparse before 3.13 drops such a value (CPython gh-59317)
        raise InvalidRequest(f"{magic}: two dashes alone are no value of an option, and nothing stands behind them in this line.")
    return parser.parse_args(words)


def check_out(name: str | None) -> None:
    """Raise `InvalidRequest` unless `name` can be a variable by which the result is found again: a word of Python's own cannot."""
    if name is not None and (not name.isidentifier() or keyword.iskeyword(name)):
        raise InvalidRequest(f"-o needs a variable's name, not {name!r}.")


def option_table(options: Options = OPTIONS) -> list[tuple[str, str, str]]:
    """Rows of (flags, value, help), for the reference page and the docstring."""
    return [(", ".join(flags), str(keywords.get("metavar", "")), text) for flags, keywords, text in options]


def option_help(options: Options = OPTIONS, *, width: int = 34) -> str:
    """The table as text, for `%%cc_execute?`."""
    return "\n".join(f"  {f'{flags} {value}'.strip():<{width}} {text}" for flags, value, text in option_table(options))
