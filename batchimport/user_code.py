"""Load the user's own functions and classes, and hash their source files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from batchimport.errors import UsageError, did_you_mean

_LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_NOT_THEIRS = ("<", str(Path(__file__).parent), *_LIBRARIES)
"""Where files are that are not the user's: this package, the standard library, installed packages."""


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
    is_file = module_name.endswith(".py")
    try:
        module = _load_file(module_name) if is_file else _load_module(module_name)
    except Exception as error:
        message, hint = _why_not_loaded(error, module_name)
        raise UsageError(message, where, hint) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        near = did_you_mean(name, [each for each in dir(module) if not each.startswith("_")])
        raise UsageError(
            f"{module_name} has no {name}",
            where,
            hint=f"did you mean {module_name}:{near}?" if near else "check the name",
        ) from error


def _why_not_loaded(error: Exception, module: str) -> tuple[str, str]:
    """Return why a module cannot be loaded, and what to do about it."""
    if isinstance(error, SyntaxError):
        return f"{_shown(error.filename)} line {error.lineno}: {error.msg}", "correct the syntax"
    own_names = {module, *module.split(".")[:1]}
    if isinstance(error, FileNotFoundError):
        return f"{module}: no such file", "check the path"
    if isinstance(error, ModuleNotFoundError) and error.name in own_names:
        return (
            f"there is no module {module}",
            "modules are looked up in the current directory and the Python path",
        )
    place = place_of(error)
    if isinstance(error, ModuleNotFoundError):
        return (
            f"{module} imports {error.name}, which is not installed{place}",
            f"pip install {str(error.name).partition('.')[0]}, or check the name",
        )
    return f"{module}: {type(error).__name__}: {error}{place}", "correct the module"


def place_of(error: BaseException) -> str:
    """Return where in the user's code an error was raised, as ` (file.py line 3)`; empty if nowhere."""
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(_NOT_THEIRS)
    ]
    return f" ({_shown(own[-1][0])} line {own[-1][1]})" if own else ""


def _shown(filename: str | None) -> str:
    """Return a path as users know it: relative if it is below the current directory."""
    path = Path(filename or "?")
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


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
