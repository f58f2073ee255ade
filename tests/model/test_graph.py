"""The picture of a list's needs: columns by needs, nothing on top of anything, lines that arrive, and quick."""

from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cc_executor.model.graph import NODES, graph_of, mermaid, outline, reduced
from cc_executor.model.tasklist import Task


def tasks_of(**needs: str) -> tuple[Task, ...]:
    return tuple(Task(id=name, text="x", needs=tuple(before.split())) for name, before in needs.items())


@st.composite
def lists(draw: st.DrawFn) -> tuple[Task, ...]:
    count = draw(st.integers(1, 25))
    return tuple(
        Task(id=f"t{n}", text="x", needs=tuple(f"t{k}" for k in sorted(draw(st.sets(st.integers(0, n - 1), max_size=4))) if n) if n else ())
        for n in range(count)
    )


@given(lists())
def test_every_list_is_placed_without_overlap_and_every_need_is_a_way(tasks: tuple[Task, ...]) -> None:
    drawn = graph_of(tasks)
    assert (drawn is None) == (not any(task.needs for task in tasks))
    if drawn is None:
        return
    for task in tasks:
        column, height = drawn.places[task.id]
        assert 0 <= column < drawn.columns
        assert 0.49 <= height <= drawn.height - 0.49
        assert column == max((drawn.places[need][0] + 1 for need in task.needs), default=0)
    for column in range(drawn.columns):
        heights = sorted(height for where, height in drawn.places.values() if where == column)
        assert all(below - above >= 0.98 for above, below in pairwise(heights))
        passing = [height for edge in drawn.edges for where, height in edge.points[1:-1] if where == column]
        assert all(abs(line - height) >= 0.68 for line in passing for height in heights), "no line runs through a task"
    for edge in drawn.edges:
        assert (edge.points[0], edge.points[-1]) == (drawn.places[edge.before], drawn.places[edge.after])
        assert [column for column, _ in edge.points] == list(range(edge.points[0][0], edge.points[-1][0] + 1))


def behind(needs: dict[str, tuple[str, ...]], name: str) -> set[str]:
    return {*needs[name], *(far for near in needs[name] for far in behind(needs, near))}


@given(lists())
def test_what_is_left_out_follows_from_the_rest(tasks: tuple[Task, ...]) -> None:
    whole, shown = {task.id: task.all_needs for task in tasks}, reduced(tasks)
    for task in tasks:
        assert behind(shown, task.id) == behind(whole, task.id)
        for need in shown[task.id]:
            assert not any(need in behind(whole, other) for other in shown[task.id])


def test_a_diamond_is_drawn_as_one() -> None:
    drawn = graph_of(tasks_of(a="", b="a", c="a", d="b c a"))
    assert drawn is not None
    assert drawn.places == {"a": (0, 1.0), "b": (1, 0.5), "c": (1, 1.5), "d": (2, 1.0)}
    assert drawn.as_dict()["edges"] == [
        [0, 1, [[0, 1.0], [1, 0.5]]],
        [0, 2, [[0, 1.0], [1, 1.5]]],
        [1, 3, [[1, 0.5], [2, 1.0]]],
        [2, 3, [[1, 1.5], [2, 1.0]]],
    ]


def test_a_task_that_needs_all_others_has_one_line() -> None:
    chain = tuple(Task(id=f"t{n}", text="x", needs=tuple(f"t{k}" for k in range(n))) for n in range(50))
    drawn = graph_of(chain)
    assert drawn is not None
    assert (len(drawn.edges), drawn.height) == (49, 1.0)


def test_large_lists_are_drawn_in_no_time_or_not_at_all() -> None:
    begun = time.process_time()
    weave = tuple(Task(id=f"t{n}", text="x", needs=tuple(f"t{k}" for k in range(max(0, n - 9), n, 4))) for n in range(NODES))
    assert graph_of(weave) is not None
    assert graph_of((*weave, Task(id="more", text="x", needs=("t0",)))) is None
    fan = tuple(Task(id=f"t{n}", text="x", needs=((f"t{n - 1}",) if n < 150 else (f"t{n - 150}",)) if n else ()) for n in range(NODES))
    assert graph_of(fan) is None or time.process_time() - begun < 2
    assert time.process_time() - begun < 2


def test_text_and_mermaid_name_ids_alone() -> None:
    tasks = (Task(id="a", text="x", title='"]; click a "javascript:alert(1)"'), Task(id="b", text="Use {{ needs.a.text }}."))
    assert outline(tasks) == "a\n  b ← a"
    assert mermaid(tasks) == 'flowchart LR\n    t0["a"]\n    t1["b"]\n    t0 --> t1'
