"""Checked by mypy, never run: every adapter has the shape of its protocol."""

from batchimport.display import Display
from batchimport.display.lines import JsonDisplay, NoDisplay, PlainDisplay
from batchimport.display.terminal import LiveDisplay
from batchimport.pipeline.transform import FrameTransform, Identity, RecordTransform, Transform
from batchimport.policy.sizing import AutoSizer, FixedSizer, LoadSizer, Sizer
from batchimport.schema import RecordSchema
from batchimport.sinks.base import Claim, Sink
from batchimport.sinks.duckdb.sink import DuckdbClaim, DuckdbSink
from batchimport.sinks.mysql.sink import MysqlSink
from batchimport.sinks.parquet.sink import ParquetClaim, ParquetSink
from batchimport.sinks.parquet.store import StoreClaim, StoreSink
from batchimport.sinks.postgres.sink import PostgresSink
from batchimport.sinks.sql.store import SqlClaim
from batchimport.sinks.sqlite.sink import SqliteSink
from batchimport.sources.base import RawRecords, Source
from batchimport.sources.csv.records import DelimitedRecords
from batchimport.sources.csv.source import DelimitedSource
from batchimport.sources.excel.source import ExcelSource, SheetRows
from batchimport.sources.json.source import ElementRecords, JsonValuesSource
from batchimport.sources.jsonl.source import JsonLinesSource, LineRecords
from batchimport.sources.many import ManySource
from batchimport.sources.parquet.source import ParquetRows, ParquetSource
from tests.helpers.toy_sink import ToySink
from tests.helpers.toy_source import BoxRecords, BoxSource

sinks: list[type[Sink]] = [
    DuckdbSink,
    ParquetSink,
    MysqlSink,
    PostgresSink,
    SqliteSink,
    StoreSink,
    ToySink,
]
claims: list[type[Claim]] = [DuckdbClaim, ParquetClaim, SqlClaim, StoreClaim]
sources: list[type[Source]] = [
    BoxSource,
    DelimitedSource,
    ExcelSource,
    JsonLinesSource,
    JsonValuesSource,
    ManySource,
    ParquetSource,
]
origins: list[type[RawRecords]] = [
    BoxRecords,
    ElementRecords,
    DelimitedRecords,
    LineRecords,
    ParquetRows,
    SheetRows,
]
sizers: list[type[Sizer]] = [AutoSizer, FixedSizer, LoadSizer]
transforms: list[type[Transform]] = [FrameTransform, Identity, RecordTransform]
displays: list[type[Display]] = [JsonDisplay, LiveDisplay, NoDisplay, PlainDisplay]
schemas: type[RecordSchema] = RecordSchema
