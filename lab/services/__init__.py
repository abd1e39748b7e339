"""The services that hosts of the lab run: one module or folder each."""
