"""Load the schema that a user gives: a JSON Schema, with the files it refers to, or a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlparse

from batchimport.errors import UsageError
from batchimport.schema import RecordSchema
from batchimport.schema.keywords import ANNOTATIONS, KEYWORDS
from batchimport.schema.pydantic import load_model
from batchimport.state.files import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchimport.schema.pydantic import RecordModel

_OLDER_DRAFTS = ("draft-04", "draft-06", "draft-07")
"""They keep schemas in `definitions`, and ignore all keywords beside `$ref`."""
_DRAFTS_OF_PLAIN_ID = ("draft-04",)


def find_schema(spec: str) -> tuple[dict[str, Any], RecordModel | None]:
    """Return the JSON Schema of a file, or of a pydantic model together with the model.

    Args:
        spec: A path, or `module:Model`.

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
    """Return the JSON Schema in a file; the schema files it refers to are put into it.

    Raises:
        UsageError: If a file cannot be read, or is not a JSON Schema.
    """
    where = f"--schema {path}"
    document = _with_neighbours(_as_object(_read(path, where)), path)
    try:
        RecordSchema(document)
    except UsageError as error:
        place = (error.where or "").removeprefix("schema ")
        raise UsageError(error.message, f"{where} {place}".strip(), error.hint) from error
    return document


def _read(path: Path, where: str) -> dict[str, Any] | bool:
    try:
        document = json.loads(
            read_file(path), object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where, "check the path") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not JSON: {error}", where, "fix the file") from error
    if not isinstance(document, dict | bool):
        raise UsageError(
            "is not a JSON Schema: it must be an object, true or false", where, "check the path"
        )
    return document


def _as_object(schema: dict[str, Any] | bool) -> dict[str, Any]:
    """Return a schema as an object, which can have an address; draft 4 has no other schemas."""
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    return schema


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has a key twice: one of the two would be ignored silently."""
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {json.dumps(twice)} is twice in one object")
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no number {name}")


def _with_neighbours(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Put the schema files that a document refers to into it, under their addresses.

    A file is where its address says, relative to the one that refers to it; nothing is fetched.
    """
    dialect = document.get("$schema")
    own = document.get(_id_keyword(document, dialect))
    here = path.absolute()
    base = own if isinstance(own, str) and ":" in own else here.as_uri()
    neighbours: dict[str, dict[str, Any]] = {}
    waiting = [*_files_referred_to(document, base)]
    while waiting:
        address = waiting.pop()
        file = _file_of(address, base, here)
        if address in neighbours or address == urldefrag(base).url or file is None:
            continue
        schema = _as_object(_read(file, f"--schema {path}, which refers to {file}"))
        neighbours[address] = schema
        waiting += _files_referred_to(schema, address)
    if not neighbours:
        return document
    embedded: dict[str, Any] = {}
    for address, schema in neighbours.items():
        keyword = _id_keyword(schema, dialect)
        name = urljoin(address, str(schema.get(keyword, address)))
        embedded[name] = {**_without_lone_reference(schema, dialect), keyword: name}
        if name != address:
            outer = _id_keyword({}, dialect)
            embedded[address] = {outer: address, "allOf": [{"$ref": name}]}
    shelf = "definitions" if _is_draft(_OLDER_DRAFTS, dialect) else "$defs"
    whole = {**_without_lone_reference(document, dialect), _id_keyword(document, dialect): base}
    return {**whole, shelf: {**document.get(shelf, {}), **embedded}}


def _without_lone_reference(schema: dict[str, Any], dialect: Any) -> dict[str, Any]:
    """Return a schema in which `$ref` does not hide the address and the definitions beside it.

    Older drafts ignore all that stands beside `$ref`; what would no longer be ignored is left out.
    """
    if "$ref" not in schema or not _is_draft(_OLDER_DRAFTS, schema.get("$schema", dialect)):
        return schema
    kept = {key: schema[key] for key in schema if key in ANNOTATIONS or key not in KEYWORDS}
    return {**kept, "allOf": [{"$ref": schema["$ref"]}]}


def _id_keyword(schema: dict[str, Any], dialect: Any) -> str:
    """Return the keyword of a schema's address.

    Args:
        dialect: What `$schema` says in the document that the schema will be put into.
    """
    return "id" if _is_draft(_DRAFTS_OF_PLAIN_ID, schema.get("$schema", dialect)) else "$id"


def _is_draft(drafts: tuple[str, ...], dialect: Any) -> bool:
    return any(draft in str(dialect) for draft in drafts)


def _files_referred_to(schema: Any, base: str) -> Iterator[str]:
    """Yield the addresses of all references, without their fragments."""
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
