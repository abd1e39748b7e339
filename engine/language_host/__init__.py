"""A language host for `runtime: python`, served from Python.

The CLI asks it to run programs, policy packs and component providers, each in a process of the
interpreter that `Pulumi.yaml` names. It stands in where Pulumi's own cannot be had, which is a Go
program that no package registry brings. `docs/engine.md` says what it leaves out.
"""
