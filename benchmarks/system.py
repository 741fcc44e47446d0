"""The machine that runs the benchmarks: its programs, free ports, and its description."""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path


def require_program(name: str, package: str) -> str:
    """Return the path of a program. Install its Debian package if it is missing; exit if that is impossible."""
    path = shutil.which(name)
    if path is None:
        install_package(package)
        path = shutil.which(name)
    if path is None:
        sys.exit(f"Error: The package {package} has no program {name} in PATH.")
    return path


def install_package(package: str) -> None:
    """Install a Debian package, as root or by sudo; exit if that is impossible."""
    if shutil.which("apt-get") is None:
        sys.exit(f"Error: {package} is missing, and there is no apt-get to install it. Install it first.")
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if as_root and shutil.which("sudo") is None:
        sys.exit(f"Error: {package} is missing, and installing it requires root. Install it first.")
    print(f"Installing {package} …", flush=True)
    environment = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive"]
    update = [*environment, "apt-get", "update", "-qq"]
    install = [*environment, "apt-get", "install", "-qq", "-y", "--no-install-recommends", package]
    for command in (update, install):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"Error: Cannot install {package}: {result.stderr.strip()}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def describe_machine() -> str:
    """Return processor, cores, memory and operating system in one line."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    processor = model[1] if model else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{processor}, {cores} cores, {memory:.0f} GB of memory, Linux {platform.release()}"
