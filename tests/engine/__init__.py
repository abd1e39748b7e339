"""Tests of the embedded engine, through the real CLI."""
