"""Which code pages a text may be in that is not UTF-8: by the letters that its words would have.

A word is evidence for a code page if one language that is written in it has all of its letters. Several
pages may be plausible; which one is right cannot be seen, only asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WESTERN = "windows-1252"
SHARE_OF_WORDS = 0.9
LEAST_WORDS = 3
"""Words that are no Western ones, to say that a text is in another code page and not damaged UTF-8."""
MOST_WORDS = 5000
MOST_SHOWN = 50

_COMMON = (
    "äöüß", "àâæçèéêëîïôœùûüÿ", "áéíñóúü", "áâãàçéêíóôõúü", "àèéìíîòóùú", "æøåéèòôêü",
    "åäöéü", "áéëïíóöüèê", "àçèéíïòóúü",
)  # fmt: skip
"""German, French, Spanish, Portuguese, Italian, Danish and Norwegian, Swedish, Dutch, Catalan."""

_LATIN = {
    WESTERN: (*_COMMON, "áðéíóúýþæö"),
    "windows-1250": (
        "ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "čćđšž", "ăâîşţ",
    ),
    "windows-1254": ("çğıöşüâîûİ",),
    "windows-1257": ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž"),
}  # fmt: skip
_RUSSIAN = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
_OTHER = {
    "windows-1251": (
        _RUSSIAN,
        "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя",
        "абвгдђежзијклљмнњопрстћуфхцчџш",
    ),
    "koi8-r": (_RUSSIAN,),
    "windows-1253": ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",),
    "windows-1255": ("".join(map(chr, range(0x5D0, 0x5EB))),),
}
_ALPHABETS = {
    page: [frozenset(letters + letters.upper()) for letters in languages]
    for page, languages in (_LATIN | _OTHER).items()
}
_COMMON_ALPHABETS = [frozenset(letters + letters.upper()) for letters in _COMMON]
_WORD = re.compile(rb"[A-Za-z\x80-\xff]*[\x80-\xff][A-Za-z\x80-\xff]*")
_NOT_WESTERN = re.compile("ç(?![aouáàâãóôõúùûæœ]|$)|õ(?!e|s?$)|ã(?![oes]|$)", re.IGNORECASE)
"""Where these letters are not in French, Portuguese and Catalan, but those of other pages would be."""

_SIGNS = "\u2018\u2019\u201a\u201c\u201d\u201e\u2013\u2014\u2026\u2022\u20ac\u2122«»\u2039\u203a°§©®£¡¿·\xb4\xa0"
_UNITS = re.compile("[ckdm]?m[²³]|[²³½¼¾ºªµ±\xd7÷¹]+|[nN][º°]")


def candidates(samples: Sequence[bytes], *, is_western: bool) -> list[str]:
    """Return the code pages to choose from; none if it is windows-1252, or no code page at all.

    Args:
        samples: Parts of the text, none of which is UTF-8.
        is_western: All that is not ASCII is used as in Western texts.
    """
    words = _words(samples)
    if is_western and _is_covered(words, WESTERN, _COMMON_ALPHABETS):
        return []
    western = [word.decode(WESTERN, "replace") for word in words]
    others = [
        page
        for page, alphabets in _ALPHABETS.items()
        if _is_covered(words, page, alphabets)
        and [word.decode(page, "replace") for word in words] != western
    ]
    if not others or (len(words) < LEAST_WORDS and not is_western):
        return []
    return [*others, WESTERN] if is_western else others


def shown(samples: Iterable[bytes], pages: Sequence[str]) -> list[str]:
    """Return a line of the text as each of the code pages reads it, the first line that differs."""
    for sample in samples:
        for line in sample.splitlines():
            part = _around(line)
            texts = [part.decode(page, "replace") for page in pages]
            if not part.isascii() and (len(set(texts)) > 1 or len(pages) == 1):
                return texts
    return ["" for _ in pages]


def _around(line: bytes) -> bytes:
    """Return the part of a line that has its first letter which is not ASCII."""
    word = _WORD.search(line)
    start = max(0, word.start() - MOST_SHOWN // 2) if word and word.end() > MOST_SHOWN else 0
    return line[start : start + MOST_SHOWN]


def _words(samples: Iterable[bytes]) -> set[bytes]:
    words: set[bytes] = set()
    for sample in samples:
        words.update(_WORD.findall(sample))
        if len(words) > MOST_WORDS:
            break
    return words


def _is_covered(words: Iterable[bytes], page: str, alphabets: Sequence[frozenset[str]]) -> bool:
    """Say whether nearly all words that have letters other than ASCII are of some language."""
    known = seen = 0
    for word in words:
        text = word.decode(page, "replace").strip(_SIGNS)
        if text.isascii() or _UNITS.fullmatch(text):
            continue
        seen += 1
        special = {letter for letter in text if not letter.isascii()}
        is_pure = page in _LATIN or (len(special) > 1 and not re.search("[A-Za-z]", text))
        is_cased = text.islower() or text.isupper() or text[1:].islower() or page in _LATIN
        known += (
            is_pure
            and (is_cased or not text.upper().isupper())
            and any(special <= alphabet for alphabet in alphabets)
            and not (page == WESTERN and _NOT_WESTERN.search(text))
        )
    return seen > 0 and known >= SHARE_OF_WORDS * seen
