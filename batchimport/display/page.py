"""A job's report as one HTML page: no script, nothing loaded, light and dark, printable."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from batchimport.display.charts import bars, lines
from batchimport.display.html import Html, tag, together
from batchimport.display.units import MINUTE, clock_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_OUTCOMES = {
    "completed": ("completed", "good"),
    "completed_with_rejects": ("completed with rejects", "caution"),
    "running": ("running", "accent"),
    "interrupted": ("interrupted, can be continued", "caution"),
    "stopped": ("stopped: too many rejects", "caution"),
    "failed": ("failed, can be continued", "trouble"),
}
_EVENTS = {"retried": "attempt failed", "given_up": "given up", "waited": "waited"}
_BARS = 60
_LEAST_BUCKETS = 3
"""A curve of fewer points says nothing."""


def page(report: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        report: What `jobs.report.report_of` returns.
    """
    job = report["job"]
    head = together(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="referrer" content="no-referrer">'),
        tag("title", f"{job['job_id']}: {_outcome(job)[0]}"),
        tag("style", Html(files("batchimport.display").joinpath("page.css").read_text("utf-8"))),
    )
    body = together(
        _heading(report),
        _accounts(report),
        _over_time(report),
        _runs(report["runs"]),
        _incidents(report["events"]),
        _rejects(report["rejects"]),
        _columns(report),
        _configuration(report),
        _examples(report["rejects"]),
        tag("footer", f"Made by batchimport on {_time(report['made_at'])}."),
    )
    page = tag("html", tag("head", head), tag("body", tag("main", body)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _outcome(job: Mapping[str, Any]) -> tuple[str, str]:
    status = str(job["status"])
    words, style = _OUTCOMES.get(status, (status.replace("_", " "), "quiet"))
    if status == "running" and "waiting" in str(job["current_stage"]):
        words = f"{words}: {job['current_stage']}"
    return words, style


def _heading(report: Mapping[str, Any]) -> Html:
    job = report["job"]
    words, style = _outcome(job)
    sources = [str(source) for source in job["sources"]]
    more = f" and {len(sources) - 1:,} more" if len(sources) > 1 else ""
    source = sources[0] if sources else "?"
    into = together(
        *(tag("code", source), more, " into table ", tag("code", job["table"])),
        *(" of ", tag("code", job["destination"])),
    )
    parts = [
        tag("h1", job["job_id"]),
        tag("p", tag("span", words, class_=f"status {style}"), " · ", _sentence(report)),
        tag("p", into, class_="quiet"),
    ]
    if job["error"]:
        style = "note trouble" if job["status"] == "failed" else "note"
        parts.append(tag("p", job["error"], class_=style))
    parts += [tag("p", note, class_="note") for note in report["notes"]]
    if job["next_command"]:
        parts.append(tag("p", "Next:", class_="quiet"))
        parts.append(tag("pre", job["next_command"]))
    return together(*parts)


def _sentence(report: Mapping[str, Any]) -> str:
    accounts = report["accounts"]
    total, stored, failed = (accounts[name] for name in ("total_items", "successful", "failed"))
    of = f" of {total:,}" if total is not None else ""
    verb = "record is" if (total if total is not None else stored) == 1 else "records are"
    rejected = f"; {failed:,} {'was' if failed == 1 else 'were'} rejected" if failed else ""
    return f"{stored:,}{of} {verb} stored{rejected}."


def _accounts(report: Mapping[str, Any]) -> Html:
    accounts, job = report["accounts"], report["job"]
    seconds = job["duration_seconds"]
    done = accounts["successful"] + accounts["failed"] + accounts["filtered"]
    cards = [(_number(accounts["successful"]), "stored"), (_number(accounts["failed"]), "rejected")]
    if accounts["filtered"]:
        cards.append((_number(accounts["filtered"]), "filtered or left out"))
    cards.append((_number(accounts["total_items"]), "records in the source"))
    if seconds is not None:
        cards.append((_span(seconds), "of work"))
    if seconds:
        cards.append((f"{done / seconds:,.0f}", "records a second"))
    facts = [
        (words, _number(accounts[name]))
        for name, words in (
            ("inserted", "inserted"),
            ("updated", "updated"),
            ("ignored", "ignored: their key was in the table"),
            ("skipped_by_destination", "left out by a trigger, rule or clause of the table"),
        )
        if accounts.get(name) and accounts[name] != accounts["successful"]
    ]
    return together(
        tag(
            "div",
            *(tag("div", tag("b", b), tag("span", what)) for b, what in cards),
            class_="cards",
        ),
        tag("p", _balance(accounts)),
        _facts(facts) if facts else None,
    )


def _balance(accounts: Mapping[str, Any]) -> Html:
    sum_ = " + ".join(f"{accounts[name]:,}" for name in ("successful", "failed", "filtered"))
    words = f"stored + rejected + filtered: {sum_}"
    if accounts["balanced"]:
        text = f"The accounts balance: {words} = {accounts['total_items']:,}, the records counted."
        return tag("span", text, class_="good")
    if accounts["total_items"] is None:
        return tag("span", f"The records are not counted yet. So far {words}.", class_="quiet")
    return tag(
        "span", f"Not all records have an outcome yet: {words}, of {accounts['total_items']:,}."
    )


# -- over time ------------------------------------------------------------------------------------


def _over_time(report: Mapping[str, Any]) -> Html:
    timeline, samples = report["timeline"], report["samples"]
    end = max((run["second"] + run["seconds"] for run in report["runs"]), default=0)
    figures: list[Html] = []
    if len(timeline) >= _LEAST_BUCKETS:
        middles = [part["second"] + part["seconds"] / 2 for part in timeline]
        for name, words in (
            ("records_per_second", "records a second"),
            ("records_per_chunk", "records per chunk"),
        ):
            points = [(at, part[name]) for at, part in zip(middles, timeline, strict=True)]
            if name == "records_per_chunk":
                points = [point for point in points if point[1] is not None]
            figures.append(_figure(lines({words: points}, end), words))
    if len(samples) >= _LEAST_BUCKETS:
        figures += _load(samples, end)
    figures += _delays(report, end) if end else []
    title = tag("h2", "Over time")
    if not figures:
        return together(title, tag("p", "Too few chunks to draw anything.", class_="quiet"))
    several = "; pauses between runs are left out" if len(report["runs"]) > 1 else ""
    return together(
        title, tag("p", f"Horizontal: time of work{several}.", class_="quiet"), *figures
    )


def _load(samples: Sequence[Mapping[str, Any]], end: float) -> list[Html]:
    def points(name: str) -> list[tuple[float, float | None]]:
        return [(each["second"], each[name]) for each in samples if each[name] is not None]

    figures = [_figure(lines({"chunks in flight": points("in_flight")}, end), "chunks in flight")]
    usage = {"CPU": points("cpu_usage"), "memory": points("memory_usage")}
    if all(len(values) >= _LEAST_BUCKETS for values in usage.values()):
        figures.append(
            _figure(lines(usage, end, "{:.0%}".format, 1.0), "use of the machine", *usage)
        )
    return figures


def _delays(report: Mapping[str, Any], end: float) -> list[Html]:
    """Return retries and waits over time; a retried chunk that the ledger tells of, otherwise."""
    timeline, events = report["timeline"], report["events"]
    retries = [(event["second"], 1) for event in events["shown"] if event["event"] == "retried"]
    if not retries:
        retries = [(part["second"], part["retried_chunks"]) for part in timeline]
    waits = [
        (event["seconds"] or 0, max(0, event["second"] - (event["seconds"] or 0)), event["second"])
        for event in events["shown"]
        if event["event"] == "waited"
    ]
    figures = []
    if any(count for _, count in retries):
        width, counts = end / _BARS, [0] * _BARS
        for at, count in retries:
            counts[min(_BARS - 1, int(at / width))] += count
        spans = [(count, n * width, (n + 1) * width) for n, count in enumerate(counts) if count]
        chart = bars({"retries": spans}, end)
        figures.append(_figure(chart, "attempts that failed and were repeated"))
    if waits:
        chart = bars({"waits": waits}, end, "{:,g} s".format)
        figures.append(_figure(chart, "waits for the destination"))
    return figures


def _figure(chart: Html, words: str, *series: str) -> Html:
    legend = [
        together(tag("i", class_="second" if number else None), name)
        for number, name in enumerate(series)
    ]
    kind = None if series else "single"
    return tag("figure", tag("figcaption", words, *legend), chart, class_=kind)


def _runs(runs: Sequence[Mapping[str, Any]]) -> Html | None:
    if not runs:
        return None
    rows = [
        (
            str(number + 1),
            _time(run["began_at"]),
            _span(run["seconds"]),
            _number(run["chunks"]),
            _number(run["records"]),
            (run["status"] or "no end was recorded").replace("_", " "),
        )
        for number, run in enumerate(runs)
    ]
    head = ("run", "began", "took", "#chunks", "#records", "end")
    return together(tag("h2", "Runs"), _table(head, rows))


def _incidents(events: Mapping[str, Any]) -> Html | None:
    parts: list[Html] = []
    if events["shown"]:
        rows = [
            (
                _time(event["at"]),
                _EVENTS[event["event"]],
                _place(event),
                event["error"] or "",
            )
            for event in events["shown"]
        ]
        table = _table(("when", "what", "where", "why"), rows)
        rest = _rest(events["not_shown"], "events")
        parts.append(together(tag("h2", "What went wrong"), table, rest))
    if events["decisions"]:
        rows_ = [
            (
                clock_time(each["second"]),
                _number(each["chunk_size"]),
                _number(each["in_flight"]),
                each["reason"],
            )
            for each in events["decisions"]
        ]
        head = ("time of work", "#records per chunk", "#chunks at a time", "because")
        parts += [tag("h2", "Why chunks have their size"), _table(head, rows_)]
    return together(*parts) if parts else None


def _place(event: Mapping[str, Any]) -> str:
    if event["event"] == "waited":
        return _span(event["seconds"] or 0)
    first, count = event["record"], event["records"]
    if first is None or count is None:
        return ""
    attempt = f", attempt {event['attempt']}" if event["attempt"] is not None else ""
    return f"records {first:,} to {first + count - 1:,}{attempt}"


# -- rejects and columns --------------------------------------------------------------------------


def _rejects(rejects: Mapping[str, Any] | None) -> Html | None:
    if rejects is None:
        return None
    title = tag("h2", "Rejects")
    reasons = rejects["reasons"]
    if not reasons:
        return together(title, tag("p", "No record was rejected.", class_="quiet"))
    most = max(reason["count"] for reason in reasons)
    rows = [
        (
            _number(reason["count"]),
            reason["field"] or "(record)",
            reason["code"],
            tag("span", class_="bar", style=f"width:{100 * reason['count'] / most:.1f}%"),
        )
        for reason in reasons
    ]
    words = f"{rejects['records']:,} records were rejected, for {rejects['errors']:,} errors."
    return together(
        title,
        tag("p", words),
        _table(("#errors", "field", "reason", "*"), rows),
        _rest(rejects["errors_of_other_reasons"], "errors for other reasons"),
    )


def _examples(rejects: Mapping[str, Any] | None) -> Html | None:
    """Return rejected records; at the end of the page, since they are long."""
    if not rejects or not rejects["reasons"]:
        return None
    return together(tag("h2", "Rejected records"), *map(_examples_of, rejects["reasons"]))


def _examples_of(reason: Mapping[str, Any]) -> Html:
    name = f"{reason['field'] or '(record)'}: {reason['code']}"
    shown = reason["examples"]
    of = f"{len(shown)} of {reason['count']:,}" if reason["count"] > len(shown) else str(len(shown))
    rows = [
        (
            f"{each['source']}:{each['line']}" if each["line"] else f"record {each['record']:,}",
            together(tag("div", each["message"]), tag("div", each["raw"], class_="raw quiet")),
        )
        for each in shown
    ]
    summary = tag("summary", name, " ", tag("span", f"({of})", class_="quiet"))
    return tag("details", summary, _table(("@where", "what, and the record"), rows), open="open")


def _columns(report: Mapping[str, Any]) -> Html | None:
    columns = report["columns"]
    if not columns:
        return None
    rows = [
        (
            column["name"],
            column["type"],
            "may be null" if column["nullable"] else "never null",
            "inferred" if column["inferred"] else "declared",
            _number(column["errors"]),
        )
        for column in columns
    ]
    notes = [tag("p", note, class_="note") for note in report["column_notes"]]
    head = ("column", "type", "nulls", "type was", "#errors")
    return together(tag("h2", "Columns"), *notes, _table(head, rows))


def _configuration(report: Mapping[str, Any]) -> Html:
    facts = [*_settings(report["configuration"])]
    options = [*_settings(report["options"])]
    parts = [tag("h2", "Configuration"), _facts(facts)]
    if options:
        parts.append(tag("details", tag("summary", "Options of the last run"), _facts(options)))
    if report["schema"]:
        schema = json.dumps(report["schema"], indent=1, ensure_ascii=False, default=str)
        shown = schema if len(schema) <= 50_000 else schema[:50_000] + "…"
        parts.append(tag("details", tag("summary", "JSON Schema of a record"), tag("pre", shown)))
    return together(*parts)


def _settings(facts: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the names and values that are set, the nested ones as well."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _settings(value)
        elif isinstance(value, list | tuple):
            if value:
                yield name.replace("_", " "), ", ".join(map(str, value[:100]))
        elif value not in (None, "", False):
            yield name.replace("_", " "), "yes" if value is True else str(value)


# -- parts ----------------------------------------------------------------------------------------


def _facts(facts: Sequence[tuple[str, object]]) -> Html:
    rows = (tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts)
    return tag("table", tag("tbody", *rows), class_="facts")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Html:
    """Return a table; `#` before a title makes a column of numbers, `*` one of bars, `@` of places."""
    kinds = {"#": "number", "*": "bars", "@": "place"}
    classes = [kinds.get(name[0]) for name in head]
    titles = (
        tag("th", name.lstrip("#*@"), class_=kind, scope="col")
        for name, kind in zip(head, classes, strict=True)
    )
    lines_ = (
        tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, classes, strict=True)))
        for row in rows
    )
    whole = tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *lines_))
    return tag("div", whole, class_="scroll")


def _rest(count: int, what: str) -> Html | None:
    return tag("p", f"and {count:,} more {what}", class_="quiet") if count else None


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,}"


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < MINUTE else clock_time(seconds)


def _time(text: object) -> str:
    time = parse_time(text)
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S %Z}" if time else ""
