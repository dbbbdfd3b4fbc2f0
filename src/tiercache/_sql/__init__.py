"""Schema and statements of the database tier, per dialect.

Nothing here waits or connects: an operation is a *program*, a generator that yields statements
and is sent their rows. `tiercache.tiers.database` runs the programs, on a loop or in the caller's
thread.
"""
