"""Measured against what people would use instead: `make bench`.

All figures of a table come from one run, the ways taking turns, because machines are shared and
noisy. Hosts and controller share this machine's cores, which is the hard case.
"""
