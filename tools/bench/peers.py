"""The servers that are measured, each started in a folder of its own."""

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.request

from machine import LOADGEN, OURS, Proc, free_ports, log, read, wait_port


def certificate(folder, name):
    """NAME.crt and NAME.key in the folder, for localhost."""
    base = os.path.join(folder, name)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", base + ".key", "-out", base + ".crt"], check=True, capture_output=True)


class Peer:
    """A running server. `client` takes clients, `publish` is how to publish."""

    stream_path = "/stream?topic={topic}&ka={ka}"
    ws_path = "/ws?topic={topic}"
    zmq_port = None

    def __init__(self, dir, keep_alive=55):
        self.dir = dir
        self.keep_alive = keep_alive
        self.procs = []

    def start(self):
        self.backend_port, self.client, self.control = free_ports(3)
        self.start_backend()
        self.server = Proc(self.command(), os.path.join(self.dir, "server.log"))
        wait_port(self.client, self.server)
        wait_port(self.control, self.server)
        self.warm_up()

    def start_backend(self):
        self.backend = Proc([LOADGEN, "backend", "--listen", f"127.0.0.1:{self.backend_port}"],
                            os.path.join(self.dir, "backend.log"))
        wait_port(self.backend_port, self.backend)

    def warm_up(self):
        pass

    def pids(self):
        return self.server.pids()

    def stop(self):
        for p in ("server", "backend"):
            if hasattr(self, p):
                getattr(self, p).stop()

    def target(self):
        return f"127.0.0.1:{self.client}"

    def topic_path(self, kind, topic):
        path = self.ws_path if kind == "ws" else self.stream_path
        return path.format(topic=topic, ka=self.keep_alive)

    def publish_args(self, kind):
        return ["--http", f"127.0.0.1:{self.control}", "--batch", "50",
                "--formats", "ws-message" if kind == "ws" else "http-stream"]

    def publish_command(self, kind, count, rate=0.0, channels=1, channel="t-{n}", grace=5.0, order="round-robin"):
        # One channel is fed over one connection, so that order can be checked.
        return [LOADGEN, "publish", *self.publish_args(kind), "-n", str(count), "-r", str(rate),
                "--conns", str(min(channels, 8)),
                "-k", str(channels), "--channel", channel, "--grace", str(grace), "--order", order]

    def publish(self, *args, **kw):
        command = self.publish_command(*args, **kw)
        out = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if out.returncode:
            raise RuntimeError(out.stderr)
        return json.loads(out.stdout)


class Floor(Peer):
    def command(self):
        ka = self.keep_alive if self.keep_alive < 55 else 0
        return [LOADGEN, "floor", "--listen", self.target(), "--control", f"127.0.0.1:{self.control}",
                "--keep-alive", str(ka)]


class Pushpin(Peer):
    """Any server that takes pushpin's command line and configuration."""

    raised = False
    extra_global = f"include={os.environ.get('TARGET_INCLUDE', '{libdir}/internal.conf')}\n"
    extra_runner = "services=connmgr,proxy,handler\n"
    extra_proxy = ""
    zmq = False

    def __init__(self, command, dir, keep_alive=55):
        super().__init__(dir, keep_alive)
        self.base = shlex.split(command)

    def command(self):
        self.zmq_port, sub, cmd = free_ports(3)
        for d in ("run", "log"):
            os.makedirs(os.path.join(self.dir, d), exist_ok=True)
        rate = "message_rate=10000000\nmessage_hwm=10000000\n" if self.raised else ""
        with open(os.path.join(self.dir, "pushpin.conf"), "w") as f:
            f.write(f"""[global]
{self.extra_global}rundir={self.dir}/run
ipc_prefix=bench-
port_offset=0

[runner]
{self.extra_runner}http_port=127.0.0.1:{self.client}
logdir={self.dir}/log
log_level=2
client_buffer_size=8192
client_maxconn=19000

[proxy]
routesfile=routes
{self.extra_proxy}
[handler]
push_in_spec=tcp://127.0.0.1:{self.zmq_port}
push_in_sub_specs=tcp://127.0.0.1:{sub}
push_in_http_addr=127.0.0.1
push_in_http_port={self.control}
command_spec=tcp://127.0.0.1:{cmd}
{rate}""")
        with open(os.path.join(self.dir, "routes"), "w") as f:
            f.write(f"*,path_beg=/ws 127.0.0.1:{self.backend_port},over_http\n"
                    f"* 127.0.0.1:{self.backend_port}\n")
        return [*self.base, "--config", os.path.join(self.dir, "pushpin.conf")]

    def warm_up(self):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(f"http://{self.target()}/plain", timeout=1) as r:
                    if r.status == 200:
                        return
            time.sleep(0.1)
        raise RuntimeError("the server does not proxy")

    def publish_args(self, kind):
        if not self.zmq:
            return super().publish_args(kind)
        return ["--push", f"127.0.0.1:{self.zmq_port}",
                "--formats", "ws-message" if kind == "ws" else "http-stream"]


class Debian(Pushpin):
    """Pushpin 1.36 with the HTTP client worker of its distribution package."""

    extra_global = "include={libdir}/internal.conf\n"
    extra_runner = "services=condure,zurl,pushpin-proxy,pushpin-handler\n"
    extra_proxy = ("zurl_out_specs=ipc://{rundir}/{ipc_prefix}zurl-in\n"
                   "zurl_out_stream_specs=ipc://{rundir}/{ipc_prefix}zurl-in-stream\n"
                   "zurl_in_specs=ipc://{rundir}/{ipc_prefix}zurl-out\n")


class DebianRaised(Debian):
    raised = True


class DebianZmq(Debian):
    zmq = True


class Nginx(Peer):
    """nginx: nchan for held connections, proxy_pass for plain requests."""

    workers = 2
    access_log = "off"
    stream_path = "/sub?topic={topic}"
    ws_path = "/subws?topic={topic}"

    def command(self):
        authorize = "nchan_authorize_request /auth;"
        conf = os.path.join(self.dir, "nginx.conf")
        with open(conf, "w") as f:
            f.write(f"""
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
user root;
worker_processes {self.workers};
worker_rlimit_nofile 20000;
pid {self.dir}/nginx.pid;
error_log {self.dir}/error.log warn;
events {{ worker_connections 19500; }}
http {{
  access_log {self.access_log.format(dir=self.dir)};
  client_max_body_size 0;
  client_body_temp_path {self.dir}/t1; proxy_temp_path {self.dir}/t2; fastcgi_temp_path {self.dir}/t3;
  uwsgi_temp_path {self.dir}/t4; scgi_temp_path {self.dir}/t5;
  nchan_shared_memory_size 256M;
  keepalive_requests 1000000000;
  upstream backend {{ server 127.0.0.1:{self.backend_port}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{self.client} backlog=4096;
    listen 127.0.0.1:{self.control};
    location = /sub {{
      nchan_subscriber eventsource; nchan_channel_id $arg_topic; {authorize}
      nchan_subscriber_first_message newest; nchan_eventsource_ping_interval {self.keep_alive};
      nchan_eventsource_ping_comment ""; nchan_eventsource_ping_event ""; nchan_eventsource_ping_data "";
    }}
    location = /subws {{
      nchan_subscriber websocket; nchan_channel_id $arg_topic; {authorize}
      nchan_subscriber_first_message newest;
    }}
    location = /pub {{
      nchan_publisher http; nchan_channel_id $arg_id;
      nchan_message_buffer_length 1; nchan_message_timeout 10s;
    }}
    location = /auth {{
      internal; proxy_pass http://backend/plain; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_pass_request_body off; proxy_set_header Content-Length "";
    }}
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}
  }}
}}
""")
        return ["/usr/sbin/nginx", "-p", self.dir, "-c", conf]

    def publish_args(self, kind):
        return ["--http", f"127.0.0.1:{self.control}", "--style", "raw", "--path", "/pub?id={channel}"]


class Nginx1(Nginx):
    workers = 1


class NginxProxy(Nginx):
    """nginx for plain requests: it writes a line per request, as the other proxies do."""

    access_log = "{dir}/access.log combined buffer=64k flush=1s"


class Direct(Peer):
    """No proxy at all: the backend itself."""

    def command(self):
        return [LOADGEN, "floor", "--listen", f"127.0.0.1:{self.client}",
                "--control", f"127.0.0.1:{self.control}"]

    def target(self):
        return f"127.0.0.1:{self.backend_port}" if hasattr(self, "server") else f"127.0.0.1:{self.client}"


def peers():
    out = {
        "ours": lambda *a: Pushpin(OURS, *a),
        "floor": Floor,
        "pushpin136": lambda *a: Debian("/usr/bin/pushpin", *a),
        "pushpin136-raised": lambda *a: DebianRaised("/usr/bin/pushpin", *a),
        "pushpin136-zmq": lambda *a: DebianZmq("/usr/bin/pushpin", *a),
        "nchan": Nginx,
        "nchan-1worker": Nginx1,
        "nginx": NginxProxy,
        "direct": Direct,
    }
    for pair in filter(None, os.environ.get("PEERS", "").split(";")):
        name, _, command = pair.partition("=")
        out[name.strip()] = lambda *a, c=command: Pushpin(c, *a)
    if os.environ.get("TARGET"):
        out["target"] = lambda *a: Pushpin(os.environ["TARGET"], *a)
    return out


@contextlib.contextmanager
def running(name, keep_alive=55, factories=None):
    """A server in its own directory; started again if a port was taken meanwhile."""
    for attempt in range(4):
        dir = tempfile.mkdtemp(prefix="bench-")
        os.chmod(dir, 0o755)
        peer = (factories or peers())[name](dir, keep_alive)
        try:
            peer.start()
        except RuntimeError as e:
            log("  start failed:", e, read(os.path.join(dir, "server.log"))[-300:]
                if os.path.exists(os.path.join(dir, "server.log")) else "")
            peer.stop()
            shutil.rmtree(dir, ignore_errors=True)
            continue
        try:
            yield peer
        finally:
            peer.stop()
            if not os.environ.get("KEEP"):
                shutil.rmtree(dir, ignore_errors=True)
        return
    raise RuntimeError(f"{name} does not start")
