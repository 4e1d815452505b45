"""The command line with the toys that docs/adding.md makes: `python -m tests.helpers.toys run …`."""

from __future__ import annotations

from batchimport.sinks.registry import SINKS
from batchimport.sources.registry import FORMATS
from tests.helpers.box_entry import BOX
from tests.helpers.toy_entry import TOY

if __name__ == "__main__":
    SINKS["toy"], FORMATS["box"] = TOY, BOX
    from batchimport.cli import main  # its help is made from the registries

    main()
