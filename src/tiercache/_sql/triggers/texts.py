"""How PostgreSQL writes a value as Python does: what `Template.render` makes of what drivers read.

By the type of the column; ``@`` is the column, and null comes out as null. Types that are not here
have no text in a template, or another one than in SQL. A ``timestamptz`` is written in UTC, as
asyncpg reads it. There is no infinity in Python: asyncpg reads it as the first and last of all
dates.
"""

from __future__ import annotations

from typing import Final

_PLAIN: Final = "@::text"
_SECONDS: Final = (
    "to_char(@, 'YYYY-MM-DD HH24:MI:SS')"
    " || CASE WHEN date_trunc('second', @) = @ THEN '' ELSE to_char(@, '.US') END"
)
_UTC: Final = _SECONDS.replace("@", "(@ AT TIME ZONE 'UTC')")
_ENDS: Final = (
    "CASE @ WHEN 'infinity' THEN '9999-12-31 23:59:59.999999'"
    " WHEN '-infinity' THEN '0001-01-01 00:00:00'"
)
_EXPONENT: Final = (
    "(SELECT CASE WHEN @ < 0 THEN '-' ELSE '' END || left(d.d, 1)"
    " || CASE WHEN length(d.d) > 1 THEN '.' || substr(d.d, 2) ELSE '' END"
)
TEXTS: Final = {
    "int2": _PLAIN,
    "int4": _PLAIN,
    "int8": _PLAIN,
    "text": _PLAIN,
    "varchar": _PLAIN,
    "uuid": _PLAIN,
    "enum": _PLAIN,
    "bool": "CASE WHEN @ THEN 'True' WHEN NOT @ THEN 'False' END",
    "date": "CASE @ WHEN 'infinity' THEN '9999-12-31' WHEN '-infinity' THEN '0001-01-01'"
    " ELSE to_char(@::timestamp, 'YYYY-MM-DD') END",
    "timestamp": f"{_ENDS} ELSE {_SECONDS} END",
    "timestamptz": f"{_ENDS} ELSE {_UTC} || '+00:00' END",
    # As `decimal.Decimal` does: an exponent for what begins behind the sixth place.
    "numeric": f"CASE WHEN abs(@) < 0.000001 AND scale(@) > 6 THEN {_EXPONENT}"
    " || 'E' || (length(d.d) - 1 - scale(@))::text"
    " FROM (SELECT coalesce(nullif(ltrim(@::text, '-0.'), ''), '0') AS d) AS d)"
    " ELSE @::text END",
}

# Of a whole number asyncpg leaves out zeros by fours: it reads 1200000 as Decimal("120E+4"), which
# is written 1.20E+6. Others read 1200000, so both texts are named.
OTHER_TEXTS: Final = {
    "numeric": f"CASE WHEN scale(@) = 0 AND @ <> 0 AND @ % 10000 = 0 THEN {_EXPONENT}"
    " || 'E+' || (length(abs(@)::text) - 1)::text"
    " FROM (SELECT regexp_replace(abs(@)::text, '(0000)+$', '') AS d) AS d)"
    f" ELSE {TEXTS['numeric']} END",
}
