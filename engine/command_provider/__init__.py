"""A `command` provider: the resources of Pulumi's own `pulumi-command`, served from Python.

It stands in where Pulumi's plugin cannot be downloaded. `docs/engine.md` says what it does
differently; `tests/engine` holds both to the same behaviour.
"""
