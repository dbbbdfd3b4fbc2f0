"""A tour under load: a little shop, its three tiers, what commits and what does not.

`command` is its door, `run` the whole in order. What is shown is `service` (users and orders, as
an application would write them) under `traffic` (readers, threads, writers), beside `workers`
(other processes, each a `worker`), with `proofs` of what is promised; `site` is where the data
lives, `recorder` the OpenTelemetry SDK, `screen` and `report` what people see of `figures`.
"""
