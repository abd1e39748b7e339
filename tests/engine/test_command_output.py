"""What goes into commands and what comes out of them: streams, sizes, exit codes, secrets."""

import hashlib
from collections.abc import Callable

import pytest

from tests.engine.support.inline_program import Secret
from tests.engine.support.projects import Run
from tests.engine.support.resources import CommandProject, Resource, local

MEGABYTE = 1024 * 1024
TEXT = "0123456789abcde\n" * (8 * MEGABYTE // 16)
PASSWORD = "hunter2-and-more"  # noqa: S105 - the secret of these tests
SHOWN = {
    None: ["err", "out"],
    "stdoutAndStderr": ["err", "out"],
    "stdout": ["out"],
    "stderr": ["err"],
    "none": [],
}
EVERY = ("--continue-on-error",)

Describe = Callable[..., Resource]


@pytest.fixture(scope="module")
def run(shared: CommandProject, remote: Describe) -> Run:
    """One update with commands of many kinds, some of which fail."""
    two_streams = r"printf 'out\n\n'; printf 'err' >&2"
    talk = {"create": "echo out; echo err >&2"}
    failing = 'echo "what happened"; echo why >&2; exit 3'
    secret_text = Secret(f"test {PASSWORD} = x")
    resources = [
        remote("remote-streams", create=two_streams),
        local("local-streams", create=two_streams),
        remote("stdin", create="sha256sum | cut -d ' ' -f 1", stdin=TEXT, logging="none"),
        local("local-stdin", create="wc -c", stdin=TEXT[:MEGABYTE]),
        remote("no-stdin", create="wc -c"),
        remote("unread", create="echo done", stdin=TEXT[:MEGABYTE]),
        local("local-unread", create="echo done", stdin=TEXT[:MEGABYTE]),
        remote("script", create="bash -s a 'b c'", stdin='for word; do echo "<$word>"; done\n'),
        *(remote(f"remote-{logging}", **talk, logging=logging) for logging in SHOWN),
        *(local(f"local-{logging}", **talk, logging=logging) for logging in SHOWN),
        local("no-text", create=r"printf 'a\377b'"),
        remote("remote-failing", create=failing),
        local("local-failing", create=failing),
        remote("remote-killed", create="kill -KILL $$"),
        local("local-killed", create="kill -KILL $$"),
        remote("secret-command", create=secret_text),
        local("local-secret-command", create=secret_text),
        remote("secret-stdin", create="cat; exit 1", stdin=Secret(PASSWORD)),
        local("secret-variable", create='echo "got $PASSWORD"; exit 1',
              environment={"PASSWORD": Secret(PASSWORD)}),
        remote("arrived", create="sha256sum", stdin=Secret(PASSWORD), logging="none"),
        local("local-arrived", create="echo ${#WORD}", environment={"WORD": Secret(PASSWORD)}),
    ]  # fmt: skip
    return shared.up_with(*resources, flags=EVERY).failed()


def test_both_streams_are_captured_apart_and_lose_one_newline_at_the_end(
    run: Run, shared: CommandProject
) -> None:
    for name in ("remote-streams", "local-streams"):
        assert shared.outputs(name)["stdout"] == "out\n"
        assert shared.outputs(name)["stderr"] == "err"


def test_stdin_arrives_whole_and_ends(run: Run, shared: CommandProject) -> None:
    assert shared.outputs("stdin")["stdout"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert shared.outputs("local-stdin")["stdout"].strip() == str(MEGABYTE)
    assert shared.outputs("no-stdin")["stdout"].strip() == "0"
    assert shared.outputs("script")["stdout"] == "<a>\n<b c>"


def test_stdin_that_a_command_does_not_read_does_not_matter(
    run: Run, shared: CommandProject
) -> None:
    assert shared.outputs("unread")["stdout"] == "done"
    assert shared.outputs("local-unread")["stdout"] == "done"


@pytest.mark.parametrize("logging", SHOWN)
def test_the_chosen_streams_are_shown_while_the_command_runs(
    logging: str | None, run: Run, shared: CommandProject
) -> None:
    for name in (f"remote-{logging}", f"local-{logging}"):
        assert sorted(run.live_lines(name)) == SHOWN[logging]
        assert shared.outputs(name)["stdout"] == "out"
        assert shared.outputs(name)["stderr"] == "err"


@pytest.mark.better("the official provider fails on output that is not UTF-8")
def test_output_that_is_no_text_is_kept_as_far_as_it_is(run: Run, shared: CommandProject) -> None:
    assert shared.outputs("no-text")["stdout"] == "a\N{REPLACEMENT CHARACTER}b"


def test_a_failing_command_is_an_error_with_code_or_signal_text_and_output(run: Run) -> None:
    shown = r'running "echo \"what happened\"; echo why >&2; exit 3":'
    assert f"Process exited with status 3: {shown}" in run.errors("remote-failing")
    assert f"exit status 3: {shown}" in run.errors("local-failing")
    for name in ("remote-failing", "local-failing"):
        assert "what happened\n" in run.errors(name)
        assert "why" in run.errors(name)
    assert "Process exited with status 137 from signal KILL" in run.errors("remote-killed")
    assert "signal: killed" in run.errors("local-killed")


@pytest.mark.better("the official provider shows commands with their secrets when they fail")
def test_secrets_are_replaced_in_errors_and_in_lines_that_are_shown(run: Run) -> None:
    assert PASSWORD not in run.text
    assert PASSWORD not in str(run.events)
    for name in ("secret-command", "local-secret-command", "secret-stdin", "secret-variable"):
        assert "[secret]" in run.errors(name)
    assert "got [secret]" in run.errors("secret-variable")
    assert 'running "cat; exit 1"' in run.errors("secret-stdin")


def test_secret_inputs_are_encrypted_in_the_state_and_arrive_in_the_command(
    run: Run, shared: CommandProject
) -> None:
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    assert shared.outputs("arrived")["stdout"].startswith(digest)
    assert shared.outputs("local-arrived")["stdout"] == str(len(PASSWORD))
    assert PASSWORD not in shared.state_text()
    assert "PRIVATE KEY" not in shared.state_text()


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


@pytest.mark.better("the official provider sends all of it")
def test_a_failure_with_much_output_is_reported_with_the_end_of_it(
    commands: CommandProject, remote: Describe
) -> None:
    script = f"head -c {20 * MEGABYTE} /dev/zero | tr '\\0' x; echo; echo the end; exit 4"
    run = commands.up_with(remote("r", create=script, logging="none")).failed()
    assert "status 4" in run.errors("r")
    assert "the end" in run.errors("r")
    assert "characters left out" in run.errors("r")
