"""Times, sizes and counts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86_400


def clock_time(seconds: float) -> str:
    """Return a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def data_size(count: float) -> str:
    """Return a number of bytes as `870 kB`, `5.1 MB` or `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            digits = 1 if count < 9.95 and unit != "B" else 0
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def short_count(count: int) -> str:
    """Return a number in at most seven characters: `999,999`, `12.3M`."""
    if count < 1_000_000:
        return f"{count:,}"
    return f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.1f}G"


def parse_time(text: object) -> datetime | None:
    """Return a time as it is recorded (ISO 8601, UTC unless it says otherwise), or None."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def ago(time: datetime, now: datetime | None = None) -> str:
    """Return how long ago a time was: `just now`, `5 minutes ago`, `2 hours ago`, `3 days ago`."""
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    if seconds < MINUTE:
        return "just now"
    for size, unit in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count:,} {unit}{'s' if count > 1 else ''} ago"
    raise AssertionError


def short_ago(time: datetime, now: datetime | None = None) -> str:
    """Return the same in a few characters: `now`, `5m ago`, `2h ago`, `3d ago`."""
    words = ago(time, now).split()
    return "now" if words[0] == "just" else f"{words[0]}{words[1][0]} ago"


def local_time(time: datetime) -> str:
    """Return a time in the local zone: `19:20:31` for today, with the date for other days."""
    local, today = time.astimezone(), datetime.now(UTC).astimezone()
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def counted(count: int, thing: str) -> str:
    """Return how many there are of a thing: `1 reject`, `2,000 rejects`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"
