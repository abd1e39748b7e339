"""What goes into commands and what comes out of them: streams, sizes, exit codes, secrets."""

import hashlib
from collections.abc import Callable

import pytest

from tests.engine.support.inline_program import Secret
from tests.engine.support.resources import CommandProject, Resource, local

MEGABYTE = 1024 * 1024

Describe = Callable[..., Resource]


def test_both_streams_are_captured_apart_and_lose_one_newline_at_the_end(
    commands: CommandProject, remote: Describe
) -> None:
    script = r"printf 'out\n\n'; printf 'err' >&2"
    commands.up_with(remote("r", create=script), local("l", create=script)).succeeded()
    for name in ("r", "l"):
        assert commands.outputs(name)["stdout"] == "out\n"
        assert commands.outputs(name)["stderr"] == "err"


def test_stdin_arrives_whole_and_ends(commands: CommandProject, remote: Describe) -> None:
    text = "0123456789abcde\n" * (8 * MEGABYTE // 16)
    digest = hashlib.sha256(text.encode()).hexdigest()
    count = "sha256sum | cut -d ' ' -f 1"
    commands.up_with(
        remote("r", create=count, stdin=text),
        local("l", create="wc -c", stdin=text[:MEGABYTE]),
        remote("none", create="wc -c"),
        remote("unread", create="echo done", stdin=text[:MEGABYTE]),
        local("unread-here", create="echo done", stdin=text[:MEGABYTE]),
        remote("script", create="bash -s a 'b c'", stdin='for word; do echo "<$word>"; done\n'),
    ).succeeded()
    assert commands.outputs("r")["stdout"] == digest
    assert commands.outputs("l")["stdout"].strip() == str(MEGABYTE)
    assert commands.outputs("none")["stdout"].strip() == "0"
    assert commands.outputs("unread")["stdout"] == "done"
    assert commands.outputs("unread-here")["stdout"] == "done"
    assert commands.outputs("script")["stdout"] == "<a>\n<b c>"


SHOWN = {
    None: ["err", "out"],
    "stdoutAndStderr": ["err", "out"],
    "stdout": ["out"],
    "stderr": ["err"],
    "none": [],
}


def test_the_chosen_streams_are_shown_while_the_command_runs(
    commands: CommandProject, remote: Describe
) -> None:
    inputs = {"create": "echo out; echo err >&2"}
    run = commands.up_with(
        *(remote(f"remote-{logging}", **inputs, logging=logging) for logging in SHOWN),
        *(local(f"local-{logging}", **inputs, logging=logging) for logging in SHOWN),
    ).succeeded()
    for logging, shown in SHOWN.items():
        for name in (f"remote-{logging}", f"local-{logging}"):
            assert sorted(run.live_lines(name)) == shown
            assert commands.outputs(name)["stdout"] == "out"
            assert commands.outputs(name)["stderr"] == "err"


def test_every_line_is_shown_in_order_also_when_there_are_many(commands: CommandProject) -> None:
    run = commands.up_with(local("l", create="seq 1 30000")).succeeded()
    lines = run.live_lines("l")
    assert lines == [str(number) for number in range(1, 30001)]


@pytest.mark.better("the official provider hangs on a logged line of 64 KiB")
def test_long_lines_without_newline_are_captured_whole_and_shown_in_part(
    commands: CommandProject, remote: Describe
) -> None:
    lengths = (60_000, 70_000, 3_000_000)

    def script(length: int) -> str:
        return f"head -c {length} /dev/zero | tr '\\0' x; echo end >&2"

    run = commands.up_with(
        *(remote(f"remote-{length}", create=script(length)) for length in lengths),
        *(local(f"local-{length}", create=script(length)) for length in lengths),
    ).succeeded()
    for length in lengths:
        for name in (f"remote-{length}", f"local-{length}"):
            assert commands.outputs(name)["stdout"] == "x" * length
            assert "end" in run.live_lines(name)
            assert max(len(line) for line in run.live_lines(name)) < 20_000


def test_output_of_25_megabytes_is_captured_whole(
    commands: CommandProject, remote: Describe
) -> None:
    script = f"head -c {25 * MEGABYTE} /dev/zero | tr '\\0' x"
    commands.up_with(remote("r", create=script, logging="none")).succeeded()
    assert len(commands.outputs("r")["stdout"]) == 25 * MEGABYTE


@pytest.mark.better("the official provider fails on output that is not UTF-8")
def test_output_that_is_no_text_is_kept_as_far_as_it_is(commands: CommandProject) -> None:
    commands.up_with(local("l", create=r"printf 'a\377b'")).succeeded()
    assert commands.outputs("l")["stdout"] == "a\N{REPLACEMENT CHARACTER}b"


def test_a_failing_command_is_an_error_with_code_or_signal_text_and_output(
    commands: CommandProject, remote: Describe
) -> None:
    script = 'echo "what happened"; echo why >&2; exit 3'
    run = commands.up_with(
        remote("r", create=script),
        local("l", create=script),
        remote("killed-r", create="kill -KILL $$"),
        local("killed-l", create="kill -KILL $$"),
        remote("only-stderr", create="echo careful >&2"),
        flags=("--continue-on-error",),
    ).failed()
    assert "Process exited with status 137 from signal KILL" in run.errors("killed-r")
    assert "signal: killed" in run.errors("killed-l")
    assert commands.outputs("only-stderr")["stderr"] == "careful"
    shown = r'running "echo \"what happened\"; echo why >&2; exit 3":'
    assert f"Process exited with status 3: {shown}" in run.errors("r")
    assert f"exit status 3: {shown}" in run.errors("l")
    for name in ("r", "l"):
        assert "what happened\n" in run.errors(name)
        assert "why" in run.errors(name)


@pytest.mark.better("the official provider sends all of it")
def test_a_failure_with_much_output_is_reported_with_the_end_of_it(
    commands: CommandProject, remote: Describe
) -> None:
    script = f"head -c {20 * MEGABYTE} /dev/zero | tr '\\0' x; echo; echo the end; exit 4"
    run = commands.up_with(remote("r", create=script, logging="none")).failed()
    assert "status 4" in run.errors("r")
    assert "the end" in run.errors("r")
    assert "characters left out" in run.errors("r")


@pytest.mark.better("the official provider shows commands with their secrets when they fail")
def test_secrets_are_replaced_in_errors_and_in_lines_that_are_shown(
    commands: CommandProject, remote: Describe
) -> None:
    password = "hunter2-and-more"  # noqa: S105 - the secret of this test
    in_text = Secret(f"test {password} = x")
    in_environment = {"PASSWORD": Secret(password)}
    run = commands.up_with(
        remote("text", create=in_text),
        remote("stdin", create="cat; exit 1", stdin=Secret(password)),
        local("local-text", create=in_text),
        local("variable", create='echo "got $PASSWORD"; exit 1', environment=in_environment),
        flags=("--continue-on-error",),
    ).failed()
    assert password not in run.text
    assert password not in str(run.events)
    for name in ("text", "stdin", "local-text", "variable"):
        assert "[secret]" in run.errors(name)
    assert "got [secret]" in run.errors("variable")
    assert 'running "cat; exit 1"' in run.errors("stdin")


def test_secret_inputs_are_encrypted_in_the_state_and_arrive_in_the_command(
    commands: CommandProject, remote: Describe
) -> None:
    commands.up_with(
        remote("r", create="sha256sum", stdin=Secret("very secret text"), logging="none"),
        local("l", create="echo ${#WORD}", environment={"WORD": Secret("another secret")}),
    ).succeeded()
    digest = hashlib.sha256(b"very secret text").hexdigest()
    assert commands.outputs("r")["stdout"].startswith(digest)
    assert commands.outputs("l")["stdout"] == str(len("another secret"))
    state = commands.state_text()
    assert "very secret text" not in state
    assert "another secret" not in state
    assert "PRIVATE KEY" not in state
