"""Work on a job, and who sees it: the display, the log, the summary, and who is told of its end."""

import json
from collections.abc import Callable, Mapping

from batchimport.cli.notify import Notifier
from batchimport.cli.options import Output
from batchimport.cli.request import unbegun
from batchimport.display import open_display
from batchimport.display.log import log_to
from batchimport.jobs.finish import Outcome
from batchimport.jobs.identify import Request
from batchimport.jobs.outputs import refuse_overwriting
from batchimport.policy.events import Event, Observer
from batchimport.state.files import write_atomically


def perform(
    work: Callable[[Observer], Outcome],
    request: Request,
    output: Output,
    report: Callable[[Outcome], None],
    read: Mapping[str, str | None],
    *,
    on_event: Observer = lambda _: None,
    is_library: bool = False,
) -> Outcome:
    """Do work on a job with a display, a log and a summary, as they were asked for.

    Args:
        report: Prints the outcome.
        read: Files that are read besides the sources, by the option that names them.
        is_library: A program imports, not the command line.
    """
    outputs = {
        "--rejects": request.options.rejects_path,
        "--summary": output.summary,
        "--log-file": output.log_file,
        "--metrics": output.metrics,
    }
    notifier = Notifier(output.on_finish, output.metrics)
    with notifier.failing(lambda: unbegun(request)):
        refuse_overwriting(request.job, outputs, read)
    progress = "none" if output.quiet else output.progress
    display = open_display(progress, verbose=output.verbose, is_library=is_library)

    def observe(event: Event) -> None:
        display(event)
        on_event(event)

    with log_to(output.log_file), display:
        outcome = work(notifier.beside(observe))
    try:
        if output.summary is not None:  # before standard output, which may be a closed pipe
            body = json.dumps(outcome.summary.to_dict(), indent=1) + "\n"
            write_atomically(output.summary, [body.encode()])
    finally:
        try:
            report(outcome)
        finally:
            notifier.finish(outcome.summary)
    return outcome
