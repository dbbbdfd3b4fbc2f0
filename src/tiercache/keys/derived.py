"""The key of a call that was given no template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from tiercache.keys.scalars import SCALARS
from tiercache.keys.stable import digest, stable_text

_LONGEST: Final = 512


def derived_key(identity: str, version: str, arguments: Iterable[tuple[str, object]]) -> str:
    """Return the canonical text of a call: ``app.users:get_user(user_id=i42,name=s3:bob)``.

    ``arguments`` are the bound ones in the order of the signature, defaults included, with those
    of ``*args`` as one tuple and those of ``**kwargs`` as one dict. Where the whole would be longer
    than 512 characters, a digest of the arguments stands in their place, and the function can
    still be read. An argument without a stable text raises `KeyTemplateError`.
    """
    parts = [
        f"{name}={stable_text(value, where=identity, argument=name)}" for name, value in arguments
    ]
    text = ",".join(parts)
    if len(identity) + len(text) + 2 > _LONGEST:
        text = f"#{digest(text)}"
    return versioned(f"{identity}({text})", version)


def key_of_scalars(
    identity: str,
    version: str,
    labels: Iterable[tuple[str, str]],
    arguments: Mapping[str, object],
) -> str | None:
    """Return the same text where every argument is a scalar and all is short, else None.

    ``labels`` are the names with what stands before their values: ``("user_id=", "user_id")``.
    """
    scalars = SCALARS
    try:
        text = ",".join(
            [label + scalars[type(value := arguments[name])](value) for label, name in labels]
        )
    except KeyError:
        return None
    if len(identity) + len(text) + 2 > _LONGEST:
        return None
    key = f"{identity}({text})"
    return f"@{version}:{key}" if version else key


def versioned(key: str, version: str) -> str:
    """Return the key under a version of its policy: ``@2:user:1``; without one, the key itself."""
    return f"@{version}:{key}" if version else key
