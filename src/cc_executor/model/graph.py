"""The needs of a list of tasks as a picture: which column and height each task has, and through which points its needs run. Pure; draws nothing.

Columns are layers: a task stands one to the right of the last of its needs. Needs that follow from others are left out, so that a task that needs
everything before it has one line and not forty.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from cc_executor.model.tasklist import Task

NODES: Final = 300  # tasks; more are no picture any more
POINTS: Final = 3_000  # of all lines together
SWEEPS: Final = 6  # more change nothing that can be seen
PASSING: Final = 0.4  # height of a line that passes through a column; a task has 1


class Edge(msgspec.Struct, frozen=True):
    """A need. `points`: (column, height) from the task that is needed to the one that needs it."""

    before: str
    after: str
    points: tuple[tuple[int, float], ...]


class Graph(msgspec.Struct, frozen=True):
    """Where everything is. Heights begin at 0 and are in heights of a task.

    Attributes
    ----------
    places : dict of str to (int, float)
        For each task its column, from 0, and the height of its middle.
    """

    places: dict[str, tuple[int, float]]
    edges: tuple[Edge, ...]
    columns: int
    height: float

    def as_dict(self) -> dict[str, Any]:
        """For a page: nodes as ``[id, column, height]``, edges as ``[before, after, [[column, height], …]]`` with positions of nodes."""
        positions = {name: number for number, name in enumerate(self.places)}
        return {
            "columns": self.columns,
            "height": self.height,
            "nodes": [[name, column, height] for name, (column, height) in self.places.items()],
            "edges": [[positions[edge.before], positions[edge.after], [list(point) for point in edge.points]] for edge in self.edges],
        }


class _Spot(msgspec.Struct):
    """Something that has a height in a column: a task, or a line that passes."""

    column: int
    room: float
    height: float = 0.0
    left: list[_Spot] = []
    right: list[_Spot] = []


def graph_of(order: Sequence[Task]) -> Graph | None:
    """The picture of these tasks, which stand in an order that their needs allow; None when nothing needs anything, or there is too much of it."""
    if len(order) > NODES or not any(task.all_needs for task in order):
        return None
    needs = reduced(order)
    columns: dict[str, int] = {}
    for task in order:
        columns[task.id] = max((columns[need] + 1 for need in needs[task.id]), default=0)
    if sum(columns[name] - columns[need] + 1 for name, before in needs.items() for need in before) > POINTS:
        return None
    spots = {name: _Spot(column, 1.0) for name, column in columns.items()}
    layers: list[list[_Spot]] = [[] for _ in range(max(columns.values()) + 1)]
    for spot in spots.values():
        layers[spot.column].append(spot)
    ways: list[tuple[str, str, list[_Spot]]] = []
    for name, before in needs.items():
        for need in before:
            way = [spots[need], *(_Spot(column, PASSING) for column in range(columns[need] + 1, columns[name])), spots[name]]
            for spot in way[1:-1]:
                layers[spot.column].append(spot)
            for left, right in pairwise(way):
                left.right.append(right)
                right.left.append(left)
            ways.append((need, name, way))
    _place(layers)
    return Graph(
        places={name: (spot.column, spot.height) for name, spot in spots.items()},
        edges=tuple(Edge(need, name, tuple((spot.column, spot.height) for spot in way)) for need, name, way in ways),
        columns=len(layers),
        height=round(max(spot.height + spot.room / 2 for layer in layers for spot in layer), 2),
    )


def reduced(order: Sequence[Task]) -> dict[str, tuple[str, ...]]:
    """For each task its needs without those that follow from the others."""
    numbers = {task.id: number for number, task in enumerate(order)}
    behind: dict[str, int] = {}  # as bits: everything that a task needs, directly or through others
    found: dict[str, tuple[str, ...]] = {}
    for task in order:
        through = 0
        for need in task.all_needs:
            through |= behind[need]
        found[task.id] = tuple(need for need in task.all_needs if not through >> numbers[need] & 1)
        for need in task.all_needs:
            through |= 1 << numbers[need]
        behind[task.id] = through
    return found


def _place(layers: list[list[_Spot]]) -> None:
    """Give everything a height: in the order that crosses least, as straight as there is room."""
    for layer in layers:
        _spread(layer, [float(number) for number in range(len(layer))])
    for sweep in range(SWEEPS):
        is_forward = sweep % 2 == 0
        for layer in layers if is_forward else reversed(layers):
            wanted = {id(spot): _middle(spot.left if is_forward else spot.right, spot.height) for spot in layer}
            layer.sort(key=lambda spot: wanted[id(spot)])
            _spread(layer, [wanted[id(spot)] for spot in layer])
    for layer in layers:  # at last between both sides, in the order that stands
        _spread(layer, [_middle([*spot.left, *spot.right], spot.height) for spot in layer])
    top = min(spot.height - spot.room / 2 for layer in layers for spot in layer)
    for layer in layers:
        for spot in layer:
            spot.height = round(spot.height - top, 2)


def _middle(spots: Sequence[_Spot], otherwise: float) -> float:
    return sum(spot.height for spot in spots) / len(spots) if spots else otherwise


def _spread(layer: Sequence[_Spot], wanted: Sequence[float]) -> None:
    """Heights as near to the wanted ones as the order and the room that each needs allow."""
    runs: list[
        tuple[float, float, list[_Spot]]
    ] = []  # neighbours that touch: the sum of where they would begin, how high they are, who they are
    for spot, height in zip(layer, wanted, strict=True):
        total, size, members = height - spot.room / 2, spot.room, [spot]
        while runs and runs[-1][0] / len(runs[-1][2]) + runs[-1][1] > total / len(members):
            above_total, above_size, above = runs.pop()
            total = above_total + total - above_size * len(members)
            size += above_size
            members = above + members
        runs.append((total, size, members))
    for total, _, members in runs:
        edge = total / len(members)
        for spot in members:
            spot.height = edge + spot.room / 2
            edge += spot.room


def mermaid(order: Sequence[Task]) -> str:
    """The needs as a Mermaid flow chart, for Markdown pages. Ids alone: a title could say anything."""
    numbers = {task.id: f"t{number}" for number, task in enumerate(order)}
    lines = ["flowchart LR", *(f'    {numbers[task.id]}["{task.id}"]' for task in order)]
    lines += [f"    {numbers[need]} --> {numbers[name]}" for name, needs in reduced(order).items() for need in needs]
    return "\n".join(lines)


def outline(order: Sequence[Task]) -> str:
    """The layers as text: one line for each task, further in the more has to be done before."""
    columns: dict[str, int] = {}
    needs = reduced(order)
    lines: list[str] = []
    for task in order:
        columns[task.id] = max((columns[need] + 1 for need in needs[task.id]), default=0)
        after = f" ← {', '.join(needs[task.id])}" if needs[task.id] else ""
        lines.append(f"{'  ' * columns[task.id]}{task.id}{after}")
    return "\n".join(lines)
