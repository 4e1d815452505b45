"""Detect the encoding of a text, and convert it to UTF-8 piece by piece.

Written here because libraries that detect encodings always guess one; this one must refuse doubt.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from batchimport.errors import UsageError
from batchimport.sources.bytes import code_pages, multibyte

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
    re.compile(rb"~\{(?:[!-w][!-~])+~\}"): "hz",
}
"""Encodings whose bytes are all ASCII, by how they change to another alphabet."""
_FOREIGN = re.compile(rb"[\x80-\xff]{4}")
"""Western words do not have four such letters in a row; Russian, Greek and Chinese words do."""

_CONTINUATION = bytes(range(0x80, 0xC0))
"""The bytes of a character of UTF-8 but for its first one."""
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
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
        orders = f"{canonical}-le", f"{canonical}-be"
        seen = _unicode(head) or next(
            (each for each in orders if multibyte.is_utf16(head, each)), ""
        )
        canonical = seen if seen.startswith(canonical) else orders[0]
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
    if wide := _unicode(head):
        return wide
    samples = [head, *more]
    is_ascii = all(map(bytes.isascii, samples))
    if not is_ascii and all(map(_is_utf8, samples)):
        return None
    is_western = may_be_legacy and not is_ascii and all(map(_is_legacy, samples))
    found = [name for name in _UNMARKED if b"\0" in head and multibyte.is_utf16(head, name)]
    if found := found or ([] if is_western or is_ascii else multibyte.candidates(samples)):
        readings = [(name, multibyte.shown(samples, name)) for name in found]
        raise _asked(readings, where)
    return _code_page(samples, where, is_western=is_western) if may_be_legacy else None


def check_given(name: str | None, samples: Sequence[bytes], given: str, where: str) -> None:
    """Check that a text is not plainly in another encoding of Unicode than the user says, or in none.

    Args:
        name: The encoding as `lookup` returns it.
        samples: Parts of the text; the first one is its head.
        given: As the user wrote it.

    Raises:
        UsageError: If it is; it says what the text looks like.
    """
    head, is_wide = samples[0], name is not None and name.startswith(("utf-16", "utf-32"))
    seen = _unicode(head)
    if seen is None and is_wide and not _CONTROL.search(head):
        seen = _narrow(samples)
    is_same = name is not None and is_wide and seen is not None and name[:6] == seen[:6]
    if is_same and name not in ("utf-16", "utf-32"):  # a byte order
        is_same = seen == name or _reads_mark(head, str(name))
    if head and seen and not is_same:
        text = multibyte.shown(samples, seen)
        raise UsageError(
            f"is not {given}: it looks like {seen} ({text!r})",
            where=where,
            hint=f"--encoding {seen}, or leave the option out",
        )


def _narrow(samples: Sequence[bytes]) -> str | None:
    """Return the encoding of a text that is not UTF-16: the likeliest one; None if there is none."""
    if all(map(_is_utf8, samples)):
        return "utf-8"
    if all(map(_is_legacy, samples)):
        return LEGACY
    return next(iter(multibyte.candidates(samples)), None)


def _reads_mark(head: bytes, name: str) -> bool:
    """Say whether an encoding of a byte order reads the mark at the beginning of a text."""
    return head[:4].decode(name, "replace").startswith("\ufeff")


def is_utf8_too(name: str | None, samples: Sequence[bytes]) -> bool:
    """Say whether a text that is read in another encoding has characters and would be UTF-8."""
    is_plain = name is None or all(map(bytes.isascii, samples))
    return not is_plain and b"\0" not in samples[0] and all(map(_is_utf8, samples))


def _unicode(head: bytes) -> str | None:
    """Return the encoding of a text whose first bytes show that it is UTF-16 or UTF-32."""
    if marked := _byte_order_mark(head):
        return marked
    for name, (low, *others) in _UNMARKED.items() if b"\0" in head else ():
        size = len(others) + 1
        characters = sum(map(_is_ascii, *(head[at::size] for at in (low, *others))))
        if characters > 1 and characters >= _SHARE_OF_ASCII * (len(head) // size):
            return name
    return None


def _is_utf8(sample: bytes) -> bool:
    """Say whether a part of a text is UTF-8; characters at its ends may be cut."""
    try:
        codecs.utf_8_decode(sample.lstrip(_CONTINUATION), "strict", False)
    except UnicodeDecodeError:
        return False
    return True


def _asked(readings: Iterable[tuple[str, str]], where: str | None) -> UsageError:
    """Return the question which encoding it is.

    Args:
        readings: The names of encodings, and a line as each of them reads it.
    """
    plausible = list(readings)
    return UsageError(
        f"is not UTF-8; it may be {', '.join(f'{name} ({text!r})' for name, text in plausible)}",
        where=where,
        hint=f"say which: --encoding {plausible[0][0]}",
    )


def _code_page(samples: list[bytes], where: str | None, *, is_western: bool) -> str | None:
    """Return the code page of a text; None for UTF-8, also with damaged records.

    Raises:
        UsageError: If several are plausible.
    """
    for shift, name in _SHIFTS.items():
        if any(map(shift.search, samples)):
            hint = f"say how it is written: --encoding {name}, or utf-8"
            raise UsageError(f"is not UTF-8; it may be {name}", where=where, hint=hint)
    if all(map(bytes.isascii, samples)):
        if multibyte.is_utf7(samples[0]):
            text = multibyte.shown(samples, "utf-7")
            hint = "say how it is written: --encoding utf-7, or utf-8"
            raise UsageError(f"is not UTF-8; it may be utf-7 ({text!r})", where=where, hint=hint)
        return None
    if any(map(_UTF8_CHARACTER.search, samples)):
        return None
    pages = code_pages.candidates(samples, is_western=is_western)
    if not pages:
        return LEGACY if is_western else None
    raise _asked(zip(pages, code_pages.shown(samples, pages), strict=True), where)


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
