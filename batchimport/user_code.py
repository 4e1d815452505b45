"""Load the user's own functions and classes, name them, and hash their source code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from batchimport.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    if module_name == "__main__" or "<" in name:
        raise UsageError(
            f"{name} is known only to the program or notebook that began the job",
            where,
            hint="run that again: the same call continues the job",
        )
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


def name_of(thing: Any) -> str:
    """Return `module:name` of a function or class; of a callable object, that of its class."""
    named = thing.func if isinstance(thing, partial) else thing
    named = named if hasattr(named, "__qualname__") else type(named)
    return f"{named.__module__}:{named.__qualname__}"


def is_importable(thing: Any) -> bool:
    """Say whether any program can import it by its name: not a lambda, nor of a script or notebook."""
    module, _, name = name_of(thing).partition(":")
    return module != "__main__" and getattr(sys.modules.get(module), name, None) is thing


def digest(thing: Any) -> str:
    """Hash the source file of a function or class: changed code is another configuration."""
    with suppress(OSError, TypeError):  # what Python has built in has no file
        return hashlib.sha256(Path(inspect.getsourcefile(thing) or "").read_bytes()).hexdigest()[
            :16
        ]
    return hashlib.sha256().hexdigest()[:16]


def own_digest(thing: Any) -> str:
    """Hash the code of a function or class that cannot be imported, and the values that it uses."""
    return hashlib.sha256("\0".join(_facts(thing, set())).encode()).hexdigest()[:16]


def _facts(thing: Any, seen: set[int]) -> Iterator[str]:
    """Yield what tells a function, class or value of the user from another one."""
    if isinstance(thing, str | int | float | bool | None):
        yield repr(thing)
    elif id(thing) in seen:
        return
    elif isinstance(thing, list | tuple | dict | set | frozenset):
        seen.add(id(thing))
        items = thing.items() if isinstance(thing, dict) else thing
        facts = ["\1".join(_facts(item, seen)) for item in items]
        yield from sorted(facts) if isinstance(thing, set | frozenset) else facts
    elif isinstance(thing, partial):
        for part in (thing.func, thing.args, thing.keywords):
            yield from _facts(part, seen)
    elif isinstance(thing, ModuleType):
        yield thing.__name__
    else:
        seen.add(id(thing))
        yield name_of(thing)
        named = thing if hasattr(thing, "__qualname__") else type(thing)
        module = sys.modules.get(named.__module__)
        if not str(getattr(module, "__file__", "")).startswith(_NOT_THEIRS[1:]):
            yield from _facts_of_code(inspect.unwrap(named), seen)


def _facts_of_code(function: Any, seen: set[int]) -> Iterator[str]:
    code = getattr(function, "__code__", None)
    try:
        yield inspect.getsource(function)
    except (OSError, TypeError):  # it was typed in, or is a class of a notebook
        if code is not None:
            yield code.co_code.hex()
            yield from _facts([each for each in code.co_consts if not _is_code(each)], seen)
        members = vars(function).values() if isinstance(function, type) else ()
        for member in (getattr(each, "__func__", each) for each in members):
            if hasattr(member, "__code__"):
                yield from _facts(member, seen)
    if code is None:
        return
    for cell in function.__closure__ or ():
        yield from _facts(cell.cell_contents, seen)
    yield from _facts(function.__defaults__, seen)
    for name in sorted(set(_names(code)) & function.__globals__.keys()):
        yield from _facts(function.__globals__[name], seen)


def _is_code(constant: Any) -> bool:
    return isinstance(constant, CodeType)


def _names(code: CodeType) -> Iterable[str]:
    """Yield the names that a function uses, with those of the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


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
