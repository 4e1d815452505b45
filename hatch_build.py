"""Adds the manual page, which is made from the commands, to the wheel."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualHook(BuildHookInterface):
    """Writes the page into a temporary directory for as long as the wheel is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the page; a build without the packages that the commands need has none."""
        sys.path.insert(0, self.root)
        try:
            from batchimport.cli.manual import manual  # noqa: PLC0415 - of what is being built
        except ImportError as error:
            self.app.display_warning(f"no manual page: {error}")
            return
        finally:
            sys.path.remove(self.root)
        self._folder = TemporaryDirectory(prefix="batchimport-")
        page = Path(self._folder.name) / "batchimport.1"
        page.write_text(manual(), encoding="utf-8")
        build_data["shared_data"][str(page)] = "share/man/man1/batchimport.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary directory."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
