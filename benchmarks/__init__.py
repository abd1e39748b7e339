"""Measured against what people would use instead."""
