"""The place of a run: a network and process numbers of its own, so that every port is free, and
nothing outlives the command. Used by `million` before anything else."""
import fcntl
import os
import resource
import shutil
import socket
import struct
import sys

INSIDE = "C1M_INSIDE"

# Kernel settings of a network namespace; docs/million.md says what each is for.
SYSCTLS = {
    "net/ipv4/ip_local_port_range": "10240 65000",
    "net/ipv4/tcp_rmem": "4096 4096 16384",
    "net/ipv4/tcp_wmem": "4096 4096 16384",
    "net/ipv4/tcp_max_syn_backlog": "65535",
    "net/core/somaxconn": "65535",
}


def enter():
    """Starts this command again in a place of its own; returns there."""
    if os.environ.get(INSIDE):
        prepare()
        return
    unshare = shutil.which("unshare")
    if not unshare:
        sys.exit("the program unshare (util-linux) is missing; --here runs without it")
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = [unshare, *own_user, "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
               sys.executable, *sys.argv]
    os.execve(unshare, command, dict(os.environ, **{INSIDE: "1"}))


def prepare():
    loopback_up()
    for name, value in SYSCTLS.items():
        try:
            with open(f"/proc/sys/{name}", "w") as f:
                f.write(value)
        except OSError as e:
            print(f"{name} stays as it is: {e}", file=sys.stderr)


def loopback_up():
    """What `ip link set lo up` does."""
    siocgifflags, siocsifflags, iff_up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        answer = fcntl.ioctl(s, siocgifflags, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(s, siocsifflags, struct.pack("16sh14x", b"lo", flags | iff_up))


def raise_files():
    """Raises the limit of open files as far as it goes; gives it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
