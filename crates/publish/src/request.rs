//! From the words of the command line to an item.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::item::{Content, Item};
use crate::{Auth, Error};

/// The options as given, unchecked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The channel.
    pub channel: OsString,
    /// Text, or `@FILE`.
    pub content: Option<OsString>,
    /// `--id`
    pub id: String,
    /// `--prev-id`
    pub prev_id: String,
    /// `--sender`
    pub sender: String,
    /// `--code`
    pub code: String,
    /// `--header`, each `K: V`
    pub headers: Vec<String>,
    /// `--meta`, each `K=V`
    pub meta: Vec<String>,
    /// `--hint`; wins over `close`.
    pub hint: bool,
    /// `--close`
    pub close: bool,
    /// `--patch`
    pub patch: bool,
    /// `--no-seq`
    pub no_seq: bool,
    /// `--no-eol`
    pub no_eol: bool,
    /// `--user`
    pub user: Option<String>,
    /// `--bearer`
    pub bearer: Option<String>,
}

impl Request {
    /// Checks the options and reads the file, if one is named.
    ///
    /// # Errors
    /// The texts of spec/publish.md §13.
    pub fn item(&self) -> Result<Item, Error> {
        let code = self.parse_code()?;
        let headers = pairs(&self.headers, ':', "header must be in the form \"name: value\"")?;
        let mut meta = Vec::new();
        if !self.sender.is_empty() {
            meta.push(("sender".to_owned(), self.sender.clone()));
        }
        for (name, value) in pairs(&self.meta, '=', "meta must be in the form \"name=value\"")? {
            meta.retain(|(known, _)| *known != name);
            meta.push((name, value));
        }
        let id = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Ok(Item {
            channel: self.channel.as_bytes().to_owned(),
            id: id(&self.id),
            prev_id: id(&self.prev_id),
            meta,
            no_seq: self.no_seq,
            content: self.parse_content(code, headers)?,
        })
    }

    /// The authentication.
    ///
    /// # Errors
    /// Two kinds are given.
    pub fn auth(&self) -> Result<Option<Auth>, Error> {
        match (&self.user, &self.bearer) {
            (Some(_), Some(_)) => {
                Err(Error::new("only one authentication method can be specified"))
            }
            (Some(user), None) => Ok(Some(Auth::Basic(user.clone()))),
            (None, Some(token)) => Ok(Some(Auth::Bearer(token.clone()))),
            (None, None) => Ok(None),
        }
    }

    fn parse_code(&self) -> Result<u16, Error> {
        let code: i64 =
            self.code.parse().map_err(|e| Error::new(format!("failed to parse code: {e}")))?;
        match u16::try_from(code) {
            Ok(code @ 0..=999) => Ok(code),
            _ => Err(Error::new("code must be an integer between 0 and 999")),
        }
    }

    fn parse_content(&self, code: u16, headers: Vec<(String, String)>) -> Result<Content, Error> {
        if self.hint {
            return Ok(Content::Hint);
        }
        if self.close {
            return Ok(Content::Close);
        }
        let (bytes, eol) = self.read_content()?;
        if self.patch {
            return Ok(Content::Patch { code, headers, patch: parse_patch(&bytes)? });
        }
        Ok(Content::Send { code, headers, bytes, eol })
    }

    /// The bytes, and whether a newline is added for HTTP.
    fn read_content(&self) -> Result<(Vec<u8>, bool), Error> {
        let Some(content) = &self.content else {
            return Err(Error::new("must specify content"));
        };
        let Some(name) = content.as_bytes().strip_prefix(b"@") else {
            return Ok((content.as_bytes().to_owned(), !self.no_eol));
        };
        let name = OsString::from_vec(name.to_owned());
        match std::fs::read(&name) {
            Ok(bytes) => Ok((bytes, false)),
            Err(error) => {
                Err(Error::new(format!("can't read file {}: {error}", name.to_string_lossy())))
            }
        }
    }
}

fn parse_patch(bytes: &[u8]) -> Result<Vec<serde_json::Value>, Error> {
    match serde_json::from_slice(bytes) {
        Ok(serde_json::Value::Array(list)) => Ok(list),
        Ok(_) => Err(Error::new("patch content must be a JSON array")),
        Err(error) => Err(Error::new(format!("patch content must be a JSON array: {error}"))),
    }
}

/// Splits each text at its first `at`; the value is trimmed, the name kept as it is.
fn pairs(texts: &[String], at: char, complaint: &str) -> Result<Vec<(String, String)>, Error> {
    let pair = |text: &String| match text.split_once(at) {
        Some((name, value)) => Ok((name.to_owned(), value.trim().to_owned())),
        None => Err(Error::new(complaint)),
    };
    texts.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content: &str) -> Request {
        let content = Some(content).filter(|text| !text.is_empty()).map(OsString::from);
        Request { channel: "c".into(), content, code: "200".into(), ..Request::default() }
    }

    fn refused(request: &Request) -> String {
        request.item().unwrap_err().to_string()
    }

    #[test]
    fn a_newline_is_for_text_only() {
        let bytes = |request: &Request| match request.item().unwrap().content {
            Content::Send { bytes, eol, .. } => (bytes, eol),
            other => panic!("{other:?}"),
        };
        assert_eq!(bytes(&request("hello")), (b"hello".to_vec(), true));
        assert_eq!(bytes(&Request { no_eol: true, ..request("a") }), (b"a".to_vec(), false));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\xffraw").unwrap();
        let name = format!("@{}", file.path().display());
        assert_eq!(bytes(&request(&name)), (b"\xffraw".to_vec(), false));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(refused(&request("")), "must specify content");
        assert_eq!(
            refused(&request("@/nonexistent")),
            "can't read file /nonexistent: No such file or directory (os error 2)"
        );
        let range = "code must be an integer between 0 and 999";
        for (code, text) in [
            ("1000", range),
            ("-1", range),
            ("70000", range),
            ("x", "failed to parse code: invalid digit found in string"),
        ] {
            assert_eq!(refused(&Request { code: code.into(), ..request("a") }), text);
        }
        let one = vec!["x".to_owned()];
        let text = "header must be in the form \"name: value\"";
        assert_eq!(refused(&Request { headers: one.clone(), ..request("a") }), text);
        let text = "meta must be in the form \"name=value\"";
        assert_eq!(refused(&Request { meta: one, ..request("a") }), text);
        let patch = |text| refused(&Request { patch: true, ..request(text) });
        assert_eq!(patch("{}"), "patch content must be a JSON array");
        assert!(patch("[x").starts_with("patch content must be a JSON array: "));
    }

    #[test]
    fn hint_wins_over_close_and_content() {
        let hint = Request { hint: true, close: true, ..request("") };
        assert_eq!(hint.item().unwrap().content, Content::Hint);
        let close = Request { close: true, ..request("x") };
        assert_eq!(close.item().unwrap().content, Content::Close);
    }

    #[test]
    fn meta_and_empty_ids() {
        let meta = vec!["a b = c=d ".to_owned()];
        let item = Request { meta, sender: "me".into(), id: "1".into(), ..request("x") };
        let item = item.item().unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(item.meta, [pair("sender", "me"), pair("a b ", "c=d")]);
        assert_eq!((item.id.as_deref(), item.prev_id.as_deref()), (Some("1"), None));
        // Of a name that is there twice the last counts, and the option is the first.
        let meta = ["a=1", "sender=other", "a=2"].map(str::to_owned).into();
        let item = Request { meta, sender: "me".into(), ..request("x") }.item().unwrap();
        assert_eq!(item.meta, [pair("sender", "other"), pair("a", "2")]);
    }

    #[test]
    fn one_authentication_only() {
        let both = Request { user: Some("a:b".into()), bearer: Some("t".into()), ..request("x") };
        let text = "only one authentication method can be specified";
        assert_eq!(both.auth().unwrap_err().to_string(), text);
        let one = Request { bearer: Some("t".into()), ..request("x") };
        assert_eq!(one.auth().unwrap(), Some(Auth::Bearer("t".into())));
    }
}
