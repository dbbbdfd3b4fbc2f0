"""Names of parametrized tests that are the same in every process."""

import re


def shown(value: object) -> str:
    """Return what is shown of a value, without the address it happens to have."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
