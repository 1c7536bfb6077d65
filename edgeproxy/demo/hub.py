"""Redis as the hub, with the users of docs/operations/hub.md: edges may do what they do, and no more."""

import shutil
import subprocess

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
VERSION = 7
EDGE_RIGHTS = "~rl:* +fcall +cluster|slots +asking +getrange +set +time"
LOADER_RIGHTS = "+function|load +cluster|slots"


def explain_missing() -> str | None:
    """Return why no Redis can be started here; None where one can."""
    if SERVER is None:
        return "there is no redis-server here: on Debian and Ubuntu `sudo apt-get install redis-server` installs it"
    version = subprocess.run([SERVER, "--version"], check=False, capture_output=True, text=True).stdout
    major = version.partition(" v=")[2].partition(".")[0]
    if not major.isdigit() or int(major) < VERSION:
        return f"{SERVER} is older than Redis {VERSION}: {version.strip()}"
    return None


def build_configuration(port: int, folder: str, edge_password: str, loader_password: str) -> str:
    """Return what `redis-server -` reads."""
    return f"""bind 127.0.0.1
port {port}
dir "{folder}"
appendonly yes
save ""
maxmemory-policy noeviction
proto-max-bulk-len 16mb
user default off
user edge on >{edge_password} {EDGE_RIGHTS}
user loader on >{loader_password} {LOADER_RIGHTS}
"""
