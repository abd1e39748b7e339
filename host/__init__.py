"""The host side's small runtime: what runs as root on a host of the cluster.

Standard library only, Python 3.6 or newer (RHEL 7 and 8 have no newer one), and nothing here
imports anything of the controller. `components/*/host.py` builds on it; `host.__main__` is the
entry point of the zipapp that `components.host_agent` makes of both.
"""
