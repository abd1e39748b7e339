"""What can be backed up, and where to: one folder a service.

A folder with a `component.py` that defines a ServiceBackup is a service; `services()` finds
them, and nothing else has to know of a new one.
"""
