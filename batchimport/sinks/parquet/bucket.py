"""The objects below a prefix of a store: read, listed, and written on conditions.

All that exactly-once rests on is `create`, which makes an object that is not there (If-None-Match), and
`replace`, which changes one that is still what it was (If-Match).
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions

from batchimport.errors import BatchImportError, DestinationAwayError, UsageError
from batchimport.object_store import connect, errors, parse, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RETRIES = 3
"""Of one request; the job itself waits for a store that is away (`--destination-wait`)."""
PAGE = 1000
_PROBE = "probe-"
CHECKS = 3
Version = dict[str, str]
"""What identifies one version of an object: its ETag, and in some stores its version."""
Content = tuple[bytes, Version]


class Bucket:
    """Objects by their names below the prefix.

    Attributes:
        keeps_rows: What is written is there for others.
    """

    keeps_rows = True

    def __init__(self, address: str) -> None:
        location = parse(address)
        key = location.key.rstrip("/")
        if key and not all(part.strip(".") for part in key.split("/")):
            raise UsageError(
                "has a part without a name",
                where=address,
                hint=f"{location.scheme}://bucket/prefix",
            )
        self._location = replace(location, url=address.rstrip("/"), key=key)
        self._store = connect(self._location, RETRIES)
        self._prefix = f"{key}/" if key else ""

    def where(self, name: str = "") -> str:
        """Return the URL of an object, or of the prefix."""
        return f"{self._location.url}/{name}" if name else self._location.url

    # -- looking -------------------------------------------------------------------------------

    def objects(self, folder: str = "") -> dict[str, Any]:
        """Return what is known of the objects right below the prefix, or in a folder there, by name."""
        place = f"{self._prefix}{folder}".rstrip("/")
        with self._translated():
            found = obstore.list_with_delimiter(self._store, place or None)["objects"]
        return self._by_name(found)

    def objects_after(self, name: str) -> dict[str, Any]:
        """Return what is known of the next objects after a name: a page of them."""
        place, after = self._prefix.rstrip("/") or None, self._prefix + name
        with self._translated():
            pages = obstore.list(self._store, prefix=place, offset=after, chunk_size=PAGE)
            return self._by_name(next(iter(pages), []))

    def _by_name(self, found: Iterable[Any]) -> dict[str, Any]:
        metas = {str(meta["path"])[len(self._prefix) :]: meta for meta in found}
        return dict(sorted(metas.items()))

    def get(self, name: str, known: Content | None = None) -> Content | None:
        """Return the content and version of an object; None if there is none.

        Args:
            known: What it was before; it is not sent again if it is still that.
        """
        options = {"if_none_match": known[1]["e_tag"]} if known and "e_tag" in known[1] else None
        try:
            with self._translated():
                found = obstore.get(self._store, self._prefix + name, options=options)  # type: ignore[arg-type]  # a TypedDict
                return bytes(found.bytes()), _version(found.meta)
        except FileNotFoundError:
            return None
        except exceptions.NotModifiedError:
            return known

    def part_of(self, name: str, lo: int, hi: int) -> bytes | None:
        """Return the bytes `[lo, hi)` of an object; None if there is none."""
        try:
            with self._translated():
                return bytes(obstore.get_range(self._store, self._prefix + name, start=lo, end=hi))
        except FileNotFoundError:
            return None

    # -- writing -------------------------------------------------------------------------------

    def create(self, name: str, data: bytes) -> Version | None:
        """Make an object; return None if there is one. After a lost reply it may be our own."""
        return self._put(name, data, "create")

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        """Change an object; return None if it is no longer this version. It may be our own change."""
        return self._put(name, data, version)

    def put(self, name: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        self._put(name, data, "overwrite")

    def _put(self, name: str, data: bytes, mode: Any) -> Version | None:
        path = self._prefix + name
        try:
            with self._translated():
                found = obstore.put(self._store, path, data, mode=mode, use_multipart=False)
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            return None
        except FileNotFoundError as error:
            if isinstance(mode, dict):
                return None
            raise UsageError("there is no such bucket", where=self.where()) from error
        return _version(found)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; it does not matter whether they are there."""
        paths = [self._prefix + name for name in names]
        if paths:
            with self._translated():
                obstore.delete(self._store, paths)

    # -- what the store must be able to do ----------------------------------------------------

    def check_place(self) -> None:
        """Check that the store can be listed: a bucket that is not there is no empty one.

        Raises:
            UsageError: If not.
        """
        try:
            self.objects()
        except DestinationAwayError as error:
            hint = f"check the name of the bucket, or {error.hint}"
            raise UsageError(
                f"there is no such bucket, or it {error.message}", self.where(), hint
            ) from error

    def check_conditions(self, folder: str, content: Callable[[str], bytes]) -> None:
        """Check that the store honours conditions, by writing an object to a folder.

        Args:
            content: Makes a content, another one for each word.

        Raises:
            UsageError: If not.
        """
        reason = ""
        for _ in range(CHECKS):
            name = f"{folder}/{_PROBE}{uuid.uuid4().hex}.parquet"
            version = self._put(name, content("first"), "overwrite")
            try:
                if version is not None and self._honours(name, content, version):
                    return
                break
            except (
                DestinationAwayError
            ) as error:  # a reply was lost, or it does not take conditions
                reason = f": {error.message}"
            except (exceptions.NotSupportedError, NotImplementedError):
                break
            finally:
                self.delete([name, *self._old_probes(folder)])
        raise UsageError(
            "this store does not honour conditions on writes (If-None-Match, If-Match), without "
            f"which rows could be stored twice{reason}",
            where=self.where(),
            hint="choose another store, or a directory: parquet:///path",
        )

    def _honours(self, name: str, content: Callable[[str], bytes], first: Version) -> bool:
        """Say whether an object that is there is not made again, and changed by its version alone."""
        is_kept = self.create(name, content("second")) is None
        third = content("third")
        is_changed = self.replace(name, third, first) is not None
        if not is_changed:  # or the reply was lost
            found = self.get(name)
            is_changed = found is not None and found[0] == third
        return is_kept and is_changed and self.replace(name, content("fourth"), first) is None

    def _old_probes(self, folder: str) -> list[str]:
        """Return the objects that killed processes have left of this check."""
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        return [
            name
            for name, meta in self.objects(folder).items()
            if name.startswith(f"{folder}/{_PROBE}") and meta["last_modified"] < long_ago
        ]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise our errors for those of obstore, but for what the callers expect."""
        try:
            yield
        except (
            FileNotFoundError,
            NotImplementedError,
            exceptions.AlreadyExistsError,
            exceptions.NotModifiedError,
            exceptions.NotSupportedError,
            exceptions.PreconditionError,
        ):
            raise
        except exceptions.GenericError as error:
            known = translate(error, self._location)
            raise DestinationAwayError(known.message, self.where(), known.hint) from error
        except errors() as error:
            raise translate(error, self._location) from error


class DryBucket(Bucket):
    """For a dry run: what is written is kept in memory."""

    keeps_rows = False

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._written: dict[str, Content | None] = {}

    def objects(self, folder: str = "") -> dict[str, Any]:
        """Return what is known of the objects, those in memory among them."""
        found = super().objects(folder)
        for name, written in self._written.items():
            if name.rpartition("/")[0] != folder:
                continue
            found.pop(name, None)
            if written is not None:
                found[name] = {"size": len(written[0]), **written[1]}
        return dict(sorted(found.items()))

    def objects_after(self, name: str) -> dict[str, Any]:
        """Return what is known of the next objects after a name."""
        return {each: meta for each, meta in self.objects().items() if each > name}

    def get(self, name: str, known: Content | None = None) -> Content | None:
        """Return the content and version of an object; None if there is none."""
        return self._written[name] if name in self._written else super().get(name, known)

    def part_of(self, name: str, lo: int, hi: int) -> bytes | None:
        """Return the bytes `[lo, hi)` of an object; None if there is none."""
        if name not in self._written:
            return super().part_of(name, lo, hi)
        written = self._written[name]
        return written[0][lo:hi] if written else None

    def _put(self, name: str, data: bytes, mode: Any) -> Version | None:
        known = self.get(name)
        if mode != "overwrite" and (known[1] if known else "create") != mode:
            return None
        version = {"e_tag": uuid.uuid4().hex}
        self._written[name] = (data, version)
        return version

    def delete(self, names: Iterable[str]) -> None:
        """Remember that objects are gone."""
        self._written |= dict.fromkeys(names)


def open_bucket(address: str, *, dry_run: bool) -> Bucket:
    """Return the objects below an address.

    Raises:
        UsageError: If it names no bucket, has a secret in it, or no program for it is installed.
    """
    try:
        return (DryBucket if dry_run else Bucket)(address)
    except BatchImportError as error:
        error.where = f"--to {error.where}"
        raise


def _version(meta: Any) -> Version:
    known = {name: meta.get(name) for name in ("e_tag", "version")}
    return {name: value for name, value in known.items() if value is not None}
