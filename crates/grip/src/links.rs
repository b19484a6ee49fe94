//! `Grip-Link` (spec/grip.md §3.2).

use url::Url;

use crate::fields::{parse_int, parse_piece};
use crate::instruct::NextLink;

/// Seconds until a next link is followed where the header does not say.
const NEXT_TIMEOUT_S: u32 = 120;

/// What the `Grip-Link` headers say, URLs made absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) next: Option<NextLink>,
    pub(crate) gone: Option<String>,
}

impl Links {
    /// Takes one piece of a `Grip-Link` header over; relative URLs are resolved against `base`.
    pub(crate) fn add(&mut self, base: &str, piece: &str) -> Result<(), String> {
        let Some((primary, params)) = parse_piece(piece) else { return Ok(()) };
        if params.0.is_empty() {
            return Ok(());
        }
        let url = primary
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'))
            .filter(|url| !url.is_empty())
            .ok_or("failed to parse Grip-Link value")?;
        let url = || resolve(base, url).ok_or("Grip-Link contains invalid link");
        match params.get("rel") {
            Some("next") => {
                let timeout_s = next_timeout(params.get("timeout"))?;
                self.next = Some(NextLink { url: url()?, timeout_s });
            }
            Some("gone") => self.gone = Some(url()?),
            _ => {}
        }
        Ok(())
    }
}

fn next_timeout(text: Option<&str>) -> Result<u32, String> {
    let Some(text) = text else { return Ok(NEXT_TIMEOUT_S) };
    let seconds = parse_int(text).ok_or("failed to parse Grip-Link timeout value")?;
    u32::try_from(seconds).map_err(|_| "Grip-Link timeout has invalid value".to_owned())
}

pub(crate) fn resolve(base: &str, link: &str) -> Option<String> {
    let url = match Url::parse(base) {
        Ok(base) => base.join(link),
        Err(_) => Url::parse(link),
    };
    url.ok().map(String::from)
}
