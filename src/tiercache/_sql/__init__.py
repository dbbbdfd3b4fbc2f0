"""Schema and statements of what is kept in a database, per dialect, and where they are run.

An operation is a *program*, a generator that yields statements and is sent their rows; nothing in
it waits or connects. `places` runs programs, on a loop or in the caller's thread.
"""
