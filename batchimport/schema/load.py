"""The schema that a user gives: read from its file, made whole, refused with the place if malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlparse

from batchimport.errors import UsageError
from batchimport.schema import RecordSchema
from batchimport.schema.pydantic import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchimport.schema.pydantic import RecordModel

OLDER_DRAFTS = ("draft-04", "draft-06", "draft-07")


def find_schema(spec: str) -> tuple[dict[str, Any], RecordModel | None]:
    """Return the JSON Schema of a file or of a pydantic model, and the model.

    Raises:
        UsageError: If it is neither.
    """
    path = Path(spec)
    if ":" not in spec or path.exists():
        return load_schema(path), None
    model = load_model(spec)
    try:
        RecordSchema(model.document)
    except UsageError as error:
        raise UsageError(error.message, f"--schema {spec}", error.hint) from error
    return model.document, model


def load_schema(path: Path) -> dict[str, Any]:
    """Return the JSON Schema in a file, with those of other files that it refers to put into it.

    Raises:
        UsageError: If it cannot be read, or is no JSON Schema.
    """
    where = f"--schema {path}"
    document = _read(path, where)
    if isinstance(document, bool):
        document = {} if document else {"allOf": [False]}
    document = _with_neighbours(document, path)
    try:
        RecordSchema(document)
    except UsageError as error:
        place = (error.where or "").removeprefix("schema ")
        raise UsageError(error.message, f"{where} {place}".strip(), error.hint) from error
    return document


def _read(path: Path, where: str) -> Any:
    try:
        document = json.loads(
            path.read_bytes(), object_pairs_hook=_distinct, parse_constant=_no_number
        )
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where, "check the path") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not JSON: {error}", where, "mend the file") from error
    if not isinstance(document, dict | bool):
        raise UsageError("is no JSON Schema: neither an object nor true or false", where)
    return document


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice: one of the two would be ignored unsaid."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {json.dumps(twice)} is twice in one object")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _with_neighbours(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Put the schema files that are referred to into the document, under their addresses.

    A file is where its address says, beside the one that refers to it; nothing is fetched.
    """
    word = "id" if _is_draft_4(document) else "$id"
    own = document.get(word)
    here = path.absolute()
    base = own if isinstance(own, str) and ":" in own else here.as_uri()
    found: dict[str, Any] = {}
    waiting = [*_files_referred_to(document, base)]
    while waiting:
        address = waiting.pop()
        file = _file_of(address, base, here)
        if address in found or address == urldefrag(base).url or file is None:
            continue
        neighbour = _read(file, f"--schema {path}, which refers to {file}")
        found[address] = neighbour
        waiting += _files_referred_to(neighbour, address)
    if not found:
        return document
    shelf = "definitions" if _is_older(document) else "$defs"
    named: dict[str, Any] = {}
    for address, schema in found.items():
        name = urljoin(address, schema.get(word, address)) if isinstance(schema, dict) else address
        named[name] = {**schema, word: name} if isinstance(schema, dict) else schema
        if name != address:
            named[address] = {word: address, "allOf": [{"$ref": name}]}
    return {**document, word: base, shelf: {**document.get(shelf, {}), **named}}


def _is_older(document: dict[str, Any]) -> bool:
    return any(draft in str(document.get("$schema")) for draft in OLDER_DRAFTS)


def _is_draft_4(document: dict[str, Any]) -> bool:
    return OLDER_DRAFTS[0] in str(document.get("$schema"))


def _files_referred_to(schema: Any, base: str) -> Iterator[str]:
    """Yield the addresses of all references, without what they name inside."""
    if isinstance(schema, list):
        for item in schema:
            yield from _files_referred_to(item, base)
    if not isinstance(schema, dict):
        return
    own = schema.get("$id", schema.get("id"))
    if isinstance(own, str) and not own.startswith("#"):
        base = urljoin(base, own)
    reference = schema.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#"):
        yield urldefrag(urljoin(base, reference)).url
    for value in schema.values():
        yield from _files_referred_to(value, base)


def _file_of(address: str, base: str, here: Path) -> Path | None:
    """Return the file of an address; None if there is none."""
    if address.startswith("file:"):
        file = Path(unquote(urlparse(address).path))
    else:
        folder = base.rpartition("/")[0] + "/"
        if not address.startswith(folder):
            return None
        file = here.parent / unquote(address.removeprefix(folder))
    return file if file.is_file() else None
