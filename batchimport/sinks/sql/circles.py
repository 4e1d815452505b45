"""Records that refer to one another in a circle: none can be stored first, so they are stored together.

They are looked for among what foreign keys refused until the end of a job, wherever they stood in the file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import polars as pl

Key = tuple[Any, ...]
"""Names of the columns that a foreign key refers to, and their values."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key of a table.

    Attributes:
        parent: The table that it refers to, as SQL.
        parent_names: The columns there, in the order of `names`.
        is_own: It refers to the table that it is of.
    """

    names: tuple[str, ...]
    parent: str
    parent_names: tuple[str, ...]
    is_own: bool


def circles(
    frame: pl.DataFrame,
    foreign_keys: Sequence[ForeignKey],
    unique_keys: Collection[frozenset[str]],
    find: Callable[[ForeignKey, list[Key]], Collection[Key]],
) -> list[int]:
    """Return the places of rows that only lack each other, and of which each one is referred to.

    What refers to them, and is referred to by none, can be stored after them.

    Args:
        frame: Rows that foreign keys refused, in source order, with the names of the table's columns.
        unique_keys: Of rows with the same one, only the first may be stored.
        find: Returns which values the columns that a foreign key refers to have in its table.
    """
    needs: list[list[Key]] = [[] for _ in range(frame.height)]
    owns: list[list[Key]] = [[] for _ in range(frame.height)]
    kept = set(range(frame.height))
    for names in {key.parent_names for key in foreign_keys if key.is_own}:
        for place, values in enumerate(_values(frame, names)):
            if values is not None:
                owns[place].append((names, values))
    _add_needs(frame, foreign_keys, find, needs, kept)
    kept = _closed(needs, owns, kept)
    kept = _first_of_each(frame, unique_keys, kept)
    kept = _closed(owns, needs, _closed(needs, owns, kept))
    return sorted(_closed(needs, owns, kept))


def _add_needs(
    frame: pl.DataFrame,
    foreign_keys: Sequence[ForeignKey],
    find: Callable[[ForeignKey, list[Key]], Collection[Key]],
    needs: Sequence[list[Key]],
    kept: set[int],
) -> None:
    """Add what rows refer to in their own table; discard those that lack a row of another one."""
    for key in foreign_keys:
        wanted = _values(frame, key.names)
        there = set(find(key, list({values for values in wanted if values is not None})))
        for place, values in enumerate(wanted):
            if values is None or values in there:
                continue
            if key.is_own:
                needs[place].append((key.parent_names, values))
            else:
                kept.discard(place)


def _first_of_each(
    frame: pl.DataFrame, unique_keys: Collection[frozenset[str]], kept: set[int]
) -> set[int]:
    """Return some rows without those that have a unique key of an earlier one."""
    for names in unique_keys:
        seen: dict[Key, int] = {}
        for place, values in enumerate(_values(frame, sorted(names))):
            if place in kept and values is not None:
                seen.setdefault(values, place)
        kept = {
            place
            for place, values in enumerate(_values(frame, sorted(names)))
            if place in kept and (values is None or seen[values] == place)
        }
    return kept


def _values(frame: pl.DataFrame, names: Sequence[str]) -> list[Key | None]:
    """Return the values of some columns of each row; None where one is null."""
    if not set(names) <= set(frame.columns):
        return [None] * frame.height
    rows = frame.select(names).rows()
    return [None if None in row else row for row in rows]


def _closed(
    needs: Sequence[Sequence[Key]], owns: Sequence[Sequence[Key]], kept: set[int]
) -> set[int]:
    """Return the most of some rows so that each has all that it needs of what they own."""
    kept = set(kept)
    left = Counter(key for place in kept for key in owns[place])
    users = defaultdict[Key, list[int]](list)
    for place in kept:
        for key in needs[place]:
            users[key].append(place)
    lost = [key for key in users if not left[key]]
    while lost:
        for place in users[lost.pop()]:
            if place in kept:
                kept.remove(place)
                for key in owns[place]:
                    left[key] -= 1
                    if not left[key]:
                        lost.append(key)
    return kept
