"""Which encodings of several bytes a character a text may be in that is not UTF-8.

Bytes of one are often valid in another. What tells them apart is that people mostly write the characters
that each standard put first, and that texts in other encodings, read by it, are mostly of the others. The
limits below were chosen so that none of 5,000 texts of 23 languages in other encodings, and none of 4,860
damaged ones in UTF-8, is taken for one of these.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST_LINES = 2000
LEAST_CHARACTERS = 4
"""Different characters that a text must have, and as many lines but one."""
SHARE_OF_LINES = 0.9
SHARE_OF_COMMON = 0.85
MOST_DAMAGED = 0.5
"""Share of lines with damage up to which a text is UTF-8."""
MOST_IN_WORDS = 0.3
MOST_SHOWN = 50
MOST_CANDIDATES = 4

_HIGH = re.compile(rb"[\x80-\xff]")
_RUN = re.compile("[^\\x00-\\x7f]+")
_RUN_IN_WORD = re.compile("(?<=[A-Za-z])[^\\x00-\\x7f]+")
_HALF_WIDTH = range(0xFF61, 0xFFA0)
"""Katakana of one byte, which any bytes are that are letters of other alphabets."""


def _is_sign(code: int) -> bool:
    """Say whether a character is punctuation of East Asia, a wide Latin letter, or a number in a circle."""
    return 0x3000 <= code <= 0x303F or 0xFF01 <= code <= 0xFF60 or 0x2460 <= code <= 0x2473


def _first_in(standard: str, low: int, high: int) -> Callable[[int], bool]:
    """Return what says whether a character is in the first part of a standard."""

    def is_common(code: int) -> bool:
        return low <= chr(code).encode(standard, "replace")[0] <= high

    return is_common


_is_simplified = _first_in("gb2312", 0xB0, 0xD7)
_is_traditional = _first_in("big5", 0xA4, 0xC6)


def _is_chinese(code: int) -> bool:
    return _is_simplified(code) or _is_traditional(code)


def _is_japanese(code: int) -> bool:
    return 0x3040 <= code <= 0x30FF or _first_in("euc_jp", 0xB0, 0xCF)(code)


def _is_hangul(code: int) -> bool:
    return 0xAC00 <= code <= 0xD7A3


@dataclass(frozen=True)
class _Encoding:
    """An encoding.

    Attributes:
        names: What Python calls it, and what extends it: the first one that reads the text is said.
        is_common: Says of the code of a character whether it is one that people mostly write.
        frequent: The most frequent ones, to sort candidates.
    """

    names: tuple[str, ...]
    is_common: Callable[[int], bool]
    frequent: frozenset[str] = field(repr=False)


_JAPANESE = frozenset(
    "のにはをたがでてとしれさいるなっかんスルトンーイアラリタロックシマコバドグレプジフ日本人"
    "大一年中東京都市区町県山田川島藤木村野井上小高北南西郡株式会社有限語学部数名前番号電話住所"
)
_SIMPLIFIED = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到说时要就出会可也你对生能子市区路号省县街"
    "镇王李张刘陈杨赵黄周吴名称公司限责任科技北京海广州深圳东西南用件数法文成分年月日电话"
)
_TRADITIONAL = frozenset(
    "的一是不了在人有我他這個們中來上大為和國地到說時要就出會可也你對生能子市區路號省縣"
    "街鎮王李張劉陳楊趙黃周吳名稱公司限責任科技臺台北高雄新東西南用件數法文成分年月日電話"
)
_KOREAN = frozenset(
    "이다니수지에을습는스가로자를어시의하음일기정서리할용사인합아위한은오있대그부제값상치표크름모만실보된데작해"
    "소중여못라도전요설구경세화고행성명호김박최조강윤장임신권황안송류홍주식회울산광역별천북남동군면길번영민현진"
)
_ENCODINGS = (
    _Encoding(("shift_jis", "cp932"), _is_japanese, _JAPANESE),
    _Encoding(("euc_jp",), _is_japanese, _JAPANESE),
    _Encoding(("gbk", "gb18030"), _is_chinese, _SIMPLIFIED),
    _Encoding(("big5", "cp950", "big5hkscs"), _is_traditional, _TRADITIONAL),
    _Encoding(("euc_kr", "cp949"), _is_hangul, _KOREAN),
)


def candidates(samples: Sequence[bytes]) -> list[str]:
    """Return the encodings that a text may be in, the likeliest first; none if it may be UTF-8.

    Args:
        samples: Parts of the text; the first one is its head. They may be cut within a line.
    """
    lines = _lines(samples)
    damaged = [line for line in lines if not _reads(line, "utf-8")]
    if len(damaged) < LEAST_CHARACTERS - 1 or len(damaged) < MOST_DAMAGED * len(lines):
        return []
    found = []
    for encoding in _ENCODINGS:
        for name in encoding.names:
            texts = [text for line in lines if (text := _reads(line, name))]
            if len(texts) >= SHARE_OF_LINES * len(lines):
                likeness = _likeness(texts, encoding)
                found += [(likeness, name)] if likeness else []
                break
    return [name for _, name in sorted(found, reverse=True)][:MOST_CANDIDATES]


def _likeness(texts: Sequence[str], encoding: _Encoding) -> float:
    """Return how much of the texts is what people mostly write; 0 if that is too little."""
    codes = [code for code in map(ord, "".join(texts)) if code > 0x7F and code not in _HALF_WIDTH]
    known = {code: encoding.is_common(code) or _is_sign(code) for code in set(codes)}
    share = sum(map(known.__getitem__, codes)) / max(1, len(codes))
    if len(known) < LEAST_CHARACTERS or share < SHARE_OF_COMMON or _are_inside_words(texts):
        return 0
    return share + sum(chr(code) in encoding.frequent for code in codes) / len(codes)


def _are_inside_words(texts: Sequence[str]) -> bool:
    """Say whether characters follow letters of ASCII, as those of Western words do: `K\u0153ln`."""
    runs = sum(len(_RUN.findall(text)) for text in texts)
    return sum(len(_RUN_IN_WORD.findall(text)) for text in texts) > MOST_IN_WORDS * runs


def _lines(samples: Sequence[bytes]) -> list[bytes]:
    """Return the lines that are not ASCII, without those that may be cut."""
    found: dict[bytes, None] = {}
    for at, sample in enumerate(samples):
        lines = sample.splitlines()
        whole = lines if len(samples) == 1 and len(sample) < 1 << 16 else lines[at > 0 : -1]
        found |= dict.fromkeys(line for line in whole if _HIGH.search(line))
        if len(found) > MOST_LINES:
            break
    return list(found)[:MOST_LINES]


def _reads(line: bytes, name: str) -> str | None:
    """Return a line as an encoding reads it; None if it does not."""
    try:
        return line.decode(name)
    except UnicodeDecodeError:
        return None


def shown(samples: Sequence[bytes], name: str) -> str:
    """Return a part of a line of the text, as an encoding reads it."""
    head = samples[0].decode(name, "replace").removeprefix("\ufeff").splitlines() or [""]
    more = (text for line in _lines(samples) if (text := _reads(line, name)))
    text = next((text for text in (*head[1:], *more) if not text.isascii()), head[0])
    first = next((at for at, letter in enumerate(text) if not letter.isascii()), 0)
    start = max(0, first - MOST_SHOWN // 2) if first > MOST_SHOWN // 2 else 0
    return text[start : start + MOST_SHOWN]


# -- UTF-16 that has few characters of ASCII ---------------------------------------------------

SHARE_OF_TEXT = 0.98
LEAST_ZEROS, SHARE_OF_ZEROS = 4, 0.8
"""Zeros of the first byte of characters, such as line ends and delimiters, and of all zeros."""


def is_utf16(head: bytes, name: str) -> bool:
    """Say whether the head of a file is text in UTF-16 or UTF-32 of a byte order: lines of characters."""
    size = 4 if "32" in name else 2
    text = head[: len(head) // size * size].decode(name, "replace")
    first = head[0 if name.endswith("be") else size - 1 :: size].count(0)
    if first < max(LEAST_ZEROS, SHARE_OF_ZEROS * head.count(0) / (size - 1)):
        return False  # zeros of damage, or of another order
    if "\n" not in text and "\r" not in text:
        return False
    letters = sum(unicodedata.category(each)[0] != "C" or each in "\t\r\n" for each in text)
    return "\ufffd" not in text[:-1] and letters >= SHARE_OF_TEXT * len(text)


# -- encodings whose bytes are all ASCII -------------------------------------------------------

_SHIFTED = re.compile(rb"(?<![A-Za-z0-9+/])\+([A-Za-z0-9+/]+)")
_DIGITS = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/").encode()
_LETTER = re.compile(rb"[A-Za-z]")
_LEAST_SHIFTED = 3


def is_utf7(head: bytes) -> bool:
    """Say whether all that looks like another alphabet in UTF-7 is letters of one: no phone numbers are."""
    if b"+" not in head:
        return False
    tokens = set(_SHIFTED.findall(head.rpartition(b"\n")[0] or head))
    sure = sum(_LETTER.search(token) is not None for token in tokens)
    return sure >= _LEAST_SHIFTED and all(map(_is_word, tokens))


def _is_word(token: bytes) -> bool:
    """Say whether all bits of a token are letters in UTF-16, but for some at its end that are zero."""
    bits = "".join(f"{_DIGITS.index(each):06b}" for each in token)
    size = len(bits) // 16 * 16
    if not size or len(bits) - size >= 6 or "1" in bits[size:]:
        return False
    text = int(bits[:size], 2).to_bytes(size // 8, "big").decode("utf-16-be", "replace")
    return all(ord(each) > 0x7F and unicodedata.category(each)[0] in "LMNPZ" for each in text)
