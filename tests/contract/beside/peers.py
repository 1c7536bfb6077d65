"""nginx and Caddy as reverse proxies with few words of configuration: one port for each upstream."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process

NGINX_CONF = """
daemon off;
master_process off;
{user}
pid {folder}/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{servers}
}}
"""
NGINX_SERVER = """
    upstream u{upstream} {{ server {host}:{upstream}; keepalive 4; }}
    server {{ listen {host}:{port}; location / {{ proxy_pass http://u{upstream}; }} }}
"""

CADDYFILE = """
{{
    admin off
    auto_https off
    grace_period 1s
    log {{
        level ERROR
    }}
}}
{servers}
"""
CADDY_SERVER = """
http://:{port} {{
    bind {host}
    reverse_proxy {host}:{upstream}
}}
"""

Ports = Mapping[int, int]
"""port -> the port of its upstream."""


def binary(name: str) -> str:
    """The path of a program, also where sbin is not on the PATH of an ordinary user."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert found is not None, f"{name} is not on this machine"
    return found


def servers(template: str, ports: Ports) -> str:
    """A part of a configuration for each port."""
    return "".join(template.format(host=HOST, port=port, upstream=upstream) for port, upstream in ports.items())


def nginx(folder: Path, ports: Ports) -> Process:
    """Start nginx on these ports."""
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(NGINX_CONF.format(folder=folder, user=user, servers=servers(NGINX_SERVER, ports)))
    return Process([binary("nginx"), "-p", folder, "-c", configuration, "-e", "stderr"], folder / "nginx.log")


def caddy(folder: Path, ports: Ports) -> Process:
    """Start Caddy on these ports."""
    configuration = folder / "Caddyfile"
    configuration.write_text(CADDYFILE.format(servers=servers(CADDY_SERVER, ports)))
    command = [binary("caddy"), "run", "--config", configuration, "--adapter", "caddyfile"]
    return Process(command, folder / "caddy.log", environ={"HOME": str(folder), "XDG_DATA_HOME": str(folder)})


PEERS = {"nginx": nginx, "caddy": caddy}
"""The functions that start each proxy."""
