"""Where values are kept: L1 in memory, L2 in Redis, L3 in a database."""
