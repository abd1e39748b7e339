"""What belongs to an HAProxy configuration is found in it."""

from pathlib import Path

from components.haproxy.host import referenced


def test_files_that_a_configuration_names_are_found(tmp_path: Path) -> None:
    for name in ("site.pem", "ca.pem", "503.http", "hosts.map", "script.lua", "commented.pem"):
        (tmp_path / name).touch()
    (tmp_path / "certs").mkdir()
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"""
global
    crt-base {tmp_path}
    lua-load {tmp_path}/script.lua
    stats socket /run/haproxy/admin.sock
# bind :443 ssl crt {tmp_path}/commented.pem
frontend web
    bind :443 ssl crt site.pem ca-file {tmp_path}/ca.pem
    bind :444 ssl crt {tmp_path}/certs
    errorfile 503 {tmp_path}/503.http
    use_backend %[req.hdr(host),lower,map({tmp_path}/hosts.map,default)]
    server a 10.0.0.1:80 check
    option httpchk GET /health
"""
    )
    names = {path.removeprefix(f"{tmp_path}/") for path in referenced(str(config))}
    assert names == {"site.pem", "ca.pem", "503.http", "hosts.map", "script.lua", "certs"}
