//! The ZeroMQ addresses between the processes (spec/config.md §6.6, §6.7).
//!
//! They are built in. The main file may set them, and an include that is not named
//! `internal.conf` too: an `internal.conf` of an older package that was left on the disk names
//! sockets that no process of this one binds.

use std::path::Path;

use crate::Settings;

/// How many connection managers there are (`[runner] connmgr_processes`), 1 to 1000.
pub fn connmgr_processes(settings: &Settings) -> usize {
    count(settings, "runner", "connmgr_processes", 1000)
}

/// How many proxy workers there are (`[proxy] workers`), 1 to 1024.
pub fn proxy_workers(settings: &Settings) -> usize {
    count(settings, "proxy", "workers", 1024)
}

/// How many shards the handler has (`[handler] workers`), 1 to 1024.
pub fn handler_workers(settings: &Settings) -> usize {
    count(settings, "handler", "workers", 1024)
}

/// How many workers a connection manager has (`[runner] connmgr_workers`), 1 to 1024.
pub fn connmgr_workers(settings: &Settings) -> usize {
    count(settings, "runner", "connmgr_workers", 1024)
}

/// A number from 1 to `most`; another one counts as the nearest of these, which is noted.
fn count(settings: &Settings, section: &str, key: &str, most: i64) -> usize {
    let asked = settings.int(section, key, 1);
    let count = asked.clamp(1, most);
    if count != asked {
        settings.note(section, key, &format!("{asked} counts as {count}"));
    }
    count as usize
}

/// The id of connection manager `n` of `of`: `connmgr`, or `connmgr-0` and so on.
pub fn connmgr_id(n: usize, of: usize) -> String {
    if of == 1 { "connmgr".to_owned() } else { format!("connmgr-{n}") }
}

/// The addresses of an outside ZHTTP client, which makes the proxy's requests for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSpecs {
    /// PUSH, connect: first packets.
    pub out: Vec<String>,
    /// ROUTER, connect: later packets.
    pub out_stream: Vec<String>,
    /// SUB, connect: what comes back.
    pub input: Vec<String>,
}

impl ClientSpecs {
    /// The client that the main file names: a connection manager (`connmgr_client_*`), zurl
    /// (`zurl_*`), or with `[proxy] origin=zhttp` the connection manager of this server. Without
    /// any the proxy makes its requests itself.
    ///
    /// # Errors
    /// If not all three addresses of one are there.
    pub fn from(settings: &Settings) -> Result<Option<Self>, String> {
        let reader = Reader { settings, section: "proxy" };
        let named = |new: &str, old: &str| {
            let list = |name: &str| {
                let (new, old) = (format!("{new}_{name}_specs"), format!("{old}_{name}_specs"));
                reader.list(&[&new, &old])
            };
            Self { out: list("out"), out_stream: list("out_stream"), input: list("in") }
        };
        let named = [named("connmgr_client", "condure_client"), named("zurl", "zurl")];
        for specs in named {
            let missing = [&specs.out, &specs.out_stream, &specs.input].map(Vec::is_empty);
            match missing.iter().filter(|missing| **missing).count() {
                0 => return Ok(Some(specs)),
                3 => {}
                _ => return Err(CLIENT_SPECS_MISSING.to_owned()),
            }
        }
        let here = settings.string("proxy", "origin").is_some_and(|origin| origin == "zhttp");
        let builtin = |name| vec![reader.builtin(name)];
        Ok(here.then(|| Self {
            out: builtin("connmgr-client-in"),
            out_stream: builtin("connmgr-client-in-stream"),
            input: builtin("connmgr-client-out"),
        }))
    }
}

const CLIENT_SPECS_MISSING: &str = "must set connmgr_client_out_specs, \
    connmgr_client_out_stream_specs, and connmgr_client_in_specs, or zurl_out_specs, \
    zurl_out_stream_specs, and zurl_in_specs";

/// The addresses of the proxy. Those that it binds are single.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySpecs {
    /// PULL, connect: requests of the connection managers.
    pub connmgr_in: Vec<String>,
    /// ROUTER, connect.
    pub connmgr_in_stream: Vec<String>,
    /// PUB, connect: responses to connection managers that take no others.
    pub connmgr_out: Vec<String>,
    /// DEALER, bind.
    pub handler_inspect: String,
    /// DEALER, bind.
    pub handler_accept: String,
    /// ROUTER, bind.
    pub handler_retry_in: String,
    /// PUSH, bind.
    pub handler_ws_control_init: String,
    /// ROUTER, bind.
    pub handler_ws_control_stream: String,
    /// PUB, bind.
    pub stats: String,
    /// ROUTER, bind.
    pub command: String,
    /// PULL, bind: requests of the handler.
    pub intreq_in: String,
    /// ROUTER, bind.
    pub intreq_in_stream: String,
    /// PUB, bind.
    pub intreq_out: String,
}

impl ProxySpecs {
    /// The addresses of a proxy with one worker.
    pub fn from(settings: &Settings) -> Self {
        let reader = Reader { settings, section: "proxy" };
        let first = |keys: &[&str], name: &str| {
            reader.list(keys).into_iter().next().unwrap_or_else(|| reader.builtin(name))
        };
        Self {
            connmgr_in: reader.connmgr(&["connmgr_in_specs", "condure_in_specs"], "out"),
            connmgr_in_stream: reader
                .connmgr(&["connmgr_in_stream_specs", "condure_in_stream_specs"], "out-stream"),
            connmgr_out: reader.connmgr(&["connmgr_out_specs", "condure_out_specs"], "in"),
            handler_inspect: first(&["handler_inspect_spec"], "inspect"),
            handler_accept: first(&["handler_accept_spec"], "accept"),
            handler_retry_in: first(&["handler_retry_in_spec"], "retry"),
            handler_ws_control_init: first(&["handler_ws_control_init_specs"], "ws-control-init"),
            handler_ws_control_stream: first(
                &["handler_ws_control_stream_specs"],
                "ws-control-stream",
            ),
            stats: first(&["stats_spec"], "proxy-stats"),
            command: first(&["command_spec"], "proxy-command"),
            intreq_in: first(&["intreq_in_specs"], "intreq-in"),
            intreq_in_stream: first(&["intreq_in_stream_specs"], "intreq-in-stream"),
            intreq_out: first(&["intreq_out_specs"], "intreq-out"),
        }
    }

    /// The addresses of worker `n` of `of`: what is bound gets the suffix `-n`.
    pub fn worker(&self, n: usize, of: usize) -> Self {
        let mut specs = self.clone();
        if of > 1 {
            for spec in [
                &mut specs.handler_inspect,
                &mut specs.handler_accept,
                &mut specs.handler_retry_in,
                &mut specs.handler_ws_control_init,
                &mut specs.handler_ws_control_stream,
                &mut specs.stats,
                &mut specs.command,
                &mut specs.intreq_in,
                &mut specs.intreq_in_stream,
                &mut specs.intreq_out,
            ] {
                add_suffix(spec, n);
            }
        }
        specs
    }
}

/// The addresses of the handler; all of them are connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSpecs {
    /// ROUTER.
    pub connmgr_in_stream: Vec<String>,
    /// PUB.
    pub connmgr_out: Vec<String>,
    /// ROUTER.
    pub proxy_inspect: Vec<String>,
    /// ROUTER.
    pub proxy_accept: Vec<String>,
    /// ROUTER.
    pub proxy_retry_out: Vec<String>,
    /// PULL.
    pub proxy_ws_control_init: Vec<String>,
    /// ROUTER.
    pub proxy_ws_control_stream: Vec<String>,
    /// SUB.
    pub proxy_stats: Vec<String>,
    /// DEALER, worker 0 only.
    pub proxy_command: String,
    /// PUSH.
    pub proxy_intreq_out: Vec<String>,
    /// ROUTER.
    pub proxy_intreq_out_stream: Vec<String>,
    /// SUB.
    pub proxy_intreq_in: Vec<String>,
}

impl HandlerSpecs {
    /// The addresses towards all workers of the proxy and all connection managers.
    pub fn from(settings: &Settings) -> Self {
        let reader = Reader { settings, section: "handler" };
        let proxy = ProxySpecs::from(settings);
        let workers = proxy_workers(settings);
        let each = |keys: &[&str], name: &str| {
            let mut specs = reader.list(keys);
            if specs.is_empty() {
                specs.push(reader.builtin(name));
            }
            expand(specs, workers)
        };
        let mut command = reader.list(&["proxy_command_spec"]).into_iter().next();
        if workers > 1 {
            command = command.or_else(|| Some(reader.builtin("proxy-command"))).map(|mut spec| {
                add_suffix(&mut spec, 0);
                spec
            });
        }
        let own = |keys: &[&str], of_proxy: Vec<String>| match reader.list(keys) {
            list if list.is_empty() => of_proxy,
            list => list,
        };
        Self {
            connmgr_in_stream: own(
                &["connmgr_in_stream_specs", "condure_in_stream_specs"],
                proxy.connmgr_in_stream,
            ),
            connmgr_out: own(&["connmgr_out_specs", "condure_out_specs"], proxy.connmgr_out),
            proxy_inspect: each(&["proxy_inspect_specs", "proxy_inspect_spec"], "inspect"),
            proxy_accept: each(&["proxy_accept_specs", "proxy_accept_spec"], "accept"),
            proxy_retry_out: each(&["proxy_retry_out_specs", "proxy_retry_out_spec"], "retry"),
            proxy_ws_control_init: each(&["proxy_ws_control_init_specs"], "ws-control-init"),
            proxy_ws_control_stream: each(&["proxy_ws_control_stream_specs"], "ws-control-stream"),
            proxy_stats: each(&["proxy_stats_specs", "proxy_stats_spec"], "proxy-stats"),
            proxy_command: command.unwrap_or_else(|| reader.builtin("proxy-command")),
            proxy_intreq_out: each(&["proxy_intreq_out_specs"], "intreq-in"),
            proxy_intreq_out_stream: each(&["proxy_intreq_out_stream_specs"], "intreq-in-stream"),
            proxy_intreq_in: each(&["proxy_intreq_in_specs"], "intreq-out"),
        }
    }
}

struct Reader<'a> {
    settings: &'a Settings,
    section: &'a str,
}

impl Reader<'_> {
    /// The addresses under these keys, new name first, without repetitions.
    fn list(&self, keys: &[&str]) -> Vec<String> {
        let mut specs: Vec<String> = Vec::new();
        for key in keys.iter().filter(|key| self.counts(key)) {
            for spec in self.settings.list(self.section, key) {
                if !specs.contains(&spec) {
                    specs.push(spec);
                }
            }
        }
        specs
    }

    /// Whether the key is set where it counts.
    fn counts(&self, key: &str) -> bool {
        let include = self.settings.include();
        let named_internal = Path::new(&include.name).file_name() == Some("internal.conf".as_ref());
        self.settings.main().has(self.section, key)
            || (include.has(self.section, key) && !named_internal)
    }

    fn builtin(&self, name: &str) -> String {
        self.settings.expand(&format!("ipc://{{rundir}}/{{ipc_prefix}}{name}"))
    }

    /// The addresses of all connection managers.
    fn connmgr(&self, keys: &[&str], name: &str) -> Vec<String> {
        let specs = self.list(keys);
        if !specs.is_empty() {
            return specs;
        }
        let processes = connmgr_processes(self.settings);
        (0..processes)
            .map(|n| self.builtin(&format!("{}-{name}", connmgr_id(n, processes))))
            .collect()
    }
}

/// A single ipc address becomes one for each worker.
fn expand(specs: Vec<String>, workers: usize) -> Vec<String> {
    match specs.as_slice() {
        [spec] if workers > 1 && spec.starts_with("ipc:") => (0..workers)
            .map(|n| {
                let mut spec = spec.clone();
                add_suffix(&mut spec, n);
                spec
            })
            .collect(),
        _ => specs,
    }
}

fn add_suffix(spec: &mut String, n: usize) {
    if spec.starts_with("ipc:") {
        spec.push_str(&format!("-{n}"));
    }
}
