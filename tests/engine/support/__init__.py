"""What the tests of the engine stand on: a real sshd, and Pulumi projects that are run for real."""
