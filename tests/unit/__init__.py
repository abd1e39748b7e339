"""Tests without hosts: seconds."""
