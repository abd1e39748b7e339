"""Getting definitions out of a node and into it: by rabbitmqctl, or by the management API.

rabbitmqctl has the commands since 3.8.2 (rabbitmq-cli pull request 387). Before that, only the
management plugin can; it is used where it is enabled and a login is given.
"""

import base64
import json
import os
import ssl
import stat
import urllib.error
import urllib.request
from typing import Any, Dict, List, Optional

from components.rabbitmq.host.definitions import importable
from components.rabbitmq.host.node import Node
from host.errors import HostError

IMPORT_SECONDS = 3600
API_SECONDS = 300
UNKNOWN_COMMAND = 64
"""rabbitmqctl's exit code for a command that it does not have (EX_USAGE)."""
SETTINGS_HINT = (
    "set epibackup:rabbitmq management: user, and password_file, a file of this host that only "
    "root may read"
)

# Removes what a restore has made. Names come as JSON in an argument, which is why it is ASCII.
# Functions that have been there since 3.7.
DELETE = """
A = <<"epibackup">>,
R = fun rabbit_misc:r/3,
K = fun(<<"queue">>) -> queue; (<<"exchange">>) -> exchange end,
lists:foreach(fun
  ([<<"bindings">>, V, From, To, Kind, Key, Arguments]) ->
    [rabbit_binding:remove(B, A)
      || B <- rabbit_binding:list_for_source_and_destination(
                R(V, exchange, From), R(V, K(Kind), To)),
         element(3, B) =:= Key,
         rabbit_json:decode(rabbit_json:encode(rabbit_misc:amqp_table(element(5, B))))
           =:= Arguments];
  ([<<"queues">>, V, N]) ->
    case rabbit_amqqueue:lookup(R(V, queue, N)) of
      {ok, Q} ->
        case proplists:get_value(messages, rabbit_amqqueue:info(Q, [messages])) of
          M when is_integer(M), M > 0 -> kept;
          _ -> rabbit_amqqueue:delete(Q, false, false, A) end;
      _ -> gone end;
  ([<<"exchanges">>, V, N]) -> rabbit_exchange:delete(R(V, exchange, N), false, A);
  ([<<"policies">>, V, N]) -> rabbit_policy:delete(V, N, A);
  ([<<"parameters">>, V, C, N]) -> rabbit_runtime_parameters:clear_any(V, C, N, A);
  ([<<"global_parameters">>, N]) ->
    rabbit_runtime_parameters:clear_global(binary_to_atom(N, utf8), A);
  ([<<"topic_permissions">>, U, V, E]) ->
    rabbit_auth_backend_internal:clear_topic_permissions(U, V, E, A);
  ([<<"permissions">>, U, V]) -> rabbit_auth_backend_internal:clear_permissions(U, V, A);
  ([<<"vhosts">>, N]) -> rabbit_vhost:delete(N, A);
  ([<<"users">>, N]) -> rabbit_auth_backend_internal:delete_user(N, A)
end, rabbit_json:decode(_1)).
"""
LARGEST_ARGUMENT_BYTES = 60000
"""Linux takes 128 KiB in one argument (execve(2), MAX_ARG_STRLEN)."""


class Transfer:
    """One way in and out.

    settings: `management` of the service's settings, or None: user, password_file, url, ca_file.
    """

    def __init__(self, node: Node, settings: Optional[Dict[str, Any]]) -> None:
        self._node = node
        self._settings = settings
        self.way = "rabbitmqctl"

    def export(self) -> Dict[str, Any]:
        """All definitions of the node's cluster, as an import takes them."""
        exported = self._export_by_tool()
        if exported is None:
            exported = self._ask_api("GET")
            self.way = "management API"
        if not isinstance(exported, dict) or not isinstance(exported.get("vhosts"), list):
            raise HostError("the exported definitions have no vhosts: this is no export")
        return importable(exported)

    def load(self, definitions: Dict[str, Any]) -> None:
        """Import definitions; what is there and not in them stays.

        Raises HostError if the node refuses them. It does not for what it leaves as it is.
        """
        text = json.dumps(definitions)
        with self._node.private_folder() as folder:
            path = os.path.join(folder, "definitions.json")
            _write_for(folder, path, text)
            done = self._node.control(
                "import_definitions", path, check=False, timeout_seconds=IMPORT_SECONDS
            )
        if done.code == UNKNOWN_COMMAND:
            self._ask_api("POST", text)
        elif done.code != 0:
            raise HostError("the definitions were refused: " + _last(done.stderr or done.stdout))

    def delete(self, objects: List[List[Any]]) -> None:
        """Remove objects: each a kind and what tells it from others; see DELETE."""
        portion: List[List[Any]] = []
        for item in objects:
            if len(json.dumps([*portion, item])) > LARGEST_ARGUMENT_BYTES:
                self._delete(portion)
                portion = []
            portion.append(item)
        self._delete(portion)

    def _delete(self, objects: List[List[Any]]) -> None:
        if objects:
            self._node.control("eval", DELETE, json.dumps(objects), timeout_seconds=IMPORT_SECONDS)

    def _export_by_tool(self) -> Optional[Any]:
        """What rabbitmqctl exports; None if it has no such command."""
        with self._node.private_folder() as folder:
            path = os.path.join(folder, "definitions.json")
            done = self._node.control(
                "export_definitions", path, check=False, timeout_seconds=IMPORT_SECONDS
            )
            if done.code == UNKNOWN_COMMAND:
                return None
            if done.code != 0:
                raise HostError(
                    "the definitions were not exported: " + _last(done.stderr or done.stdout)
                )
            with open(path, encoding="utf-8") as stream:
                try:
                    return json.load(stream)
                except ValueError as error:
                    raise HostError("the exported definitions are no JSON: %s" % error) from None

    def _ask_api(self, method: str, body: Optional[str] = None) -> Any:
        """Ask the management API; raises HostError where it is not enabled or there is no login."""
        settings = self._settings or {}
        address = settings.get("url") or self._api_address()
        if not address:
            raise HostError(
                "this RabbitMQ cannot export definitions by rabbitmqctl (that came with 3.8.2), "
                "and its management plugin is not enabled",
                "enable it yourself, if you want to: rabbitmq-plugins enable rabbitmq_management; "
                + SETTINGS_HINT,
            )
        if not settings.get("user") or not settings.get("password_file"):
            raise HostError(
                "this RabbitMQ cannot export definitions by rabbitmqctl (that came with 3.8.2), "
                "and its management API needs an administrator's login",
                SETTINGS_HINT,
            )
        login = "%s:%s" % (settings["user"], read_password(settings["password_file"]))
        request = urllib.request.Request(  # noqa: S310 - the address is checked
            address.rstrip("/") + "/api/definitions",
            data=body.encode("utf-8") if body is not None else None,
            method=method,
            headers={
                "Authorization": "Basic " + base64.b64encode(login.encode("utf-8")).decode("ascii"),
                "Content-Type": "application/json",
            },
        )
        if not address.startswith(("http://", "https://")):
            raise HostError("the management API's address %r is no URL" % address)
        # No proxy: this is the host's own server.
        handlers: List[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if address.startswith("https://"):
            context = ssl.create_default_context(cafile=settings.get("ca_file"))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        opener = urllib.request.build_opener(*handlers)
        try:
            with opener.open(request, timeout=API_SECONDS) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            raise _refused(error, address, settings) from None
        except OSError as error:
            raise HostError(
                "the management API at %s cannot be asked: %s" % (address, error),
                "set url in epibackup:rabbitmq management, and ca_file if it has a private CA",
            ) from None
        return json.loads(answer.decode("utf-8")) if answer.strip() else None

    def _api_address(self) -> Optional[str]:
        """Where the management plugin listens, as the node says; None if it does not."""
        for protocol, address, port, configured in self._node.describe()["listeners"] or []:
            if protocol in ("http", "https"):
                place = configured or address
                place = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(place, place)  # noqa: S104
                return "%s://%s:%d" % (protocol, "[%s]" % place if ":" in place else place, port)
        return None


def _refused(error: urllib.error.HTTPError, address: str, settings: Dict[str, Any]) -> HostError:
    if error.code in (401, 403):
        return HostError(
            "the management API at %s refuses the user %s" % (address, settings["user"]),
            "it has to have the tag administrator, and its password in %s"
            % settings["password_file"],
        )
    said = error.read(2000).decode("utf-8", "replace")
    return HostError("the management API at %s said %d: %s" % (address, error.code, said))


def read_password(path: str) -> str:
    """The first line of a file that only root may read; raises HostError for another file."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise HostError("the password file cannot be read: %s" % error, SETTINGS_HINT) from None
    if status.st_uid != 0 or stat.S_IMODE(status.st_mode) & 0o077:
        raise HostError(
            "%s may be read by others than root" % path, "chown root:root, chmod 0600 %s" % path
        )
    with open(path, encoding="utf-8") as stream:
        return stream.readline().rstrip("\r\n")


def _write_for(folder: str, path: str, text: str) -> None:
    """Write a file that only the owner of its folder may read."""
    owner = os.stat(folder)
    with open(path, "w", encoding="utf-8") as stream:
        os.fchmod(stream.fileno(), 0o600)
        os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
        stream.write(text)


def _last(output: str) -> str:
    """What rabbitmqctl says when it fails, on one line; it quotes names, and no hashes."""
    return " ".join(line.strip() for line in output.splitlines() if line.strip())[:1000]
