"""A folder's tree as data: what stood where, and what is different between two looks. Knows shapes and comparisons; opens nothing.

Paths are bytes, relative to the tree's root and with `/` between names: on POSIX a name is bytes, whether it is text or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

# A file that was written within this time before a look may be written again without a new time stamp (file systems count in ticks, some in whole
# seconds): the next look reads it again.
RACY: Final = 2_100_000_000  # nanoseconds


class Kind(StrEnum):
    """What stands at a path."""

    FILE = "f"
    LINK = "l"
    FOLDER = "d"


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What stood at one path.

    Attributes
    ----------
    mode : int
        Permission bits; those of a link mean nothing.
    content : bytes
        SHA-256 of a file's content, empty where it was not read; a link's target.
    mtime, ctime : int
        Nanoseconds since the epoch.
    """

    kind: Kind
    mode: int
    size: int
    content: bytes = b""
    mtime: int = 0
    ctime: int = 0
    inode: int = 0
    uid: int = 0
    gid: int = 0

    @property
    def is_read(self) -> bool:
        """Whether the content is known."""
        return self.kind is not Kind.FILE or bool(self.content)

    def is_stamped_as(self, other: Entry) -> bool:
        """Whether nothing can have been written between the two looks, as far as the file system's stamps tell."""
        return (
            self.kind is other.kind
            and self.ctime == other.ctime
            and self.mtime == other.mtime
            and self.size == other.size
            and self.inode == other.inode
        )


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether the same thing stands there, to whoever reads it: kind, content, mode or target; not times, not numbers."""
    if one is None or other is None:
        return one is other
    if one.kind is not other.kind:
        return False
    match one.kind:
        case Kind.LINK:
            return one.content == other.content
        case Kind.FOLDER:
            return one.mode == other.mode
        case Kind.FILE:
            return one.mode == other.mode and same_content(one, other)


def same_content(one: Entry, other: Entry) -> bool:
    """Whether two files hold the same; where one of them was not read, whether size and time say so."""
    if one.content and other.content:
        return one.content == other.content
    return one.size == other.size and one.mtime == other.mtime


class Tree(msgspec.Struct, frozen=True):
    """One look at a folder.

    Attributes
    ----------
    root : bytes
        The folder's real path.
    taken : int
        When the look began, in nanoseconds since the epoch.
    entries : dict of bytes to Entry
        Everything below the root but what is in `left_out`.
    left_out : dict of bytes to str
        Paths that were not looked at or could not be read, with the reason; what is below them is unknown, too.
    by_git : bool
        Whether git said what is to be ignored.
    """

    root: bytes
    taken: int
    entries: dict[bytes, Entry]
    left_out: dict[bytes, str] = {}
    by_git: bool = False

    def is_known(self, path: bytes) -> bool:
        """Whether this look would have seen what stands at `path`: neither it nor a folder above it was left out."""
        if not self.left_out:
            return True
        return path not in self.left_out and all(above not in self.left_out for above in parents(path))


def parents(path: bytes) -> Iterable[bytes]:
    """The folders above a path, the nearest first, without the root."""
    while (cut := path.rfind(b"/")) > 0:
        path = path[:cut]
        yield path


class Change(msgspec.Struct, frozen=True):
    """One path at which something else stands after than before. None: nothing stood there."""

    path: bytes
    before: Entry | None
    after: Entry | None


def changes(before: Tree, after: Tree) -> list[Change]:
    """What is different, sorted by path. What one of the two looks could not see is no difference."""
    found: list[Change] = []
    for path in before.entries.keys() | after.entries.keys():
        was, is_ = before.entries.get(path), after.entries.get(path)
        if was is is_ or same(was, is_):
            continue
        if (was is None and not before.is_known(path)) or (is_ is None and not after.is_known(path)):
            continue
        found.append(Change(path, was, is_))
    found.sort(key=lambda change: change.path)
    return found


def renames(found: Iterable[Change]) -> dict[bytes, bytes]:
    """New files by the path under which the same content has gone. Only where it is plain: one gone, one new, and not empty."""
    gone: dict[bytes, list[bytes]] = {}
    new: dict[bytes, list[bytes]] = {}
    for change in found:
        if change.after is None and change.before is not None and _is_content(change.before):
            gone.setdefault(change.before.content, []).append(change.path)
        elif change.before is None and change.after is not None and _is_content(change.after):
            new.setdefault(change.after.content, []).append(change.path)
    return {new[content][0]: paths[0] for content, paths in gone.items() if len(paths) == 1 and len(new.get(content, ())) == 1}


def _is_content(entry: Entry) -> bool:
    return entry.kind is Kind.FILE and bool(entry.content) and entry.size > 0


def contents(entries: Iterable[Entry]) -> dict[bytes, int]:
    """The digests of all files that were read, with their sizes."""
    return {entry.content: entry.size for entry in entries if entry.kind is Kind.FILE and entry.content}


class Actions(msgspec.Struct, frozen=True):
    """A plan as steps that can be carried out one after the other, each of them whole or not at all."""

    remove: tuple[bytes, ...]  # files and links
    remove_folders: tuple[tuple[bytes, bool], ...]  # deepest first; whether it has to be empty, for something else comes there
    make_folders: tuple[bytes, ...]  # the highest first
    place: tuple[Change, ...]  # files and links, made ready before
    modes: tuple[tuple[bytes, int], ...]  # of files, then of folders, deepest first


def actions(changes: Iterable[Change]) -> Actions:
    """The steps from `after` to `before` of each change, in an order in which they are possible."""
    remove: list[bytes] = []
    remove_folders: list[tuple[bytes, bool]] = []
    make_folders: list[bytes] = []
    place: list[Change] = []
    modes: list[tuple[bytes, int]] = []
    folder_modes: list[tuple[bytes, int]] = []
    for change in changes:
        path, to, stands = change.path, change.before, change.after
        if stands is not None and stands.kind is Kind.FOLDER and (to is None or to.kind is not Kind.FOLDER):
            remove_folders.append((path, to is not None))
        elif stands is not None and stands.kind is not Kind.FOLDER and (to is None or to.kind is Kind.FOLDER):
            remove.append(path)
        if to is None:
            continue
        if to.kind is Kind.FOLDER:
            if stands is None or stands.kind is not Kind.FOLDER:
                make_folders.append(path)
            folder_modes.append((path, to.mode))
        elif to.kind is Kind.FILE and stands is not None and stands.kind is Kind.FILE and same_content(to, stands):
            modes.append((path, to.mode))
        else:
            place.append(change)
    return Actions(
        tuple(sorted(remove)),
        tuple(sorted(remove_folders, reverse=True)),
        tuple(sorted(make_folders)),
        tuple(place),
        (*modes, *sorted(folder_modes, reverse=True)),
    )


def reversed_changes(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The way back."""
    return tuple(Change(change.path, change.after, change.before) for change in changes)


def is_folder(change: Change) -> bool:
    """Whether nothing but a folder stands there, before and after."""
    return all(entry is None or entry.kind is Kind.FOLDER for entry in (change.before, change.after))
