"""Strict keys: no process reads a value that is older than an acknowledged commit.

`reading` and `loading` answer reads, from a shared tier alone. `marking` is what a transaction does
before it commits, `upkeep` what is done for those that cannot do it any more, `databases` who can
say what became of them. `face` puts them together.
"""

from tiercache.strict.databases import Databases
from tiercache.strict.face import Strict, strict_upon
from tiercache.strict.loading import StrictLoading

__all__ = ["Databases", "Strict", "StrictLoading", "strict_upon"]
