"""The entry of the toy source: facts only, so that `--help` imports no more than these."""

from __future__ import annotations

from batchimport.sources.registry import Format

BOX = Format("tests.helpers.toy_source:BoxSource", (".box",), magic=b"BOX1")
