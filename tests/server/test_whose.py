"""Whose the runs are that kernels have started, to people who come through a server: on a hub the server's own user's, and nobody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cc_executor.errors import RunNotFound
from cc_executor.server.owners import Overseer, Owners
from cc_executor.server.service import Rules, Service
from cc_executor.store.home import StateHome, new_run_id
from support.runs import started

pytestmark = pytest.mark.anyio


def service(home: StateHome, *, by_name: bool, server_owner: str = "") -> Service:
    owners = Owners(home.root, by_name=by_name, server_owner=server_owner)
    return Service(home=home, environ=os.environ, owners=owners, rules=Rules(), root=home.root)


@pytest.mark.row("threats", "somebody else on a shared server", "neither sees nor commands a run that the owner's kernel started")
async def test_the_view_of_a_kernels_run_is_its_users_alone(tmp_path: Path, state_folder: Path) -> None:
    home = StateHome(state_folder)
    run = await started("echo up; sleep 600", home=home, cwd=str(tmp_path))
    try:
        hub = service(home, by_name=True, server_owner="alice")
        for who in ("bob", "Alice", "alice "):
            with pytest.raises(RunNotFound):
                await hub.lookup.watch(run.run_id, who=hub.who(who))
            with pytest.raises(RunNotFound):
                await hub.control(run.run_id, "kill", who=hub.who(who))
        with pytest.raises(RunNotFound):
            await service(home, by_name=True).control(run.run_id, "kill", who="alice")  # names, and nobody knows whose the server is
        assert (await hub.control(run.run_id, "pause", who=hub.who("alice"), pauses=0))["status"] == "paused"
        assert (await hub.control(run.run_id, "resume", who=hub.who("alice"), pauses=0))["status"] == "paused", "from before that pause"
        alone = service(home, by_name=False)
        assert (await alone.control(run.run_id, "resume", who=alone.who("a-name-of-this-request"), pauses=1))["status"] == "running"
        await alone.lookup.watch(run.run_id, who=alone.who("another"))
    finally:
        await run.end(reason="cancel", by="test", now=True)


def test_who_may_see_whose_run_and_whose_lists_are_kept_apart(state_folder: Path) -> None:
    StateHome(state_folder).prepare()
    bobs, kernels = new_run_id(1.0), new_run_id(2.0)
    named = Owners(state_folder, by_name=True, server_owner="alice")
    named.claim(bobs, named.who("bob"))
    seen = {who: (named.may_see(bobs, who), named.may_see(kernels, who)) for who in ("alice", "bob", "carol", "", Overseer("root"))}
    assert seen == {"alice": (False, True), "bob": (True, False), "carol": (False, False), "": (False, False), "root": (True, True)}
    assert not named.is_own(bobs, Overseer("root")), "who oversees a run does not own it"
    assert [named.oversees(who) for who in ("alice", "bob", Overseer("root"))] == [False, False, True]
    only = named.only("bob")
    assert only is not None
    assert (only(bobs), only(kernels)) == (True, False)
    assert [named.apart(who) for who in ("alice", "bob")] == ["", "bob"]

    alone = Owners(state_folder, by_name=False, server_owner="alice")
    assert [alone.may_see(bobs, alone.who(who)) for who in ("alice", "carol")] == [True, True]
    assert (alone.only("carol"), alone.apart("carol"), alone.oversees("carol"), alone.is_by_name) == (None, "", True, False)
    named.forget(bobs)
    assert (named.of(bobs), named.may_see(bobs, "bob"), named.may_see(bobs, "alice")) == (None, False, True)
    named.forget(bobs)
