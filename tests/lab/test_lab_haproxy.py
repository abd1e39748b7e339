"""HAProxy in the lab is real, in the layouts of Epiphany clusters."""

from lab import Container, Site
from lab.services.haproxy import CERTIFICATES, SCL_LAYOUT, HAProxy


def test_it_balances_terminates_tls_and_shows_its_error_page(site: Site) -> None:
    for balancer in site.load_balancers:
        hello = f"Hello from {balancer.host.name}\n\n200"
        assert balancer.fetch() == hello
        assert balancer.fetch(tls=True) == hello
        closed = balancer.fetch(host_header="closed.example.com")
        assert closed == "The shop is closed.\r\n\n503"


def test_hosts_have_certificates_of_their_own(site: Site) -> None:
    one, other = (balancer.fingerprint() for balancer in site.load_balancers)
    key = f"file{CERTIFICATES}/shop.pem"
    assert one[key] != other[key]


# A command, and what the fingerprint calls the thing that it changes.
CHANGES = [
    (["chmod", "0600", "/etc/haproxy/hosts.map"], "file/etc/haproxy/hosts.map"),
    (["chown", "root:root", f"{CERTIFICATES}/other.pem"], f"file{CERTIFICATES}/other.pem"),
    (["rm", "/etc/haproxy/errors/closed.http"], "file/etc/haproxy/errors/closed.http"),
    (["systemctl", "stop", "haproxy"], "answer/tls"),
]


def test_the_fingerprint_sees_a_change(clean_site: Site) -> None:
    balancer = clean_site.load_balancers[0]
    before = balancer.fingerprint()
    assert balancer.fingerprint() == before
    for command, _ in CHANGES:
        balancer.host.run(command)
    after = balancer.fingerprint()
    assert {key for key in before if before[key] != after.get(key)} > {key for _, key in CHANGES}


def test_what_was_destroyed_is_gone_until_it_is_made_again(clean_site: Site) -> None:
    balancer = clean_site.load_balancers[0]
    before = balancer.fingerprint()
    balancer.destroy()
    assert not balancer.is_running
    assert before.keys() - balancer.fingerprint().keys() > {"file/etc/haproxy/haproxy.cfg"}
    balancer.create()
    assert balancer.is_running
    assert balancer.fetch() == before["answer/http"]


def test_the_software_collection_of_rhel_keeps_its_file_behind_a_link(
    clean_host: Container,
) -> None:
    balancer = HAProxy(clean_host, SCL_LAYOUT)
    balancer.create()
    real = clean_host.run(["realpath", "/etc/haproxy/haproxy.cfg"]).stdout.strip()
    assert real == "/etc/opt/rh/rh-haproxy18/haproxy/haproxy.cfg"
    for unit in ("haproxy.service", "rh-haproxy18-haproxy.service"):
        assert clean_host.run(["systemctl", "is-active", unit]).stdout == "active\n"
    clean_host.run(["systemctl", "restart", "haproxy"])
    assert balancer.fetch() == "Hello from host1\n\n200"
    program = clean_host.run(["readlink", f"/proc/{main_pid(clean_host)}/exe"]).stdout
    assert program == "/opt/rh/rh-haproxy18/root/usr/sbin/haproxy\n"


def main_pid(host: Container) -> int:
    return int(host.run(["systemctl", "show", "--value", "--property=MainPID", "haproxy"]).stdout)
