"""The contract of sources and destinations as checks, for adapters of other packages; see docs/adding.md."""

from batchimport.testing.sinks import SINK_CHECKS, SinkPlace
from batchimport.testing.sources import RECORDS, SOURCE_CHECKS, SourceCase

__all__ = ["RECORDS", "SINK_CHECKS", "SOURCE_CHECKS", "SinkPlace", "SourceCase"]
