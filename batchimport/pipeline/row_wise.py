"""Does a query or frame function treat each record by itself?

It is called once for each chunk, so a sum, a sort or a join of the records with themselves would depend
on where chunks were cut. Polars' plan says what it does; what the plan cannot say (Python functions
in it) is tried on a sample that is cut in several ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source

from batchimport.model import INDEX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SINGLES = 8
"""How many records of the sample are tried one at a time."""

_NODES = {
    "Slice": "it takes a part of all rows (limit, offset, head, tail, slice)",
    "Sort": "it sorts all rows",
    "GroupBy": "it groups all rows",
    "Reduce": "it aggregates all rows",
    "Distinct": "it compares all rows (distinct, unique)",
    "HConcat": "it puts frames side by side",
    "MergeSorted": "it merges frames",
    "Agg": "it aggregates all rows",
    "Len": "it counts all rows",
    "Window": "it has a window over all rows",
    "Rolling": "it has a window over all rows",
    "SortBy": "it sorts all rows",
    "Gather": "it takes values of other rows",
    "Filter of an expression": "it filters a column by itself",
}
"""What needs all records, by the class of the plan's node or expression."""
_TRANSPARENT = {"Cache", "SimpleProjection", "Filter", "Select", "HStack", "Sink"}
_EXPRESSIONS = {"Column", "Literal", "Alias", "BinaryExpr", "Cast", "Ternary", "Explode"}
_ROW_WISE_FAMILIES = {"StringFunction", "TemporalFunction", "StructFunction"}
_ROW_WISE_BOOLEANS = {
    *("IsNull", "IsNotNull", "IsFinite", "IsInfinite", "IsNan", "IsNotNan", "IsIn", "IsBetween"),
    *("IsClose", "AllHorizontal", "AnyHorizontal", "Not"),
}
_ROW_WISE = {
    *(
        "abs",
        "round",
        "floor",
        "ceil",
        "pow",
        "sqrt",
        "cbrt",
        "log",
        "log1p",
        "exp",
        "sign",
        "negate",
    ),
    *("clip", "fill_null", "coalesce", "concat_list", "as_struct", "replace", "replace_strict"),
    *("sum_horizontal", "mean_horizontal", "min_horizontal", "max_horizontal", "hash", "format"),
}
_NEEDS_OTHERS = {
    *("shift", "diff", "pct_change", "rank", "reverse", "row_index", "unique", "unique_counts"),
    *("value_counts", "mode", "interpolate", "interpolate_by", "fill_null_with_strategy", "rle"),
    *("rle_id", "arg_sort", "top_k", "bottom_k", "cum_sum", "cum_count", "cum_prod", "cum_min"),
    *("cum_max", "cumsum", "cumcount", "ewm_mean", "qcut", "sample", "arg_unique", "n_unique"),
}
_KEEPS_LEFT = {"Inner", "Left", "Semi", "Anti", "Cross", "IEJoin", "AsOf"}
_KEEPS_RIGHT = {"Inner", "Right", "Cross", "IEJoin"}


@dataclass
class Findings:
    """What a plan says.

    Attributes:
        reason: Why it needs all records; None if nothing shows that.
        unproven: Some part of it may do anything.
        multiplies: A record may become several rows.
        drops: A record may become no row.
        reorders: Rows may not be in the order of their records.
    """

    reason: str | None = None
    unproven: bool = False
    multiplies: bool = False
    drops: bool = False
    reorders: bool = False


def as_records(frame: pl.DataFrame) -> pl.LazyFrame:
    """Return a frame so that a plan shows it; what a function collects and makes a frame of does not."""

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        part = frame if predicate is None else frame.filter(predicate)
        part = part if rows is None else part.head(rows)
        yield part if columns is None else part.select(columns)

    return register_io_source(read, schema=frame.schema)


def inspect_plan(plan: pl.LazyFrame) -> Findings:
    """Look at the plan of a function's result for the records.

    The function was called with `as_records`, by which they are recognised. What does not come from them, such as a small
    file that is read and grouped, may be anything: it is the same for each chunk.
    """
    found = Findings()
    try:
        flags = pl.QueryOptFlags.none()._pyoptflags  # noqa: SLF001 - polars has no public plan
        visitor = plan._ldf.with_optimizations(flags).visit()  # noqa: SLF001 - see above
        if not _Walk(visitor, found).node(visitor.get_node()):
            found.unproven = True  # the records went through something that hides them
    except (AttributeError, TypeError, NotImplementedError):  # another version of Polars
        found.unproven = True
    return found


class _Walk:
    """Visits a plan from its result to its sources."""

    def __init__(self, visitor: Any, found: Findings) -> None:
        self._visitor, self._found = visitor, found

    def node(self, number: int) -> bool:
        """Look at a node and all below it; say whether the records are among its sources."""
        self._visitor.set_node(number)
        below = self._visitor.get_inputs()
        try:
            node, expressions = self._visitor.view_current_node(), self._visitor.get_exprs()
        except NotImplementedError:
            node, expressions = None, []
        if not below:
            return type(node).__name__ == "PythonScan" and INDEX in self._visitor.get_schema()
        has_records = [self.node(child) for child in below]
        if not any(has_records):
            return False
        self._visitor.set_node(number)
        self._judge(node, has_records)
        names = [self._expression(each.node) for each in expressions]
        if type(node).__name__ == "Select" and not any(names):
            self._refuse("it returns a constant, not a row for each record")
        return True

    def _judge(self, node: Any, has_records: list[bool]) -> None:
        kind = type(node).__name__
        if kind in _NODES:
            self._refuse(_NODES[kind])
        elif kind == "Join":
            self._judge_join(node.options, *has_records)
        elif kind == "Union":
            self._refuse(
                "it stores the records more than once (union, concat)"
                if sum(has_records) > 1
                else "it adds other rows to the records, once for each chunk (union, concat)"
            )
        elif kind == "MapFunction":
            self._judge_function(str(node.function[0]))
        elif kind not in _TRANSPARENT:
            self._found.unproven = True
        self._found.drops |= kind == "Filter"

    def _judge_join(self, options: Any, left: bool, right: bool) -> None:
        how = options[0] if isinstance(options[0], str) else str(options[0][0])
        if left and right:
            self._refuse("it joins the records with themselves")
        elif how not in (_KEEPS_LEFT if left else _KEEPS_RIGHT):
            self._refuse("it keeps rows of the other table that no record of a chunk matches")
        self._found.multiplies |= how not in ("Semi", "Anti")
        keeps_order = ("left", "left_right") if left else ("right", "right_left")
        self._found.reorders |= how not in ("Semi", "Anti") and options[-1] not in keeps_order
        self._found.drops |= how not in ("Left", "Right", "Cross")

    def _judge_function(self, name: str) -> None:
        if name in _NEEDS_OTHERS:
            self._refuse(f"it needs other rows ({name})")
        elif name in ("explode", "unpivot"):
            self._found.multiplies = True
        elif name not in ("rename", "unnest", "rechunk"):
            self._found.unproven = True

    def _expression(self, number: int) -> bool:
        """Look at an expression and its parts; say whether it reads any column."""
        try:
            part = self._visitor.view_expression(number)
        except NotImplementedError:  # a Python function
            self._found.unproven = True
            return True
        kind = type(part).__name__
        if kind in ("Filter", "Sort", "Slice"):
            self._refuse(_NODES.get(kind, _NODES["Filter of an expression"]))
        elif kind in _NODES:
            self._refuse(_NODES[kind])
        elif kind == "Function":
            self._judge_call(part.function_data[0])
        elif kind not in _EXPRESSIONS:
            self._found.unproven = True
        self._found.multiplies |= kind == "Explode"
        if kind == "Literal" and isinstance(part.value, pl.Series):
            self._found.unproven = True
        return any([kind == "Column", *map(self._expression, _parts(part))])

    def _judge_call(self, function: Any) -> None:
        family, name = type(function).__name__, str(function).rpartition(".")[2]
        if family in _ROW_WISE_FAMILIES and name != "ConcatVertical":
            return
        if family == "BooleanFunction" and name in _ROW_WISE_BOOLEANS:
            return
        if isinstance(function, str) and name in _ROW_WISE:
            return
        if isinstance(function, str) and name in _NEEDS_OTHERS:
            self._refuse(f"it needs other rows ({name})")
        self._found.unproven = True

    def _refuse(self, reason: str) -> None:
        self._found.reason = self._found.reason or reason


def _parts(expression: Any) -> Iterable[int]:
    """Return the numbers of an expression's own parts."""
    names = ("input", "left", "right", "expr", "predicate", "truthy", "falsy")
    for name in names:
        value = getattr(expression, name, None)
        if isinstance(value, int):
            yield value
        elif isinstance(value, list):
            yield from (each for each in value if isinstance(each, int))


def depends_on_chunks(run: Callable[[pl.DataFrame], pl.DataFrame], sample: pl.DataFrame) -> bool:
    """Say whether a function's results differ when the sample is cut, reversed or doubled.

    Where the results differ for equal frames (a clock, random numbers), their number is compared.
    """
    result = run(sample)
    is_repeatable = run(sample).equals(result)
    is_ordered = INDEX not in result.columns  # the order says which record a row is from
    whole = _rows([result])

    def arranged(rows: list[str]) -> list[str]:
        if not is_repeatable:
            return ["a row"] * len(rows)
        return rows if is_ordered else sorted(rows)

    half, single = sample.height // 2, min(SINGLES, sample.height)
    ways = [
        ([sample.head(half), sample.slice(half)], whole),
        ([*(sample.slice(at, 1) for at in range(single)), sample.slice(single)], whole),
        ([sample.reverse()], whole[::-1]),
        ([pl.concat([sample, sample])], whole * 2),
    ]
    return any(
        arranged(_rows([run(frame) for frame in frames if frame.height])) != arranged(expected)
        for frames, expected in ways
    )


def _rows(results: list[pl.DataFrame]) -> list[str]:
    return [repr(sorted(row.items())) for frame in results for row in frame.to_dicts()]
