use proptest::prelude::*;

use super::*;

#[test]
fn scalars_are_written_canonically() {
    let mut w = Writer::new();
    w.str("hi");
    w.int(-5);
    w.int(0);
    w.bool(true);
    w.bool(false);
    w.null();
    w.float(0.5);
    w.pieces(&[b"a", b"", b"bc"]);
    assert_eq!(w.into_vec(), b"2:hi,2:-5#1:0#4:true!5:false!0:~3:0.5^3:abc,");
}

#[test]
fn integers_at_the_edges() {
    for n in [i64::MIN, i64::MAX, -1, 10, 99, 100] {
        let mut w = Writer::new();
        w.int(n);
        assert_eq!(parse_all(&w.into_vec()), Ok(Value::Int(n)));
    }
}

#[test]
fn malformed_frames_are_refused() {
    for (input, error) in [
        (&b""[..], Error::UnexpectedEof),
        (b"5", Error::UnexpectedEof),
        (b"5:abc,", Error::UnexpectedEof),
        (b"3:abc", Error::UnexpectedEof),
        (b":abc,", Error::InvalidData),
        (b"-1:a,", Error::InvalidData),
        (b"x:a,", Error::InvalidData),
        (b"1:a?", Error::InvalidData),
        (b"1:x#", Error::InvalidData),
        (b"3:yes!", Error::InvalidData),
        (b"1:x~", Error::InvalidData),
        (b"99999999999999999999:a,", Error::InvalidData),
        (b"20:99999999999999999999#", Error::InvalidData),
    ] {
        assert_eq!(parse(input).unwrap_err(), error, "{input:?}");
    }
}

#[test]
fn leading_zeros_and_a_plus_sign_are_read() {
    assert_eq!(parse_all(b"003:abc,"), Ok(Value::Bytes(b"abc")));
    assert_eq!(parse_all(b"2:+7#"), Ok(Value::Int(7)));
}

#[test]
fn bytes_after_the_root_are_left() {
    assert_eq!(parse(b"1:a,rest"), Ok((Value::Bytes(b"a"), &b"rest"[..])));
    assert_eq!(parse_all(b"1:a,rest"), Err(Error::InvalidData));
}

#[test]
fn the_last_of_equal_keys_wins() {
    let Value::Map(map) = parse_all(b"16:1:a,1:1#1:a,1:2#}").unwrap() else { panic!("no map") };
    assert_eq!(map.get("a"), Ok(Some(Value::Int(2))));
    assert_eq!(map.get("b"), Ok(None));
    let raw: Vec<_> = map.iter_raw().map(Result::unwrap).collect();
    assert_eq!(raw, [("a", &b"1:1#"[..]), ("a", b"1:2#")]);
}

#[test]
fn a_map_key_must_be_text_and_have_a_value() {
    let map = |input| parse_all(input).unwrap().as_map().unwrap();
    assert_eq!(map(b"8:1:1#1:2#}").get("a"), Err(Error::BadMapKey));
    assert_eq!(map(b"8:1:\xff,1:2#}").get("a"), Err(Error::BadMapKey));
    assert_eq!(map(b"4:1:a,}").get("a"), Err(Error::UnexpectedEof));
}

#[derive(Clone, Debug)]
enum Tree {
    Bytes(Vec<u8>),
    Int(i64),
    Bool(bool),
    Null,
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<Vec<u8>>().prop_map(Tree::Bytes),
        any::<i64>().prop_map(Tree::Int),
        any::<bool>().prop_map(Tree::Bool),
        Just(Tree::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Tree::List),
            prop::collection::vec((any::<String>(), inner), 0..6).prop_map(Tree::Map),
        ]
    })
}

fn write(tree: &Tree, w: &mut Writer) {
    match tree {
        Tree::Bytes(bytes) => w.bytes(bytes),
        Tree::Int(n) => w.int(*n),
        Tree::Bool(b) => w.bool(*b),
        Tree::Null => w.null(),
        Tree::List(items) => w.list(|w| items.iter().for_each(|item| write(item, w))),
        Tree::Map(entries) => w.map(|w| {
            for (key, value) in entries {
                w.str(key);
                write(value, w);
            }
        }),
    }
}

fn check(tree: &Tree, value: &Value<'_>) {
    match (tree, value) {
        (Tree::Bytes(a), Value::Bytes(b)) => assert_eq!(a, b),
        (Tree::Int(a), Value::Int(b)) => assert_eq!(a, b),
        (Tree::Bool(a), Value::Bool(b)) => assert_eq!(a, b),
        (Tree::Null, Value::Null) => {}
        (Tree::List(a), Value::List(b)) => {
            let b: Vec<_> = b.iter().map(Result::unwrap).collect();
            assert_eq!(a.len(), b.len());
            a.iter().zip(&b).for_each(|(a, b)| check(a, b));
        }
        (Tree::Map(a), Value::Map(b)) => {
            let b: Vec<_> = b.iter().map(Result::unwrap).collect();
            assert_eq!(a.len(), b.len());
            for ((key, a), (name, b)) in a.iter().zip(&b) {
                assert_eq!(key, name);
                check(a, b);
            }
        }
        (a, b) => panic!("{a:?} became {b:?}"),
    }
}

fn walk(value: Value<'_>, depth: usize) {
    match value {
        Value::List(list) if depth < 50 => list.iter().flatten().for_each(|v| walk(v, depth + 1)),
        Value::Map(map) if depth < 50 => {
            map.iter_raw().for_each(drop);
            map.iter().flatten().for_each(|(_, v)| walk(v, depth + 1));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(tree in tree()) {
        let mut w = Writer::new();
        write(&tree, &mut w);
        check(&tree, &parse_all(&w.into_vec()).unwrap());
    }

    #[test]
    fn no_bytes_panic(input in any::<Vec<u8>>()) {
        if let Ok((value, _)) = parse(&input) {
            walk(value, 0);
        }
    }

    #[test]
    fn no_nearly_valid_bytes_panic(input in "([0-9]{0,2}[:,#!~\\]}^]?[a-z0-9]{0,3}){0,12}") {
        if let Ok((value, _)) = parse(input.as_bytes()) {
            walk(value, 0);
        }
    }
}

#[test]
fn values_as_text() {
    let mut w = Writer::new();
    w.map(|w| {
        w.str("ids");
        w.list(|w| {
            w.bytes(b"it's\n\x01\xff\"\\");
            w.int(-3);
        });
        w.str("none");
        w.list(|w| {
            w.null();
            w.bool(true);
            w.map(|_| {});
            w.list(|_| {});
        });
    });
    let frame = w.into_vec();
    let text = parse_all(&frame).unwrap().to_string();
    let expected = r#"{ "ids": [ "it's\n\x01\xff\"\\", -3 ], "none": [ null, true, { }, [ ] ] }"#;
    assert_eq!(text, expected);
}

#[test]
fn text_of_deep_nesting_is_bounded() {
    let mut frame = b"0:]".to_vec();
    for _ in 0..50_000 {
        frame = [frame.len().to_string().as_bytes(), b":", &frame, b"]"].concat();
        if frame.len() > 200_000 {
            break;
        }
    }
    let text = parse_all(&frame).unwrap().to_string();
    assert_eq!(text, format!("{}...{}", "[ ".repeat(32), " ]".repeat(32)));
}
