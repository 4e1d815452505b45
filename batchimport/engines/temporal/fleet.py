"""The load of many workers as one reading, for the sizer. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchimport.policy.sizing import LoadReading

if TYPE_CHECKING:
    from batchimport.engines.temporal.messages import Reading

FORGET_AFTER_SECONDS = 30.0


class Fleet:
    """Remembers what each worker said last, and forgets those that are silent."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[float, Reading]] = {}

    def hear(self, reading: Reading, now: float) -> None:
        """Take a reading into account.

        Args:
            now: Seconds, of any clock that does not go back.
        """
        self._heard[reading.worker] = (now, reading)

    def load(self, now: float) -> LoadReading:
        """Return the mean load of the hosts, all of their processors, and the tightest memory."""
        hosts: dict[str, list[LoadReading]] = {}
        for reading in self._recent(now):
            hosts.setdefault(reading.host, []).append(reading.load)
        loads = [_of_host(readings) for readings in hosts.values()]
        tightest = max(loads, key=lambda load: load.process_bytes / max(1, load.limit_bytes))
        return LoadReading(
            cpu=sum(load.cpu for load in loads) / len(loads),
            own_cpu=sum(load.own_cpu for load in loads) / len(loads),
            memory=max(load.memory for load in loads),
            process_bytes=tightest.process_bytes,
            limit_bytes=tightest.limit_bytes,
            cpus=sum(load.cpus for load in loads),
        )

    def slots(self, now: float) -> int:
        """Return how many chunks the workers take at once."""
        return sum(reading.slots for reading in self._recent(now))

    def _recent(self, now: float) -> list[Reading]:
        since = now - FORGET_AFTER_SECONDS
        heard = list(self._heard.values())
        return [reading for at, reading in heard if at >= since] or [heard[-1][1]]


def _of_host(readings: list[LoadReading]) -> LoadReading:
    """Add up the workers of one host: what one of them uses is not others' load."""
    tightest = max(readings, key=lambda load: load.process_bytes / max(1, load.limit_bytes))
    cpu = max(load.cpu for load in readings)
    return LoadReading(
        cpu=cpu,
        own_cpu=min(cpu, sum(load.own_cpu for load in readings)),
        memory=max(load.memory for load in readings),
        process_bytes=tightest.process_bytes,
        limit_bytes=tightest.limit_bytes,
        cpus=max(load.cpus for load in readings),
    )
