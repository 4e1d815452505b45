"""`status`: how far a job is, and what became of it."""

import json
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from batchimport.cli import options as o
from batchimport.cli.completion import job_ids
from batchimport.display import open_display
from batchimport.errors import BatchImportError, NoSuchDestinationError, UnknownJobError

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.display import Display
    from batchimport.jobs.known import Known

SECONDS_BETWEEN_LOOKS = 1.0


def status(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB",
            help="Job id. Default: the latest job.",
            autocompletion=job_ids,
        ),
    ] = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the job, as `run` shows it, until it ends.")
    ] = False,
    json_: o.Json = False,
    ledger: o.Ledger,
    engine: o.Temporal,
    state: o.State,
) -> None:
    """Show how far a job is: from any terminal, while it runs and afterwards."""
    looker = _Looker(job, ledger, engine, state)
    if not watch:
        known = looker.look()
    elif json_:
        with open_display("none") as display:
            known = looker.watch(display, lambda seen: typer.echo(json.dumps(seen.to_dict())))
        return
    else:
        with open_display("auto") as display:
            known = looker.watch(display)
    if json_:
        typer.echo(json.dumps(known.to_dict()))
    else:
        from batchimport.display.jobs import show_status  # noqa: PLC0415 - imports Rich

        show_status(known.to_dict())


class _Looker:
    """Looks at a job, wherever it is known."""

    def __init__(
        self, job: str | None, ledger: o.Ledger, engine: o.Temporal, state: o.State
    ) -> None:
        self._job, self._ledger, self._engine, self._state = job, ledger, engine, state
        self._is_announced = False
        self._said = ""

    def look(self) -> "Known":
        """Return what is known by the server, the state directory, or the ledger.

        Raises:
            UnknownJobError: If none of them knows the job.
        """
        from batchimport.cli.recorded import Place, look  # noqa: PLC0415 - imports drivers

        return look(self._job, Place(self._ledger, self._engine, self._state))

    def watch(self, display: "Display", tell: "Callable[[Known], None] | None" = None) -> "Known":
        """Show the job until it ends; wait for it if it is not known yet."""
        known = None
        while True:
            try:
                known = self.look()
            except (UnknownJobError, NoSuchDestinationError) as error:
                self._say(display, f"{error}; waiting for it to begin: Ctrl-C leaves")
            except BatchImportError as error:
                if known is None:
                    raise
                self._say(display, f"{error}; looking again")
            else:
                self._job = known.progress.job_id
                if tell is not None:
                    tell(known)
                if self._show(display, known):
                    return known
            threading.Event().wait(SECONDS_BETWEEN_LOOKS)

    def _show(self, display: "Display", known: "Known") -> bool:
        """Show a job; return whether it has ended."""
        if known.started is not None and not self._is_announced:
            self._is_announced = True
            display(known.started)
        if known.advanced is not None and self._is_announced:
            display(known.advanced)
        if known.is_running:
            if known.started is None:
                self._say(display, f"job {known.progress.job_id}: {known.progress.current_stage}")
            return False
        display(known.end())
        return True

    def _say(self, display: "Display", text: str) -> None:
        from batchimport.policy.events import Noted  # noqa: PLC0415 - not for `--help`

        if text != self._said:
            self._said = text
            display(Noted(text))
