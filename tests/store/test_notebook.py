from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cc_executor.errors import NotebookUnreadable
from cc_executor.model.listrecord import Closed, ListStatus
from cc_executor.model.outcome import Outcome, OutcomeKind
from cc_executor.model.receipt import RECEIPT_MIME, Receipt
from cc_executor.model.tasklist import Task, TaskList
from cc_executor.runtime.evidence import verify_file
from cc_executor.runtime.verification import Verification
from cc_executor.shim import records
from cc_executor.store import notebook as store
from cc_executor.store.bundle import write_list_bundle
from cc_executor.store.home import RunId, StateHome
from cc_executor.store.tasklists import ListHome
from support import receipts
from support.receipts import code_cell, final_output, live_output, receipt, run_id

Json = dict[str, Any]


@pytest.fixture
def home(state_folder: Path) -> StateHome:
    home = StateHome(state_folder)
    home.prepare()
    return home


def lift(notebook: Json, home: StateHome, previous: Json | None = None) -> bool:
    return store.lift(
        notebook,
        previous=previous,
        receipt_of=store.stored_receipts(home),
        bundle_of=store.stored_bundles(home),
        list_bundle_of=store.stored_list_bundles(home),
    )


def list_output(*sealed: Receipt) -> Json:
    """What a task list leaves."""
    named = [{"run_id": each.run_id, "digest": each.digest, "status": each.outcome.kind.value} for each in sealed]
    mark = {"list_id": "a", "status": "ok", "receipts": named}
    return {"output_type": "display_data", "data": {"text/plain": "a table"}, "metadata": {"cc_executor": mark}}


def as_nbformat_writes(notebook: Json) -> str:
    return nbformat.writes(nbformat.from_dict(copy.deepcopy(notebook)))


def test_a_receipt_in_an_output_becomes_a_record_in_the_notebook_metadata(home: StateHome) -> None:
    sealed = receipt(1, rehearsed="hello")
    notebook = receipts.notebook(code_cell("cell-a", final_output(sealed)))
    assert lift(notebook, home)
    assert notebook["metadata"]["cc_executor"]["receipts"] == {
        run_id(1): {
            "run_id": run_id(1),
            "digest": sealed.digest,
            "request_digest": sealed.request_digest,
            "status": "ok",
            "standing": "claimed",
            "agent": "claude",
            "model": "claude-opus-4-8",
            "started": "2026-01-01T00:00:01+00:00",
            "elapsed": 2.0,
            "cost": 0.0123,
            "rehearsed": "hello",
            "cell_id": "cell-a",
        }
    }
    nbformat.validate(nbformat.from_dict(notebook))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"


def test_lifting_again_changes_nothing(home: StateHome) -> None:
    notebook = receipts.notebook(code_cell("a", final_output(receipt(2))), code_cell("b", final_output(receipt(1))))
    assert lift(notebook, home)
    saved = as_nbformat_writes(notebook)
    assert not lift(notebook, home, previous=json.loads(saved))
    assert as_nbformat_writes(notebook) == saved
    assert list(notebook["metadata"]["cc_executor"]["receipts"]) == [run_id(1), run_id(2)]


def test_clear_outputs_keeps_the_records_of_the_previous_file(home: StateHome) -> None:
    previous = receipts.notebook(code_cell("a", final_output(receipt(1))))
    lift(previous, home)
    cleared = receipts.notebook(code_cell("a"))
    assert lift(cleared, home, previous=previous)
    assert cleared["metadata"]["cc_executor"] == previous["metadata"]["cc_executor"]


def test_a_second_run_of_a_cell_adds_a_record_and_keeps_the_first(home: StateHome) -> None:
    previous = receipts.notebook(code_cell("a", final_output(receipt(1))))
    lift(previous, home)
    again = receipts.notebook(code_cell("a", final_output(receipt(2))))
    lift(again, home, previous=previous)
    assert set(again["metadata"]["cc_executor"]["receipts"]) == {run_id(1), run_id(2)}


def test_what_the_file_knows_is_never_overwritten_by_what_a_page_sends(home: StateHome) -> None:
    previous = receipts.notebook(code_cell("a", final_output(receipt(1))))
    lift(previous, home)
    sent = copy.deepcopy(previous)
    sent["metadata"]["cc_executor"]["receipts"][run_id(1)]["status"] = "failed"
    lift(sent, home, previous=previous)
    assert sent["metadata"]["cc_executor"] == previous["metadata"]["cc_executor"]


def test_numbers_that_a_browser_rewrote_do_not_make_the_file_flicker(home: StateHome) -> None:
    previous = receipts.notebook(code_cell("a", final_output(receipt(1))))
    lift(previous, home)
    sent = json.loads(json.dumps(previous).replace('"elapsed": 2.0', '"elapsed": 2'))
    lift(sent, home, previous=previous)
    assert '"elapsed": 2.0' in json.dumps(sent["metadata"])


@pytest.mark.parametrize(
    ("ours", "browsers"), [("1.0", "1"), ("1e16", "10000000000000000"), ("12345678901234567890", "12345678901234567000"), ("-0.0", "0")]
)
def test_a_receipt_is_intact_after_a_browser_has_written_its_numbers(ours: str, browsers: str) -> None:
    sealed = receipt(1, data={"n": [json.loads(ours)]})
    sent = sealed.model_dump(mode="json") | {"data": {"n": [json.loads(browsers)]}}
    assert Receipt.model_validate(sent).is_intact


def test_a_receipt_that_is_not_as_it_was_sealed_gets_no_record(home: StateHome) -> None:
    forged = final_output(receipt(1))
    forged["data"][RECEIPT_MIME]["cost"] = 0.0
    notebook = receipts.notebook(code_cell("a", forged))
    assert not lift(notebook, home)
    assert "cc_executor" not in notebook["metadata"]


def test_a_live_view_whose_run_has_ended_is_replaced_by_the_stored_output(home: StateHome) -> None:
    sealed = receipt(1)
    receipts.keep(home, sealed)
    notebook = receipts.notebook(code_cell("a", live_output(1)))
    assert lift(notebook, home)
    assert notebook["cells"][0]["outputs"] == [final_output(sealed)]
    assert notebook["metadata"]["cc_executor"]["receipts"][run_id(1)]["digest"] == sealed.digest
    nbformat.validate(nbformat.from_dict(notebook))
    assert not lift(notebook, home)


def too_big(sealed: Receipt) -> Json:
    """The output of a run whose receipt has no room in a notebook."""
    output = final_output(sealed)
    output["data"][RECEIPT_MIME] = {"schema_version": 1, "run_id": sealed.run_id, "digest": sealed.digest, "left_out": "It has 9 MB."}
    return output


def test_a_receipt_that_was_too_big_for_the_notebook_gets_its_record_from_the_store(home: StateHome) -> None:
    sealed = receipt(1)
    notebook = receipts.notebook(code_cell("a", too_big(sealed)))
    assert not lift(notebook, home)  # on another machine there is nothing to take it from
    receipts.keep(home, sealed)
    assert lift(notebook, home)
    assert notebook["metadata"]["cc_executor"]["receipts"][run_id(1)]["digest"] == sealed.digest
    assert notebook["cells"][0]["outputs"] == [too_big(sealed)]
    another = receipts.notebook(code_cell("a", too_big(receipt(1, text="another"))))
    assert not lift(another, home)


def test_every_receipt_of_a_task_list_is_lifted_and_one_that_is_not_as_the_list_names_it_is_not(home: StateHome) -> None:
    sealed = [receipt(number) for number in range(1, 4)]
    for each in sealed:
        receipts.keep(home, each)
    output = list_output(*sealed[:2], receipt(3, text="another"))
    notebook = receipts.notebook(code_cell("a", output))
    assert lift(notebook, home)
    records = notebook["metadata"]["cc_executor"]["receipts"]
    assert {name: (record["digest"], record["cell_id"]) for name, record in records.items()} == {
        run_id(number): (sealed[number - 1].digest, "a") for number in (1, 2)
    }
    assert notebook["cells"][0]["outputs"] == [list_output(*sealed[:2], receipt(3, text="another"))]
    assert not lift(notebook, home)
    told = [any(reason.startswith("The output's metadata says digest") for reason in found.reasons) for found in verify(notebook, home)]
    assert told == [False, False, True]


def verify(notebook: Json, home: StateHome) -> list[Verification]:
    path = home.root / "verified.ipynb"
    path.write_text(json.dumps(notebook))
    return verify_file(path, home=home, transcript_roots=())


def test_the_live_view_of_a_task_list_becomes_its_table_when_the_list_has_ended(home: StateHome) -> None:
    folder = ListHome(home).open(TaskList(tasks=(Task(id="a", text="do"),), cwd="/"))
    sealed = receipt(1)
    receipts.keep(home, sealed)
    live: Json = {
        "output_type": "display_data",
        "data": {store.WIDGET_MIME: {"model_id": "m"}, "text/plain": "It goes on."},
        "metadata": {"cc_executor": {"list_id": folder.list_id, "status": "running"}},
    }
    output = list_output(sealed)
    write_list_bundle(folder.path, (output["data"], output["metadata"]))
    notebook = receipts.notebook(code_cell("a", copy.deepcopy(live)))
    assert not lift(notebook, home), "it is run again, and goes on"
    assert notebook["cells"][0]["outputs"] == [live]
    folder.append(Closed(at=1.0, status=ListStatus.OK))
    assert lift(notebook, home)
    assert notebook["cells"][0]["outputs"] == [output]
    assert list(notebook["metadata"]["cc_executor"]["receipts"]) == [run_id(1)]
    nbformat.validate(nbformat.from_dict(notebook))
    strange = receipts.notebook(code_cell("a", {**live, "metadata": {"cc_executor": {"list_id": "../runs"}}}))
    assert not lift(strange, home)


def test_a_live_view_whose_run_goes_on_is_left_alone(home: StateHome) -> None:
    notebook = receipts.notebook(code_cell("a", live_output(1)))
    before = copy.deepcopy(notebook)
    assert not lift(notebook, home)
    assert notebook == before


def test_without_a_stored_output_the_card_of_the_receipt_stands_there_and_says_how_it_ended(home: StateHome) -> None:
    sealed = receipt(1)
    receipts.keep(home, sealed, bundle=False)
    notebook = receipts.notebook(code_cell("a", live_output(1)))
    assert lift(notebook, home)
    data = notebook["cells"][0]["outputs"][0]["data"]
    assert data[RECEIPT_MIME] == sealed.model_dump(mode="json")
    assert "It is done." in data["text/html"]
    assert data["text/plain"].startswith(sealed.text)
    assert "ok · 2.0 s" in data["text/plain"]
    nbformat.validate(nbformat.from_dict(notebook))
    assert not lift(notebook, home)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"data": {}, "metadata": {}}', '{"data": []}', '{"data": {"a": 1}}'])
def test_a_damaged_stored_output_counts_as_none(home: StateHome, damage: str) -> None:
    folder = receipts.keep(home, receipt(1))
    (folder / "bundle.json").write_text(damage, "utf-8")
    assert store.stored_bundles(home)(run_id(1)) is None


def test_a_stored_output_with_a_widget_in_it_is_put_there_without_the_widget(home: StateHome) -> None:
    folder = receipts.keep(home, receipt(1))
    bundle = json.loads((folder / "bundle.json").read_bytes())
    bundle["data"][store.WIDGET_MIME] = {"model_id": "1"}
    (folder / "bundle.json").write_text(json.dumps(bundle), "utf-8")
    notebook = receipts.notebook(code_cell("a", live_output(1)))
    assert lift(notebook, home)
    assert store.WIDGET_MIME not in notebook["cells"][0]["outputs"][0]["data"]
    assert not lift(notebook, home)


@pytest.mark.row("threats", "path as a run id", "an id is 26 hex digits or a part of one; nothing else names a run")
@pytest.mark.parametrize("name", ["../../etc", "0000", "00000000000100000000000000\n", "", "x" * 26, run_id(1)[:13]])
def test_an_id_from_a_notebook_that_is_not_a_whole_run_id_names_nothing(home: StateHome, name: str) -> None:
    receipts.keep(home, receipt(1))
    assert store.stored_receipts(home)(name) is None
    assert store.stored_bundles(home)(name) is None
    output = live_output(1)
    output["metadata"]["cc_executor"]["run_id"] = name
    assert not lift(receipts.notebook(code_cell("a", output)), home)


def test_the_records_are_bounded_and_the_newest_stay(home: StateHome) -> None:
    records = {run_id(number): {"run_id": run_id(number)} for number in range(1, store.RECORDS_LIMIT + 1)}
    previous = receipts.notebook()
    previous["metadata"]["cc_executor"] = {"receipts": records}
    notebook = receipts.notebook(code_cell("a", final_output(receipt(store.RECORDS_LIMIT + 1))))
    lift(notebook, home, previous=previous)
    kept = notebook["metadata"]["cc_executor"]["receipts"]
    assert len(kept) == store.RECORDS_LIMIT
    assert run_id(1) not in kept
    assert run_id(store.RECORDS_LIMIT + 1) in kept


def test_what_else_stands_under_our_key_stays(home: StateHome) -> None:
    notebook = receipts.notebook(code_cell("a", final_output(receipt(1))))
    notebook["metadata"]["cc_executor"] = {"later": {"version": 2}}
    lift(notebook, home)
    assert notebook["metadata"]["cc_executor"]["later"] == {"version": 2}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cells", "outputs", "data", "metadata", "cc_executor", "run_id", "receipts", "id", run_id(1), RECEIPT_MIME]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(cells=_json, metadata=_json, previous=st.dictionaries(st.sampled_from(["cells", "metadata"]), _json))
def test_a_notebook_of_any_shape_is_survived_and_lifting_is_idempotent(cells: Any, metadata: Any, previous: Json) -> None:
    notebook: Json = {"nbformat": 4, "nbformat_minor": 5, "cells": cells, "metadata": metadata}
    store.lift(notebook, previous=previous, receipt_of=lambda _: None, bundle_of=lambda _: None)
    once = copy.deepcopy(notebook)
    assert not store.lift(notebook, previous=previous, receipt_of=lambda _: None, bundle_of=lambda _: None)
    assert notebook == once


# What may stand somewhere in a notebook instead of what was written there.
_JUNK = _json | st.sampled_from(
    [
        "\ud800",
        "",
        [],
        {},
        10**400,
        -1,
        1.5,
        True,
        None,
        run_id(1),
        run_id(2),
        "../../x",
        "application/vnd.jupyter.widget-view+json",
        {"run_id": run_id(2)},
    ]
)


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a notebook, its own excepted."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((*way, key), *_places(item, (*way, key)))]


@st.composite
def _damaged(draw: st.DrawFn) -> Json:
    """A notebook of ours in which some values are others, or are gone."""
    cells = [code_cell("a", final_output(receipt(1))), code_cell("b", live_output(2)), code_cell("c", list_output(receipt(3)))]
    notebook = copy.deepcopy(receipts.notebook(*cells))
    if draw(st.booleans()):
        store.lift(notebook, previous=None, receipt_of=lambda _: None, bundle_of=lambda _: None)
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(_places(notebook)))
        holder: Any = notebook
        for key in way:
            holder = holder[key]
        if draw(st.booleans()):
            holder[last] = copy.deepcopy(draw(_JUNK))  # what is lifted is changed in place, and is not to be what the next example draws
        else:
            del holder[last]
    return notebook


@given(_damaged(), st.none() | _damaged(), st.booleans())
def test_a_notebook_that_somebody_has_damaged_is_survived_and_lifting_it_is_idempotent(
    notebook: Json, previous: Json | None, has_ended: bool
) -> None:
    def lifted() -> bool:
        return store.lift(
            notebook,
            previous=previous,
            receipt_of=lambda name: receipt(2) if has_ended and name == run_id(2) else None,
            bundle_of=lambda _: receipts.final_bundle(receipt(2)) if has_ended else None,
            list_bundle_of=lambda _: ({"text/plain": "a table"}, {}) if has_ended else None,
        )

    lifted()
    once = copy.deepcopy(notebook)
    assert not lifted()
    assert notebook == once


# --- files --------------------------------------------------------------------------------------------------------


def test_lifting_a_file_changes_only_the_metadata_lines(home: StateHome, tmp_path: Path) -> None:
    path = tmp_path / "work.ipynb"
    path.write_text(as_nbformat_writes(receipts.notebook(code_cell("a", final_output(receipt(1))))) + "\n", "utf-8")
    path.chmod(0o640)
    before = path.read_text("utf-8").splitlines()
    assert store.lift_file(path, home=home)
    after = path.read_text("utf-8").splitlines()
    assert [line for line in before if line not in after] == []
    assert 14 <= len(after) - len(before) <= 18
    assert path.stat().st_mode & 0o777 == 0o640
    # what Jupyter writes next is the same
    assert nbformat.writes(nbformat.read(path, as_version=4)) + "\n" == path.read_text("utf-8")


def test_lifting_a_lifted_file_does_not_touch_it(home: StateHome, tmp_path: Path) -> None:
    path = tmp_path / "work.ipynb"
    path.write_text(as_nbformat_writes(receipts.notebook(code_cell("a", final_output(receipt(1))))), "utf-8")
    store.lift_file(path, home=home)
    before = path.stat()
    assert not store.lift_file(path, home=home)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino


def test_a_repaired_file_is_what_jupyter_would_write(home: StateHome, tmp_path: Path) -> None:
    receipts.keep(home, receipt(1))
    path = tmp_path / "work.ipynb"
    path.write_text(as_nbformat_writes(receipts.notebook(code_cell("a", live_output(1)))), "utf-8")
    assert store.lift_file(path, home=home)
    assert nbformat.writes(nbformat.read(path, as_version=4)) == path.read_text("utf-8")


@pytest.mark.parametrize(("indent", "ascii_only"), [(2, True), (4, False), (None, True), ("\t", False)])
def test_a_file_keeps_its_writer_s_style(home: StateHome, tmp_path: Path, indent: Any, ascii_only: bool) -> None:
    path = tmp_path / "work.ipynb"
    notebook = receipts.notebook(code_cell("a", final_output(receipt(1))))
    text = json.dumps(notebook, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, "utf-8")
    assert store.lift_file(path, home=home)
    lifted = path.read_text("utf-8")
    assert lifted.isascii() == ascii_only
    expected = json.loads(lifted)
    assert list(expected) == ["cells", "metadata", "nbformat", "nbformat_minor"]
    assert json.dumps(expected, indent=indent, ensure_ascii=ascii_only) == lifted


def test_half_a_pair_of_surrogates_in_somebody_s_output_is_kept_as_it_was_written(home: StateHome, tmp_path: Path) -> None:
    path = tmp_path / "work.ipynb"
    notebook = receipts.notebook(code_cell("a", final_output(receipt(1))))
    notebook["cells"][0]["source"] = "é print(half)"
    notebook["cells"][0]["outputs"].append({"output_type": "stream", "name": "stdout", "text": "HALF"})
    # As editors that are written in JavaScript do (ECMA-262, JSON.stringify): everything in UTF-8, but for what UTF-8 has not.
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False).replace("HALF", "\\ud83d"), "utf-8")
    assert store.lift_file(path, home=home)
    lifted = path.read_text("utf-8")
    assert run_id(1) in json.loads(lifted)["metadata"]["cc_executor"]["receipts"]
    assert '"text": "\\ud83d"' in lifted
    assert "é print" in lifted


def test_a_link_to_a_notebook_stays_a_link(home: StateHome, tmp_path: Path) -> None:
    target, link = tmp_path / "target.ipynb", tmp_path / "link.ipynb"
    target.write_text(as_nbformat_writes(receipts.notebook(code_cell("a", final_output(receipt(1))))), "utf-8")
    link.symlink_to(target)
    assert store.lift_file(link, home=home)
    assert link.is_symlink()
    assert run_id(1) in target.read_text("utf-8")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"not json", b"[]", b"{}", b'{"nbformat": 3, "worksheets": []}', b"[" * 100_000])
def test_what_is_not_a_notebook_is_refused_in_a_sentence_and_left_as_it_is(home: StateHome, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "work.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotebookUnreadable, match=r"\.$"):
        store.lift_file(path, home=home)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_and_a_folder_are_refused(home: StateHome, tmp_path: Path) -> None:
    for path in (tmp_path / "none.ipynb", tmp_path):
        with pytest.raises(NotebookUnreadable, match="cannot be read"):
            store.lift_file(path, home=home)


@pytest.mark.parametrize("moment", ["read_json", "lift"])
def test_what_somebody_else_writes_meanwhile_is_not_overwritten(
    home: StateHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(receipts.notebook(code_cell("a", final_output(receipt(1))))))
    step = getattr(store, moment)

    def step_and_a_save(*arguments: Any, **more: Any) -> Any:
        found = step(*arguments, **more)
        path.write_text("what was saved just now")
        return found

    monkeypatch.setattr(store, moment, step_and_a_save)
    with pytest.raises(NotebookUnreadable, match="written by somebody else just now"):
        store.lift_file(path, home=home)
    assert path.read_text() == "what was saved just now"
    assert list(tmp_path.glob(".a.ipynb.*")) == [], "and nothing is left beside it"


def test_a_name_that_is_no_run_s_hides_no_other(home: StateHome) -> None:
    strange = final_output(receipt(1, run_id="nonsense"))
    notebook = receipts.notebook(code_cell("a", strange), code_cell("b", final_output(receipt(2))))
    assert lift(notebook, home)
    assert list(notebook["metadata"]["cc_executor"]["receipts"]) == [run_id(2)]
    notebook["metadata"]["cc_executor"]["receipts"] |= {"nonsense": {}, run_id(3): "no record"}
    assert list(store.records_in(notebook)) == [run_id(2)]


def test_the_output_of_a_list_is_never_that_of_one_of_its_runs(home: StateHome) -> None:
    sealed = receipt(1)
    receipts.keep(home, sealed)
    output = list_output(sealed)
    del output["metadata"]["cc_executor"]["receipts"][0]["digest"]
    notebook = receipts.notebook(code_cell("a", output))
    before = copy.deepcopy(notebook)
    assert not lift(notebook, home)
    assert notebook == before


def test_a_run_without_a_text_is_told_by_its_outcome(home: StateHome) -> None:
    sealed = receipt(1, text="", outcome=Outcome(kind=OutcomeKind.TIMEOUT, summary="It took too long."))
    home.create(RunId(sealed.run_id)).replace(records.RECEIPT, sealed.model_dump_json().encode())
    notebook = receipts.notebook(code_cell("a", live_output(1)))
    assert lift(notebook, home)
    said = notebook["cells"][0]["outputs"][0]["data"]["text/plain"]
    assert said.startswith("timeout · ")
    assert "It took too long." in said


def test_a_list_s_view_is_known_by_its_word_alone(home: StateHome) -> None:
    bundle = list_output(receipt(1))["data"], list_output(receipt(1))["metadata"]
    mark = {"list_id": "a", "status": "running"}
    notebook = receipts.notebook(
        code_cell("a", {"output_type": "display_data", "data": {"text/plain": "…"}, "metadata": {"cc_executor": mark}})
    )
    assert store.lift(notebook, previous=None, receipt_of=lambda _: None, bundle_of=lambda _: None, list_bundle_of=lambda _: bundle)
    assert notebook["cells"][0]["outputs"][0]["data"] == {"text/plain": "a table"}
    assert not store.lift(notebook, previous=None, receipt_of=lambda _: None, bundle_of=lambda _: None, list_bundle_of=lambda _: ({}, {}))
