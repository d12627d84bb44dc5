"""Which executions may contain a text: an index of their trigrams, so that a search reads few rows of a long history.

`SqliteStore` adds what has ended, `history` asks. The answer is a superset, newest first, and the rows themselves are
compared afterwards; so the index keeps no text, only numbers. A document's number is the millisecond of its execution,
read from the UUIDv7, and one of 32 places within it: the order of documents is the order of the list, and no second
table leads from one to the other.

What is not in the index is looked at row by row: executions that have not ended, those that ended just now (they are
added in batches, since a batch costs hardly more than one), and the few that stand apart for good because they are too
long, hold a NUL, or found no place. It never decides who may see a row.
"""

from __future__ import annotations

import re

from sqlite_utils import Database

from bifrost_scheduler.store.statements import insert, returned

LEAST_CHARACTERS = 3
BATCH = 64

PLACES = 32
_LONGEST_TEXT = 32_768
_MOST_TRIGRAMS = 24
"""A longer search is narrowed by that many trigrams, spread over it; the comparison does the rest."""

_UUID7_TIME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-")

_TEXT = "workflow || char(10) || ifnull(error, '') || char(10) || iif(hidden_inputs = '[]', parameters, '')"

CANDIDATES = """
    SELECT rowid AS document FROM execution_texts
    WHERE execution_texts MATCH ? AND rowid >= ? AND rowid < ? ORDER BY rowid DESC LIMIT ?
"""
# What no document stands for: few, however long the history is.
OUTSIDE = (
    "search_waiting CROSS JOIN executions ON id = execution_id WHERE 1",
    "executions INDEXED BY executions_active WHERE completed_at IS NULL",
)

_READ_BATCH = f"""
    SELECT id, {_TEXT} AS text FROM search_waiting JOIN executions ON id = execution_id
    WHERE apart = 0 ORDER BY execution_id LIMIT ?
"""  # noqa: S608  literals of this module


def create(db: Database) -> None:
    """The tables, and the index of every execution that has ended already."""
    db.execute(
        "CREATE VIRTUAL TABLE execution_texts USING fts5 "
        "(text, content = '', columnsize = 0, detail = 'none', tokenize = 'trigram')"
    )
    db.execute("CREATE TABLE search_documents (document INTEGER PRIMARY KEY) STRICT")
    db.execute(
        """
        CREATE TABLE search_waiting (
            apart INTEGER NOT NULL,
            execution_id TEXT NOT NULL REFERENCES executions (id),
            PRIMARY KEY (apart, execution_id)
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute("INSERT INTO search_waiting SELECT 0, id FROM executions WHERE completed_at IS NOT NULL")
    while add_waiting(db, limit=1000):
        pass


def enqueue(db: Database, execution_id: str) -> None:
    """Have the index take up an execution whose text is final."""
    insert(db, "search_waiting", {"apart": 0, "execution_id": execution_id})


def is_batch_waiting(db: Database) -> bool:
    return len(returned(db, "SELECT 1 FROM search_waiting WHERE apart = 0 LIMIT ?", (BATCH,))) == BATCH


def add_waiting(db: Database, *, limit: int = BATCH) -> int:
    """Add up to so many executions to the index; returns how many there were."""
    batch = returned(db, _READ_BATCH, (limit,))
    for row in batch:
        document = _take_place(db, row["id"], row["text"])
        if document is None:
            insert(db, "search_waiting", {"apart": 1, "execution_id": row["id"]})
        else:
            insert(db, "execution_texts", {"rowid": document, "text": row["text"]})
        db.execute("DELETE FROM search_waiting WHERE apart = 0 AND execution_id = ?", (row["id"],))
    return len(batch)


def millisecond_of(execution_id: str) -> int | None:
    """The instant that stands in a UUIDv7 (RFC 9562 §5.7)."""
    found = _UUID7_TIME.match(execution_id)
    return int(found[1] + found[2], 16) if found else None


def first_id(millisecond: int) -> str:
    """The text before which every UUIDv7 is older than that millisecond."""
    return f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}"


def is_indexable(text: str) -> bool:
    return len(text) >= LEAST_CHARACTERS and "\0" not in text


def expression(*texts: str) -> str:
    """What `CANDIDATES` matches for rows that contain one of the texts, each of them indexable."""
    return " OR ".join(f"({' AND '.join(_quoted(part) for part in _trigrams(text))})" for text in sorted(set(texts)))


def _take_place(db: Database, execution_id: str, text: str) -> int | None:
    millisecond = millisecond_of(execution_id)
    if millisecond is None or len(text) > _LONGEST_TEXT or "\0" in text:
        return None
    for document in range(millisecond * PLACES, (millisecond + 1) * PLACES):
        if insert(db, "search_documents", {"document": document}, verb="INSERT OR IGNORE"):
            return document
    return None


def _trigrams(text: str) -> list[str]:
    starts = range(len(text) - LEAST_CHARACTERS + 1)
    step = -(-len(starts) // _MOST_TRIGRAMS)
    return [text[start : start + LEAST_CHARACTERS] for start in starts[::step]]


def _quoted(part: str) -> str:
    escaped = part.replace('"', '""')
    return f'"{escaped}"'
