"""Whether the target is still as well protected as it was."""
