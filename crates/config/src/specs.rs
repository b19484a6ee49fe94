//! The ZeroMQ addresses between the processes: built in, unless the operator's own file sets
//! them (spec/config.md §6.6, §6.7). The supervisor, the proxy and the handler resolve them from
//! the same settings and so agree.

use crate::settings::Settings;
use crate::workers::Workers;

/// A base address of a connmgr (`--zclient-stream`), to which `-out`, `-out-stream`, `-in` are
/// added; several with `[runner] connmgr_processes` above 1.
pub fn connmgr_bases(settings: &Settings) -> Vec<String> {
    connmgr_names(settings).iter().map(|name| ipc(settings, name)).collect()
}

/// The name of each connmgr process: its instance id, log name and address suffix. `connmgr`
/// for a single one, else `connmgr-0` and so on.
pub fn connmgr_names(settings: &Settings) -> Vec<String> {
    match Workers::from(settings).connmgr_processes {
        1 => vec!["connmgr".to_owned()],
        count => (0..count).map(|n| format!("connmgr-{n}")).collect(),
    }
}

/// Where the proxy looks for an outside ZHTTP client for its outgoing requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSpecs {
    /// PUSH connect.
    pub out: Vec<String>,
    /// ROUTER connect.
    pub out_stream: Vec<String>,
    /// SUB connect.
    pub input: Vec<String>,
}

/// The addresses of one proxy process; those that it binds are for its worker 0 to N-1 by
/// [`ProxySpecs::for_worker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySpecs {
    /// PULL connect, requests from connmgr.
    pub connmgr_in: Vec<String>,
    /// ROUTER connect.
    pub connmgr_in_stream: Vec<String>,
    /// PUB connect, responses.
    pub connmgr_out: Vec<String>,
    /// Set if outgoing requests go over ZHTTP; `None` if the proxy makes them itself.
    pub client: Option<ClientSpecs>,
    /// DEALER bind.
    pub inspect: String,
    /// DEALER bind.
    pub accept: String,
    /// ROUTER bind.
    pub retry: String,
    /// PUSH bind.
    pub ws_control_init: String,
    /// ROUTER bind.
    pub ws_control_stream: String,
    /// PUB bind.
    pub stats: String,
    /// ROUTER bind.
    pub command: String,
    /// PULL bind, requests from the handler.
    pub intreq_in: String,
    /// ROUTER bind.
    pub intreq_in_stream: String,
    /// PUB bind.
    pub intreq_out: String,
}

impl ProxySpecs {
    /// Resolves the addresses.
    pub fn from(settings: &Settings) -> Self {
        let bound = |key: &str, name: &str| bound_spec(settings, key, name);
        Self {
            connmgr_in: connmgr_list(settings, "in_specs", "-out"),
            connmgr_in_stream: connmgr_list(settings, "in_stream_specs", "-out-stream"),
            connmgr_out: connmgr_list(settings, "out_specs", "-in"),
            client: client_specs(settings),
            inspect: bound("handler_inspect_spec", "inspect"),
            accept: bound("handler_accept_spec", "accept"),
            retry: bound("handler_retry_in_spec", "retry"),
            ws_control_init: bound("handler_ws_control_init_specs", "ws-control-init"),
            ws_control_stream: bound("handler_ws_control_stream_specs", "ws-control-stream"),
            stats: bound("stats_spec", "proxy-stats"),
            command: bound("command_spec", "proxy-command"),
            intreq_in: bound("intreq_in_specs", "intreq-in"),
            intreq_in_stream: bound("intreq_in_stream_specs", "intreq-in-stream"),
            intreq_out: bound("intreq_out_specs", "intreq-out"),
        }
    }

    /// The addresses of worker `n` of `workers`: with more than one, each bound `ipc:` address
    /// gets the suffix `-n`.
    pub fn for_worker(&self, n: usize, workers: usize) -> Self {
        let mut specs = self.clone();
        for spec in [
            &mut specs.inspect,
            &mut specs.accept,
            &mut specs.retry,
            &mut specs.ws_control_init,
            &mut specs.ws_control_stream,
            &mut specs.stats,
            &mut specs.command,
            &mut specs.intreq_in,
            &mut specs.intreq_in_stream,
            &mut specs.intreq_out,
        ] {
            *spec = suffixed(spec, n, workers);
        }
        specs
    }
}

/// The addresses of the handler. Lists have one entry for each proxy worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerSpecs {
    /// ROUTER connect, to connmgr.
    pub connmgr_in_stream: Vec<String>,
    /// PUB connect, to connmgr.
    pub connmgr_out: Vec<String>,
    /// ROUTER connect.
    pub inspect: Vec<String>,
    /// ROUTER connect.
    pub accept: Vec<String>,
    /// ROUTER connect.
    pub retry: Vec<String>,
    /// PULL connect.
    pub ws_control_init: Vec<String>,
    /// ROUTER connect.
    pub ws_control_stream: Vec<String>,
    /// SUB connect.
    pub proxy_stats: Vec<String>,
    /// DEALER connect, to worker 0 only.
    pub proxy_command: String,
    /// PUSH connect.
    pub intreq_out: Vec<String>,
    /// ROUTER connect.
    pub intreq_out_stream: Vec<String>,
    /// SUB connect.
    pub intreq_in: Vec<String>,
    /// `push_in_spec`: PULL bind; `None` is off, as for all that follow.
    pub push_in: Option<String>,
    /// `push_in_sub_specs`: SUB; bound, the first only, or connected, all of them.
    pub push_in_sub: Vec<String>,
    /// Whether the SUB connects.
    pub push_in_sub_connect: bool,
    /// `stats_spec`: PUB bind.
    pub stats: Option<String>,
    /// `command_spec`: ROUTER bind.
    pub command: Option<String>,
    /// `state_spec`: DEALER bind.
    pub state: Option<String>,
}

impl HandlerSpecs {
    /// Resolves the addresses.
    pub fn from(settings: &Settings) -> Self {
        let workers = Workers::from(settings).proxy;
        let proxy = |new: &str, old: &str, name: &str| {
            expanded(first_of(settings, "handler", &[new, old], name), workers)
        };
        let command = first_of(settings, "handler", &["proxy_command_spec"], "proxy-command");
        let mut push_in_sub = settings.list("handler", "push_in_sub_specs");
        push_in_sub.extend(settings.list("handler", "push_in_sub_spec"));
        Self {
            connmgr_in_stream: connmgr_list(settings, "in_stream_specs", "-out-stream"),
            connmgr_out: connmgr_list(settings, "out_specs", "-in"),
            inspect: proxy("proxy_inspect_specs", "proxy_inspect_spec", "inspect"),
            accept: proxy("proxy_accept_specs", "proxy_accept_spec", "accept"),
            retry: proxy("proxy_retry_out_specs", "proxy_retry_out_spec", "retry"),
            ws_control_init: proxy("proxy_ws_control_init_specs", "", "ws-control-init"),
            ws_control_stream: proxy("proxy_ws_control_stream_specs", "", "ws-control-stream"),
            proxy_stats: proxy("proxy_stats_specs", "proxy_stats_spec", "proxy-stats"),
            proxy_command: suffixed(&command[0], 0, workers),
            intreq_out: proxy("proxy_intreq_out_specs", "", "intreq-in"),
            intreq_out_stream: proxy("proxy_intreq_out_stream_specs", "", "intreq-in-stream"),
            intreq_in: proxy("proxy_intreq_in_specs", "", "intreq-out"),
            push_in: settings.non_empty("handler", "push_in_spec"),
            push_in_sub: unique(push_in_sub),
            push_in_sub_connect: settings.bool("handler", "push_in_sub_connect", false),
            stats: settings.non_empty("handler", "stats_spec"),
            command: settings.non_empty("handler", "command_spec"),
            state: settings.non_empty("handler", "state_spec"),
        }
    }
}

fn ipc(settings: &Settings, name: &str) -> String {
    format!("ipc://{}/{}{name}", settings.expand("{rundir}"), settings.ipc_prefix())
}

/// The lists towards connmgr: `connmgr_*` and then `condure_*` of `[proxy]` (the handler reads
/// them from there too), else the built-in addresses of every connmgr process.
fn connmgr_list(settings: &Settings, key: &str, suffix: &str) -> Vec<String> {
    let mut list = settings.own_list("proxy", &format!("connmgr_{key}"));
    list.extend(settings.own_list("proxy", &format!("condure_{key}")));
    if list.is_empty() {
        list = connmgr_bases(settings).iter().map(|base| format!("{base}{suffix}")).collect();
    }
    unique(list)
}

/// An outside client, if the operator asks for one: `[proxy] origin=zhttp`, or client addresses
/// of his own (`origin=direct` overrules them).
fn client_specs(settings: &Settings) -> Option<ClientSpecs> {
    let zurl = family(settings, &["zurl"], "zurl");
    let connmgr = family(settings, &["connmgr_client", "condure_client"], "connmgr-client");
    let zurl_runs = settings.list("runner", "services").iter().any(|name| name == "zurl");
    let set = if zurl_runs { zurl.or(connmgr) } else { connmgr.or(zurl) };
    match settings.non_empty("proxy", "origin").as_deref() {
        Some("zhttp") => Some(set.unwrap_or_else(|| builtin_client(settings))),
        Some("direct") => None,
        None => set,
        Some(_) => {
            let place = settings.place("proxy", "origin").unwrap_or_default();
            settings.warn(format!("{place} must be direct or zhttp, ignored"));
            set
        }
    }
}

/// The three lists of one family of names, if any of them is set; what lacks is built in.
fn family(settings: &Settings, prefixes: &[&str], name: &str) -> Option<ClientSpecs> {
    let list = |key: &str| {
        let keys = prefixes.iter().map(|prefix| format!("{prefix}_{key}"));
        unique(keys.flat_map(|key| settings.own_list("proxy", &key)).collect())
    };
    let (out, out_stream, input) = (list("out_specs"), list("out_stream_specs"), list("in_specs"));
    if out.is_empty() && out_stream.is_empty() && input.is_empty() {
        return None;
    }
    let or = |list: Vec<String>, suffix: &str| {
        if list.is_empty() { vec![ipc(settings, &format!("{name}{suffix}"))] } else { list }
    };
    Some(ClientSpecs {
        out: or(out, "-in"),
        out_stream: or(out_stream, "-in-stream"),
        input: or(input, "-out"),
    })
}

/// The addresses of the client side of the connmgr that the supervisor starts.
pub fn builtin_client(settings: &Settings) -> ClientSpecs {
    let spec = |suffix: &str| vec![ipc(settings, &format!("connmgr-client{suffix}"))];
    ClientSpecs { out: spec("-in"), out_stream: spec("-in-stream"), input: spec("-out") }
}

/// A single address that the proxy binds; of a list only the first counts.
fn bound_spec(settings: &Settings, key: &str, name: &str) -> String {
    first_of(settings, "proxy", &[key], name).swap_remove(0)
}

/// The first keys' items, appended; never empty.
fn first_of(settings: &Settings, section: &str, keys: &[&str], name: &str) -> Vec<String> {
    let list: Vec<String> = keys.iter().flat_map(|key| settings.own_list(section, key)).collect();
    if list.is_empty() { vec![ipc(settings, name)] } else { unique(list) }
}

/// A list of one `ipc:` address becomes one for each worker.
fn expanded(list: Vec<String>, workers: usize) -> Vec<String> {
    if workers == 1 || list.len() != 1 || !list[0].starts_with("ipc:") {
        return list;
    }
    (0..workers).map(|n| suffixed(&list[0], n, workers)).collect()
}

fn suffixed(spec: &str, n: usize, workers: usize) -> String {
    if workers > 1 && spec.starts_with("ipc:") { format!("{spec}-{n}") } else { spec.to_owned() }
}

fn unique(list: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(list.len());
    for spec in list {
        if !kept.contains(&spec) {
            kept.push(spec);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Overrides;

    fn settings(text: &str) -> Settings {
        let text = format!("[global]\nrundir=/r\nipc_prefix=p-\n{text}");
        Settings::from_text(&text, &Overrides::default()).unwrap()
    }

    #[test]
    fn the_built_in_addresses() {
        let s = settings("");
        let proxy = ProxySpecs::from(&s);
        assert_eq!(proxy.connmgr_in, ["ipc:///r/p-connmgr-out"]);
        assert_eq!(proxy.connmgr_in_stream, ["ipc:///r/p-connmgr-out-stream"]);
        assert_eq!(proxy.connmgr_out, ["ipc:///r/p-connmgr-in"]);
        assert_eq!(proxy.accept, "ipc:///r/p-accept");
        assert_eq!(proxy.intreq_in_stream, "ipc:///r/p-intreq-in-stream");
        assert_eq!(proxy.client, None);
        assert_eq!(proxy.for_worker(0, 1), proxy);
        let handler = HandlerSpecs::from(&s);
        assert_eq!(handler.connmgr_in_stream, proxy.connmgr_in_stream);
        assert_eq!(handler.accept, [proxy.accept]);
        assert_eq!(handler.intreq_in, [proxy.intreq_out]);
        assert_eq!(handler.intreq_out, [proxy.intreq_in]);
        assert_eq!(handler.proxy_command, proxy.command);
        assert_eq!((handler.push_in, handler.push_in_sub.len()), (None, 0));
    }

    #[test]
    fn workers_get_suffixes_on_both_sides() {
        let s = settings("[proxy]\nworkers=2\ncommand_spec=tcp://127.0.0.1:1\n");
        let one = ProxySpecs::from(&s).for_worker(1, 2);
        assert_eq!(one.retry, "ipc:///r/p-retry-1");
        assert_eq!(one.command, "tcp://127.0.0.1:1");
        assert_eq!(one.connmgr_in, ["ipc:///r/p-connmgr-out"]);
        let handler = HandlerSpecs::from(&s);
        assert_eq!(handler.retry, ["ipc:///r/p-retry-0", "ipc:///r/p-retry-1"]);
        assert_eq!(handler.proxy_command, "ipc:///r/p-proxy-command-0");
    }

    #[test]
    fn several_connmgr_processes() {
        let s = settings("[runner]\nconnmgr_processes=2\n");
        assert_eq!(connmgr_names(&s), ["connmgr-0", "connmgr-1"]);
        assert_eq!(connmgr_bases(&s), ["ipc:///r/p-connmgr-0", "ipc:///r/p-connmgr-1"]);
        let proxy = ProxySpecs::from(&s);
        assert_eq!(proxy.connmgr_out, ["ipc:///r/p-connmgr-0-in", "ipc:///r/p-connmgr-1-in"]);
    }

    #[test]
    fn addresses_of_the_main_file_count() {
        let s = settings(
            "[proxy]\nconnmgr_in_specs=ipc:///a\ncondure_in_specs=ipc:///b,ipc:///a\n\
             handler_accept_spec=ipc:///c\nintreq_in_specs=ipc:///d,ipc:///e\n\
             [handler]\nproxy_accept_spec=ipc:///c\npush_in_sub_spec=tcp://*:5562\n",
        );
        let proxy = ProxySpecs::from(&s);
        assert_eq!(proxy.connmgr_in, ["ipc:///a", "ipc:///b"]);
        assert_eq!(proxy.accept, "ipc:///c");
        assert_eq!(proxy.intreq_in, "ipc:///d");
        let handler = HandlerSpecs::from(&s);
        assert_eq!(handler.accept, ["ipc:///c"]);
        assert_eq!(handler.push_in_sub, ["tcp://*:5562"]);
    }

    #[test]
    fn an_outside_client_is_used_only_if_asked_for() {
        let client = |text: &str| ProxySpecs::from(&settings(text)).client;
        let builtin = client("[proxy]\norigin=zhttp\n").unwrap();
        assert_eq!(builtin.out, ["ipc:///r/p-connmgr-client-in"]);
        assert_eq!(builtin.input, ["ipc:///r/p-connmgr-client-out"]);
        let zurl = client("[proxy]\nzurl_out_specs=ipc:///z\n").unwrap();
        assert_eq!(
            (&*zurl.out, &*zurl.input),
            (&["ipc:///z".into()][..], &["ipc:///r/p-zurl-out".into()][..])
        );
        assert_eq!(client("[proxy]\norigin=direct\nzurl_out_specs=ipc:///z\n"), None);
        let both = "[proxy]\nzurl_out_specs=ipc:///z\ncondure_client_in_specs=ipc:///c\n";
        assert_eq!(client(both).unwrap().input, ["ipc:///c"]);
        let with_zurl = format!("[runner]\nservices=zurl\n{both}");
        assert_eq!(client(&with_zurl).unwrap().out, ["ipc:///z"]);
        let s = settings("[proxy]\norigin=what\n");
        assert_eq!(ProxySpecs::from(&s).client, None);
        assert_eq!(s.take_warnings().len(), 1);
    }

    #[test]
    fn the_addresses_of_the_package_are_built_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pushpin.conf");
        let internal = "[proxy]\ncondure_in_specs=ipc:///old\nzurl_out_specs=ipc:///zurl\n";
        std::fs::write(dir.path().join("internal.conf"), internal).unwrap();
        std::fs::write(dir.path().join("own.conf"), internal).unwrap();
        let load = |include: &str| {
            std::fs::write(&path, format!("[global]\ninclude={include}\nrundir=r\n")).unwrap();
            let settings = Settings::load(&path, &Overrides::default()).unwrap();
            ProxySpecs::from(&settings)
        };
        let here = dir.path().join("internal.conf").display().to_string();
        assert_eq!(load(&here).connmgr_in, ["ipc://r/pushpin-connmgr-out"]);
        assert_eq!(load(&here).client, None);
        assert_eq!(load("own.conf").connmgr_in, ["ipc:///old"]);
    }
}
