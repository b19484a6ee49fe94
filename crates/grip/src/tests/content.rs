//! What is done to content: filters, marks, patches of bodies.

use proptest::prelude::*;

use super::item;
use crate::*;

fn patch(body: &str, operations: &str) -> Result<String, String> {
    let operations = Value::from_json(operations.as_bytes()).unwrap();
    jsonpatch::patch_body(body.as_bytes(), operations.as_list().unwrap())
        .map(|out| String::from_utf8(out).unwrap())
}

#[test]
fn patches_of_bodies() {
    for (body, operations, result) in [
        ("{\"b\":1,\"a\":2}\r\n", r#"[]"#, "{\"a\":2,\"b\":1}\r\n"),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"add","path":"/a/0","value":9},{"op":"add","path":"/a/-","value":3}]"#,
            r#"{"a":[9,2,3]}"#,
        ),
        (r#"{"a/b":1}"#, r#"[{"op":"replace","path":"/a~1b","value":2}]"#, r#"{"a/b":2}"#),
        (
            r#"{"a":1}"#,
            r#"[{"op":"move","from":"/a","path":"/b"},{"op":"copy","from":"/b","path":"/c"}]"#,
            r#"{"b":1,"c":1}"#,
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"test","path":"/a","value":1.2},{"op":"remove","path":"/a"}]"#,
            "{}",
        ),
        (r#"{"a":1}"#, r#"[{"op":"replace","path":"/","value":[]}]"#, "[]"),
    ] {
        assert_eq!(patch(body, operations).as_deref(), Ok(result), "{operations}");
    }
    for (body, operations) in [
        ("5", "[]"),
        ("{}", r#"[{"op":"remove","path":"/"}]"#),
        ("{}", r#"[{"op":"remove","path":""}]"#),
        (r#"{"a":{}}"#, r#"[{"op":"move","from":"/a","path":"/a/b"}]"#),
        (r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":2}]"#),
        (r#"{"a":[1]}"#, r#"[{"op":"add","path":"/a/1","value":2}]"#),
        ("{}", r#"[{"op":"replace","path":"/","value":1}]"#),
        ("{}", r#"[{"op":"odd","path":"/"}]"#),
    ] {
        assert!(patch(body, operations).is_err(), "{operations}");
    }
}

#[test]
fn filters_drop_and_rewrite() {
    let item = item(r#"{"channel":"c","meta":{"sender":"ann","skip_users":"bob, cid","require_sub":"x"},"http-stream":{"content":""}}"#).unwrap();
    let run = |user: &str, filter: &str, content: &'static str| {
        let meta =
            [("user".to_owned(), user.to_owned()), ("id_format".to_owned(), "<%(c)s>".to_owned())]
                .into();
        let context =
            filter::Context { meta: &meta, channels: &["c"], prev_ids: Some(&[("c", "7")]) };
        filter::run(&[filter.to_owned()], 0, &item, content.into(), &context)
    };
    assert_eq!(run("ann", "skip-self", "a"), filter::Outcome::Drop);
    assert_eq!(run("bob", "skip-self", "a"), filter::Outcome::Send("a".into()));
    assert_eq!(run("cid", "skip-users", "a"), filter::Outcome::Drop);
    assert_eq!(run("ann", "require-sub", "a"), filter::Outcome::Drop);
    assert_eq!(run("ann", "unknown", "a"), filter::Outcome::Send("a".into()));
    assert_eq!(run("ann", "var-subst", "%(user)s 5%%"), filter::Outcome::Send("ann 5%".into()));
    assert_eq!(
        run("ann", "var-subst", "%s"),
        filter::Outcome::Failed("var-subst: Directive 's' requires argument at position 1".into())
    );
    assert_eq!(run("ann", "build-id", "%I %(z)I"), filter::Outcome::Send("<7> z".into()));
    let asks = filter::Outcome::Ask { filter: 0, content: "a".into() };
    assert_eq!(run("ann", "http-check", "a"), asks);
}

/// The texts and positions that backends see with debug, as they have always been.
#[test]
fn error_texts_of_marks() {
    let item = item(r#"{"channel":"c","http-stream":{"content":""}}"#).unwrap();
    let meta =
        [("u".to_owned(), "v".to_owned()), ("id_format".to_owned(), "<%(no)s>".to_owned())].into();
    let run = |filter: &str, content: &'static str, prev_ids| {
        let context = filter::Context { meta: &meta, channels: &["c"], prev_ids };
        match filter::run(&[filter.to_owned()], 0, &item, content.into(), &context) {
            filter::Outcome::Failed(text) => text,
            outcome => format!("{outcome:?}"),
        }
    };
    for (content, text) in [
        ("abc%", "Expected directive after '%' at position 3"),
        ("ab%(x", "Unterminated field starting at position 3"),
        ("ab%(x)", "Expected directive after ')' at position 5"),
        ("a%s", "Directive 's' requires argument at position 2"),
        ("a%(x)I", "Unknown directive 'I' at position 5"),
        ("50% off", "Unknown directive ' ' at position 3"),
        ("a%(x)%", "Unknown directive '%' at position 5"),
        ("a%%(y)%(y)s", "No such variable 'y' at position 10"),
        (r"a%(a\)b)s", "No such variable 'a)b' at position 8"),
        ("%(u)1", "Unknown directive '1' at position 4"),
        (r"a%(x\", r"Expected character after '\' at position 4"),
    ] {
        assert_eq!(run("var-subst", content, None), format!("var-subst: {text}"), "{content}");
    }
    let rendered = run("build-id", "%I", Some(&[]));
    let text = "build-id: failed to render ID: No such variable 'no' at position 6";
    assert_eq!(rendered, text);
    let text = "build-id: No ID specified and no default ID in context at position 1";
    assert_eq!(run("build-id", "%I", None), text);
}

/// A message has a default id whether or not its channels have ids.
#[test]
fn a_default_id_needs_no_channel() {
    let meta = [("id_format".to_owned(), "x".to_owned())].into();
    let context = filter::Context { meta: &meta, channels: &[], prev_ids: Some(&[]) };
    assert_eq!(filter::build_id(b"a%I", &context).unwrap(), b"ax");
}

/// Objects with simple keys, lists and numbers.
fn document() -> impl Strategy<Value = serde_json::Value> {
    let leaf = any::<i16>().prop_map(serde_json::Value::from);
    let tree = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-d]", tree, 0..4)
        .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()))
}

#[test]
fn a_patch_can_neither_nest_nor_grow_without_end() {
    let step = r#"{"op":"add","path":"/y","value":{}},{"op":"move","from":"/x","path":"/y/x"},
        {"op":"move","from":"/y","path":"/x"}"#;
    let steps = |count: usize| format!("[{}]", vec![step; count].join(","));
    assert!(patch(r#"{"x":{}}"#, &steps(200)).is_ok());
    let error = patch(r#"{"x":{}}"#, &steps(20_000)).unwrap_err();
    assert_eq!(error, "failed to apply JSON patch: it nests too deeply");
    let step = r#"{"op":"copy","from":"/","path":"/x"},{"op":"copy","from":"/","path":"/y"}"#;
    let error = patch("{}", &format!("[{}]", vec![step; 60].join(","))).unwrap_err();
    assert_eq!(error, "failed to apply JSON patch: it copies too much");
}

proptest! {
    /// A body that comes in pieces is rewritten as if it were one.
    #[test]
    fn marks_are_found_across_every_cut(
        parts in prop::collection::vec("a|%%|%I|%\\(b\\)I|%\\(\\\\\\)c\\)I", 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let meta = [("id_format".to_owned(), "x".to_owned())].into();
        let context = filter::Context { meta: &meta, channels: &[], prev_ids: Some(&[]) };
        let whole = parts.concat().into_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
        cuts.push(whole.len());
        cuts.sort_unstable();
        let (mut held, mut out, mut from) = (Vec::new(), Vec::new(), 0);
        for cut in cuts {
            held.extend_from_slice(&whole[from..cut]);
            from = cut;
            let rest = held.split_off(filter::complete(&held));
            out.extend(filter::build_id(&held, &context).unwrap());
            held = rest;
        }
        prop_assert!(held.is_empty());
        prop_assert_eq!(out, filter::build_id(&whole, &context).unwrap());
    }

    /// A member set by a patch is there, everything else is as before; taking it away again
    /// gives the document without it; a test of what is there succeeds.
    #[test]
    fn a_patch_changes_what_it_names(before in document(), key in "[a-f]", n in any::<i16>()) {
        let body = before.to_string();
        let add = format!(r#"[{{"op":"add","path":"/{key}","value":{n}}},
            {{"op":"test","path":"/{key}","value":{n}}}]"#);
        let mut expected = before.clone();
        expected[&key] = n.into();
        let after = patch(&body, &add).unwrap();
        prop_assert_eq!(&after, &expected.to_string());
        let without = patch(&after, &format!(r#"[{{"op":"remove","path":"/{key}"}}]"#)).unwrap();
        let mut expected = before;
        expected.as_object_mut().unwrap().remove(&key);
        prop_assert_eq!(without, expected.to_string());
    }

    /// Moving there and back is no change, and a copy is equal to where it came from.
    #[test]
    fn what_is_moved_comes_back(before in document()) {
        let body = before.to_string();
        for key in before.as_object().unwrap().keys() {
            let back = format!(r#"[{{"op":"move","from":"/{key}","path":"/zz"}},
                {{"op":"move","from":"/zz","path":"/{key}"}}]"#);
            prop_assert_eq!(&patch(&body, &back).unwrap(), &body);
            let copied = format!(r#"[{{"op":"copy","from":"/{key}","path":"/zz"}}]"#);
            let copied: serde_json::Value =
                serde_json::from_str(&patch(&body, &copied).unwrap()).unwrap();
            prop_assert_eq!(&copied["zz"], &before[key]);
        }
    }

    #[test]
    fn no_patch_panics(
        before in document(),
        op in "add|remove|replace|move|copy|test|x",
        path in "[/a-d0-9~-]{0,6}",
        from in "[/a-d0-9~]{0,6}",
    ) {
        let _ = patch(
            &before.to_string(),
            &format!(r#"[{{"op":"{op}","path":"{path}","from":"{from}","value":{{}}}}]"#),
        );
    }
}

#[test]
fn filters_that_ask_a_backend() {
    use crate::filter::{Outcome, agree, answered, url};
    let meta = |url: &str| [("url".to_owned(), url.to_owned())].into();
    assert_eq!(url(&meta("/f"), "wss://h/x").unwrap(), "https://h/f");
    assert_eq!(url(&meta("http://o/f"), "http://h/x").unwrap(), "http://o/f");
    assert_eq!(url(&Default::default(), "http://h/").unwrap_err(), "missing url value");
    for bad in ["http://[", "file:///etc/passwd"] {
        assert_eq!(url(&meta(bad), "http://h/").unwrap_err(), "invalid url value");
    }
    let answer = |name, code, drop| answered(name, code, drop, "new".into(), "old".into());
    assert_eq!(answer("http-check", 200, false), Outcome::Send("old".into()));
    assert_eq!(answer("http-modify", 200, false), Outcome::Send("new".into()));
    assert_eq!(answer("http-modify", 204, false), Outcome::Send("old".into()));
    assert_eq!(answer("http-modify", 200, true), Outcome::Drop);
    assert!(matches!(answer("http-check", 500, true), Outcome::Failed(_)));
    let own = ["skip-self".to_owned(), "var-subst".to_owned()];
    assert!(agree(&own, None).is_ok() && agree(&own, Some(&["var-subst".to_owned()])).is_ok());
    assert!(agree(&own, Some(&[])).is_err());
}
