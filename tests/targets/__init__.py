"""Tests of targets, on real servers."""
