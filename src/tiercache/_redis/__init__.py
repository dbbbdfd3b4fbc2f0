"""Redis: addresses, connections per event loop, scripts and the layout of what is stored.

Shared by the tier and the bus, and the only place that imports redis-py; it does so when the first
connection is made. From redis-py come connections alone (TLS, authentication, the protocol); its
pools, retries and timeouts are those of an application, not of a cache.
"""
