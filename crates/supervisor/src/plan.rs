//! From the settings to the children: their command lines, log and pid files, and the addresses
//! that have to be free (spec/programs.md §2.2, §2.3). No I/O; called by `run`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use admin::Address;
use config::services::Services;
use config::{Settings, specs};
use evloop::local::FileOwner;

use crate::certs;
use crate::fault::fault;
use crate::levels::Levels;
use crate::limits::Size;
use crate::ports::{Listener, listeners};
use crate::values;

/// The longest path of a unix socket, without the zero at its end.
const SOCKET_PATH_MAX: usize = 107;

/// Most clients of a connection manager, which may have 100 more in req mode (spec/connmgr.md §1).
const CLIENTS_MAX: i64 = 9_999_900;

/// What a connection manager takes as the size of a buffer.
const BUFFER_BYTES: (i64, i64) = (256, 16 << 20);

/// What the kernel takes as `TCP_KEEPIDLE`, seconds.
const KEEPALIVE_MAX_S: i64 = 32_767;

/// What a connection manager takes as `TCP_USER_TIMEOUT`: 20 days.
const USER_TIMEOUT_MAX_S: i64 = 20 * 24 * 3600;

/// What the command line adds to the settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub port: Option<String>,
    pub id: Option<u32>,
    pub routes: Vec<String>,
    pub merge_output: bool,
    pub levels: Levels,
    /// The limit of open files in force.
    pub files: u64,
    /// The working directory.
    pub cwd: PathBuf,
    /// The config file as it is passed on to the children.
    pub config: PathBuf,
}

impl Wanted {
    /// The ipc prefix that `--id` asks for.
    pub fn ipc_prefix(&self) -> Option<String> {
        self.id.map(|id| format!("p{id}-"))
    }

    /// The port offset that `--id` asks for; 0 leaves that of the config file.
    pub fn port_offset(&self) -> Option<i64> {
        self.id.filter(|id| *id > 0).map(|id| i64::from(id) * 10)
    }
}

/// Where the output of a child goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Into the supervisor's own, with the child's name.
    Merged,
    /// Into a file, written by the supervisor.
    Gathered(PathBuf),
    /// Into a file that the child writes itself; what it prints besides goes there too.
    Own(PathBuf),
}

/// One process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChildPlan {
    /// The name in logs.
    pub name: String,
    pub program: &'static str,
    pub args: Vec<String>,
    pub output: Output,
    pub pid_file: PathBuf,
    /// Whether HUP is for it.
    pub reloads: bool,
    /// Its log level.
    pub level: u32,
    /// How many clients it takes, if it takes any.
    pub clients: Option<usize>,
}

/// A TCP address that a child will bind, and the key that says so, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub addr: SocketAddr,
    pub key: &'static str,
    pub place: String,
}

/// A whole server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub rundir: PathBuf,
    /// `None` if no log files are written.
    pub logdir: Option<PathBuf>,
    /// In start order.
    pub children: Vec<ChildPlan>,
    pub claims: Vec<Claim>,
    /// Unix sockets that the children will bind for clients.
    pub local: Vec<(PathBuf, FileOwner)>,
    /// The certificates that have to be there, if any port needs one.
    pub certs: Option<certs::Wanted>,
    /// Where metrics and health of all processes are shown, and the prefix of the names.
    pub metrics: Option<(Address, String)>,
    /// Over how long sessions are ended at a stop, milliseconds.
    pub drain_ms: u64,
    /// The supervisor's own log level.
    pub level: u32,
    /// `client_maxconn`, if this server takes clients.
    pub clients: Option<u64>,
    /// For how many of them the files of one connmgr suffice.
    pub clients_fit: u64,
    pub warnings: Vec<String>,
}

impl Plan {
    /// Plans the server.
    ///
    /// # Errors
    /// One line for the operator, naming file, line and key where there is one.
    pub fn new(settings: &Settings, wanted: &Wanted) -> Result<Self, String> {
        if settings.rundir().is_empty() {
            return Err("no directory for runtime files: set rundir in [global]".into());
        }
        settings.check();
        let services = Services::from(settings);
        let logdir = settings.string("runner", "logdir").unwrap_or_default();
        let mut planner = Planner {
            settings,
            wanted,
            workers: specs::connmgr_workers(settings),
            file_prefix: wanted.ipc_prefix().unwrap_or_default(),
            plan: Self {
                rundir: wanted.cwd.join(settings.expand(settings.rundir())),
                logdir: (!wanted.merge_output).then(|| wanted.cwd.join(logdir)),
                drain_ms: drain_ms(settings),
                level: u32::from(wanted.levels.of("runner")),
                warnings: services.warnings,
                ..Self::default()
            },
        };
        if services.connmgr {
            planner.connmgr()?;
        }
        if services.proxy {
            planner.proxy()?;
        }
        if services.handler {
            planner.handler()?;
        }
        planner.metrics()?;
        let mut plan = planner.plan;
        if plan.children.is_empty() {
            return Err("no services to start: set services in [runner]".into());
        }
        plan.warnings.extend(settings.problems().iter().map(ToString::to_string));
        Ok(plan)
    }
}

struct Planner<'a> {
    settings: &'a Settings,
    wanted: &'a Wanted,
    /// Threads of each connmgr.
    workers: usize,
    /// `--id` marks log and pid files too.
    file_prefix: String,
    plan: Plan,
}

impl Planner<'_> {
    fn add(&mut self, name: &str, file: &str, program: &'static str, args: Vec<String>) {
        let file = format!("{}{file}", self.file_prefix);
        let reloads = program != "pushpin-connmgr";
        let output = match &self.plan.logdir {
            None => Output::Merged,
            Some(dir) if reloads => Output::Own(dir.join(format!("{file}.log"))),
            Some(dir) => Output::Gathered(dir.join(format!("{file}.log"))),
        };
        let pid_file = self.plan.rundir.join(format!("{file}.pid"));
        let name = name.to_owned();
        let service = program.strip_prefix("pushpin-").unwrap_or(program);
        let level = u32::from(self.wanted.levels.of(service));
        self.plan.children.push(ChildPlan {
            name,
            program,
            args,
            output,
            pid_file,
            reloads,
            level,
            clients: None,
        });
    }

    /// The supervisor's own listener.
    fn metrics(&mut self) -> Result<(), String> {
        let Some(address) = self.claim_metrics("runner")? else { return Ok(()) };
        let prefix = self.settings.string("runner", "prometheus_prefix").unwrap_or_default();
        if !metrics::is_prefix(&prefix) {
            let text = "only letters, digits, _ and : can begin a metric's name, no digit first";
            return Err(fault(self.settings, "runner", "prometheus_prefix", text));
        }
        self.plan.metrics = Some((address, prefix));
        Ok(())
    }

    /// The address of a section's metrics; its port has to be free.
    fn claim_metrics(&mut self, section: &'static str) -> Result<Option<Address>, String> {
        let address = values::metrics(self.settings, section)?.map(|spec| spec.address);
        if let Some(Address::Tcp(addr)) = address
            && addr.port() != 0
        {
            self.claim(addr, section, "prometheus_port");
        }
        Ok(address)
    }

    fn connmgr(&mut self) -> Result<(), String> {
        let listeners = listeners(self.settings, self.wanted.port.as_deref())?;
        self.claim_listeners(&listeners);
        let processes = specs::connmgr_processes(self.settings);
        let size = Size {
            maxconn: self.number("client_maxconn", 50_000, (1, CLIENTS_MAX))?,
            processes: processes as u64,
            workers: self.workers as u64,
            listeners: listeners.len() as u64,
        };
        self.plan.clients = Some(size.maxconn);
        self.plan.local = listeners.iter().filter_map(Listener::local).collect();
        let certs = self.settings.dir().join("runner").join("certs");
        let tls: Vec<u16> = listeners.iter().filter_map(Listener::tls_port).collect();
        let has_tls = !tls.is_empty();
        self.plan.certs = has_tls.then(|| certs::Wanted { dir: certs.clone(), ports: tls });
        let share = size.share(self.wanted.files);
        self.plan.clients_fit = share.fits;
        self.plan.warnings.extend(share.warning);
        let buffer = self.number("client_buffer_size", 8192, BUFFER_BYTES)?;
        let tcp_options = self.tcp_options()?;
        for n in 0..processes {
            let name = specs::connmgr_id(n, processes);
            let mut args = vec![
                format!("--log-level={}", self.wanted.levels.of("connmgr")),
                format!("--buffer-size={buffer}"),
                format!("--stream-maxconn={}", share.maxconn),
                format!("--workers={}", self.workers),
            ];
            if self.settings.bool("runner", "allow_compression", false) {
                args.push("--compression".into());
            }
            args.extend(tcp_options.iter().cloned());
            if processes > 1 {
                args.push(format!("--id={name}"));
            }
            // a unix socket cannot be shared: the first process has it
            let own = listeners.iter().filter(|one| n == 0 || one.tcp().is_some());
            args.extend(own.map(|one| format!("--listen={}", one.spec(processes > 1))));
            args.push(format!("--zclient-stream={}", self.ipc(&name)?));
            if has_tls {
                args.push(format!("--tls-identities-dir={}", certs.display()));
            }
            if n == 0 && self.serves_client_side() {
                args.push(format!("--zserver-stream={}", self.ipc("connmgr-client")?));
                args.push("--deny-out-internal".into());
            }
            self.add(&name, &name, "pushpin-connmgr", args);
            if let Some(child) = self.plan.children.last_mut() {
                child.clients = usize::try_from(share.maxconn).ok();
            }
        }
        Ok(())
    }

    /// What connmgr is told about clients that vanish, if anything.
    fn tcp_options(&self) -> Result<Vec<String>, String> {
        let keys = [
            ("tcp_keepalive", "tcp-keepalive", KEEPALIVE_MAX_S),
            ("tcp_user_timeout", "tcp-user-timeout", USER_TIMEOUT_MAX_S),
        ];
        let given =
            keys.into_iter().filter(|(key, ..)| self.settings.nonempty("runner", key).is_some());
        given
            .map(|(key, option, most)| {
                Ok(format!("--{option}={}", self.number(key, 0, (0, most))?))
            })
            .collect()
    }

    /// Whether the proxy makes its outgoing requests over ZHTTP and not itself.
    fn serves_client_side(&self) -> bool {
        self.settings.string("proxy", "origin").is_some_and(|origin| origin == "zhttp")
    }

    fn proxy(&mut self) -> Result<(), String> {
        let mut args = self.common_args("pushpin-proxy", None, "proxy");
        args.extend(self.wanted.routes.iter().map(|line| format!("--route={line}")));
        self.add("proxy", "pushpin-proxy", "pushpin-proxy", args);
        self.claim_metrics("proxy").map(drop)
    }

    fn handler(&mut self) -> Result<(), String> {
        values::inputs(self.settings)?;
        let args = self.common_args("pushpin-handler", self.wanted.port_offset(), "handler");
        self.add("handler", "pushpin-handler", "pushpin-handler", args);
        self.claim_inputs();
        self.claim_metrics("handler").map(drop)
    }

    fn common_args(&self, file: &str, offset: Option<i64>, service: &str) -> Vec<String> {
        let mut args = vec![
            format!("--config={}", self.wanted.config.display()),
            format!("--ipc-prefix={}", self.settings.ipc_prefix()),
        ];
        args.extend(offset.map(|offset| format!("--port-offset={offset}")));
        if let Some(dir) = &self.plan.logdir {
            let path = dir.join(format!("{}{file}.log", self.file_prefix));
            args.push(format!("--logfile={}", path.display()));
        }
        args.push(format!("--loglevel={}", self.wanted.levels.of(service)));
        args
    }

    /// An address of connmgr: by the absolute rundir, or as it is written if only that fits.
    fn ipc(&self, name: &str) -> Result<String, String> {
        let file = format!("{}{name}", self.settings.ipc_prefix());
        let fits = |dir: &Path| {
            let path = dir.join(&file).display().to_string();
            (path.len() + "-out-stream".len() <= SOCKET_PATH_MAX).then(|| format!("ipc://{path}"))
        };
        let written = self.settings.expand(self.settings.rundir());
        fits(&self.plan.rundir).or_else(|| fits(Path::new(&written))).ok_or_else(|| {
            let dir = self.plan.rundir.display();
            let text = format!(
                "the socket files in {dir} would have paths longer than {SOCKET_PATH_MAX} \
                 bytes: choose a shorter one"
            );
            fault(self.settings, "global", "rundir", &text)
        })
    }

    fn number(&self, key: &str, default: i64, bounds: (i64, i64)) -> Result<u64, String> {
        values::number(self.settings, key, default, bounds)
    }

    fn claim_listeners(&mut self, listeners: &[Listener]) {
        let given = self.wanted.port.is_some();
        for (addr, key) in listeners.iter().filter_map(Listener::tcp) {
            match given {
                true => {
                    self.plan.claims.push(Claim { addr, key: "--port", place: "--port".into() })
                }
                false => self.claim(addr, "runner", key),
            }
        }
    }

    fn claim(&mut self, addr: SocketAddr, section: &str, key: &'static str) {
        let place = self.settings.place(section, key);
        self.plan.claims.push(Claim { addr, key, place });
    }

    /// The TCP addresses of the handler's inputs.
    fn claim_inputs(&mut self) {
        for key in ["push_in_spec", "stats_spec", "command_spec", "state_spec"] {
            let spec = self.settings.string("handler", key);
            self.claim_spec(spec.as_deref(), key);
        }
        if !self.settings.bool("handler", "push_in_sub_connect", false) {
            let first = |key| Some((self.settings.list("handler", key).into_iter().next()?, key));
            let lists = ["push_in_sub_specs", "push_in_sub_spec"];
            if let Some((spec, key)) = lists.into_iter().find_map(first) {
                self.claim_spec(Some(&spec), key);
            }
        }
        self.claim_control();
    }

    fn claim_spec(&mut self, spec: Option<&str>, key: &'static str) {
        if let Some(addr) = spec.and_then(tcp_of_spec) {
            self.claim(addr, "handler", key);
        }
    }

    fn claim_control(&mut self) {
        let key = "push_in_http_port";
        let port = self.settings.int("handler", key, -1);
        let port = if port > 0 { port + self.settings.port_offset() } else { 0 };
        let ip = self.settings.string("handler", "push_in_http_addr").unwrap_or_default();
        let ip =
            if ip.is_empty() { Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) } else { ip.parse().ok() };
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        if let Some(addr) = ip.zip(port).map(SocketAddr::from) {
            self.claim(addr, "handler", key);
        }
    }
}

/// `drain_time`, an hour at most.
fn drain_ms(settings: &Settings) -> u64 {
    settings.int("handler", "drain_time", 0).clamp(0, 3_600) as u64 * 1_000
}

/// The address of a `tcp://` spec, if it names one and not a name or an interface.
fn tcp_of_spec(spec: &str) -> Option<SocketAddr> {
    let rest = spec.strip_prefix("tcp://")?;
    let addr: SocketAddr = match rest.strip_prefix("*:") {
        Some(port) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.parse().ok()?)),
        None => rest.parse().ok()?,
    };
    (addr.port() != 0).then_some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Overrides;

    const BASE: &str = "[global]\nrundir=run\n[runner]\nlogdir=log\nhttp_port=7999\n";

    fn wanted() -> Wanted {
        let (cwd, config) = ("/w".into(), "c".into());
        Wanted { files: 1 << 20, cwd, config, ..Wanted::default() }
    }

    fn plan(text: &str, wanted: &Wanted) -> Result<Plan, String> {
        let overrides =
            Overrides { ipc_prefix: wanted.ipc_prefix(), port_offset: wanted.port_offset() };
        let text = format!("{BASE}{text}");
        let file = config::File::parse("c", &text);
        Plan::new(&Settings::from_main(file, "".into(), &overrides), wanted)
    }

    fn line(child: &ChildPlan) -> String {
        format!("{} {}", child.program, child.args.join(" "))
    }

    #[test]
    fn the_usual_server() {
        let plan = plan("services=condure,pushpin-proxy,pushpin-handler\n", &wanted()).unwrap();
        let lines: Vec<_> = plan.children.iter().map(line).collect();
        let expected = [
            "pushpin-connmgr --log-level=2 --buffer-size=8192 --stream-maxconn=50000 --workers=1 \
             --listen=0.0.0.0:7999,stream --zclient-stream=ipc:///w/run/pushpin-connmgr",
            "pushpin-proxy --config=c --ipc-prefix=pushpin- \
             --logfile=/w/log/pushpin-proxy.log --loglevel=2",
            "pushpin-handler --config=c --ipc-prefix=pushpin- \
             --logfile=/w/log/pushpin-handler.log --loglevel=2",
        ];
        assert_eq!(lines, expected);
        let outputs: Vec<_> = plan.children.iter().map(|child| child.output.clone()).collect();
        let expected = [
            Output::Gathered("/w/log/connmgr.log".into()),
            Output::Own("/w/log/pushpin-proxy.log".into()),
            Output::Own("/w/log/pushpin-handler.log".into()),
        ];
        assert_eq!(outputs, expected);
        assert_eq!(plan.children[0].pid_file, Path::new("/w/run/connmgr.pid"));
        assert_eq!(plan.children[2].pid_file, Path::new("/w/run/pushpin-handler.pid"));
        let reloads: Vec<_> = plan.children.iter().map(|child| child.reloads).collect();
        assert_eq!(reloads, [false, true, true]);
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn id_and_merged_output() {
        let wanted = Wanted {
            id: Some(2),
            merge_output: true,
            routes: vec!["* test".into()],
            port: Some("[::1]:80".into()),
            levels: Levels::all(3),
            ..wanted()
        };
        let text = "services=connmgr,proxy,handler\nhttps_ports=443\n[handler]\n\
                    push_in_spec=tcp://127.0.0.1:5560\npush_in_http_port=5561\n";
        let plan = plan(text, &wanted).unwrap();
        let connmgr = line(&plan.children[0]);
        assert!(connmgr.contains("--log-level=3"), "{connmgr}");
        assert!(connmgr.contains("--listen=[::1]:80,stream"), "{connmgr}");
        assert!(connmgr.contains("--zclient-stream=ipc:///w/run/p2-connmgr"), "{connmgr}");
        let expected = "pushpin-proxy --config=c --ipc-prefix=p2- --loglevel=3 --route=* test";
        assert_eq!(line(&plan.children[1]), expected);
        let expected = "pushpin-handler --config=c --ipc-prefix=p2- --port-offset=20 --loglevel=3";
        assert_eq!(line(&plan.children[2]), expected);
        assert_eq!(plan.children[2].pid_file, Path::new("/w/run/p2-pushpin-handler.pid"));
        assert_eq!((plan.logdir, &plan.children[0].output), (None, &Output::Merged));
        let claims: Vec<_> = plan.claims.iter().map(|c| (c.addr.to_string(), c.key)).collect();
        let expected = [
            ("[::1]:80".into(), "--port"),
            ("127.0.0.1:5580".into(), "push_in_spec"),
            ("0.0.0.0:5581".into(), "push_in_http_port"),
        ];
        assert_eq!(claims, expected);
    }

    #[test]
    fn the_first_instance_keeps_the_ports_of_the_file() {
        let text = "services=handler\n[handler]\npush_in_spec=tcp://127.0.0.1:5560\n[global]\n\
                    port_offset=5\n";
        let plan = plan(text, &Wanted { id: Some(0), ..wanted() }).unwrap();
        let handler = line(&plan.children[0]);
        assert!(handler.contains("--ipc-prefix=p0- --logfile=/w/log/p0-pushpin-handler.log"));
        assert!(!handler.contains("--port-offset"), "{handler}");
        assert_eq!(plan.claims[0].addr.port(), 5565);
    }

    #[test]
    fn variables_in_the_rundir_are_put_in() {
        let text = "services=connmgr\n[global]\nrundir=run-{ipc_prefix}x\n";
        let plan = plan(text, &wanted()).unwrap();
        assert_eq!(plan.rundir, Path::new("/w/run-pushpin-x"));
        assert_eq!(plan.children[0].pid_file, Path::new("/w/run-pushpin-x/connmgr.pid"));
        let connmgr = line(&plan.children[0]);
        let expected = "--zclient-stream=ipc:///w/run-pushpin-x/pushpin-connmgr";
        assert!(connmgr.contains(expected), "{connmgr}");
    }

    #[test]
    fn several_connmgr_processes_share_ports_and_clients() {
        let text = "services=connmgr\nconnmgr_processes=2\nconnmgr_workers=3\nclient_maxconn=1000\n\
                    local_ports=/s\n";
        let plan = plan(text, &wanted()).unwrap();
        let lines: Vec<_> = plan.children.iter().map(line).collect();
        for (n, line) in lines.iter().enumerate() {
            for arg in [
                &*format!("--id=connmgr-{n}"),
                "--workers=3",
                "--stream-maxconn=500",
                "--listen=0.0.0.0:7999,stream,reuseport",
                &*format!("--zclient-stream=ipc:///w/run/pushpin-connmgr-{n}"),
            ] {
                assert!(line.contains(arg), "{line} lacks {arg}");
            }
            assert_eq!(line.contains("--listen=/s,local"), n == 0);
        }
        assert_eq!(plan.children[1].name, "connmgr-1");
        assert_eq!(plan.children[1].pid_file, Path::new("/w/run/connmgr-1.pid"));
    }

    #[test]
    fn tls_ports_come_with_their_certificates() {
        let text = "services=connmgr\nhttps_ports=443\ntcp_keepalive=60\n";
        let file = config::File::parse("c", &format!("{BASE}{text}"));
        let settings = Settings::from_main(file, "/etc/p".into(), &Overrides::default());
        let plan = Plan::new(&settings, &wanted()).unwrap();
        let line = line(&plan.children[0]);
        for arg in [
            "--listen=0.0.0.0:7999,stream --listen=0.0.0.0:443,stream,tls,default-cert=default_443",
            "--tls-identities-dir=/etc/p/runner/certs",
            "--tcp-keepalive=60",
        ] {
            assert!(line.contains(arg), "{line} lacks {arg}");
        }
        assert_eq!(plan.claims[1].key, "https_ports");
    }

    #[test]
    fn the_client_side_runs_if_the_proxy_wants_it() {
        let of = |text: &str| line(&plan(text, &wanted()).unwrap().children[0]);
        let with = "services=connmgr,proxy\n[proxy]\norigin=zhttp\n";
        let expected = "--zserver-stream=ipc:///w/run/pushpin-connmgr-client --deny-out-internal";
        assert!(of(with).ends_with(expected));
        assert!(!of("services=connmgr,proxy\n").contains("--zserver-stream"));
    }

    #[test]
    fn metrics_of_all_processes_are_asked_for_and_their_ports_claimed() {
        let text = "services=proxy\nprometheus_port=127.0.0.1:9100\nprometheus_prefix=p_\n\
                    [proxy]\nprometheus_port=9101\n";
        let made = plan(text, &wanted()).unwrap();
        let claims: Vec<_> = made.claims.iter().map(|claim| claim.addr.to_string()).collect();
        assert_eq!(claims, ["0.0.0.0:9101", "127.0.0.1:9100"]);
        let (address, prefix) = made.metrics.unwrap();
        assert_eq!((address.to_string().as_str(), prefix.as_str()), ("127.0.0.1:9100", "p_"));
        for (line, expected) in [
            (
                "prometheus_port=x",
                "c:7: prometheus_port in [runner]: invalid TCP address or port: x",
            ),
            ("prometheus_port=1\nprometheus_prefix=a-", "c:8: prometheus_prefix in [runner]: only"),
        ] {
            let error = plan(&format!("services=proxy\n{line}\n"), &wanted());
            assert!(error.as_ref().unwrap_err().starts_with(expected), "{error:?}");
        }
    }

    #[test]
    fn only_named_services_are_started() {
        let plan = plan("services=handler,zurl\nhttp_port=\n", &wanted()).unwrap();
        assert_eq!(plan.children.len(), 1);
        let [zurl, twice] = plan.warnings.as_slice() else { panic!("{:?}", plan.warnings) };
        assert!(twice.contains("http_port in [runner]: is in line"), "{twice}");
        assert!(zurl.contains("zurl"), "{zurl}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, expected) in [
            ("services=zurl\n", "no services to start"),
            ("services=connmgr\nhttp_port=\n", "no server ports configured"),
            ("services=connmgr\nclient_maxconn=0\n", "c:7: client_maxconn in [runner]: must"),
            (
                "services=connmgr\nclient_buffer_size=x\n",
                "client_buffer_size in [runner]: must be a number",
            ),
            ("services=connmgr\ntcp_keepalive=40000\n", "c:7: tcp_keepalive in [runner]: must"),
            ("services=proxy\n[proxy]\nprometheus_port=x\n", "c:8: prometheus_port in [proxy]: "),
            ("services=handler\n[handler]\npush_in_spec=x\n", "c:8: push_in_spec in [handler]: "),
        ] {
            let error = plan(text, &wanted()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_long_rundir_is_used_as_written_or_refused() {
        let deep = Wanted { cwd: format!("/{}", "d".repeat(100)).into(), ..wanted() };
        let short = plan("services=connmgr\n", &deep).unwrap();
        assert!(line(&short.children[0]).contains("--zclient-stream=ipc://run/pushpin-connmgr"));
        let text = format!("services=connmgr\n[global]\nrundir=/{}\n", "r".repeat(100));
        let error = plan(&text, &deep).unwrap_err();
        assert!(error.contains("rundir"), "{error}");
    }

    #[test]
    fn only_plain_addresses_are_claimed() {
        for (spec, expected) in [
            ("tcp://127.0.0.1:5560", Some("127.0.0.1:5560")),
            ("tcp://*:5560", Some("0.0.0.0:5560")),
            ("tcp://[::1]:5560", Some("[::1]:5560")),
            ("tcp://127.0.0.1:*", None),
            ("tcp://eth0:5560", None),
            ("ipc://x", None),
        ] {
            assert_eq!(tcp_of_spec(spec).map(|addr| addr.to_string()).as_deref(), expected);
        }
    }
}
