"""Objects by URL: in S3, Google Cloud Storage and Azure, and on web servers; all of it by obstore.

Credentials are found where each provider's own tools look for them, and are in no URL: a URL is part
of a job, and is written into ledgers, logs and messages.
"""

from __future__ import annotations

import glob
import os
import re
import threading
import time
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from batchimport.errors import BatchImportError, FatalError, SourceChangedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

STORES = ("s3", "gs", "az")
WEB = ("http", "https")
LIMIT_SECONDS = 120.0
"""How long a store that does not answer, or cuts connections, is asked again before the job stops."""
OPENING_RETRIES = 5
LONGEST_PAUSE_SECONDS = 5.0

_URL = re.compile(r"(s3|gs|az|https?)://", re.IGNORECASE)
_ANY_URL = re.compile(r"\w+://\S+")
_SECRETS = re.compile(r"sig|token|key|secret|credential|passw|auth", re.IGNORECASE)
_NO_TIME = 0
_HINTS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AWS_REGION; for another "
    "server AWS_ENDPOINT_URL; for a public bucket AWS_SKIP_SIGNATURE=true",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (or another credential)",
    "http": "user and password are read from ~/.netrc",
}


def is_url(text: str) -> bool:
    """Say whether a source or destination is a URL that can be read."""
    return _URL.match(text) is not None


@dataclass(frozen=True, slots=True)
class Location:
    """What a URL names.

    Attributes:
        bucket: Bucket or container; host and port of a web server.
        key: Name of the object in its bucket; empty for a web server's.
    """

    url: str
    scheme: str
    bucket: str
    key: str

    def at(self, key: str) -> Location:
        """Return another object of the same bucket."""
        return Location(f"{self.scheme}://{self.bucket}/{key}", self.scheme, self.bucket, key)


def parse(url: str) -> Location:
    """Return what a URL names.

    Raises:
        UsageError: If it names nothing, or has a secret in it.
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    bucket, _, key = rest.partition("/")
    if scheme in WEB:
        parts = urlsplit(url)
        bucket, key = parts.netloc, ""
        _refuse_secrets(url, parts.netloc, parts.query)
    else:
        _refuse_secrets(url, bucket, "")
    if not bucket:
        raise UsageError("names no bucket or host", where=url, hint=f"{scheme}://bucket/name")
    return Location(f"{scheme}://{rest}", scheme, bucket, key)


def _refuse_secrets(url: str, place: str, query: str) -> None:
    shown = url.partition("?")[0].replace(f"{place.rpartition('@')[0]}@", "", 1)
    if "@" in place:
        raise UsageError(
            "a user or password in a URL would be written into the ledger",
            where=shown,
            hint="leave it out: " + _HINTS.get(url.partition(":")[0].lower(), _HINTS["http"]),
        )
    if any(_SECRETS.search(part.partition("=")[0]) for part in query.split("&")):
        raise UsageError(
            "a signature or token in a URL would be written into the ledger",
            where=shown,
            hint="pipe it: curl -fsSL URL | batchimport run - --table NAME",
        )


def redact(url: str) -> str:
    """Return the URL of a place in a store without the user and password that `parse` refuses."""
    scheme, _, rest = url.partition("://")
    bucket, slash, key = rest.partition("/")
    return f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}"


def file_name(url: str) -> str:
    """Return the last part of a URL's path, as a file would be called."""
    if url.partition(":")[0].lower() in WEB:
        parts = urlsplit(url)
        return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.hostname or "web"
    return url.rstrip("/").rpartition("/")[2]


def connect(location: Location, retries: int = 10) -> Any:
    """Return obstore's store for a location: of its bucket, or of the one URL on a web server.

    Raises:
        UsageError: If obstore is not installed, or the provider's settings are not valid.
    """
    try:
        from obstore import exceptions, store  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "URLs are read by obstore, which is not installed",
            where=location.url,
            hint="pip install 'batchimport[remote]'",
        ) from error
    settings: dict[str, Any] = {
        "client_options": {"timeout": timedelta(seconds=LIMIT_SECONDS)},
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=LIMIT_SECONDS),
        },
    }
    client = settings["client_options"]
    try:
        if location.scheme == "s3":
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            client["allow_http"] = bool(endpoint and endpoint.startswith("http://"))
            if endpoint:
                settings["endpoint"] = endpoint
            settings |= _aws_profile()
            return store.S3Store(location.bucket, **settings)
        if location.scheme == "gs":
            return store.GCSStore(location.bucket, **settings)
        if location.scheme == "az":
            client["allow_http"] = bool(os.environ.get("AZURE_STORAGE_USE_EMULATOR"))
            return store.AzureStore(location.bucket, **settings)
        client["allow_http"] = location.scheme == "http"
        if header := _netrc(location.bucket):
            client["default_headers"] = {"authorization": header}
        return store.HTTPStore.from_url(location.url, **settings)
    except (exceptions.BaseError, ValueError) as error:
        raise UsageError(
            f"cannot be opened: {_reason(error)}", where=location.url, hint=_hint(location)
        ) from error


def _aws_profile() -> dict[str, str]:
    """Return what the files of the AWS command line say, unless the environment says it."""
    import configparser  # noqa: PLC0415 - not for `--help`

    environment, home = os.environ, Path("~/.aws").expanduser()
    named = environment.get("AWS_PROFILE")
    name = named or "default"
    files = (
        (environment.get("AWS_CONFIG_FILE", home / "config"), f"profile {name}"),
        (environment.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials"), name),
    )
    found: dict[str, str] = {}
    for path, section in files:
        parser = configparser.RawConfigParser()
        with suppress(OSError, configparser.Error, UnicodeDecodeError):
            parser.read(path)
            for each in (section, name):
                found |= dict(parser[each]) if each in parser else {}
    wanted = {"region": "region"}
    if named or "AWS_ACCESS_KEY_ID" not in environment:
        wanted |= {
            "aws_access_key_id": "access_key_id",
            "aws_secret_access_key": "secret_access_key",
            "aws_session_token": "session_token",
        }
    if "AWS_REGION" in environment or "AWS_DEFAULT_REGION" in environment:
        del wanted["region"]
    return {wanted[key]: value for key, value in found.items() if key in wanted}


def _netrc(host: str) -> str | None:
    """Return the header that ~/.netrc (or the file that NETRC names) gives for a host."""
    import netrc  # noqa: PLC0415 - not for `--help`

    with suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host.partition(":")[0])
        if known:
            return "Basic " + b64encode(f"{known[0]}:{known[2]}".encode()).decode()
    return None


def _reason(error: Exception) -> str:
    """Return why a request failed, without URLs: a redirect may lead to one with a signature.

    The page that a server sends with an error is left out.
    """
    text = str(error).partition("\n")[0].rpartition(" - ")[2].partition("<")[0]
    return _ANY_URL.sub("…", text.rstrip(": "))[:300]


def _hint(location: Location) -> str:
    return _HINTS.get(location.scheme, _HINTS["http"])


def translate(error: Exception, location: Location) -> BatchImportError:
    """Return the error of ours that one of obstore's means."""
    from obstore import exceptions  # noqa: PLC0415 - an extra

    where = location.url
    if isinstance(error, FileNotFoundError):
        return UsageError("there is no such object", where=where, hint="check bucket and name")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return UsageError("access is denied", where=where, hint=_hint(location))
    if isinstance(error, exceptions.PreconditionError):
        return changed(location)
    return FatalError(
        f"cannot be reached: {_reason(error)}",
        where=where,
        hint=f"check the address ({_hint(location)}), then run the same command again",
    )


def changed(location: Location) -> SourceChangedError:
    """Return the error for an object that is not what it was when the job opened it."""
    return SourceChangedError(
        "the object changed while the job ran",
        where=location.url,
        hint="put the old one back, or start over with --restart",
    )


def errors() -> tuple[type[Exception], ...]:
    """Return what a request of obstore may raise."""
    from obstore import exceptions  # noqa: PLC0415 - an extra

    return (exceptions.BaseError, OSError, ValueError)


class RemoteObject:
    """One object, as it was when it was opened: a later version is refused.

    Attributes:
        size: In bytes; 0 if the server does not say.
        version: Its ETag or version, or the time of its last change; None if the server names none.
        has_ranges: Parts of it can be asked for.

    Raises:
        UsageError: If it cannot be read.
    """

    def __init__(self, url: str) -> None:
        self.location = parse(url)
        self._store = connect(self.location)
        self._stopped = threading.Event()
        meta = self._open()
        self.size = int(meta["size"])
        self._stamp = _stamp(meta)
        self.version = self._stamp[0]
        etag = meta.get("e_tag") or ""
        self._options = {} if not etag or etag.startswith("W/") else {"if_match": etag}

    def _open(self) -> dict[str, Any]:
        import obstore  # noqa: PLC0415 - an extra

        store = connect(self.location, OPENING_RETRIES)
        self.has_ranges = True
        try:
            if self.location.scheme not in WEB:
                return dict(obstore.head(store, self.location.key))
            try:  # not HEAD: some servers refuse it
                return dict(obstore.get(store, "", options={"range": (0, 1)}).meta)
            except obstore.exceptions.NotSupportedError:
                self.has_ranges = False
                return {"size": 0}
            except obstore.exceptions.GenericError:  # no byte 0?
                meta = dict(obstore.head(store, ""))
                if meta["size"]:
                    raise
                return meta
        except errors() as error:
            raise translate(error, self.location) from error

    def read(self, lo: int, hi: int) -> bytes:
        """Return the bytes `[lo, hi)`; a store that is away or busy is asked again.

        Raises:
            SourceChangedError: If it is no longer the object that was opened.
            FatalError: If the store was away for two minutes.
        """
        import obstore  # noqa: PLC0415 - an extra

        def get() -> bytes:
            options = {**self._options, "range": (lo, hi)}
            found = obstore.get(self._store, self.location.key, options=options)  # type: ignore[arg-type]  # a TypedDict
            if _stamp(found.meta) != self._stamp:
                raise changed(self.location)
            return bytes(found.bytes())

        data = self._again(get)
        if len(data) != hi - lo:
            raise changed(self.location)
        return data

    def _again(self, get: Callable[[], bytes]) -> bytes:
        import obstore  # noqa: PLC0415 - an extra

        deadline, pause = time.monotonic() + LIMIT_SECONDS, 0.1
        while True:
            try:
                return get()
            except FileNotFoundError as error:
                raise changed(self.location) from error
            except errors() as error:
                lasting = not isinstance(error, obstore.exceptions.GenericError | OSError)
                if lasting or self._stopped.is_set() or time.monotonic() + pause > deadline:
                    raise translate(error, self.location) from error
            self._stopped.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def pieces(self) -> Iterator[bytes]:
        """Yield the whole object from its beginning, in one request.

        Raises:
            FatalError: If the connection is cut.
        """
        import obstore  # noqa: PLC0415 - an extra

        try:
            found = obstore.get(self._store, self.location.key)
            yield from (bytes(piece) for piece in found.stream(min_chunk_size=1024 * 1024))
        except errors() as error:
            raise translate(error, self.location) from error

    def close(self) -> None:
        """End all waits."""
        self._stopped.set()


def _stamp(meta: Any) -> tuple[str | None, int]:
    """Return what identifies a version of an object, and its size."""
    version = meta.get("version") or meta.get("e_tag")
    changed_at = meta.get("last_modified")
    if version is None and changed_at is not None and changed_at.timestamp() != _NO_TIME:
        version = changed_at.isoformat()
    return version, int(meta["size"])


def find(pattern: str) -> list[str]:
    """Return the URLs of the objects that a pattern, or a prefix that ends with a slash, names.

    `*` and `?` do not match a slash, `**` does. A prefix stands for all objects below it but those
    that have a part of their name beginning with a dot or an underscore, as `_SUCCESS`, and
    directory markers. An object that has the very name is meant by it.

    Raises:
        UsageError: If the store cannot be listed.
    """
    location = parse(pattern)
    store, key = connect(location, OPENING_RETRIES), location.key
    magic = re.search(r"[*?\[]", key)
    folder = key[: magic.start()].rpartition("/")[0] if magic else key.rstrip("/")
    return [location.at(name).url for name in matching(key, _list(store, folder, location))]


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Return the names that a pattern or prefix means, by the rules of `find`."""
    if pattern in names and not pattern.endswith("/"):
        return [pattern]
    files = [name for name in names if not name.endswith("/")]
    if glob.has_magic(pattern):
        matches = re.compile(_as_regex(pattern)).fullmatch
        return list(filter(matches, files))
    if pattern and not pattern.endswith("/"):
        return []
    hidden = re.compile(r"(^|/)[._]")
    below = [name for name in files if name.startswith(pattern)]
    return [name for name in below if not hidden.search(name[len(pattern) :])]


def _list(store: Any, folder: str, location: Location) -> list[str]:
    import obstore  # noqa: PLC0415 - an extra

    try:
        listed = obstore.list(store, prefix=folder or None, chunk_size=1000)
        return sorted(str(meta["path"]) for page in listed for meta in page)
    except errors() as error:
        raise translate(error, location) from error


def _as_regex(pattern: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}

    def translated(part: str) -> str:
        if part.startswith("[") and part.endswith("]") and len(part) > 2:
            inner = part[1:-1].replace("\\", r"\\")
            return f"[^/{inner[1:]}]" if inner.startswith("!") else f"[{inner}]"
        return known.get(part) or re.escape(part)

    return "".join(map(translated, parts))
