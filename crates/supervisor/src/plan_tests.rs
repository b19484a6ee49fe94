use super::*;
use config::{File, Overrides};

fn settings(text: &str, prefix: Option<&str>) -> Settings {
    let overrides = Overrides { ipc_prefix: prefix.map(str::to_owned), port_offset: None };
    Settings::from_main(File::parse("pushpin.conf", text), "/etc/pushpin".into(), &overrides)
}

fn plan_with(text: &str, options: &Options, files: u64) -> Result<Plan, String> {
    let prefix = options.id.map(|id| format!("p{id}-"));
    let settings = settings(text, prefix.as_deref());
    let machine = Machine { folder: "/work".into(), files };
    let levels = Levels::parse(["1", "handler:3"]).unwrap();
    Plan::new(&settings, options, &levels, &machine)
}

fn options() -> Options {
    Options { config: Some("c/pushpin.conf".into()), ..Options::default() }
}

fn plan(text: &str, options: &Options) -> Plan {
    plan_with(text, options, 1 << 20).unwrap()
}

fn refused(text: &str) -> String {
    plan_with(text, &options(), 1 << 20).unwrap_err()
}

fn line(service: &Service) -> String {
    format!("{} {}", service.program, service.arguments.join(" "))
}

const USUAL: &str = "[global]\nrundir=run\n[runner]\nservices=connmgr,proxy,handler\n\
                     http_port=7999,[::1]:8000\nlogdir=log\n";

#[test]
fn the_usual_command_lines() {
    let plan = plan(USUAL, &options());
    let lines: Vec<String> = plan.services.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "pushpin-connmgr --log-level=1 --buffer-size=8192 --stream-maxconn=50000 --workers=1 \
             --zclient-stream=ipc:///work/run/pushpin-connmgr --listen=0.0.0.0:7999,stream \
             --listen=[::1]:8000,stream",
            "pushpin-proxy --config=c/pushpin.conf --ipc-prefix=pushpin- --loglevel=1 \
             --logfile=/work/log/pushpin-proxy.log",
            "pushpin-handler --config=c/pushpin.conf --ipc-prefix=pushpin- --loglevel=3 \
             --logfile=/work/log/pushpin-handler.log",
        ]
    );
    let outputs: Vec<&Output> = plan.services.iter().map(|service| &service.output).collect();
    assert_eq!(
        outputs,
        [
            &Output::File("/work/log/connmgr.log".into()),
            &Output::Own("/work/log/pushpin-proxy.log".into()),
            &Output::Own("/work/log/pushpin-handler.log".into()),
        ]
    );
    assert_eq!(plan.services[0].pid_file, Path::new("/work/run/connmgr.pid"));
    assert_eq!(plan.services[1].pid_file, Path::new("/work/run/pushpin-proxy.pid"));
    assert_eq!(plan.services.iter().map(|s| s.takes_hup).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(plan.folders, [Path::new("/work/run"), Path::new("/work/log")]);
    assert_eq!(plan.warnings, Vec::<String>::new());
    assert_eq!(plan.ports.len(), 2);
}

#[test]
fn an_instance_by_number() {
    let more = Options {
        id: Some(2),
        merge_output: true,
        port: Some("127.0.0.1:80".into()),
        routes: vec!["* test".into(), "a b:1".into()],
        ..options()
    };
    let plan = plan(USUAL, &more);
    let lines: Vec<String> = plan.services.iter().map(line).collect();
    assert!(lines[0].contains("--zclient-stream=ipc:///work/run/p2-connmgr "), "{}", lines[0]);
    assert!(lines[0].ends_with("connmgr --listen=127.0.0.1:80,stream"), "{}", lines[0]);
    assert!(lines[1].ends_with("--ipc-prefix=p2- --loglevel=1 --route=* test --route=a b:1"));
    assert!(lines[2].ends_with("--ipc-prefix=p2- --loglevel=3 --port-offset=20"));
    assert!(plan.services.iter().all(|service| service.output == Output::Merged));
    assert_eq!(plan.services[0].pid_file, Path::new("/work/run/p2-connmgr.pid"));
    assert_eq!(plan.folders, [Path::new("/work/run")]);
}

#[test]
fn instance_zero_has_no_offset() {
    let plan = plan(USUAL, &Options { id: Some(0), ..options() });
    assert!(!line(&plan.services[2]).contains("offset"));
    assert!(line(&plan.services[2]).contains("--logfile=/work/log/p0-pushpin-handler.log"));
}

#[test]
fn several_connection_managers() {
    let text = "[runner]\nservices=connmgr\nhttp_port=80\nlocal_ports=/s\nconnmgr_processes=2\n\
                connmgr_workers=3\nclient_maxconn=1000\nallow_compression=true\n[global]\nrundir=/r\n";
    let plan = plan(text, &options());
    let lines: Vec<String> = plan.services.iter().map(line).collect();
    let common =
        "pushpin-connmgr --log-level=1 --buffer-size=8192 --stream-maxconn=589 --workers=3";
    let end = "--listen=0.0.0.0:80,stream,reuseport";
    assert_eq!(
        lines,
        [
            format!(
                "{common} --zclient-stream=ipc:///r/pushpin-connmgr-0 --compression \
                 --id=connmgr-0 {end} --listen=/s,local,stream"
            ),
            format!(
                "{common} --zclient-stream=ipc:///r/pushpin-connmgr-1 --compression \
                 --id=connmgr-1 {end}"
            ),
        ]
    );
    assert_eq!(plan.services[1].name, "connmgr-1");
    assert_eq!(plan.services[1].output, Output::File("/work/connmgr-1.log".into()));
    assert_eq!(plan.services[1].pid_file, Path::new("/r/connmgr-1.pid"));
}

#[test]
fn a_low_file_limit_is_said_and_kept() {
    let plan = plan_with(USUAL, &options(), 1024).unwrap();
    assert!(line(&plan.services[0]).contains("--stream-maxconn=973 "));
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].starts_with("client_maxconn=50000: 50000 clients need a limit of "));
}

#[test]
fn old_service_names_and_only_some() {
    let text = USUAL.replace("connmgr,proxy,handler", "condure,zurl,pushpin-proxy,pushpin-handler");
    let old = plan(&text, &options());
    let names: Vec<&str> = old.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["connmgr", "proxy", "handler"]);
    assert_eq!(old.warnings.len(), 1);
    let some = plan("[runner]\nservices=handler\n", &options());
    assert_eq!(some.services.len(), 1);
    assert!(some.ports.is_empty());
    assert!(plan("[runner]\n", &options()).warnings[0].starts_with("nothing to start"));
}

#[test]
fn refusals_name_file_line_and_key() {
    let text = |more: &str| format!("[runner]\nservices=connmgr\n{more}\n");
    for (more, expected) in [
        ("", "no server ports configured"),
        ("http_port=-5", "pushpin.conf:3: http_port in [runner]: invalid http port: -5"),
        ("http_port=x:1", "pushpin.conf:3: http_port in [runner]: invalid http port: x:1"),
        ("local_ports=/a?mode=x", "pushpin.conf:3: local_ports in [runner]: invalid mode: x"),
        (
            "https_ports=443",
            "pushpin.conf:3: https_ports in [runner]: HTTPS is not in this release, port 443 \
             cannot be served",
        ),
        (
            "client_maxconn=many\nhttp_port=80",
            "pushpin.conf:3: client_maxconn in [runner]: it must be a number greater than 0",
        ),
    ] {
        assert_eq!(refused(&text(more)), expected);
    }
    for (port, expected) in [
        ("0", "port must be greater than or equal to 1"),
        ("127.0.0.1:-1", "port must be greater than or equal to 1"),
        ("what", "invalid http port: what"),
    ] {
        let options = Options { port: Some(port.into()), ..options() };
        assert_eq!(plan_with(USUAL, &options, 1 << 20), Err(expected.to_owned()));
    }
}

#[test]
fn rundir_at_its_old_place() {
    let text = "[runner]\nservices=connmgr\nhttp_port=1\nrundir=/r\n";
    let plan = plan(text, &options());
    assert_eq!(plan.warnings, ["rundir in [runner] section is deprecated. put in [global]"]);
    assert_eq!(plan.folders[0], Path::new("/r"));
}
