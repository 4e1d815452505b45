"""Cases of the JSON Test Suite, each as a line and as a value: refused as there, kept without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.reading import codes, read_all

SCHEMA: dict[str, Any] = {"properties": {"v": {}}}
NOT_JSON = [
    *(
        r"""
[1 true]|["": 1]|[,1]|[1,,2]|["x",,]|["x"]]|["",]|["x"|[3[4]]|[1:2]|[-]|[*]|[1,|[{}|[fals]|[nul]|[tru]
[++1]|[+1]|[+Inf]|[-01]|[-1.0.]|[-2.]|[-NaN]|[.-1]|[.2e-3]|[0.1.2]|[0.3e+]|[0.e1]|[0E]|[1.0e-]|[1 000.0]
[1eE2]|[2.e+3]|[Inf]|[NaN]|[1+2]|[0x1]|[Infinity]|[0e+-1]|[-Infinity]|[- 1]|[-012]|[-1x]|[1.]|[012]
{[: "x"}|{"x", null}|{"x"::"b"}|{"a":"a" 123}|{key: 'value'}|{"a" b}|{:"b"}|{"a":|{"a":"a|{1:1}
{null:null}|{"id":0,,}|{'a':0}|{"id":0,}|{"a":"b"}/**/|{"a":"b"}//|{"a":"b",,"c":"d"}|{ "foo" : "bar", "a" }
["\uD800\u"]|["\uD800\u1x"]|[e]|["\x00"]|["\\\"]|["\a"]|["\uqqqq"]|["\u00A"]|["\uD834\uDd"]|[\n]|"|['q']
abc|<.>|[1]x|[True]|1]|[][]|]|{}}|{"a":/*comment*/"b"}|{"a": true} "x"|[,|{,|{"a":"b"}#{}|[\u000A""]
["\uDADA"]|["\uD888\u1234"]|["\uD800abc"]|{"\uDFAA":0}
""".strip()
        .replace("\n", "|")
        .encode()
        .split(b"|")
    ),
    b'["\xe5"]',
    b"[1e\xe5]",
    b'["new\tline"]',
    b'["a\x00a"]',
    b"[\x0c]",
    b"[\xe2\x81\xa0]",
    b'["\xed\xa0\x80"]',
    b'["\xc0\xaf"]',
    b'["\xf4\xbf\xbf\xbf"]',
    b"\xef\xbb{}",
]
JSON = (
    r"""
[[]   ]|[""]|[null, 1, "1", {}]|[1 ]| [1]|[123e65]|[0e+1]|[-0]|[-0.000000000000000000000000000000000001]
[1E22]|[1E-2]|[123.456e78]|{"a":"b", "c":"d"}|{}|{"":0}|{"foo\u0000bar": 42}|{ "min": -1.0e+28 }|{"a":[]}
["\u0060\u012a\u12AB"]|["\uD801\udc37"]|["\"\\\/\b\f\n\r\t"]|["\\u0000"]|["a/*b*/c"]|["\u0012"]|["\uFFFF"]
["\uDBFF\uDFFF"]|["\u0000"]|[" "]|["\u2028"]|["new\u000Aline"]|["\uFDD0"]|[""]|false|42|-0.1|"asd"|true|""
[0.12345678901234567890123]|[1.10]|[123123123123123123123123]|[123.456e-789]|[1e9999]
""".strip()
    .replace("\n", "|")
    .split("|")
)


@pytest.mark.parametrize("text", NOT_JSON)
def test_what_is_no_json_is_a_reject(tmp_path: Path, text: bytes) -> None:
    """As a line and as a value in one; the neighbours are stored."""
    place = tmp_path / "lines.jsonl"
    for line in (text, b'{"v": ' + text + b"}"):
        place.write_bytes(b'{"v": 7}\n' + line + b'\n{"v": 8}\n')
        rows, rejects = read_all(place, SCHEMA)
        assert rows == [{"v": "7"}, {"v": "8"}]
        assert set(codes(rejects)) <= {"malformed_json", "not_an_object", "invalid_utf8"}
        assert [reject.raw for reject in rejects] == [line]


@pytest.mark.parametrize("text", JSON)
def test_what_is_json_is_kept_as_it_stands(tmp_path: Path, text: str) -> None:
    """Digit by digit and byte by byte."""
    place = tmp_path / "lines.jsonl"
    place.write_text(f'{{"v": {text.strip()}}}\n', encoding="utf-8")
    rows, rejects = read_all(place, SCHEMA)
    assert (rows, rejects) == ([{"v": text.strip()}], [])
    if text.startswith("{"):
        place.write_text(text + "\n", encoding="utf-8")
        rows, rejects = read_all(place, {"properties": {}})
        assert not rejects
        assert json.loads(rows[0].get("_extra", "{}")) == json.loads(text)
