"""The commands of `epibackup`, a module each. They are imported only when they run."""
