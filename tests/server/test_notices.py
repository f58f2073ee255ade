"""Who is told of a server's runs and lists: what a request may name, what an administrator allows, and what waits or outlives the server."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from cc_executor.errors import InvalidRequest, StateUnusable
from cc_executor.server.keys import Keys
from cc_executor.server.leftovers import KEPT_FOR, sweep
from cc_executor.server.notices import Notices
from cc_executor.server.refusal import Refused
from cc_executor.store.home import StateHome, new_run_id
from support.looks import eventually
from support.receiver import Receiver, receiving
from support.served import Server, serving

API: Final = "/cc-executor/api/v1"
BOUND: Final = 60.0
CANARY: Final = "c4n4ry-51d0"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Server]:
    """It may send to 127.0.0.1 and to one host that nobody has, and tells somebody of its own of what fails."""
    settings = ("allowed_webhook_hosts=127.0.0.1", "allowed_webhook_hosts=*.corp.invalid", "max_running=1", "max_queued=4")
    own = (f"notify={receiver.url('/own')}", "notify_after=0", "notify_on=failed")
    with serving(tmp_path_factory.mktemp("notices"), *(f"--CCExecutorServer.{each}" for each in (*settings, *own))) as found:
        yield found


def post(server: Server, **body: Any) -> httpx.Response:
    return server.client.post(f"{API}/execute", json=body)


def run(server: Server, script: str, **more: Any) -> httpx.Response:
    return post(server, **{"prompt": script, "agent": "shell", "shell": "bash", **more})


def told(receiver: Receiver, path: str, event: str) -> dict[str, Any]:
    found = eventually(
        lambda: [each for each in receiver.received if (each.path, each.json["type"]) == (path, event)],
        within=BOUND,
        what=f"{path} {event}",
    )
    assert len(found) == 1
    return found[0].data


def test_runs_and_lists_tell_whom_the_request_names_or_else_whom_the_server_does(server: Server, receiver: Receiver) -> None:
    named = {"notify": receiver.url(f"/named-{CANARY}"), "notify_after": 0}
    first = run(server, f"echo {CANARY}", **named).raise_for_status().json()
    second = run(server, "exit 3").raise_for_status().json()
    assert told(receiver, f"/named-{CANARY}", "run.done")["run_id"] == first["id"]
    assert told(receiver, "/own", "run.failed")["run_id"] == second["id"]
    listed = post(server, tasks=[{"id": "a", "run": "true"}], **(named | {"notify": [receiver.url("/list")]})).raise_for_status().json()
    assert told(receiver, "/list", "list.done")["list_id"] == listed["id"]
    for path in server.home.root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the server is at work
            assert not path.is_file() or f"/named-{CANARY}".encode() not in path.read_bytes(), path
    assert f"/named-{CANARY}" not in server.log


def test_a_run_that_waits_tells_whom_it_was_promised(server: Server, receiver: Receiver, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = run(server, f"while ! test -e {gate}; do sleep 0.05; done", timeout=300).raise_for_status().json()
    second = run(server, "true", notify=receiver.url("/queued"), notify_after=0).raise_for_status().json()
    third = run(server, "true", notify=receiver.url("/withdrawn"), notify_after=0).raise_for_status().json()
    assert (second["status"], third["status"]) == ("queued", "queued")
    server.client.delete(f"{API}/executions/{third['id']}").raise_for_status()
    gate.touch()
    assert told(receiver, "/queued", "run.done")["run_id"] == second["id"]
    eventually(lambda: not list((server.home.root / "server" / "notify").iterdir()), within=BOUND, what="no promise is left")
    assert not any(each.path == "/withdrawn" for each in receiver.received)
    assert first["id"]


@pytest.mark.row(
    "threats", "a request names where a server sends messages", "hosts that an administrator has named alone; no command, no variable"
)
@pytest.mark.parametrize("over", ["run", "list"])
def test_what_a_request_may_not_name(server: Server, over: str) -> None:
    body: dict[str, Any] = (
        {"prompt": "true", "agent": "shell", "shell": "bash"} if over == "run" else {"tasks": [{"id": "a", "run": "true"}]}
    )
    before = len(list((server.home.root / "runs").glob("*")))
    for target, status in (
        (f"https://evil.invalid/{CANARY}", 403),
        (f"https://127.0.0.1.evil.invalid/{CANARY}", 403),
        ("command:touch /tmp/x", 400),
        ("env:HOME", 400),
        ({"url": CANARY}, 400),
        (f"https://u:{CANARY}@127.0.0.1/", 400),
    ):
        answer = post(server, **body, notify=target)
        assert answer.status_code == status, answer.text
        assert CANARY not in answer.text
    assert post(server, **body, notify="none", notify_on="never").status_code == 400
    assert len(list((server.home.root / "runs").glob("*"))) == before


def test_without_a_rule_nothing_goes_to_this_machine_and_one_rule_can_forbid_all(tmp_path: Path) -> None:
    free = Notices(tmp_path, {})
    wish = free.take({"notify": "https://hooks.example/x"})
    assert wish is not None
    assert (wish.guarded, wish.hosts, wish.secret) == (True, (), "")
    with pytest.raises(Refused, match="server's own machine") as refused:
        free.take({"notify": "http://127.0.0.1:1/"})
    assert refused.value.status == 403
    none = Notices(tmp_path, {}, hosts=("none",))
    for target in ("https://hooks.example/x", "http://localhost/x"):
        with pytest.raises(Refused, match="Nothing may be sent"):
            none.take({"notify": target})
    options = {"notify": ["browser"], "notify_after": 3, "prompt": "x"}
    assert none.take(options) is not None
    assert options == {"prompt": "x"}
    with pytest.raises(InvalidRequest):
        free.take({"notify": "https://hooks.example/x", "notify_after": 10**400})


def test_what_a_request_leaves_open_is_as_the_server_s_own_wish_says(tmp_path: Path) -> None:
    own = Notices(tmp_path, {}, hosts=("none",), own={"notify": "http://127.0.0.1:1/own", "notify_after": 7, "notify_on": "failed"})
    for options in ({}, {"notify": None, "notify_after": None, "notify_on": None}):
        wish = own.take(options)
        assert wish is not None
        assert (wish.targets, wish.after, [each.value for each in wish.on]) == (("http://127.0.0.1:1/own",), 7, ["failed"])
        assert not wish.guarded, "an administrator's word is not bound by the rule for others"
    wish = own.take({"notify_after": 3})
    assert wish is not None
    assert (wish.targets, wish.after) == (("http://127.0.0.1:1/own",), 3)
    assert Notices(tmp_path, {}).take({"notify": None}) is None


def test_a_promise_is_kept_by_the_next_server_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    notices, run_id = Notices(tmp_path, {}), "0" * 26
    for wish in (None, notices.take({"notify": "none"}), notices.take({"notify": "browser"})):
        notices.promise(run_id, wish)
    assert list(tmp_path.iterdir()) == [], "who is told by nobody was promised nothing"
    assert notices.promised(run_id) is None
    wish = notices.take({"notify": f"https://hooks.example/{CANARY}"})
    for _ in range(2):  # a request that is sent again
        notices.promise(run_id, wish)
    (folder,) = (tmp_path / "server" / "notify").iterdir()
    assert folder.stat().st_mode & 0o077 == 0, "an address may be a secret"
    assert Notices(tmp_path, {}).promised(run_id) == wish
    for _ in range(2):
        Notices(tmp_path, {}).forget(run_id)
        assert not folder.exists()
    assert notices.promised(run_id) is None
    (tmp_path / "server" / "notify").rmdir()
    (tmp_path / "server" / "notify").touch()
    with pytest.raises(StateUnusable, match=run_id):
        notices.promise(run_id, wish)


def test_of_a_promise_that_a_server_has_died_over_no_address_is_left(tmp_path: Path) -> None:
    home, now = StateHome(tmp_path / "state"), time.time()
    home.prepare()
    notices = Notices(home.root, {})
    wish = notices.take({"notify": f"https://hooks.example.org/{CANARY}"})
    died, waits = new_run_id(now - 2 * KEPT_FOR), new_run_id(now)
    for run_id in (died, waits):
        notices.promise(run_id, wish)
    (folder,) = home.root.rglob(died)
    os.utime(folder, (now, now - KEPT_FOR - 1))
    sweep(home, Keys(home.root), now=now)
    assert (notices.promised(died), notices.promised(waits)) == (None, wish)
    assert not folder.exists()


def test_the_interface_says_what_can_be_named(server: Server) -> None:
    document = json.dumps(server.client.get(f"{API}/openapi.json").raise_for_status().json()["components"]["schemas"])
    assert document.count('"notify_after"') >= 2
