//! Control messages of a WebSocket's backend: what follows the `c:` (spec/grip.md §10.2).

use bytes::Bytes;

use crate::base64;
use crate::item::WsType;
use crate::value::Value;

/// Seconds of a keep-alive that names none.
const KEEP_ALIVE_S: u32 = 55;

/// Seconds of a delayed message that names none.
const DELAY_S: u32 = 1;

/// A message that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Kind of the message.
    pub kind: WsType,
    /// Its payload.
    pub content: Bytes,
}

/// What a backend asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Subscribe to a channel, or replace its filters.
    Subscribe {
        /// Name without the route's prefix.
        channel: String,
        /// In order; how many are allowed is for the caller to say.
        filters: Vec<String>,
    },
    /// Leave a channel.
    Unsubscribe {
        /// Name without the route's prefix.
        channel: String,
    },
    /// Let the backend go.
    Detach,
    /// Name the session, or take its name away.
    Session(Option<String>),
    /// Set a meta value, or remove it.
    SetMeta {
        /// Key.
        name: String,
        /// Nothing removes the key.
        value: Option<String>,
    },
    /// Send a message whenever the connection was silent, or at intervals; without a message:
    /// stop doing so.
    KeepAlive {
        /// What is sent.
        message: Option<Message>,
        /// Period, seconds.
        timeout_s: u32,
        /// Not put off by other messages.
        interval: bool,
    },
    /// Send a message later.
    SendDelayed {
        /// What is sent.
        message: Message,
        /// Seconds from now.
        timeout_s: u32,
    },
    /// Send the delayed message now.
    FlushDelayed,
}

impl Control {
    /// Reads a control message.
    ///
    /// # Errors
    /// The texts of spec/grip.md §10.2, for the debug log.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let value = Value::from_json(text).ok_or("grip control message is not valid json")?;
        let object = Object(&value);
        object.parse().map_err(|text| format!("failed to parse grip control message: {text}"))
    }
}

struct Object<'a>(&'a Value);

impl Object<'_> {
    fn parse(&self) -> Result<Control, String> {
        self.0.as_map().ok_or("grip control packet is not an object")?;
        let kind = self.text("type")?.ok_or_else(|| lacks("type"))?;
        Ok(match kind.as_str() {
            "subscribe" => {
                Control::Subscribe { channel: self.name("channel")?, filters: self.filters()? }
            }
            "unsubscribe" => Control::Unsubscribe { channel: self.name("channel")? },
            "detach" => Control::Detach,
            "session" => Control::Session(self.text("id")?),
            "set-meta" => Control::SetMeta { name: self.name("name")?, value: self.text("value")? },
            "keep-alive" => Control::KeepAlive {
                message: self.message()?,
                timeout_s: self.timeout(KEEP_ALIVE_S)?,
                interval: self.text("mode")?.as_deref() == Some("interval"),
            },
            "send-delayed" => {
                let empty = Message { kind: WsType::Text, content: Bytes::new() };
                Control::SendDelayed {
                    message: self.message()?.unwrap_or(empty),
                    timeout_s: self.timeout(DELAY_S)?,
                }
            }
            "flush-delayed" => Control::FlushDelayed,
            kind => return Err(format!("'type' contains unknown value: {kind}")),
        })
    }

    fn get<T>(&self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>, String> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("grip control object contains '{key}' with wrong type")),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        self.get(key, Value::as_text)
    }

    /// A text that has to be there and to say something.
    fn name(&self, key: &str) -> Result<String, String> {
        match self.text(key)?.ok_or_else(|| lacks(key))? {
            name if name.is_empty() => Err(invalid(key)),
            name => Ok(name),
        }
    }

    fn filters(&self) -> Result<Vec<String>, String> {
        let list = self.get("filters", |value| value.as_list().map(<[Value]>::to_vec))?;
        let names = list.iter().flatten().map(Value::as_text);
        names.collect::<Option<_>>().ok_or_else(|| "filters contains value with wrong type".into())
    }

    fn timeout(&self, default_s: u32) -> Result<u32, String> {
        match self.get("timeout", Value::as_int)? {
            None | Some(0) => Ok(default_s),
            Some(seconds) if seconds < 0 => Err(invalid("timeout")),
            Some(seconds) => Ok(u32::try_from(seconds).unwrap_or(u32::MAX)),
        }
    }

    /// The message under `content` or `content-bin`, if either is there.
    fn message(&self) -> Result<Option<Message>, String> {
        let kind = match self.text("message-type")?.as_deref() {
            None | Some("text") => WsType::Text,
            Some("binary") => WsType::Binary,
            Some("ping") => WsType::Ping,
            Some("pong") => WsType::Pong,
            Some(_) => {
                let text = "grip control object contains 'message-type' with unknown value";
                return Err(text.to_owned());
            }
        };
        let bytes = |key| self.get(key, |value| value.as_bytes().cloned());
        let content = match bytes("content-bin")? {
            Some(text) => Some(base64::decode(&text).into()),
            None => bytes("content")?,
        };
        Ok(content.map(|content| Message { kind, content }))
    }
}

fn lacks(key: &str) -> String {
    format!("grip control object does not contain '{key}'")
}

fn invalid(key: &str) -> String {
    format!("grip control object contains '{key}' with invalid value")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Control {
        Control::parse(text.as_bytes()).unwrap()
    }

    fn message(kind: WsType, content: &str) -> Message {
        Message { kind, content: Bytes::copy_from_slice(content.as_bytes()) }
    }

    #[test]
    fn every_type_is_read() {
        for (text, control) in [
            (
                r#"{"type":"subscribe","channel":"c","filters":["skip-self"]}"#,
                Control::Subscribe { channel: "c".into(), filters: vec!["skip-self".into()] },
            ),
            (
                r#"{"type":"unsubscribe","channel":"c"}"#,
                Control::Unsubscribe { channel: "c".into() },
            ),
            (r#"{"type":"detach"}"#, Control::Detach),
            (r#"{"type":"session","id":"s"}"#, Control::Session(Some("s".into()))),
            (r#"{"type":"session"}"#, Control::Session(None)),
            (
                r#"{"type":"set-meta","name":"n"}"#,
                Control::SetMeta { name: "n".into(), value: None },
            ),
            (
                r#"{"type":"keep-alive","content":"k","timeout":0,"mode":"interval"}"#,
                Control::KeepAlive {
                    message: Some(message(WsType::Text, "k")),
                    timeout_s: 55,
                    interval: true,
                },
            ),
            (
                r#"{"type":"keep-alive","mode":"odd"}"#,
                Control::KeepAlive { message: None, timeout_s: 55, interval: false },
            ),
            (
                r#"{"type":"send-delayed","content":"x","content-bin":"aGk=","message-type":"ping","timeout":9}"#,
                Control::SendDelayed { message: message(WsType::Ping, "hi"), timeout_s: 9 },
            ),
            (
                r#"{"type":"send-delayed"}"#,
                Control::SendDelayed { message: message(WsType::Text, ""), timeout_s: 1 },
            ),
            (r#"{"type":"flush-delayed","more":1}"#, Control::FlushDelayed),
        ] {
            assert_eq!(parse(text), control, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            ("{", "grip control message is not valid json"),
            ("[]", "grip control packet is not an object"),
            ("{}", "grip control object does not contain 'type'"),
            (r#"{"type":1}"#, "grip control object contains 'type' with wrong type"),
            (r#"{"type":"x"}"#, "'type' contains unknown value: x"),
            (r#"{"type":"subscribe"}"#, "grip control object does not contain 'channel'"),
            (
                r#"{"type":"unsubscribe","channel":""}"#,
                "grip control object contains 'channel' with invalid value",
            ),
            (
                r#"{"type":"subscribe","channel":"c","filters":[1]}"#,
                "filters contains value with wrong type",
            ),
            (
                r#"{"type":"keep-alive","timeout":-1}"#,
                "grip control object contains 'timeout' with invalid value",
            ),
            (
                r#"{"type":"send-delayed","message-type":"x"}"#,
                "grip control object contains 'message-type' with unknown value",
            ),
        ] {
            let got = Control::parse(text.as_bytes()).unwrap_err();
            assert!(got.ends_with(error), "{text}: {got}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            any in any::<Vec<u8>>(),
            near in r#"\{"type":"(subscribe|keep-alive|send-delayed)","[a-z-]{0,12}":("[a-z=]{0,5}"|-?[0-9]{0,30}|null)\}"#,
        ) {
            let _ = (Control::parse(&any), Control::parse(near.as_bytes()));
        }
    }
}
