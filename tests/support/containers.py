"""Services of a compose file as containers of an OCI runtime, in a network namespace where all names are 127.0.0.1."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from loadtest.testbed.process import Process

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
CRUN = shutil.which("crun") or "crun"
IP = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") or "ip"
UNSHARE = shutil.which("unshare") or "unshare"
UNIFIED = 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"'
"""A shell command that runs another one with only version 2 of control groups, because crun refuses a mixture."""
STOPPED_SECONDS = 15


def run(*command: str | Path) -> str:
    """Run a command to its end and return its output; raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """Replace ${NAME} and ${NAME:-default}, as docker compose does."""
    return VARIABLE.sub(lambda found: environ.get(found[1]) or found[2] or "", text)


class Image:
    """A mounted image of this machine's storage: its files and its settings."""

    def __init__(self, name: str, ends: ExitStack) -> None:
        self.settings = json.loads(run("buildah", "inspect", "--type", "image", name))["Docker"]["config"]
        container = run("buildah", "from", "--pull-never", name).strip()
        ends.callback(run, "buildah", "rm", container)
        self.root = run("buildah", "mount", container).strip()


class Compose:
    """The services of a compose file that are built here. Each starts on demand, in a network of their own or the
    `host`'s.
    """

    def __init__(
        self, file: Path, images: Mapping[str, Image], folder: Path, ends: ExitStack, *, host: bool = False
    ) -> None:
        self._services = yaml.safe_load(file.read_text())["services"]
        self.images = images
        self._file, self._folder, self._ends = file, folder, ends
        self.space = f"image-{os.getpid()}"
        self._namespaces = [{"type": kind} for kind in ("pid", "ipc", "mount")]
        if not host:
            run(IP, "netns", "add", self.space)
            ends.callback(run, "ip", "netns", "del", self.space)
            run(IP, "-n", self.space, "link", "set", "lo", "up")
            self._namespaces.append({"type": "network", "path": f"/run/netns/{self.space}"})
        self._hosts = folder / "hosts"
        self._hosts.write_text(f"127.0.0.1 localhost {' '.join(self._services)}\n")
        self.environ: dict[str, str] = {}
        """The environment of docker compose."""

    def start_beside(self, *command: str) -> Process:
        """Start a program of this machine in the namespace."""
        process = Process([IP, "netns", "exec", self.space, *command], self._folder / f"log-{command[0]}", fork=False)
        self._ends.callback(process.stop, STOPPED_SECONDS)
        return process

    def ask(self, *arguments: str) -> str:
        """Send a request with curl from within the namespace; raises CalledProcessError for a status of 400 or more."""
        return run(
            "ip", "netns", "exec", self.space, "curl", "--silent", "--show-error", "--fail-with-body", *arguments
        )

    def start(self, service: str, command: Sequence[str] | None = None) -> "Container":
        """Start a service, or another command of its image with its environment and volumes (`compose run`)."""
        number = len(list(self._folder.glob("bundle-*")))
        bundle = self._folder / f"bundle-{number}"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._runtime_settings(self._services[service], command)))
        container = Container(f"{self.space}-{number}", bundle, self._folder / "crun")
        self._ends.callback(container.delete)
        return container

    def run(self, service: str, *command: str) -> str:
        """Run a command of a service's image to its end, and return its output; fails unless it exits with 0."""
        container = self.start(service, command)
        assert container.process.wait(120) == 0, container.process.output
        return container.process.output

    def _runtime_settings(self, service: Mapping[str, Any], command: Sequence[str] | None) -> dict[str, Any]:
        """Return the settings of the OCI runtime: the service's settings over the image's."""
        image = self.images[service["image"]]
        environ = {
            name: interpolate(str(value), self.environ) for name, value in service.get("environment", {}).items()
        }
        user, _, group = image.settings["User"].partition(":")
        words = [*image.settings["Entrypoint"], *(command or service.get("command") or image.settings.get("Cmd") or ())]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        return {
            "ociVersion": "1.0.0",
            "process": {
                "args": words,
                "env": [*image.settings["Env"], *(f"{name}={value}" for name, value in environ.items())],
                "cwd": image.settings["WorkingDir"] or "/",
                "user": {"uid": int(user), "gid": int(group)},
                "capabilities": {},
                "noNewPrivileges": "no-new-privileges:true" in service["security_opt"],
            },
            "root": {"path": image.root, "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {
                    "destination": "/dev/shm",
                    "type": "tmpfs",
                    "source": "shm",
                    "options": ["nosuid", "noexec", "mode=1777"],
                },
                *(
                    {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
                    for path in service.get("tmpfs", ())
                ),
                {"destination": "/etc/hosts", "type": "bind", "source": str(self._hosts), "options": ["bind", "ro"]},
                *(self._mount(volume, int(user), int(group)) for volume in service.get("volumes", ())),
            ],
            "linux": {"namespaces": self._namespaces},
        }

    def _mount(self, volume: str, user: int, group: int) -> dict[str, Any]:
        """Return a mount of the runtime: a directory of the project, or a named volume, which is a directory here."""
        source, destination, *options = volume.split(":")
        path = (
            (self._file.parent / source).resolve()
            if source.startswith((".", "/"))
            else self._folder / f"volume-{source}"
        )
        if not path.exists():  # A new volume gets the owner of the image's directory.
            path.mkdir(mode=0o700)
            os.chown(path, user, group)
        return {"destination": destination, "type": "bind", "source": str(path), "options": ["bind", *options]}


class Container:
    """A running container."""

    def __init__(self, name: str, bundle: Path, state: Path) -> None:
        self._crun = (
            UNSHARE,
            "--mount",
            "sh",
            "-c",
            UNIFIED,
            "sh",
            CRUN,
            "--cgroup-manager=disabled",
            f"--root={state}",
        )
        self._name = name
        command = [*self._crun, "run", "--bundle", bundle, name]
        self.process = Process(command, bundle / "log", fork=False)

    def execute(self, *command: str) -> int:
        """Run a command in the container, and return its exit code."""
        return subprocess.run(
            [*self._crun, "exec", self._name, *command], capture_output=True, text=True, check=False
        ).returncode

    def kill(self, signal: str) -> None:
        """Send a signal to its first process."""
        run(*self._crun, "kill", self._name, signal)

    def delete(self) -> None:
        """Stop the container, if it runs, and delete it."""
        subprocess.run([*self._crun, "delete", "--force", self._name], capture_output=True, check=False)
        self.process.stop(STOPPED_SECONDS)
