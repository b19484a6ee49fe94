//! `application/grip-instruct` bodies (spec/grip.md §4), added to what the headers said.

use crate::instruct::{
    Channel, HoldMode, Instruct, Reply, ResponseHead, check_filters, is_framing, json_keep_alive,
    keep_alive_timeout, status, timeout,
};
use crate::value::Value;
use crate::{Headers, base64, reason};

/// Adds the JSON instruction in the body of `response` to `instruct`.
pub(crate) fn apply(instruct: &mut Instruct, response: &ResponseHead<'_>) -> Result<(), String> {
    let document = Value::from_json(response.body)
        .filter(|value| matches!(value, Value::Map(_) | Value::List(_)))
        .ok_or("failed to parse application/grip-instruct content as JSON")?;
    if document.as_map().is_none() {
        return Err("instruct must be an object".to_owned());
    }
    if let Some(hold) = document.get("hold") {
        hold.as_map().ok_or("instruct contains 'hold' with wrong type")?;
        apply_hold(instruct, hold)?;
    }
    let (code, reason) = status(response)?.unwrap_or((200, String::new()));
    instruct.reply = Reply { code, reason, ..Reply::default() };
    let mut has_body = false;
    if let Some(given) = document.get("response") {
        given.as_map().ok_or("")?;
        has_body = apply_response(&mut instruct.reply, given)?;
    }
    if instruct.hold.is_none() && instruct.next.is_none() && !has_body {
        // A quirk that backends may have met: nothing to do is an error without a text.
        return Err("filter error: ".to_owned());
    }
    Ok(())
}

fn apply_hold(instruct: &mut Instruct, hold: &Value) -> Result<(), String> {
    let mode = match hold.get("mode") {
        None => HoldMode::Response,
        Some(mode) => {
            match mode.as_text().ok_or("hold contains 'mode' with wrong type")?.as_str() {
                "response" => HoldMode::Response,
                "stream" => HoldMode::Stream,
                _ => {
                    return Err(
                        "hold 'mode' must be set to either 'response' or 'stream'".to_owned()
                    );
                }
            }
        }
    };
    instruct.hold = Some(mode);
    let channels = hold.get("channels").ok_or("hold does not contain 'channels'")?;
    for channel in channels.as_list().ok_or("hold contains 'channels' with wrong type")? {
        instruct.channels.push(parse_channel(channel)?);
    }
    if let Some(value) = hold.get("timeout") {
        let seconds = value.as_int().ok_or("hold contains 'timeout' with wrong type")?;
        instruct.timeout_s =
            timeout(seconds).ok_or("hold contains 'timeout' with invalid value")?;
    }
    if let Some(value) = hold.get("keep-alive") {
        value.as_map().ok_or("hold contains 'keep-alive' with wrong type")?;
        apply_keep_alive(instruct, value)?;
    }
    if let Some(value) = hold.get("meta") {
        for (key, value) in value.as_map().ok_or("hold contains 'meta' with wrong type")? {
            let text = value
                .as_text()
                .ok_or_else(|| format!("'meta' contains '{key}' with wrong type"))?;
            instruct.meta.insert(key.clone(), text);
        }
    }
    Ok(())
}

fn parse_channel(value: &Value) -> Result<Channel, String> {
    value.as_map().ok_or("channel is not an object")?;
    let wrong = |key: &str| format!("channel contains '{key}' with wrong type");
    let name = value.get("name").ok_or("channel does not contain 'name'")?;
    let name = name.as_text().ok_or_else(|| wrong("name"))?;
    let prev_id = match value.get("prev-id") {
        None => None,
        Some(id) => Some(id.as_text().ok_or_else(|| wrong("prev-id"))?),
    };
    let mut filters = Vec::new();
    if let Some(list) = value.get("filters") {
        for filter in list.as_list().ok_or_else(|| wrong("filters"))? {
            filters.push(filter.as_text().ok_or("filters contains value with wrong type")?);
        }
    }
    check_filters(&name, &filters)?;
    Ok(Channel { name, prev_id: prev_id.filter(|id| !id.is_empty()), filters })
}

fn apply_keep_alive(instruct: &mut Instruct, value: &Value) -> Result<(), String> {
    let wrong = |key: &str| format!("keep-alive contains '{key}' with wrong type");
    let mut keep_alive = instruct.keep_alive.take().unwrap_or_else(json_keep_alive);
    if let Some(content) = value.get("content") {
        keep_alive.data = content.as_bytes().ok_or_else(|| wrong("content"))?.to_vec();
    }
    if let Some(content) = value.get("content-bin") {
        keep_alive.data = base64::decode(content.as_bytes().ok_or_else(|| wrong("content-bin"))?);
    }
    keep_alive.timeout_s = json_keep_alive().timeout_s;
    if let Some(timeout) = value.get("timeout") {
        let seconds = timeout.as_int().ok_or_else(|| wrong("timeout"))?;
        keep_alive.timeout_s = keep_alive_timeout(seconds)
            .ok_or("keep-alive contains 'timeout' with invalid value")?;
    }
    instruct.keep_alive = Some(keep_alive).filter(|keep_alive| !keep_alive.data.is_empty());
    Ok(())
}

/// Takes `response` over; gives whether it had a body.
fn apply_response(reply: &mut Reply, given: &Value) -> Result<bool, String> {
    let wrong = |key: &str| format!("response contains '{key}' with wrong type");
    if let Some(value) = given.get("code") {
        let code = value.as_int().ok_or_else(|| wrong("code"))?;
        reply.code = u16::try_from(code)
            .ok()
            .filter(|code| *code <= 999)
            .ok_or("response contains 'code' with invalid value")?;
        reply.reason = reason(reply.code).to_owned();
    }
    if let Some(value) = given.get("reason") {
        reply.reason = value.as_text().ok_or_else(|| wrong("reason"))?;
    }
    if let Some(value) = given.get("headers") {
        reply.headers = headers(value)?.ok_or_else(|| wrong("headers"))?;
    }
    let body = given.get("body").map(|v| v.as_bytes().ok_or_else(|| wrong("body"))).transpose()?;
    let binary =
        given.get("body-bin").map(|v| v.as_bytes().ok_or_else(|| wrong("body-bin"))).transpose()?;
    match (binary, body) {
        (Some(binary), _) => reply.body = base64::decode(binary),
        (None, Some(body)) => reply.body = body.to_vec(),
        (None, None) => return Ok(false),
    }
    Ok(true)
}

/// Headers as a list of pairs or as an object, without those that describe the framing of a
/// message, which is ours; `None` if `value` is neither (also spec/publish.md §3.2).
pub(crate) fn headers(value: &Value) -> Result<Option<Headers>, String> {
    let mut given = all_headers(value)?;
    if let Some(headers) = &mut given {
        headers.retain(|(name, _)| !is_framing(name));
    }
    Ok(given)
}

fn all_headers(value: &Value) -> Result<Option<Headers>, String> {
    match value {
        Value::List(items) => items.iter().map(header_pair).collect::<Result<_, _>>().map(Some),
        Value::Map(entries) => entries
            .iter()
            .map(|(name, value)| match value.as_bytes() {
                Some(value) => Ok((name.clone(), value.to_vec())),
                None => Err(format!("headers contains '{name}' with wrong type")),
            })
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Ok(None),
    }
}

fn header_pair(item: &Value) -> Result<(String, Vec<u8>), String> {
    let pair = item.as_list().ok_or("headers contains element with wrong type")?;
    let [name, value] = pair else {
        return Err("headers contains list with wrong number of elements".to_owned());
    };
    let name = name.as_text().ok_or("header contains name element with wrong type")?;
    let value = value.as_bytes().ok_or("header contains value element with wrong type")?;
    Ok((name, value.to_vec()))
}
