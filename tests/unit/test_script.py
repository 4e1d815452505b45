"""The user's SQL is cut where its statements end, and nowhere else."""

from __future__ import annotations

import pytest

from batchimport.errors import UsageError
from batchimport.sinks.sql.script import statements_of
from batchimport.sinks.sql.table import index_on, table_named

TRIGGER = "CREATE TRIGGER t AFTER INSERT ON u BEGIN UPDATE u SET n = CASE WHEN 1 THEN 2 END; SELECT 1; END"
ATOMIC = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END"
BODY = "DO $do$ BEGIN PERFORM 1; END $do$"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT 1", ["SELECT 1"]),
        (" SELECT 1 ;; \n-- a; b\n ; ", ["SELECT 1"]),
        ("SELECT ';', \"a;\"\"b\", 'it''s;' ; SELECT 2", ["SELECT ';', \"a;\"\"b\", 'it''s;'", "SELECT 2"]),
        ("SELECT E'\\';' ; SELECT 2", ["SELECT E'\\';'", "SELECT 2"]),
        ("SELECT 1 /* ; */ + 1; SELECT 2 -- ;", ["SELECT 1 /* ; */ + 1", "SELECT 2 -- ;"]),
        (f"{BODY}; SELECT $$;$$, $1", [BODY, "SELECT $$;$$, $1"]),
        (f"{TRIGGER}; SELECT 2;", [TRIGGER, "SELECT 2"]),
        (f"{ATOMIC};\nSELECT 2", [ATOMIC, "SELECT 2"]),
        ("CREATE TRIGGER t BEFORE INSERT ON u EXECUTE FUNCTION f(); SELECT 2",
         ["CREATE TRIGGER t BEFORE INSERT ON u EXECUTE FUNCTION f()", "SELECT 2"]),
        ("SELECT 'open; ", ["SELECT 'open", ]),
        ("VALUES (ARRAY[1,2][1]); SELECT 2", ["VALUES (ARRAY[1,2][1])", "SELECT 2"]),
    ],
)  # fmt: skip
def test_statements(text: str, found: list[str]) -> None:
    """Quotes, comments, dollar quotes and bodies hold semicolons that end nothing."""
    assert statements_of(text, "--after-sql") == found


@pytest.mark.parametrize("text", ["", " ; -- nothing", "BEGIN; SELECT 1", "SELECT 1; commit"])
def test_no_script(text: str) -> None:
    """One without a statement, or one that would end the job's own transaction."""
    with pytest.raises(UsageError) as error:
        statements_of(text, "--before-sql")
    assert error.value.where == "--before-sql"


@pytest.mark.parametrize("name", ["users", '"us(e"".rs"', "[u s]", "`u`", 'main."u"', "a . b"])
def test_a_definition_gets_another_name(name: str) -> None:
    """However the old one is written."""
    made = table_named(f"CREATE TABLE {name}(id INTEGER, CHECK (id > 0)) STRICT", '"new"')
    assert made == 'CREATE TABLE "new"(id INTEGER, CHECK (id > 0)) STRICT'
    index = index_on(f"CREATE UNIQUE INDEX {name} ON {name} (lower(id)) WHERE id", "i", "t")
    assert index == "CREATE UNIQUE INDEX i ON t (lower(id)) WHERE id"
    assert index_on(f"CREATE INDEX i ON {name} (id)", "i", "t") is None
