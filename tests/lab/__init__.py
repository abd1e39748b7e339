"""Tests on real hosts: minutes."""
