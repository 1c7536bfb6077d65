"""The text in which a part is searched for: the name of a customer, and the external id unless it is encrypted. Pure.

Letters of ASCII are lower-case in it. On SQLite an index has the text of each customer, and is read as a whole. On
PostgreSQL another one has its trigrams, three characters each; those of the part lead to the few customers who have
them all. A part that is in very many is found in a sample first, as their lists would be long.
"""

import string
from typing import Final

import sqlalchemy as sa

TRIGRAMS: Final = "edgeproxy_trigrams"
"""The function of PostgreSQL that lists the trigrams of a text."""
_TEXT: Final = (
    "coalesce(display_name, name) || '\n' || coalesce(CASE WHEN external_id_sealed IS NULL THEN external_id END, '')"
)
SEARCHED: Final = f'lower(({_TEXT}) COLLATE "C")'
"""The text on PostgreSQL, exactly as the index has it."""
SEARCHED_SQLITE: Final = f"lower({_TEXT})"
"""The text on SQLite, exactly as the index has it."""
ESCAPE: Final = "/"
PART_CHARACTERS_MIN: Final = 3
"""Characters of a part that is searched for: shorter ones are in very many."""
_FOLDED: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_ESCAPED_GLOB: Final = str.maketrans({character: f"[{character}]" for character in "*?["})
_ESCAPED: Final = str.maketrans({character: ESCAPE + character for character in f"%_{ESCAPE}"})

# The text is in lower case already: LIKE would look after the case once more.
_SCAN: Final = sa.text(f"""
    SELECT id FROM customers WHERE {SEARCHED_SQLITE} GLOB :pattern
    ORDER BY {SEARCHED_SQLITE} LIMIT :limit
""")
_SAMPLE: Final = sa.text(f"""
    SELECT id FROM customers TABLESAMPLE SYSTEM (1) REPEATABLE (0)
    WHERE {SEARCHED} LIKE :pattern ESCAPE '{ESCAPE}' LIMIT :limit
""")
# Materialized, as the planner would else look through all names in their order where it takes many to match.
_INDEXED: Final = sa.text(f"""
    WITH found AS MATERIALIZED (
        SELECT id, {SEARCHED} AS searched FROM customers
        WHERE {TRIGRAMS}({SEARCHED}) @> CAST(:trigrams AS text[]) AND {SEARCHED} LIKE :pattern ESCAPE '{ESCAPE}'
    ) SELECT id FROM found ORDER BY searched LIMIT :limit
""").bindparams(sa.bindparam("trigrams", type_=sa.ARRAY(sa.Text)))


def fold(text: str) -> str:
    """Return a text with the letters of ASCII in lower case, as databases fold it."""
    return text.translate(_FOLDED)


def list_trigrams(text: str) -> list[str]:
    """Return each three characters of a folded text that stand side by side, once."""
    return sorted({text[at : at + 3] for at in range(len(text) - 2)})


def list_part_searches(text: str, limit: int, *, is_sqlite: bool) -> list[sa.TextClause]:
    """List the statements that find at most `limit` ids of customers with this part; each later one finds more.

    `text` has PART_CHARACTERS_MIN characters at least.
    """
    part = fold(text)
    if is_sqlite:
        return [_SCAN.bindparams(pattern=f"*{part.translate(_ESCAPED_GLOB)}*", limit=limit)]
    pattern = f"%{part.translate(_ESCAPED)}%"
    return [
        _SAMPLE.bindparams(pattern=pattern, limit=limit),
        _INDEXED.bindparams(pattern=pattern, limit=limit, trigrams=list_trigrams(part)),
    ]
