"""The entry of the toy destination: facts only, so that `--help` imports no more than these."""

from __future__ import annotations

from batchimport.sinks.registry import Scheme

TOY = Scheme("tests.helpers.toy_sink:ToySink", "toy:///path", is_path=True, on_one_host=True)
