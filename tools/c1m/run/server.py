"""The server of a run, with its backend: configuration, start, memory and CPU of its processes."""
import os
import subprocess
import time

from measure import Reports, by_name, plain_request, processes

# Files of a connection manager that are not clients', with a reserve for the uneven spread.
FILES_SPARE = 2500
PORTS_MIN = 8

CONFIG = """\
[global]
include={tree}/etc/internal.conf
rundir={folder}
ipc_prefix=
port_offset=0
stats_connection_ttl=600

[runner]
services=connmgr,proxy,handler
http_port={ports}
logdir={logs}
log_level=2
client_buffer_size=4096
client_maxconn={maxconn}
connmgr_processes={processes}
connmgr_workers={workers}

[proxy]
routesfile=routes
{several}
[handler]
{several}push_in_spec=tcp://127.0.0.1:{push_port}
push_in_sub_specs=tcp://127.0.0.1:{sub_port}
push_in_http_addr=127.0.0.1
push_in_http_port={control_port}
stats_spec=ipc://{{rundir}}/stats
command_spec=tcp://127.0.0.1:{command_port}
stats_report_interval=5
stats_format=json
"""


class Server:
    """Supervisor, connection managers, proxy and handler, and the backend behind them."""

    def __init__(self, args, folder, files):
        base = args.port
        self.args, self.folder = args, folder
        self.ports = list(range(base, base + args.ports))
        self.control = f"127.0.0.1:{base + 100}"
        self.backend = f"127.0.0.1:{base + 101}"
        self.processes = args.processes or self.processes_for(args.connections, files)
        self.empty = {}
        self.children = []

    @staticmethod
    def processes_for(connections, files):
        """Connection managers that so many clients need."""
        return 1 if files >= connections + FILES_SPARE else -(-connections // (files - FILES_SPARE))

    def start(self):
        self.configure()
        self.run("backend", [self.args.loadgen, "backend", "--listen", self.backend,
                             "--keep-alive", str(self.args.keep_alive)])
        self.main = self.run("server", [self.args.programs + "/pushpin",
                                        f"--config={self.folder}/pushpin.conf"])
        end = time.monotonic() + 60
        while any(plain_request(port, "/plain", 5) is None for port in self.ports):
            if self.main.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server does not answer; see {self.args.out}/logs")
            time.sleep(0.3)

    def configure(self):
        logs = os.path.join(self.args.out, "logs")
        os.makedirs(logs, exist_ok=True)
        base = self.ports[0]
        with open(os.path.join(self.folder, "pushpin.conf"), "w") as f:
            f.write(CONFIG.format(
                tree=self.args.tree, folder=self.folder, logs=logs, processes=self.processes,
                workers=self.args.workers,
                # One worker is the default, and has other names for its sockets.
                several=f"workers={self.args.workers}\n" if self.args.workers > 1 else "",
                ports=",".join(map(str, self.ports)), maxconn=self.args.connections + 1000,
                control_port=base + 100, push_port=base + 102, sub_port=base + 103,
                command_port=base + 104))
        with open(os.path.join(self.folder, "routes"), "w") as f:
            f.write(f"* {self.backend}\n")

    def run(self, name, command):
        with open(os.path.join(self.args.out, "logs", name + ".out"), "w") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.children.append(child)
        return child

    def is_alive(self):
        return self.main.poll() is None

    def figures(self):
        """Memory (PSS), CPU and wake-ups of the server's processes, by name."""
        return {row["name"]: row for row in by_name(processes(self.main.pid))}

    def memory_kib(self):
        return sum(row["pss_kib"] for row in self.figures().values())

    def report(self):
        """What the server itself says: its newest `report`, and the connections in it."""
        try:
            return Reports(f"ipc://{self.folder}/stats").latest(25)
        except (OSError, ValueError) as e:
            return {"error": str(e)}

    def stop(self):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
