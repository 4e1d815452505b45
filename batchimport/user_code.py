"""Load the user's own functions and classes, and hash their source files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

from batchimport.errors import UsageError


def load(spec: str, where: str) -> Any:
    """Import what `module:name` or `path/to/file.py:name` refers to.

    Args:
        where: The option that the error names.

    Raises:
        UsageError: If there is no such module or name, or the module cannot be loaded.
    """
    module_name, _, name = spec.rpartition(":")
    if not module_name or not name:
        raise UsageError(f"not MODULE:NAME: {spec!r}", where)
    try:
        is_file = module_name.endswith(".py")
        module = _load_file(module_name) if is_file else _load_module(module_name)
        return getattr(module, name)
    except Exception as error:
        raise UsageError(
            f"cannot load {spec}: {type(error).__name__}: {error}",
            where,
            hint="module names are looked up in the current directory and the Python path",
        ) from error


def digest(thing: Any) -> str:
    """Hash the source file of a function or class: changed code is another configuration."""
    source = inspect.getsourcefile(thing)
    return hashlib.sha256(Path(source).read_bytes() if source else b"").hexdigest()[:16]


def _load_module(name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)


def _load_file(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # classes look up the names in their annotations there
    spec.loader.exec_module(module)
    return module
