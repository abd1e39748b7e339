"""Doubles of the aws and azure-native provider plugins: executables that the CLI finds on PATH."""
