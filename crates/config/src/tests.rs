use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn settings(text: &str) -> Settings {
    with(text, &Overrides::default())
}

fn with(text: &str, overrides: &Overrides) -> Settings {
    Settings::from_main(File::parse("f.conf", text), PathBuf::from("/dir"), overrides)
}

/// The value of `k` in `[s]` where the file says `k` as given.
fn value(line: &str) -> String {
    settings(&format!("[s]\n{line}\n")).string("s", "k").unwrap()
}

#[test]
fn the_rules_for_values() {
    for (line, expected) in [
        ("k=v", "v"),
        ("  k  =  a b \t", "a b"),
        ("k=q- ; note", "q-"),
        ("k=a#b", "a#b"),
        ("k=\"/a b/c\"", "/a b/c"),
        ("k=\" x;y,z=1 \"", " x;y,z=1 "),
        ("k='x'", "'x'"),
        ("k=a,b", ""),
        ("k=\"a,b\"", "a,b"),
        ("k=\\\\ \\\" \\x41 \\101 \\q", "\\ \" A A q"),
        ("k=\\n\\t", "\n\t"),
        ("k=127.0.0.\\\n1", "127.0.0.1"),
        ("k=127.0.0.\\\r\n1", "127.0.0.1"),
        ("k=\"a\nb\"", "a\nb"),
        ("k=@@x", "@x"),
        ("k=", ""),
        ("k=1\nk=2", "2"),
        ("# k=2 \"\nk=3", "3"),
        ("; k=2\nk=3", "3"),
        ("k=1\r\nj=2", "1"),
    ] {
        assert_eq!(value(line), expected, "{line:?}");
    }
}

#[test]
fn lists_drop_empty_items_and_keep_quoted_commas() {
    let list = |text: &str| settings(&format!("[s]\nk={text}\n")).list("s", "k");
    assert_eq!(list("a, b ,,\"c,d\","), ["a", "b", "c,d"]);
    assert_eq!(list(""), Vec::<String>::new());
    assert_eq!(list("one"), ["one"]);
    assert_eq!(settings("").list("s", "k"), Vec::<String>::new());
}

#[test]
fn sections_merge_and_case_counts() {
    let s = settings("[ a ]\nx=1\n[b]\nx=2\n[a]\ny=3\nno equals sign\n");
    assert_eq!(s.string("a", "x").unwrap(), "1");
    assert_eq!(s.string("a", "y").unwrap(), "3");
    assert_eq!(s.string("b", "x").unwrap(), "2");
    assert_eq!(s.string("a", "X"), None);
    assert!(s.problems().is_empty());
}

#[test]
fn a_mark_of_the_encoding_is_no_part_of_the_first_section() {
    assert_eq!(settings("\u{feff}[s]\nk=1\n").string("s", "k").unwrap(), "1");
}

#[test]
fn types() {
    let s = settings("[s]\nt=True\nz=0\nf=FALSE\ne=\noff=off\nn=-5\nbad=abc\no=770\nob=9\nom=-1\n");
    assert!(s.bool("s", "t", false) && !s.bool("s", "z", true) && !s.bool("s", "f", true));
    assert!(!s.bool("s", "e", true) && !s.bool("s", "off", true) && s.bool("s", "no", true));
    assert_eq!((s.int("s", "n", 1), s.int("s", "e", 1), s.int("s", "no", 7)), (-5, 0, 7));
    assert_eq!(s.int("s", "bad", 1), 0);
    assert_eq!(s.octal("s", "o"), Some(0o770));
    assert_eq!((s.octal("s", "ob"), s.octal("s", "om"), s.octal("s", "no")), (Some(0), None, None));
    let said: Vec<String> = s.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "f.conf:6: off in [s]: 'off' is taken for false; write false",
            "f.conf:8: bad in [s]: 'abc' is not a number and counts as 0",
            "f.conf:10: ob in [s]: '9' is not an octal number and counts as 0",
        ]
    );
}

#[test]
fn mistakes_in_the_file_are_named() {
    let s = settings("[s\nk=1\n[t]\nj=\"open\n");
    let said: Vec<String> = s.problems().iter().map(ToString::to_string).collect();
    let open = "f.conf:1: section [s has no closing bracket";
    assert_eq!(said, [open, "f.conf:4: j: a quote is not closed"]);
}

#[test]
fn variables_and_the_port_offset() {
    let text = "[global]\nrundir=/r\nipc_prefix=x-\nport_offset=10\nlibdir=/l\n[s]\n\
                a=ipc://{rundir}/{ipc_prefix}b {other} {libdir}\n\
                t=tcp://127.0.0.1:5560\nw=tcp://*:5560/x\nn=tcp://127.0.0.1:*\nv=tcp://[::1]:5\n";
    let s = settings(text);
    let get = |key| s.string("s", key).unwrap();
    assert_eq!(get("a"), "ipc:///r/x-b {other} /l");
    assert_eq!(get("t"), "tcp://127.0.0.1:5570");
    assert_eq!(get("w"), "tcp://*:5570");
    assert_eq!(get("n"), "tcp://127.0.0.1:*");
    assert_eq!(get("v"), "tcp://[::1]:15");
    let over = Overrides { ipc_prefix: Some("p1-".into()), port_offset: Some(1) };
    let s = with(text, &over);
    assert_eq!(s.string("s", "t").unwrap(), "tcp://127.0.0.1:5561");
    assert_eq!(s.ipc_prefix(), "p1-");
    let s = with(text, &Overrides { ipc_prefix: Some(String::new()), port_offset: None });
    assert_eq!(s.ipc_prefix(), "x-");
}

#[test]
fn the_main_file_wins_over_its_include() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pushpin.conf");
    std::fs::write(&path, "[global]\ninclude=more.conf\nrundir=r\n[proxy]\nsig_iss=1\n").unwrap();
    std::fs::write(
        dir.path().join("more.conf"),
        "[global]\nrundir=other\ninclude=x\n[proxy]\nsig_iss=2\ncdn_loop={rundir}\nstats_spec=ipc://mine\n",
    )
    .unwrap();
    let s = Settings::load(&path, &Overrides::default()).unwrap();
    assert_eq!(
        (s.string("proxy", "sig_iss").unwrap(), s.string("proxy", "cdn_loop").unwrap()),
        ("1".into(), "r".into())
    );
    assert_eq!(specs::ProxySpecs::from(&s).stats, "ipc://mine");
    let error = Settings::load(&dir.path().join("none"), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("failed to open config file: /"), "{error}");
}

#[test]
fn an_include_that_cannot_be_read_is_empty_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pushpin.conf");
    let said = |include: &str| {
        std::fs::write(&path, format!("[global]\nrundir=r\ninclude={include}\n")).unwrap();
        let settings = Settings::load(&path, &Overrides::default()).unwrap();
        settings.check();
        settings.problems().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (file, gone) = (path.display(), dir.path().join("gone.conf"));
    let expected =
        format!("{file}:3: include in [global]: cannot read {}: No such", gone.display());
    let problems = said("gone.conf");
    assert!(problems.len() == 1 && problems[0].starts_with(&expected), "{problems:?}");
    assert_eq!(said("{libdir}/internal.conf"), [""; 0]);
}

#[test]
fn an_old_internal_conf_does_not_move_the_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pushpin.conf");
    std::fs::write(&path, "[global]\ninclude={libdir}/internal.conf\nrundir=r\n").unwrap();
    std::fs::write(
        dir.path().join("internal.conf"),
        "[proxy]\ncondure_in_specs=ipc://r/old\n[handler]\nproxy_accept_spec=ipc://r/x\n",
    )
    .unwrap();
    let s = Settings::load(&path, &Overrides::default()).unwrap();
    assert_eq!(specs::ProxySpecs::from(&s).connmgr_in, ["ipc://r/pushpin-connmgr-out"]);
    assert_eq!(specs::HandlerSpecs::from(&s).proxy_accept, ["ipc://r/pushpin-accept"]);
}

#[test]
fn addresses_of_several_workers_and_processes() {
    let s = settings(
        "[global]\nrundir=r\n[runner]\nconnmgr_processes=2\n[proxy]\nworkers=2\n\
         intreq_in_specs=tcp://127.0.0.1:1\n",
    );
    let proxy = specs::ProxySpecs::from(&s).worker(1, 2);
    assert_eq!(
        proxy.connmgr_in,
        ["ipc://r/pushpin-connmgr-0-out", "ipc://r/pushpin-connmgr-1-out"]
    );
    assert_eq!(proxy.handler_accept, "ipc://r/pushpin-accept-1");
    assert_eq!(proxy.intreq_in, "tcp://127.0.0.1:1");
    let handler = specs::HandlerSpecs::from(&s);
    assert_eq!(handler.connmgr_in_stream[1], "ipc://r/pushpin-connmgr-1-out-stream");
    assert_eq!(handler.proxy_accept, ["ipc://r/pushpin-accept-0", "ipc://r/pushpin-accept-1"]);
    assert_eq!(handler.proxy_command, "ipc://r/pushpin-proxy-command-0");
}

#[test]
fn numbers_of_workers_have_bounds() {
    let s = settings("[proxy]\nworkers=-3\n[handler]\nworkers=4000\n");
    assert_eq!((specs::proxy_workers(&s), specs::handler_workers(&s)), (1, 1024));
    assert_eq!(specs::connmgr_workers(&s), 1);
    let said: Vec<String> = s.problems().iter().map(ToString::to_string).collect();
    let few = "f.conf:2: workers in [proxy]: -3 counts as 1";
    assert_eq!(said, [few, "f.conf:4: workers in [handler]: 4000 counts as 1024"]);
}

#[test]
fn old_names_are_appended_once() {
    let s = settings(
        "[proxy]\nconnmgr_in_specs=ipc://a\ncondure_in_specs=ipc://a,ipc://b\n\
         [handler]\nproxy_accept_spec=ipc://c\n",
    );
    assert_eq!(specs::ProxySpecs::from(&s).connmgr_in, ["ipc://a", "ipc://b"]);
    assert_eq!(specs::HandlerSpecs::from(&s).proxy_accept, ["ipc://c"]);
}

#[test]
fn old_service_names() {
    let list =
        |text: &str| services::Services::from(&settings(&format!("[runner]\nservices={text}\n")));
    let s = list("condure,zurl,pushpin-proxy,pushpin-handler");
    assert!(s.connmgr && s.proxy && s.handler);
    assert_eq!(s.warnings, ["services: zurl is ignored: the proxy makes outgoing requests itself"]);
    let s = list("mongrel2,m2adapter,handler");
    assert!(s.connmgr && !s.proxy && s.handler);
    assert_eq!(s.warnings.len(), 2);
    assert_eq!(list("nosuch").warnings, ["services: nosuch is ignored: there is no such service"]);
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), lines in "([\\[\\]a-c=;#\",\\\\ \n]|\\\\x4){0,80}") {
        for text in [text, lines] {
            let s = settings(&text);
            let names: Vec<_> = s.main().entries().map(|(name, _)| name.clone()).collect();
            for (section, key) in names {
                s.string(&section, &key);
                s.list(&section, &key);
                s.int(&section, &key, 0);
                s.octal(&section, &key);
            }
        }
    }

    #[test]
    fn a_quoted_value_comes_back(value in "[^\\r\u{0}]{0,40}") {
        prop_assume!(!value.starts_with("@"));
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let s = settings(&format!("[s]\nk=\"{quoted}\"\n"));
        prop_assert_eq!(s.string("s", "k").unwrap(), value.replace("{libdir}", "/usr/lib/pushpin"));
    }
}

/// What is said about a file.
fn said(text: &str) -> Vec<String> {
    let s = settings(text);
    s.check();
    s.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn what_nobody_reads_is_said_with_what_was_meant() {
    let text = "[global]\nrundir=run\nstats_format=json\n[runner]\nhtpp_port=1\nzurl_bin=x\n\
                [hander]\na=1\nb=2\n[proxy]\nquite_other=1\n";
    let expected = [
        "f.conf:3: stats_format in [global]: there is no such key; did you mean stats_format in \
         [handler]?",
        "f.conf:5: htpp_port in [runner]: there is no such key; did you mean http_port?",
        "f.conf:8: a in [hander]: there is no such section; did you mean [handler]?",
        "f.conf:11: quite_other in [proxy]: there is no such key",
    ];
    assert_eq!(said(text), expected);
}

#[test]
fn a_key_that_is_given_twice_is_said() {
    let text = "[global]\nrundir=a\nrundir=b\n[runner]\nhttp_port=1\n[proxy]\ndebug=1\n\
                [runner]\nlogdir=l\nhttp_port=2\n";
    let s = settings(text);
    assert_eq!(
        (s.string("global", "rundir"), s.int("runner", "http_port", 0)),
        (Some("b".into()), 2)
    );
    let expected = [
        "f.conf:3: rundir in [global]: is in line 2 too; the last one counts",
        "f.conf:10: http_port in [runner]: is in line 5 too; the last one counts",
    ];
    assert_eq!(said(text), expected);
}

#[test]
fn values_of_the_wrong_type_are_said() {
    let text = "[handler]\nmessage_rate=fast\nmessage_block_size=\npush_in_sub_connect=maybe\n\
                ipc_file_mode=rw\npush_in_spec=a,b\nshare_all=off\nid_cache_ttl=-1\n\
                state_spec=a,\nmessage_hwm=25,000\npush_in_sub_specs=a,b,\n";
    let expected = [
        "f.conf:2: message_rate in [handler]: 'fast' is not a number and counts as 0",
        "f.conf:4: push_in_sub_connect in [handler]: 'maybe' is taken for true; write true or false",
        "f.conf:5: ipc_file_mode in [handler]: 'rw' is not an octal number and counts as 0",
        "f.conf:6: push_in_spec in [handler]: counts as empty, for it has a comma outside of quotes",
        "f.conf:7: share_all in [handler]: 'off' is taken for false; write false",
        "f.conf:9: state_spec in [handler]: counts as empty, for it has a comma outside of quotes",
        "f.conf:10: message_hwm in [handler]: counts as empty, for it has a comma outside of quotes",
    ];
    assert_eq!(said(text), expected);
}

#[test]
fn earlier_names_are_said_once() {
    let text = "[runner]\nrundir=run\n[handler]\npush_in_sub_spec=tcp://*:5562\n\
                proxy_stats_spec=ipc://x\n";
    let expected = [
        "f.conf:2: rundir in [runner]: rundir in [runner] section is deprecated. put in [global]",
        "f.conf:4: push_in_sub_spec in [handler]: is called push_in_sub_specs now",
        "f.conf:5: proxy_stats_spec in [handler]: is called proxy_stats_specs now",
    ];
    assert_eq!(said(text), expected);
}

/// Files of the field say nothing new: their keys are all known.
#[test]
fn files_of_earlier_releases_are_known() {
    let million = "[global]\ninclude={libdir}/internal.conf\nrundir=run\nipc_prefix=pushpin-\n\
        port_offset=0\nstats_connection_ttl=120\n[runner]\n\
        services=condure,zurl,pushpin-proxy,pushpin-handler\n\
        http_port=8000,8001,8002,8003,8004,8005,8006,8007\nlogdir=log\nlog_level=2\n\
        client_buffer_size=4096\nclient_maxconn=1010000\ncondure_bin=condure\n\
        mongrel2_bin=mongrel2\nm2sh_bin=m2sh\nzurl_bin=zurl\n[proxy]\nroutesfile=routes\n\
        debug=false\nauto_cross_origin=false\naccept_x_forwarded_protocol=false\n\
        set_x_forwarded_protocol=proto-only\nx_forwarded_for=\nx_forwarded_for_trusted=\n\
        orig_headers_need_mark=\nlog_from=false\nlog_user_agent=false\nsig_iss=pushpin\n\
        sig_key=changeme\nupstream_key=\nsockjs_url=http://x/sockjs.min.js\n\
        updates_check=report\norganization_name=\n[handler]\npush_in_spec=tcp://127.0.0.1:5560\n\
        message_rate=2500\nmessage_block_size=\nstats_format=tnetstring\n";
    assert_eq!(said(million), [""; 0]);
}

/// With variables of the environment.
fn with_env(text: &str, variables: &[(&str, &str)]) -> Settings {
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Settings::with_environment(
        File::parse("f.conf", text),
        "/dir".into(),
        &Overrides::default(),
        variables,
    )
}

#[test]
fn the_environment_wins() {
    let text = "[global]\nrundir=a\n[runner]\nhttp_port=1\n";
    let variables = [
        ("PUSHPIN_GLOBAL_RUNDIR", "/b"),
        ("PUSHPIN_RUNNER_HTTP_PORT", "2, 3"),
        ("PUSHPIN_HANDLER_STATS_SPEC", "ipc://{rundir}/x"),
        ("PUSHPIN_PROXY_DEBUG", "maybe"),
        ("PUSHPIN_PROXY_DEBUGG", "true"),
        ("PUSHPIN_PROXY_PORT_7999_TCP", "tcp://10.0.0.1:7999"),
        ("PUSHPIN_SUPERVISED", "1"),
        ("PATH", "/bin"),
    ];
    let s = with_env(text, &variables);
    assert_eq!(s.rundir(), "/b");
    assert_eq!(s.list("runner", "http_port"), ["2", "3"]);
    assert_eq!(s.string("handler", "stats_spec").unwrap(), "ipc:///b/x");
    s.check();
    let said: Vec<String> = s.problems().iter().map(ToString::to_string).collect();
    let expected = [
        "environment: PUSHPIN_PROXY_DEBUGG: no key is called so; did you mean PUSHPIN_PROXY_DEBUG?",
        "environment: debug in [proxy]: 'maybe' is taken for true; write true or false",
    ];
    assert_eq!(said, expected);
}

#[test]
fn what_needs_a_restart() {
    let old = settings("[runner]\nhttp_port=1\nlog_level=2\nzurl_bin=a\n");
    let new = settings("[runner]\nhttp_port=2\nlog_level=3\nlogdir=x\nzurl_bin=b\n");
    assert_eq!(old.needs_restart(&new), ["http_port in [runner]", "logdir in [runner]"]);
    assert_eq!(old.needs_restart(&old), [""; 0]);
}

#[test]
fn a_key_is_named_with_its_place() {
    let mut settings = settings("[s]\n\nk=1\n");
    assert_eq!(settings.place("s", "k"), "f.conf:3: k in [s]");
    assert_eq!(settings.place("s", "other"), "other in [s]");
    settings.set("s", "other", "2");
    assert_eq!(settings.place("s", "other"), "environment: other in [s]");
}
