//! Values that a process would refuse are refused before any is started, with file, line and key.
//! Used by `plan`.

use std::net::IpAddr;

use admin::MetricsSpec;
use config::Settings;

use crate::fault::fault;

/// A number of `[runner]` within its bounds.
///
/// # Errors
/// The text for the operator.
pub(crate) fn number(
    settings: &Settings,
    key: &str,
    default: i64,
    (least, most): (i64, i64),
) -> Result<u64, String> {
    let number = settings.int("runner", key, default);
    let number = Some(number).filter(|number| (least..=most).contains(number));
    number.and_then(|number| u64::try_from(number).ok()).ok_or_else(|| {
        fault(settings, "runner", key, &format!("must be a number from {least} to {most}"))
    })
}

/// The listener for metrics in a section.
///
/// # Errors
/// What is wrong with `prometheus_port`.
pub(crate) fn metrics(settings: &Settings, section: &str) -> Result<Option<MetricsSpec>, String> {
    let key = "prometheus_port";
    let Some(port) = settings.nonempty(section, key) else { return Ok(None) };
    MetricsSpec::of_port(&port).map(Some).map_err(|text| fault(settings, section, key, &text))
}

/// The addresses of the handler's inputs.
///
/// # Errors
/// The first that is none.
pub(crate) fn inputs(settings: &Settings) -> Result<(), String> {
    let refuse = |key, text: &str| Err(fault(settings, "handler", key, text));
    for key in ["push_in_spec", "stats_spec", "command_spec", "state_spec"] {
        let spec = settings.nonempty("handler", key);
        if let Some(spec) = spec.filter(|spec| !is_spec(spec)) {
            return refuse(key, &no_spec(&spec));
        }
    }
    for key in ["push_in_sub_specs", "push_in_sub_spec"] {
        let specs = settings.list("handler", key);
        if let Some(spec) = specs.iter().find(|spec| !is_spec(spec)) {
            return refuse(key, &no_spec(spec));
        }
    }
    let (address, port) = ("push_in_http_addr", "push_in_http_port");
    let number = settings.int("handler", port, -1);
    if number < 0 {
        return Ok(());
    }
    if number.saturating_add(settings.port_offset()) > i64::from(u16::MAX) {
        return refuse(port, "with port_offset this is above 65535");
    }
    match settings.nonempty("handler", address) {
        Some(text) if text.parse::<IpAddr>().is_err() => {
            refuse(address, &format!("{text} is no IP address (for example 127.0.0.1)"))
        }
        _ => Ok(()),
    }
}

/// Whether this can be a ZeroMQ address.
fn is_spec(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(transport, rest)| !transport.is_empty() && !rest.is_empty())
}

fn no_spec(text: &str) -> String {
    format!("{text} is no ZeroMQ address (for example tcp://127.0.0.1:5560)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        let file = config::File::parse("c", text);
        let overrides = config::Overrides { port_offset: Some(10), ..Default::default() };
        Settings::from_main(file, "".into(), &overrides)
    }

    #[test]
    fn numbers_have_bounds() {
        let number = |value: &str, default| {
            number(&settings(&format!("[runner]\n{value}\n")), "tcp_keepalive", default, (1, 9))
        };
        assert_eq!(number("tcp_keepalive=9", 1), Ok(9));
        assert_eq!(number("", 5), Ok(5));
        let expected = "c:2: tcp_keepalive in [runner]: must be a number from 1 to 9";
        for value in ["10", "0", "-1", "x", ""] {
            assert_eq!(number(&format!("tcp_keepalive={value}"), 1).unwrap_err(), expected);
        }
    }

    #[test]
    fn metrics_need_a_port() {
        assert_eq!(metrics(&settings(""), "proxy"), Ok(None));
        let address =
            metrics(&settings("[proxy]\nprometheus_port=91\n"), "proxy").unwrap().unwrap();
        assert_eq!(address.address.to_string(), "0.0.0.0:91");
        let error = metrics(&settings("[handler]\nprometheus_port=x\n"), "handler").unwrap_err();
        let expected = "c:2: prometheus_port in [handler]: invalid TCP address or port: x";
        assert_eq!(error, expected);
    }

    #[test]
    fn inputs_that_are_none_are_named() {
        for (line, expected) in [
            ("push_in_spec=nonsense", "nonsense is no ZeroMQ address"),
            ("stats_spec=ipc://", "ipc:// is no ZeroMQ address"),
            ("push_in_sub_specs=tcp://a:1,b", "b is no ZeroMQ address"),
            ("push_in_http_addr=localhost", "localhost is no IP address"),
            ("push_in_http_port=9223372036854775807", "with port_offset this is above 65535"),
        ] {
            let http = "push_in_http_port=5561";
            let error = inputs(&settings(&format!("[handler]\n{http}\n{line}\n"))).unwrap_err();
            let key = line.split('=').next().unwrap();
            assert!(error.starts_with(&format!("c:3: {key} in [handler]: {expected}")), "{error}");
        }
        let good = "push_in_spec=tcp://*:1\nstats_spec=\npush_in_sub_specs=ipc://{rundir}/x\n\
                    push_in_http_addr=::1\npush_in_http_port=0\n";
        assert_eq!(inputs(&settings(&format!("[handler]\n{good}"))), Ok(()));
        // without a port nobody reads the address
        assert_eq!(inputs(&settings("[handler]\npush_in_http_addr=any\n")), Ok(()));
    }
}
