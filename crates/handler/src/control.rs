//! The HTTP control API as a pure function of the bytes received (spec/publish.md §2). The
//! driver reads, asks [`read_request`] what to make of it, and writes the answer.

use grip::{Item, Value, parse_items};

/// Limits of a request, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Head, its end included.
    pub head: usize,
    /// Body.
    pub body: usize,
}

/// What the server is set to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Sizes.
    pub limits: Limits,
    /// What `Authorization: Bearer` has to say, where that is asked for.
    pub token: Option<String>,
    /// Answers tell how many sessions were reached, so they wait until that is known.
    pub tells_receivers: bool,
}

/// An answer, complete with its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What is written to the client.
    pub bytes: Vec<u8>,
    /// Line for the log, if the request could be read.
    pub log: Option<String>,
    /// Bytes of the request, if the connection stays for another one.
    pub keeps: Option<usize>,
}

/// The answer to a publish in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    method: String,
    target: String,
    version: &'static str,
    json: bool,
    items: usize,
    /// Bytes of the request, if the connection stays.
    keeps: Option<usize>,
}

impl Published {
    /// The answer, with the number of sessions that the items went to, if it is to be told.
    pub fn answer(self, receivers: Option<u64>) -> Answer {
        let (content_type, body) = match (self.json, receivers) {
            (true, None) => (JSON, "{\"message\":\"Published\"}\n".to_owned()),
            (true, Some(n)) => (JSON, format!("{{\"message\":\"Published\",\"receivers\":{n}}}\n")),
            (false, None) => (TEXT, "Published\n".to_owned()),
            (false, Some(n)) => (TEXT, format!("Published receivers={n}\n")),
        };
        let Self { method, target, version, items, keeps, .. } = self;
        let length = body.len();
        let log = format!("control: {method} {target} code=200 {length} items={items}");
        let said = Said {
            code: 200,
            reason: "OK",
            headers: "",
            content_type,
            body: &body,
            keeps: keeps.is_some(),
        };
        Answer { bytes: write(version, &said), log: Some(log), keeps }
    }
}

/// What to do for a connection.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// More bytes are needed. True: `100 Continue` is to be written first, once.
    Read(bool),
    /// The connection ends with this answer.
    Answer(Answer),
    /// Write the answer, then publish; or the other way round, if the answer is to tell whom the
    /// items reached.
    Publish(Published, Vec<Item>),
    /// Write the answer, then recover.
    Recover(Answer),
}

/// What an answer says.
struct Said<'a> {
    code: u16,
    reason: &'a str,
    /// Further header lines, each with its end.
    headers: &'a str,
    content_type: &'a str,
    body: &'a str,
    keeps: bool,
}

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

fn write(version: &str, said: &Said<'_>) -> Vec<u8> {
    let Said { code, reason, headers, content_type, body, keeps } = said;
    let length = body.len();
    let connection = if *keeps { "keep-alive" } else { "close" };
    format!(
        "{version} {code} {reason}\r\n{headers}Content-Type: {content_type}\r\n\
         Connection: {connection}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A refusal of the HTTP layer.
fn refuse(version: &str, code: u16, reason: &str, text: &str) -> Step {
    let body = format!("{text}\n");
    let said = Said { code, reason, headers: "", content_type: TEXT, body: &body, keeps: false };
    Step::Answer(Answer { bytes: write(version, &said), log: None, keeps: None })
}

/// The head of a request, as far as it matters.
#[derive(Debug, Default)]
struct Head<'a> {
    method: &'a str,
    target: &'a str,
    version: &'static str,
    /// The values of all its lines.
    accept: Vec<&'a str>,
    length: Option<&'a str>,
    transfer_encoding: bool,
    expects_continue: bool,
    /// The client asks for the connection to stay. Without its word it is closed, as clients of
    /// this API have known it to be.
    keeps: bool,
    authorization: Option<&'a str>,
}

/// Where the head ends: after its empty line.
fn head_end(input: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for (at, _) in input.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let line = &input[line_start..at];
        if line.is_empty() || line == b"\r" {
            return Some(at + 1);
        }
        line_start = at + 1;
    }
    None
}

fn parse_head(text: &str) -> Option<Head<'_>> {
    let mut lines = text.lines();
    let mut words = lines.next()?.splitn(3, ' ');
    let (method, target) = (words.next().filter(|word| !word.is_empty())?, words.next()?);
    let version = if words.next()? == "HTTP/1.0" { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut head = Head { method, target, version, ..Head::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name.to_ascii_lowercase().as_str() {
            "accept" => head.accept.push(value),
            "content-length" => drop(head.length.get_or_insert(value)),
            "transfer-encoding" => head.transfer_encoding = true,
            "connection" => {
                let mut options = value.split(',').map(str::trim);
                head.keeps = options.any(|option| option.eq_ignore_ascii_case("keep-alive"));
            }
            "authorization" => head.authorization = Some(value.trim()),
            "expect" => head.expects_continue = value == "100-continue",
            _ => {}
        }
    }
    Some(head)
}

/// Looks at everything that was received on a connection so far and was not answered.
pub fn read_request(input: &[u8], rules: &Rules) -> Step {
    let limits = rules.limits;
    let Some(end) = head_end(input).filter(|end| *end <= limits.head) else {
        if input.len() < limits.head {
            return Step::Read(false);
        }
        return refuse("HTTP/1.1", 400, "Bad Request", "Request header too large.");
    };
    let text = String::from_utf8_lossy(&input[..end]);
    let Some(head) = parse_head(&text) else {
        return refuse("HTTP/1.1", 400, "Bad Request", "Failed to parse request header.");
    };
    let bad = |text| refuse(head.version, 400, "Bad Request", text);
    // Of a request that announces no body nobody looks at what follows it.
    let announced = head.length.is_some();
    let length = match head.length {
        None if head.transfer_encoding || !may_lack_body(head.method) => {
            let text = "Request requires Content-Length.";
            return refuse(head.version, 411, "Length Required", text);
        }
        None => 0,
        Some(text) => match text.trim().parse::<usize>() {
            Ok(length) => length,
            Err(_) => return bad("Bad Content-Length."),
        },
    };
    if length > limits.body {
        return bad("Request body too large.");
    }
    let body = &input[end..];
    if body.len() > length && announced && !head.keeps {
        return bad("Request body exceeded Content-Length.");
    }
    if body.len() < length {
        return Step::Read(head.expects_continue && body.is_empty());
    }
    answer(&head, rules, &body[..length], end + length)
}

/// Whether the request may come in; takes as long for every wrong word of a length.
fn is_allowed(head: &Head<'_>, rules: &Rules) -> bool {
    let Some(token) = &rules.token else { return true };
    let given = head.authorization.and_then(|value| value.split_once(' '));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let given = given.map_or("", |(_, word)| word.trim()).as_bytes();
    let different = given.iter().zip(token.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == token.len() && different == 0
}

fn may_lack_body(method: &str) -> bool {
    matches!(method, "HEAD" | "GET" | "DELETE" | "OPTIONS")
}

/// The format that the last matching type of all Accept lines selects; `None` if nothing matches.
fn wants_json(accept: &[&str]) -> Option<bool> {
    if accept.is_empty() {
        return Some(false);
    }
    let types = accept.iter().flat_map(|line| line.split(','));
    types
        .map(|t| t.split(';').next().unwrap_or_default().trim())
        .filter_map(|name| match name {
            "text/plain" | "text/*" | "*/*" | "*" => Some(false),
            "application/json" | "application/*" => Some(true),
            _ => None,
        })
        .next_back()
}

/// An answer with its log line.
struct Answering<'a> {
    head: &'a Head<'a>,
    /// Bytes of the request.
    size: usize,
}

impl Answering<'_> {
    fn say(
        &self,
        code: u16,
        reason: &str,
        headers: &str,
        content_type: &str,
        body: &str,
    ) -> Answer {
        let head = self.head;
        let said = Said { code, reason, headers, content_type, body, keeps: head.keeps };
        let log = format!("control: {} {} code={code} {}", head.method, head.target, body.len());
        let keeps = head.keeps.then_some(self.size);
        Answer { bytes: write(head.version, &said), log: Some(log), keeps }
    }

    fn done(&self, json: bool, what: &str) -> Answer {
        match json {
            true => {
                let body = format!("{{\"message\":\"{what}\"}}\n");
                self.say(200, "OK", "", JSON, &body)
            }
            false => self.say(200, "OK", "", TEXT, &format!("{what}\n")),
        }
    }
}

fn answer(head: &Head<'_>, rules: &Rules, body: &[u8], size: usize) -> Step {
    log::debug!("httpserver: IN {} {}", head.method, head.target);
    let answering = Answering { head, size };
    if !is_allowed(head, rules) {
        let headers = "WWW-Authenticate: Bearer\r\n";
        let text = "This port asks for 'Authorization: Bearer TOKEN'.\n";
        return Step::Answer(answering.say(401, "Unauthorized", headers, TEXT, text));
    }
    let Some(json) = wants_json(&head.accept) else {
        let text = "Not Acceptable. Supported formats are text/plain and application/json.\n";
        return Step::Answer(answering.say(406, "Not Acceptable", "", TEXT, text));
    };
    let path = match head.target {
        "/" => "/",
        target => target.strip_suffix('/').unwrap_or(target),
    };
    match (path, head.method) {
        ("/", _) => Step::Answer(answering.say(200, "OK", "", TEXT, "Pushpin API\n")),
        ("/publish", "POST") => publish(&answering, json, body),
        ("/recover", "POST") => Step::Recover(answering.done(json, "Updated")),
        ("/publish" | "/recover", method) => {
            let text = format!("Method not allowed: {method}.\n");
            Step::Answer(answering.say(405, "Method Not Allowed", "Allow: POST\r\n", TEXT, &text))
        }
        _ => Step::Answer(answering.say(404, "Not Found", "", TEXT, "Not Found\n")),
    }
}

fn publish(answering: &Answering<'_>, json: bool, body: &[u8]) -> Step {
    let document = Value::from_json(body)
        .filter(|value| matches!(value, Value::Map(_) | Value::List(_)))
        .ok_or_else(|| "Body is not valid JSON.".to_owned());
    match document.and_then(|document| parse_items(&document, true)) {
        Ok(items) => {
            let head = answering.head;
            let published = Published {
                method: head.method.to_owned(),
                target: head.target.to_owned(),
                version: head.version,
                json,
                items: items.len(),
                keeps: head.keeps.then_some(answering.size),
            };
            Step::Publish(published, items)
        }
        Err(text) => {
            let text = format!("{text}\n");
            Step::Answer(answering.say(400, "Bad Request", "", TEXT, &text))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(token: Option<&str>) -> Rules {
        let limits = Limits { head: 200, body: 1000 };
        Rules { limits, token: token.map(str::to_owned), tells_receivers: false }
    }

    fn text(step: Step) -> String {
        match step {
            Step::Answer(answer) | Step::Recover(answer) => {
                String::from_utf8(answer.bytes).unwrap()
            }
            Step::Publish(published, _) => String::from_utf8(published.answer(None).bytes).unwrap(),
            Step::Read(go_on) => format!("read {go_on}"),
        }
    }

    fn ask(request: &str) -> String {
        text(read_request(request.as_bytes(), &rules(None)))
    }

    #[test]
    fn the_answer_to_a_publish() {
        let body = r#"{"items":[{"channel":"c","formats":{"http-stream":{"content":"x"}}}]}"#;
        let request =
            format!("POST /publish/ HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let Step::Publish(published, items) = read_request(request.as_bytes(), &rules(None)) else {
            panic!("no publish");
        };
        assert_eq!(items[0].channel, "c");
        let told = String::from_utf8(published.clone().answer(Some(3)).bytes).unwrap();
        assert!(told.ends_with("\r\nContent-Length: 22\r\n\r\nPublished receivers=3\n"), "{told}");
        let json = Published { json: true, ..published.clone() }.answer(Some(0));
        let json = String::from_utf8(json.bytes).unwrap();
        assert!(json.ends_with("{\"message\":\"Published\",\"receivers\":0}\n"), "{json}");
        let answer = published.answer(None);
        assert_eq!(
            String::from_utf8(answer.bytes).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\
             Content-Length: 10\r\n\r\nPublished\n"
        );
        assert_eq!(answer.log.as_deref(), Some("control: POST /publish/ code=200 10 items=1"));
        assert_eq!(ask(&request[..request.len() - 1]), "read false");
    }

    #[test]
    fn a_connection_stays_if_the_client_says_so() {
        let request = "GET / HTTP/1.1\r\nConnection: Keep-Alive\r\n\r\nGET /";
        let Step::Answer(answer) = read_request(request.as_bytes(), &rules(None)) else {
            panic!("no answer");
        };
        assert_eq!(answer.keeps, Some(request.len() - 5));
        let text = String::from_utf8(answer.bytes).unwrap();
        assert!(text.contains("\r\nConnection: keep-alive\r\n"));
        let bad = "POST /recover HTTP/1.1\r\nConnection: keep-alive\r\n\r\n";
        assert!(ask(bad).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        for (line, code) in [
            ("", "401"),
            ("Authorization: Basic secret\r\n", "401"),
            ("Authorization: Bearer secre\r\n", "401"),
            ("Authorization: Bearer secrets\r\n", "401"),
            ("Authorization: bearer secret\r\n", "200"),
        ] {
            let request = format!("GET / HTTP/1.1\r\n{line}\r\n");
            let answer = text(read_request(request.as_bytes(), &rules(Some("secret"))));
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{line}: {answer}");
        }
    }

    #[test]
    fn answers_of_the_api() {
        for (request, part) in [
            ("GET / HTTP/1.0\n\n", "HTTP/1.0 200 OK\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", "\r\n\r\nPushpin API\n"),
            ("GET /publish HTTP/1.1\r\n\r\n", "405 Method Not Allowed\r\nAllow: POST\r\n"),
            ("GET /recover/ HTTP/1.1\r\n\r\n", "Method not allowed: GET.\n"),
            ("GET /x HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /?a HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET / HTTP/1.1\r\nAccept: image/png\r\n\r\n", "406 Not Acceptable"),
            (
                "POST /recover HTTP/1.1\r\nAccept: text/plain, application/*;q=0.1\r\nContent-Length: 0\r\n\r\n",
                "{\"message\":\"Updated\"}\n",
            ),
            ("POST /publish HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "Body is not valid JSON.\n"),
            ("POST /publish HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]", "Invalid format.\n"),
            ("POST /publish HTTP/1.1\r\n\r\n", "411 Length Required"),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "Request requires Content-Length.\n",
            ),
            ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "Bad Content-Length.\n"),
            ("POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", "Request body too large.\n"),
            (
                "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nab",
                "Request body exceeded Content-Length.\n",
            ),
            ("POST\r\n\r\n", "Failed to parse request header.\n"),
            (" GET / HTTP/1.1\r\n\r\n", "Failed to parse request header.\n"),
            ("GET / HTTP/1.1\r\n\r\nmore", "Pushpin API\n"),
            (
                "POST /publish HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\n[]",
                "Invalid format.\n",
            ),
            (
                "POST /recover HTTP/1.1\r\nAccept: application/json\r\nAccept: image/png\r\nContent-Length: 0\r\n\r\n",
                "{\"message\":\"Updated\"}\n",
            ),
            ("POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", "read true"),
            ("POST / HTTP/1.1\r\n", "read false"),
        ] {
            let answer = ask(request);
            assert!(answer.contains(part), "{request:?}: {answer:?}");
        }
        assert!(ask(&"x".repeat(200)).contains("Request header too large.\n"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(input in any::<Vec<u8>>(), near in "(GET|POST) /publish HTTP/1.1\r?\n(Content-Length: [0-9]{0,3}\r?\n)?\r?\n[{}\\[\\]a-z\":]{0,20}") {
            read_request(&input, &rules(None));
            read_request(near.as_bytes(), &rules(Some("t")));
        }
    }
}
