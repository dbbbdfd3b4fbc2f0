"""Names for values: what a call, a template and an object are called in every process.

- `templates`: ``"user:{user.id}"``, compiled and checked when decorating.
- `derived`: the key of a call that was given no template.
- `stable`: the canonical text of an argument, on which both rest (`scalars`: of plain ones).
- `identity`: the names of functions and classes, and of live objects that have none.
"""

from __future__ import annotations

from tiercache.keys.derived import derived_key, key_of_scalars, versioned
from tiercache.keys.identity import class_identity, function_identity, identity_token, is_anonymous
from tiercache.keys.stable import digest, has_cache_key, stable_text
from tiercache.keys.templates import Field, Template

__all__ = [
    "Field",
    "Template",
    "class_identity",
    "derived_key",
    "digest",
    "function_identity",
    "has_cache_key",
    "identity_token",
    "is_anonymous",
    "key_of_scalars",
    "stable_text",
    "versioned",
]
