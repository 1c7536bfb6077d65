"""The searched text of a customer: its names, and the external id unless it is encrypted. Pure.

ASCII letters are in lower case. On SQLite an index holds the text of each customer, and a search scans it completely.
On PostgreSQL an index holds its trigrams (three characters each), and a search looks for the few customers with all
trigrams of the searched part. A frequent part is first searched in a sample, because its trigram lists would be long.
"""

import string
from typing import Final

import sqlalchemy as sa

TRIGRAMS: Final = "edgeproxy_trigrams"
"""The PostgreSQL function that lists the trigrams of a text."""
_TEXT: Final = (
    "coalesce(display_name, name) || '\n' || coalesce(CASE WHEN external_id_sealed IS NULL THEN external_id END, '')"
    " || '\n' || coalesce({}, '')"
)
# The name that a person wrote (collector/accounts/shown_names.py). Encrypted metadata is no JSON and has no parts.
# PostgreSQL does not know whether a text is JSON. Its pattern matches a whole field: quotes within a text are escaped.
_WRITTEN: Final = ", ".join(
    rf"""substring(metadata from '"{field}":"((?:[^"\\]|\\.)*)"')""" for field in ("name", "organisation")
)
_WRITTEN_SQLITE: Final = """CASE WHEN json_valid(metadata)
    THEN coalesce(json_extract(metadata, '$.name'), json_extract(metadata, '$.organisation')) END"""
SEARCHED: Final = f'lower(({_TEXT.format(_WRITTEN)}) COLLATE "C")'
"""The text on PostgreSQL, exactly as in the index."""
SEARCHED_SQLITE: Final = f"lower({_TEXT.format(_WRITTEN_SQLITE)})"
"""The text on SQLite, exactly as in the index."""
ESCAPE: Final = "/"
PART_CHARACTERS_MIN: Final = 3
"""The fewest characters of a searched part: shorter parts match very many texts."""
_FOLDED: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_ESCAPED_GLOB: Final = str.maketrans({character: f"[{character}]" for character in "*?["})
_ESCAPED: Final = str.maketrans({character: ESCAPE + character for character in f"%_{ESCAPE}"})

# The text is in lower case already; LIKE would fold the case again.
_SCAN: Final = sa.text(f"""
    SELECT id FROM customers WHERE {SEARCHED_SQLITE} GLOB :pattern
    ORDER BY {SEARCHED_SQLITE} LIMIT :limit
""")
_SAMPLE: Final = sa.text(f"""
    SELECT id FROM customers TABLESAMPLE SYSTEM (1) REPEATABLE (0)
    WHERE {SEARCHED} LIKE :pattern ESCAPE '{ESCAPE}' LIMIT :limit
""")
# Materialized: if the planner expects many matches, it would otherwise scan all names in order.
_INDEXED: Final = sa.text(f"""
    WITH found AS MATERIALIZED (
        SELECT id, {SEARCHED} AS searched FROM customers
        WHERE {TRIGRAMS}({SEARCHED}) @> CAST(:trigrams AS text[]) AND {SEARCHED} LIKE :pattern ESCAPE '{ESCAPE}'
    ) SELECT id FROM found ORDER BY searched LIMIT :limit
""").bindparams(sa.bindparam("trigrams", type_=sa.ARRAY(sa.Text)))


def fold(text: str) -> str:
    """Return a text with ASCII letters in lower case, as databases fold it."""
    return text.translate(_FOLDED)


def list_trigrams(text: str) -> list[str]:
    """Return each sequence of three characters in a folded text, once."""
    return sorted({text[at : at + 3] for at in range(len(text) - 2)})


def list_part_searches(text: str, limit: int, *, is_sqlite: bool) -> list[sa.TextClause]:
    """List statements that find at most `limit` ids of customers with this part. Each later statement finds more.

    `text` must have at least PART_CHARACTERS_MIN characters.
    """
    part = fold(text)
    if is_sqlite:
        return [_SCAN.bindparams(pattern=f"*{part.translate(_ESCAPED_GLOB)}*", limit=limit)]
    pattern = f"%{part.translate(_ESCAPED)}%"
    return [
        _SAMPLE.bindparams(pattern=pattern, limit=limit),
        _INDEXED.bindparams(pattern=pattern, limit=limit, trigrams=list_trigrams(part)),
    ]
