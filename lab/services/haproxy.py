"""A real HAProxy on a host of the lab, with TLS, a map, an error page and something to answer."""

import json
from dataclasses import dataclass

from lab.container import Container

CERTIFICATES = "/etc/ssl/haproxy"
HTTP_PORT = 8080
HTTPS_PORT = 8443
STATISTICS_PORT = 9000
BACKEND_PORT = 8000
_BACKEND_UNIT = "lab-backend.service"


@dataclass(frozen=True)
class HAProxyLayout:
    """Where the configuration really is; `/etc/haproxy/haproxy.cfg` always leads there."""

    configuration: str
    unit: str

    @property
    def file(self) -> str:
        return f"{self.configuration}/haproxy.cfg"


PLAIN_LAYOUT = HAProxyLayout("/etc/haproxy", "haproxy.service")
"""Debian and Ubuntu, and everywhere from epicli 0.8 on."""

SCL_LAYOUT = HAProxyLayout("/etc/opt/rh/rh-haproxy18/haproxy", "rh-haproxy18-haproxy.service")
"""RHEL and CentOS 7 with software collections and their `-syspaths`: epicli 0.4 to 0.7."""

# Statistics are on the host's address, not on 127.0.0.1 as epicli has them: hosts share that one.
_CONFIGURATION = """\
global
    log /dev/log local0
    user haproxy
    group haproxy
    daemon
    stats socket /run/haproxy/admin.sock mode 660 level admin
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    option httplog
    log global
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    retries 0
    errorfile 503 {folder}/errors/closed.http

frontend http_front
    bind {address}:{http}
    use_backend %[req.hdr(host),lower,map({folder}/hosts.map,http_back)]

frontend https_front
    bind {address}:{https} ssl crt {certificates}/shop.pem crt {certificates}/other.pem
    default_backend http_back

listen statistics
    bind {address}:{statistics}
    stats enable
    stats uri /stats
    stats auth admin:haproxy-password

backend http_back
    option httpchk GET /
    server self {address}:{backend} check inter 200ms rise 1 fall 2

backend closed_back
    server nobody {address}:1
"""
_ERROR_PAGE = """\
HTTP/1.0 503 Service Unavailable\r
Content-Type: text/plain\r
\r
The shop is closed.\r
"""
_OVERRIDE = "[Service]\nLimitNOFILE=16384\n"
_BACKEND = """\
[Unit]
Description=Something for HAProxy to balance
Before={unit}

[Service]
DynamicUser=yes
ExecStart=/usr/bin/python3 -m http.server {port} --bind {address} --directory /srv/lab-backend
# Started is when it answers: HAProxy would take it for down, and a test for broken.
ExecStartPost=/bin/sh -c "until curl -s -o /dev/null http://{address}:{port}; do sleep 0.05; done"

[Install]
WantedBy=multi-user.target
"""
# What Red Hat's rh-haproxy18 package has, by the names of its own folders.
_SCL_UNIT = """\
[Unit]
Description=HAProxy Load Balancer
After=network.target

[Service]
Environment="CONFIG={file}" "PIDFILE=/run/rh-haproxy18-haproxy.pid"
RuntimeDirectory=haproxy
ExecStartPre=/opt/rh/rh-haproxy18/root/usr/sbin/haproxy -f $CONFIG -c -q
ExecStart=/opt/rh/rh-haproxy18/root/usr/sbin/haproxy -Ws -f $CONFIG -p $PIDFILE
ExecReload=/opt/rh/rh-haproxy18/root/usr/sbin/haproxy -f $CONFIG -c -q
ExecReload=/bin/kill -USR2 $MAINPID
KillMode=mixed
Type=notify

[Install]
WantedBy=multi-user.target
"""


class HAProxy:
    """A load balancer on `host`, in front of one small web server on the same host."""

    def __init__(self, host: Container, layout: HAProxyLayout = PLAIN_LAYOUT) -> None:
        self.host = host
        self.layout = layout

    def create(self) -> None:
        """Writes certificates, configuration and units, and starts everything."""
        if self.layout is SCL_LAYOUT:
            self._install_collection()
        self._write_certificates()
        folder = self.layout.configuration
        self.host.write(f"{folder}/errors/closed.http", _ERROR_PAGE)
        self.host.write(f"{folder}/hosts.map", "closed.example.com closed_back\n")
        self.host.write(self.layout.file, self.configuration())
        drop_in = f"/etc/systemd/system/{self.layout.unit}.d/override.conf"
        self.host.write(drop_in, _OVERRIDE)
        self.host.write("/srv/lab-backend/index.html", f"Hello from {self.host.name}\n")
        backend = _BACKEND.format(
            port=BACKEND_PORT, address=self.host.address, unit=self.layout.unit
        )
        self.host.write(f"/etc/systemd/system/{_BACKEND_UNIT}", backend)
        self.host.run(["systemctl", "daemon-reload"])
        units = [_BACKEND_UNIT, self.layout.unit]
        self.host.run(["systemctl", "enable", "--quiet", *units])
        self.host.run(["systemctl", "restart", *units])

    def configuration(self) -> str:
        """The text of haproxy.cfg."""
        return _CONFIGURATION.format(
            folder=self.layout.configuration,
            address=self.host.address,
            certificates=CERTIFICATES,
            http=HTTP_PORT,
            https=HTTPS_PORT,
            statistics=STATISTICS_PORT,
            backend=BACKEND_PORT,
        )

    def start(self) -> None:
        self.host.run(["systemctl", "start", self.layout.unit])

    def stop(self) -> None:
        self.host.run(["systemctl", "stop", self.layout.unit])

    @property
    def is_running(self) -> bool:
        ask = ["systemctl", "is-active", "--quiet", self.layout.unit]
        return self.host.run(ask, check=False).returncode == 0

    def destroy(self) -> None:
        """The disaster of a drill: stopped, and configuration and certificates are gone."""
        self.stop()
        folders = {"/etc/haproxy", self.layout.configuration, CERTIFICATES}
        self.host.run(["rm", "--recursive", "--force", *sorted(folders)])

    def fetch(self, path: str = "/", *, host_header: str = "", tls: bool = False) -> str:
        """Asks the load balancer for a page, from inside its host: the body, a newline, the status.

        With TLS the certificate must be that of shop.example.com. The status is 000 when there is
        no answer.
        """
        port, scheme = (HTTPS_PORT, "https") if tls else (HTTP_PORT, "http")
        options = ["--silent", "--max-time", "10", "--write-out", "\n%{http_code}"]
        if tls:
            options += ["--cacert", f"{CERTIFICATES}/shop.crt"]
            options += ["--connect-to", f"::{self.host.address}:{port}"]
        name = "shop.example.com" if tls else self.host.address
        header = ["--header", f"Host: {host_header}"] if host_header else []
        url = f"{scheme}://{name}:{port}{path}"
        return self.host.run(["curl", *options, *header, url], check=False).stdout.strip()

    def fingerprint(self) -> dict[str, str]:
        """What makes up the load balancer: each file's mode, owner and content (or where it
        links to), and what it answers by HTTP, by TLS and for a closed backend."""
        unit = self.layout.unit
        places = [
            *("/etc/haproxy", self.layout.configuration, CERTIFICATES),
            *(f"/etc/systemd/system/{unit}.d", f"/usr/lib/systemd/system/{unit}"),
        ]
        listed = self.host.run(["python3", "-c", _LIST_FILES, *dict.fromkeys(places)]).stdout
        files: dict[str, str] = json.loads(listed)
        return files | {
            "answer/http": self.fetch(),
            "answer/tls": self.fetch(tls=True),
            "answer/closed": self.fetch(host_header="closed.example.com"),
        }

    def _write_certificates(self) -> None:
        """Two self-signed certificates, each with its key in one file as HAProxy wants it.

        Certificates differ from host to host and from lab to lab; fingerprints tell.
        """
        self.host.run(["install", "-d", "--mode=0755", CERTIFICATES])
        for name in ("shop", "other"):
            key, certificate = f"{CERTIFICATES}/{name}.key", f"{CERTIFICATES}/{name}.crt"
            self.host.run(
                [
                    *("openssl", "req", "-x509", "-newkey", "ec"),
                    *("-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"),
                    *("-subj", f"/CN={name}.example.com"),
                    *("-addext", f"subjectAltName=DNS:{name}.example.com"),
                    *("-keyout", key, "-out", certificate),
                ]
            )
            both = self.host.read(certificate) + self.host.read(key)
            self.host.write(f"{CERTIFICATES}/{name}.pem", both, 0o640, "root:haproxy")
            self.host.run(["rm", key])

    def _install_collection(self) -> None:
        """Makes Debian's HAProxy look like the software collection's, with its system paths."""
        program = "/opt/rh/rh-haproxy18/root/usr/sbin/haproxy"
        self.host.run(["systemctl", "mask", "--now", "--quiet", "haproxy.service"])
        self.host.run(["install", "-D", "/usr/sbin/haproxy", program])
        unit = _SCL_UNIT.format(file=self.layout.file)
        self.host.write(f"/usr/lib/systemd/system/{self.layout.unit}", unit)
        self.host.run(["mkdir", "--parents", self.layout.configuration])
        self.host.run(["rm", "--recursive", "--force", "/etc/haproxy"])
        self.host.run(["mkdir", "/etc/haproxy"])
        self.host.run(["ln", "--symbolic", self.layout.file, "/etc/haproxy/haproxy.cfg"])
        # The -syspaths package makes the unit known under its usual name.
        alias = "/etc/systemd/system/haproxy.service"
        target = f"/usr/lib/systemd/system/{self.layout.unit}"
        self.host.run(["ln", "--symbolic", "--force", target, alias])
        self.host.run(["systemctl", "daemon-reload"])


# Run inside the host: path to what is there, as one JSON object.
_LIST_FILES = """
import hashlib, json, os, sys
found = {}
for place in sys.argv[1:]:
    paths = [place]
    for folder, folders, files in os.walk(place):
        paths += [os.path.join(folder, name) for name in folders + files]
    for path in paths:
        if not os.path.lexists(path):
            continue
        status = os.lstat(path)
        text = "%o %d:%d " % (status.st_mode, status.st_uid, status.st_gid)
        if os.path.islink(path):
            text += "-> " + os.readlink(path)
        elif os.path.isfile(path):
            with open(path, "rb") as file:
                text += hashlib.sha256(file.read()).hexdigest()
        found["file" + path] = text
print(json.dumps(found))
"""
