"""One call of one hook: what counts as refused, failed and hanging, what a command is told, and that nothing stays of it."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

import pytest

from cc_executor.model.hook import Hook, HookReport, HookStatus, Moment
from cc_executor.policy.redact import MASK, Redactor
from cc_executor.runtime import hookwork
from cc_executor.runtime.hooks import VARIABLE, gathered, hook, hooks_of_environment, mark_of_hooks, unhook
from cc_executor.runtime.hookwork import MOMENT_VARIABLE, OUTPUT_LIMIT, Surroundings, perform
from cc_executor.store.home import new_run_id
from support.clocks import ClockSinceBegun
from support.runs import BOUND, wait_for
from support.shims import alive

SECRET: Final = "sk-ant-api03-abcdefghijklmnop"  # a key's shape, and nobody's
ENVIRON: Final = {"PATH": os.environ["PATH"]}


def performed(
    hook: Hook, *, cwd: Path | str = "/", environ: dict[str, str] = ENVIRON, unwanted: threading.Event | None = None
) -> HookReport:
    where = Surroundings(environ=environ, cwd=str(cwd), names={"CC_RUN_ID": "one"}, mark=mark_of_hooks(new_run_id(time.time())))
    return perform(hook, {"note": f"{SECRET} is a key"}, where=where, redactor=Redactor(), unwanted=unwanted or threading.Event())


def after(command: str, **more: Any) -> Hook:
    return Hook(moment=Moment.AFTER_RUN, command=command, name="it", **more)


@pytest.mark.parametrize(
    ("command", "status", "detail"),
    [
        ("true", HookStatus.OK, ""),
        ("echo no; exit 3", HookStatus.FAILED, "exit code 3: no"),
        ("echo no; echo why >&2; exit 3", HookStatus.FAILED, "exit code 3: why"),
        ("kill -9 $$", HookStatus.FAILED, "ended by signal 9"),
        ("exec >&- 2>&-; exec sleep 0.1", HookStatus.OK, ""),
        ("exec >&- 2>&-; sleep 0.1; exit 3", HookStatus.FAILED, "exit code 3"),
        (f"head -c {40 * OUTPUT_LIMIT} /dev/zero", HookStatus.OK, ""),
        ("grep -q 'is a key' && ! grep -q sk-ant", HookStatus.OK, ""),
        ("""echo '{"refuse": "not today"}'""", HookStatus.FAILED, "it refuses (not today), and it is too late for that"),
        ("""echo it looks at it; echo '{"refuse": "not today"}'""", HookStatus.FAILED, "it refuses (not today), and it is too late for that"),
        ("""printf '{\n"refuse":\n"not today"\n}\n'""", HookStatus.FAILED, "it refuses (not today), and it is too late for that"),
        ("""echo '{"refuse": "not today"}'; echo done""", HookStatus.OK, ""),
        ("""echo '{"refuse": '""", HookStatus.OK, ""),
        ("""echo 'no: {"refuse": "not today"}'""", HookStatus.OK, ""),
    ],
)  # fmt: skip
def test_a_command_is_what_its_exit_code_and_its_answer_say(command: str, status: HookStatus, detail: str) -> None:
    report = performed(after(command))
    assert (report.status, report.detail) == (status, detail)


def answering(chars: int) -> str:
    return f"""printf '{{"refuse": "no'; head -c {chars} /dev/zero | tr '\\0' x; printf '"}}'"""


def test_a_long_refusal_is_one_and_one_that_is_too_long_to_be_understood_is_no_leave() -> None:
    report = performed(Hook(moment=Moment.BEFORE_RUN, command=answering(100_000), name="it"))
    assert (report.status, report.detail[:5]) == (HookStatus.REFUSED, "noxxx")
    report = performed(Hook(moment=Moment.BEFORE_RUN, command=answering(OUTPUT_LIMIT), name="it"))
    assert (report.status, report.detail) == (HookStatus.FAILED, f"its answer is longer than {OUTPUT_LIMIT:,} bytes: make it shorter")


@pytest.mark.parametrize("sign", ["-", "+"])
def test_a_command_whose_name_begins_with_a_sign_is_no_option_of_the_shell(sign: str, tmp_path: Path) -> None:
    program = tmp_path / f"{sign}n"
    program.write_text("#!/bin/sh\ntouch called\n")
    program.chmod(0o700)
    report = performed(after(f"{sign}n"), cwd=tmp_path, environ={"PATH": f"{tmp_path}:{ENVIRON['PATH']}"})
    assert (report.status, report.detail) == (HookStatus.OK, "")
    assert (tmp_path / "called").exists()


def test_a_command_that_ends_ends_no_other_of_the_same_run(tmp_path: Path) -> None:
    where = Surroundings(environ=ENVIRON, cwd=str(tmp_path), names={}, mark=mark_of_hooks(new_run_id(time.time())))
    reports: list[HookReport] = []

    def called(command: str) -> None:
        reports.append(perform(after(command, timeout=BOUND), {}, where=where, redactor=Redactor(), unwanted=threading.Event()))

    slow = threading.Thread(target=called, args=("touch begun; until test -e over; do sleep 0.02; done",))
    slow.start()
    wait_for((tmp_path / "begun").exists)
    called("sleep 300 &")
    (tmp_path / "over").touch()
    slow.join(BOUND)
    assert [report.status for report in reports] == [HookStatus.OK, HookStatus.OK]


def test_a_command_whose_folder_is_gone_is_called_all_the_same(tmp_path: Path) -> None:
    assert performed(after(f"pwd > {tmp_path}/where"), cwd=tmp_path / "gone").ok
    assert (tmp_path / "where").read_text() == "/\n"


def test_a_command_gets_the_secrets_that_it_names_and_no_other(tmp_path: Path) -> None:
    environ = ENVIRON | {"ONE_TOKEN": "first", "OTHER_TOKEN": "second", "ANTHROPIC_API_KEY": SECRET, "LANG": "C"}
    assert performed(after("env > told", env=("ONE_TOKEN",)), cwd=tmp_path, environ=environ).ok
    told = dict(line.split("=", 1) for line in (tmp_path / "told").read_text().splitlines())
    assert told.items() >= {"ONE_TOKEN": "first", "LANG": "C", "CC_RUN_ID": "one", MOMENT_VARIABLE: "after_run"}.items()
    assert not {"OTHER_TOKEN", "ANTHROPIC_API_KEY"} & told.keys()


@pytest.mark.parametrize("how", ["env -i", "setsid"])
def test_what_a_command_leaves_behind_is_ended_though_it_has_no_mark_or_another_session(how: str, tmp_path: Path) -> None:
    report = performed(after(f"{how} sleep 600 & echo $! > pid; until grep -q ^sleep /proc/$!/cmdline; do :; done"), cwd=tmp_path)
    assert report.ok, report
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("output", ["", "exec >&- 2>&-; "])
def test_a_command_is_ended_when_its_time_is_over_or_nobody_wants_it_any_more(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hookwork, "time", ClockSinceBegun(tmp_path / "pid"))
    hanging = f"{output}echo $$ > pid; exec sleep 600"
    report = performed(after(hanging, timeout=0.2), cwd=tmp_path)
    assert (report.status, report.detail) == (HookStatus.HUNG, "it went on after 0.2 s, and was killed")
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))
    unwanted = threading.Event()
    unwanted.set()
    report = performed(after(hanging, timeout=60), cwd=tmp_path, unwanted=unwanted)
    assert (report.status, report.detail) == (HookStatus.HUNG, "nobody wanted to wait for it any more")


def test_a_function_that_nobody_wants_any_more_is_left_at_once() -> None:
    begun, unwanted, go = threading.Event(), threading.Event(), threading.Event()

    def hanging(_: dict[str, Any]) -> None:
        begun.set()
        go.wait(60)

    threading.Thread(target=lambda: begun.wait(60) and unwanted.set(), daemon=True).start()
    since = time.monotonic()
    report = performed(Hook(moment=Moment.AFTER_RUN, call=hanging, name="it", timeout=60), unwanted=unwanted)
    go.set()
    assert (report.status, report.detail) == (HookStatus.HUNG, "nobody wanted to wait for it any more")
    assert time.monotonic() - since < 30


WHO: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("who", default="nobody")


def test_a_function_sees_the_variables_of_whoever_started_the_run_and_no_secret() -> None:
    seen: list[str] = []

    def call(given: dict[str, Any]) -> None:
        seen.extend((WHO.get(), given["note"]))

    token = WHO.set("ada")
    try:
        assert performed(Hook(moment=Moment.AFTER_RUN, call=call, name="it")).ok
    finally:
        WHO.reset(token)
    assert seen == ["ada", f"{MASK} is a key"]


def test_a_function_that_ends_the_program_has_failed() -> None:
    def leave(_: dict[str, Any]) -> None:
        raise SystemExit(SECRET)

    report = performed(Hook(moment=Moment.BEFORE_RUN, call=leave, name="it"))
    assert (report.status, report.detail) == (HookStatus.FAILED, f"SystemExit: {MASK}")


@pytest.mark.parametrize(("moment", "status"), [(Moment.BEFORE_RUN, HookStatus.REFUSED), (Moment.AFTER_RUN, HookStatus.FAILED)])
def test_a_function_may_refuse_beforehand_and_has_failed_afterwards(moment: Moment, status: HookStatus) -> None:
    report = performed(Hook(moment=moment, call=lambda _: {"refuse": "not today"}, name="it"))
    assert report.status is status
    assert "not today" in report.detail


def test_in_a_process_that_a_hook_has_started_nobody_is_called() -> None:
    """Else a hook that starts a run would be called for that run, and so on without end."""
    environ = {VARIABLE: '{"after_run": "true"}'}
    assert len(hooks_of_environment(environ)) == 1
    assert len(gathered((after("true"), after("true")), environ=environ)) == 1, "who is named twice is called once"
    inside = environ | {MOMENT_VARIABLE: "after_run"}
    assert hooks_of_environment(inside) == ()
    assert gathered((after("true"),), environ=inside) == ()


def test_a_function_that_is_taken_back_is_called_at_no_moment() -> None:
    def mine(_: dict[str, Any]) -> None: ...

    for moment in ("before_run", "after_run", "on_error"):
        hook(moment)(mine)
    assert [each.moment.value for each in gathered((), environ={}) if each.call is mine] == ["before_run", "after_run", "on_error"]
    unhook(mine)
    assert not [each for each in gathered((), environ={}) if each.call is mine]
