"""What others are told of a run: a command of the user's (`--on-finish`), and metrics."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from batchimport.display.escape import safe
from batchimport.display.metrics import Metrics
from batchimport.errors import BatchImportError, FatalError
from batchimport.model import Summary
from batchimport.policy.events import Event, Observer
from batchimport.policy.stop_rules import verdict


class Notifier:
    """Tells others how a run goes and how it ended; that they cannot be told changes nothing else.

    Args:
        command: A command of the shell, which gets the summary on standard input.
        metrics: A file for Prometheus.
    """

    def __init__(self, command: str | None, metrics: Path | None) -> None:
        self._command = command
        self._metrics = Metrics(metrics) if metrics is not None else None

    def beside(self, observer: Observer) -> Observer:
        """Return an observer that tells of events as well."""
        metrics = self._metrics
        if metrics is None:
            return observer

        def observe(event: Event) -> None:
            metrics(event)
            observer(event)

        return observe

    def finish(self, summary: Summary) -> None:
        """Tell how the run ended. One that goes on elsewhere (`--detach`) has not ended."""
        if self._metrics is not None:
            try:
                self._metrics.finish(summary)
            except FatalError as error:
                _say(f"--metrics: {error}")
        if self._command is not None and summary.status != "running":
            self._run(self._command, summary)

    @contextmanager
    def failing(self, unknown: Callable[[], Summary]) -> Iterator[None]:
        """Also tell of a run that ends before there is a job.

        Args:
            unknown: Returns what is known of the run.
        """
        try:
            yield
        except BatchImportError as error:
            status, _ = verdict(0, error)
            self.finish(replace(unknown(), status=status, error=str(error)))
            raise

    def _run(self, command: str, summary: Summary) -> None:
        variables = {"BATCHIMPORT_JOB": summary.job_id, "BATCHIMPORT_STATUS": summary.status}
        sys.stdout.flush()
        try:
            ended = subprocess.run(  # noqa: S602 - it is the user's own command line
                command,
                shell=True,
                input=json.dumps(summary.to_dict()).encode() + b"\n",
                stdout=sys.stderr.fileno(),  # standard output is ours
                env={**os.environ, **variables},
                check=False,
            )
        except (OSError, ValueError) as error:
            _say(f"--on-finish could not be run: {error}")
        else:
            if ended.returncode:
                _say(f"--on-finish ended with exit code {ended.returncode}")


def _say(text: str) -> None:
    print(f"warning: {safe(text, 1000)}", file=sys.stderr, flush=True)  # noqa: T201 - of the command line
