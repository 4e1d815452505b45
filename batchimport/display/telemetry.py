"""OpenTelemetry, where its standard environment variables ask for it; else nothing of it is imported."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchimport.display.spans import Telemetry

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def exporters(signal: str) -> list[str]:
    """Return the names of the exporters that the environment asks for.

    Args:
        signal: `TRACES` or `METRICS`.
    """
    given = {name: value for name, text in os.environ.items() if (value := text.strip())}
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    has_endpoint = ENDPOINT in given or f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" in given
    names = given.get(f"OTEL_{signal}_EXPORTER", "otlp" if has_endpoint else "none")
    return [name for name in map(str.strip, names.split(",")) if name not in ("", "none")]


def open_telemetry(tell: Callable[[str], None]) -> Telemetry | None:
    """Return what sends traces and metrics; None if nobody asks for them, or it cannot be made.

    Args:
        tell: Called with what the user should know.
    """
    traces, metrics = exporters("TRACES"), exporters("METRICS")
    if not traces and not metrics:
        return None
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        tell("the environment asks for OpenTelemetry: pip install 'batchimport[otel]'")
        return None
    from batchimport.display.spans import Errors, Telemetry  # noqa: PLC0415 - an extra

    errors = Errors()
    try:
        return Telemetry(traces, metrics, tell, errors)
    except Exception as error:  # noqa: BLE001 - an exporter may raise anything; the job goes on
        errors.end()
        tell(f"no OpenTelemetry: {str(error) or type(error).__name__}")
        return None
