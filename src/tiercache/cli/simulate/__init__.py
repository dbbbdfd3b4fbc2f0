"""``simulate``: what a cache would have hit, by policy and size, on a trace of yours."""
