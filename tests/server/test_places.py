"""Places by themselves: each is held once, by whoever lives, and is nobody's when that one is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from cc_executor.errors import StateUnusable
from cc_executor.server.places import Place, Places


def test_a_place_is_held_once_and_told_as_it_is(tmp_path: Path) -> None:
    mine, other = Places(tmp_path), Places(tmp_path)
    held = {"run": Place("ada", 0.4), "list": Place("bob", None), "free": Place("", 0.0)}
    for name, place in held.items():
        mine.hold(name, place)
    assert mine.all() == other.all() == held
    for places in (mine, other):
        with pytest.raises(StateUnusable, match="at this moment"):
            places.hold("run", Place("eve", 0.0))
    assert other.all() == held, "who was refused has changed nothing"
    assert (mine.is_mine("run"), other.is_mine("run")) == (True, False)
    other.release("run")
    assert "run" in mine.all(), "nobody lets go of what is another's"
    mine.release("run")
    mine.release("run")
    assert not mine.is_mine("run")
    other.hold("run", Place("eve", 1.0))
    assert mine.all()["run"] == Place("eve", 1.0)


def test_what_a_dead_server_held_is_free_also_for_the_same_run(tmp_path: Path) -> None:
    folder = tmp_path / "server" / "places"
    folder.mkdir(parents=True)
    (folder / "run").write_text('{"owner": "ada", "cost": 0.4}')  # nobody keeps it locked
    places = Places(tmp_path)
    with places.turn():
        assert places.all() == {}
        places.hold("run", Place("ada", 0.4))
    assert places.all() == {"run": Place("ada", 0.4)}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"owner": "ada"}', b'{"owner": "ada", "cost": "much"}'])
def test_a_place_that_cannot_be_read_hides_no_other(tmp_path: Path, damage: bytes) -> None:
    mine = Places(tmp_path)
    mine.hold("a", Place("ada", 0.4))
    mine.hold("b", Place("ada", 0.4))
    (tmp_path / "server" / "places" / "a").write_bytes(damage)
    assert Places(tmp_path).all() == {"b": Place("ada", 0.4)}
