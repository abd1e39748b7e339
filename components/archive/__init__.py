"""The archive of a run: its layout, its manifest, writing and reading it."""
