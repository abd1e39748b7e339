"""The RabbitMQ node of this host: what it says of itself, and how it is spoken to."""

import base64
import contextlib
import json
import os
import re
import shlex
import shutil
import tempfile
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from host import command, unit
from host.command import Completed
from host.errors import HostError
from host.packing import free_bytes

UNIT = "rabbitmq-server.service"
HOME = "/var/lib/rabbitmq"
PRIVATE = "epibackup-"
ASK_SECONDS = 120
ANSWER_SECONDS = 300
"""How long a node may take to answer after its start: it waits for tables of other nodes."""
RESERVE_BYTES = 64 << 20
"""RabbitMQ blocks publishers when less than its disk_free_limit is left, by default 50 MB."""

# One expression, because each call of rabbitmqctl starts an Erlang node. All of it is known to
# 3.7 to 3.13; what a version lacks is null. JSON in base64, because an Erlang term would be
# folded and escaped as the shell of Erlang likes it.
DESCRIBE = """
T = fun(F) -> try F() catch _:_ -> null end end,
S = fun(X) when is_atom(X) -> atom_to_binary(X, utf8);
       (X) when is_binary(X) -> X;
       (X) -> unicode:characters_to_binary(X) end,
G = fun(A, K) -> T(fun() -> {ok, V} = application:get_env(A, K), S(V) end) end,
N = fun(K) -> [S(X) || X <- mnesia:system_info(K)] end,
base64:encode(rabbit_json:encode(#{
  running => T(fun() -> rabbit:is_running() end),
  version => T(fun() -> {ok, V} = application:get_key(rabbit, vsn), S(V) end),
  erlang => S(erlang:system_info(otp_release)),
  node => S(node()),
  cluster_name => T(fun() -> S(rabbit_nodes:cluster_name()) end),
  members => T(fun() -> N(db_nodes) end),
  running_members => T(fun() -> N(running_db_nodes) end),
  data => T(fun() -> S(rabbit_mnesia:dir()) end),
  quorum_data => G(ra, data_dir),
  stream_data => G(osiris, data_dir),
  feature_flags => G(rabbit, feature_flags_file),
  plugins_file => G(rabbit, enabled_plugins_file),
  config_files => T(fun() -> [S(X) || X <- rabbit:config_files()] end),
  home => T(fun() -> {ok, [[H]]} = init:get_argument(home), S(H) end),
  listeners => T(fun() -> [[S(element(3, L)), S(inet:ntoa(element(5, L))), element(6, L),
      T(fun() -> S(proplists:get_value(ip, element(7, L))) end)]
    || L <- rabbit_networking:active_listeners(), element(2, L) =:= node()] end)
})).
"""

# messages_persistent is what a restart keeps: ready and unacknowledged, without transient ones.
# Quorum queues have no such item, but all of theirs are persistent.
COUNT = """
C = fun(I) -> case proplists:get_value(messages_persistent, I) of
    N when is_integer(N) -> N;
    _ -> case proplists:get_value(messages, I) of N when is_integer(N) -> N; _ -> null end end end,
base64:encode(rabbit_json:encode([[V, element(4, proplists:get_value(name, I)), C(I)]
  || V <- rabbit_vhost:list(),
     I <- rabbit_amqqueue:info_all(V, [name, durable, messages_persistent, messages]),
     proplists:get_value(durable, I)])).
"""


Counts = Dict[Tuple[str, str], Optional[int]]
"""Messages of queues, by vhost and name; None where a queue does not say."""


class Node:
    """The node that the unit rabbitmq-server runs.

    user: the service's own user, as whom rabbitmqctl runs: the wrapper that root would get
        passes its arguments through a shell.
    """

    def __init__(self) -> None:
        shown = command.run(
            ["systemctl", "show", "--property=LoadState,User,Environment", "--", UNIT]
        )
        known = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
        if known.get("LoadState") != "loaded":
            raise HostError(
                "RabbitMQ is not installed on this host: there is no unit " + UNIT,
                "install it first, or correct the inventory's group rabbitmq",
            )
        self.user = known.get("User") or "rabbitmq"
        words = shlex.split(known.get("Environment", ""))
        self._environment = dict(word.partition("=")[::2] for word in words if "=" in word)

    def control(
        self, *arguments: str, check: bool = True, timeout_seconds: float = ASK_SECONDS
    ) -> Completed:
        """Run rabbitmqctl against this node; arguments have to be ASCII, and no secrets."""
        return self.tool("rabbitmqctl", *arguments, check=check, timeout_seconds=timeout_seconds)

    def tool(
        self, program: str, *arguments: str, check: bool = True, timeout_seconds: float
    ) -> Completed:
        """Run one of RabbitMQ's programs as the service's user."""
        return command.run(
            [command.find(program) or program, "-q", *arguments],
            user=self.user,
            directory=HOME,
            extra_environment=dict(self._environment),
            timeout_seconds=timeout_seconds,
            check=check,
        )

    def ask(self, expression: str, *arguments: str) -> Any:
        """What an Erlang expression that makes base64 of JSON says on the node."""
        said = self.control("eval", expression, *arguments).stdout
        text = "".join(re.findall(r'"([A-Za-z0-9+/=]*)"', said))
        return json.loads(base64.b64decode(text).decode("utf-8"))

    def describe(self) -> Dict[str, Any]:
        """What the node says of itself; raises HostError if it does not answer."""
        try:
            found: Dict[str, Any] = self.ask(DESCRIBE)
        except (HostError, ValueError) as error:
            said = error.message if isinstance(error, HostError) else "its answer is no JSON"
            said = said.partition("Current node details")[0]  # they have a hash of the cookie
            said = " ".join(said.split())
            raise HostError(
                "RabbitMQ on this host does not answer: " + said, self._advice()
            ) from None
        if not found["running"]:
            raise HostError(
                "the node %s is up, but RabbitMQ is stopped in it" % found["node"],
                "start it: rabbitmqctl start_app",
            )
        paths = found["config_files"] or []  # 3.7 names those that are not there, too
        found["config_files"] = [path for path in paths if os.path.isfile(path)]
        return found

    def _advice(self) -> str:
        if unit.is_active(UNIT):
            return "see what it says: rabbitmqctl status, journalctl --unit " + UNIT
        return "start it: systemctl start " + UNIT

    def answers(self) -> bool:
        """Whether RabbitMQ is running in the node, and says so."""
        try:
            asked = self.control("eval", "rabbit:is_running().", check=False, timeout_seconds=30)
        except HostError:
            return False
        return asked.code == 0 and asked.stdout.strip() == "true"

    def wait(self) -> None:
        """Wait until the node answers; raises HostError if it does not in ANSWER_SECONDS."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self.answers():
            if time.monotonic() > deadline:
                raise HostError(
                    "RabbitMQ was started and does not answer after %d seconds" % ANSWER_SECONDS,
                    self._advice(),
                )
            time.sleep(1)

    def counts(self) -> Optional[Counts]:
        """Persistent messages of each durable queue; None if the node does not say."""
        try:
            rows = self.ask(COUNT)
        except (HostError, ValueError):
            return None
        return {(vhost, name): count for vhost, name, count in rows}

    @contextlib.contextmanager
    def private_folder(self) -> Iterator[str]:
        """A folder in which rabbitmqctl may read and write files, and nobody else but root.

        Not standard input and output: what is no ASCII would depend on the locale.
        Raises HostError if there is hardly any space.
        """
        free = free_bytes(HOME)
        if free < RESERVE_BYTES:
            raise HostError(
                "%d MiB are free on the disk of %s: nothing is written there" % (free >> 20, HOME),
                "free space on it: RabbitMQ itself stops taking messages soon",
            )
        remove_private_folders()  # of a process that was killed: there is one at a time
        folder = tempfile.mkdtemp(prefix=PRIVATE, dir=HOME)
        try:
            shutil.chown(folder, self.user)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_private_folders() -> None:
    """Remove what `private_folder` leaves when it is killed."""
    for name in os.listdir(HOME) if os.path.isdir(HOME) else []:
        if name.startswith(PRIVATE):
            shutil.rmtree(os.path.join(HOME, name), ignore_errors=True)


def host_of(node: str) -> str:
    """The host's part of a node's name."""
    return node.partition("@")[2]


def version_numbers(version: str) -> List[int]:
    """A version as numbers that compare; what is no number ends it."""
    numbers = []
    for part in version.split("."):
        match = re.match(r"\d+", part)
        if not match:
            break
        numbers.append(int(match.group()))
    return numbers
