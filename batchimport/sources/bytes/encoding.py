"""Detect the encoding of a text, and convert it to UTF-8 piece by piece.

Written here because libraries that detect encodings always guess one; this one must refuse doubt.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.bytes import code_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEGACY = code_pages.WESTERN
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UNMARKED = {
    "utf-32-le": (0, 1, 2, 3),
    "utf-32-be": (3, 0, 1, 2),
    "utf-16-le": (0, 1),
    "utf-16-be": (1, 0),
}
"""By encoding, where an ASCII character is in its bytes, and where the zeros are."""
_ARE_UTF8 = ("utf-8", "utf-8-sig", "ascii")
_ASCII = frozenset(b"\t\r\n" + bytes(range(0x20, 0x7F)))
_SHARE_OF_ASCII = 0.4
_UTF8_CHARACTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"
)
# A letter of windows-1252 in a word, a word of one letter, or punctuation as in Western texts.
_LEGACY_CHARACTER = re.compile(
    rb"(?<=[A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\xfe])[\xdf-\xf6\xf8-\xfe]"
    rb"|[\xdf-\xf6\xf8-\xfe](?=[A-Za-z])"
    rb"|(?<=[A-Z\xc0-\xd6\xd8-\xde])[\xc0-\xd6\xd8-\xde]"
    rb"|(?<![a-z])[\xc0-\xd6\xd8-\xde](?=[A-Za-z\xdf-\xf6\xf8-\xfe])"
    rb"|[\xc0\xc4\xc5\xc9\xd6\xd8\xdc\xe0\xe1\xe4\xe5\xe8\xe9\xec\xed\xf2\xf3\xf6\xf8\xf9\xfa\xfc]"
    rb"(?![\x21-\x7e\x80-\xff]|\Z)"
    rb"|\x80(?![A-Za-z\x80-\xff])"
    rb"|(?<![A-Za-z])[\x82\x84](?=[A-Za-z0-9\xc0-\xff])"
    rb"|\x9c(?=u|il)|\x8c(?=[uU]|il|IL)"
    rb"|[\x85\x91\x92\x95-\x97\x99\xa0\xa1\xa3\xa7\xa9\xab\xae\xb0-\xb5\xb7\xba\xbb\xbf]"
    rb"(?![\x80-\x90\xa0-\xbf])"
    rb"|(?:(?<![A-Za-z\xc0-\xff])[\x93\x94\xbc-\xbe]|[\x93\x94\xbc-\xbe](?![A-Za-z\xc0-\xff]))"
    rb"(?![\x80-\x90\xa0-\xbf])"
)
_SHIFTS = {
    re.compile(rb"\x1b\$[@AB]|\x1b\([IJ]"): "iso2022_jp",
    re.compile(rb"\x1b\$\)C"): "iso2022_kr",
}
"""Encodings whose bytes are all ASCII, by how they change to another alphabet."""
_FOREIGN = re.compile(rb"[\x80-\xff]{4}")
"""Western words do not have four such letters in a row; Russian, Greek and Chinese words do."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_ERRORS = "batchimport_keep"


def lookup(name: str, head: bytes) -> str | None:
    """Return the canonical name of an encoding, None for UTF-8.

    Args:
        name: As the user wrote it.
        head: The beginning of the text, which shows the byte order if the name does not.

    Raises:
        UsageError: If there is no encoding of this name.
    """
    try:
        letter = "a".encode(name)
        codecs.getincrementaldecoder(name)(_ERRORS).decode(letter, final=True)
        canonical = codecs.lookup(name).name
    except (LookupError, ValueError) as error:  # some are for names of hosts only
        raise UsageError(
            f"no such encoding: {name!r}",
            where="--encoding",
            hint="such as utf-8, utf-16, latin-1, windows-1252",
        ) from error
    if canonical in ("utf-16", "utf-32") and _byte_order_mark(head) != canonical:
        seen = detect([head], may_be_legacy=False) or ""
        canonical = seen if seen.startswith(canonical) else f"{canonical}-le"
    return None if canonical in _ARE_UTF8 else canonical


def _byte_order_mark(head: bytes) -> str | None:
    return next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)


def detect(
    samples: Iterable[bytes], *, may_be_legacy: bool, where: str | None = None
) -> str | None:
    """Return the encoding of a text, None for UTF-8.

    Args:
        samples: Parts of the text; the first one is its head.
        may_be_legacy: The format allows encodings other than those of Unicode.
        where: The file, for errors.

    Raises:
        UsageError: If several encodings are plausible.
    """
    head, *more = samples
    if marked := _byte_order_mark(head):
        return marked
    for name, (low, *others) in _UNMARKED.items() if b"\0" in head else ():
        size = len(others) + 1
        characters = sum(map(_is_ascii, *(head[at::size] for at in (low, *others))))
        if characters > 1 and characters >= _SHARE_OF_ASCII * (len(head) // size):
            return name
    return _code_page([head, *more], where) if may_be_legacy else None


def _code_page(samples: list[bytes], where: str | None) -> str | None:
    """Return the code page of a text; None for UTF-8, also with damaged records.

    Raises:
        UsageError: If several are plausible.
    """
    for shift, name in _SHIFTS.items():
        if any(map(shift.search, samples)):
            hint = f"say how it is written: --encoding {name}, or utf-8"
            raise UsageError(f"is not UTF-8; it may be {name}", where=where, hint=hint)
    if all(map(bytes.isascii, samples)) or any(map(_UTF8_CHARACTER.search, samples)):
        return None
    is_western = all(map(_is_legacy, samples))
    pages = code_pages.candidates(samples, is_western=is_western)
    if not pages:
        return LEGACY if is_western else None
    readings = zip(pages, code_pages.shown(samples, pages), strict=True)
    plausible = ", ".join(f"{page} ({text!r})" for page, text in readings)
    raise UsageError(
        f"is not UTF-8; it may be {plausible}",
        where=where,
        hint=f"say which: --encoding {pages[0]}",
    )


def _is_ascii(low: int, *others: int) -> bool:
    return low in _ASCII and not any(others)


def _is_legacy(sample: bytes) -> bool:
    """Say whether every character that is not ASCII is used as in Western texts."""
    if _FOREIGN.search(sample):
        return False
    return len(_NOT_ASCII.findall(sample)) == len(_LEGACY_CHARACTER.findall(sample))


def transcode(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield a text in UTF-8.

    Bytes that are not valid in the encoding become bytes that are not valid UTF-8, so that their
    record is rejected.
    """
    decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text.encode("utf-8", "surrogatepass")
    if text := decoder.decode(b"", final=True):
        yield text.encode("utf-8", "surrogatepass")


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in bad), error.end


codecs.register_error(_ERRORS, _keep_bytes)
