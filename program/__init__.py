"""The command `epibackup` and the Pulumi program: what happens in a run, and in what order."""
