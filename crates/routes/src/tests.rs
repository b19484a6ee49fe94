//! Every rule of spec/routes.md §2 to §6.

use proptest::prelude::*;

use super::*;

fn no_file(path: &str) -> Result<String, String> {
    if path == "cert.pem" { Ok("PEM".into()) } else { Err(format!("failed to open {path}: none")) }
}

fn load(text: &str) -> (Table, Vec<String>) {
    Table::parse(text, "routes", &no_file)
}

fn route(line: &str) -> Route {
    let (table, problems) = load(line);
    assert_eq!(problems, [""; 0]);
    Route::clone(&table.routes()[0])
}

fn problem(line: &str) -> String {
    let (table, problems) = load(&format!("* ok:80\n{line}\n"));
    assert_eq!((table.routes().len(), problems.len()), (1, 1), "{line}");
    problems[0].clone()
}

#[test]
fn bad_lines_name_file_line_and_cause() {
    for (line, text) in [
        (r#"a "x\"#, "unterminated escape sequence"),
        (r#"a "x\n" b:1"#, "unexpected escape character: n"),
        (r#"a "x:1"#, "unterminated quoted section"),
        ("a, x:1", "expecting prop"),
        ("a,=v x:1", "empty prop name"),
        ("a", "must specify condition and at least one target"),
        ("a #x:1", "must specify condition and at least one target"),
        ("a,proto=ftp x:1", "proto must be set to 'http' or 'ws'"),
        ("a,ssl=true x:1", "ssl must be set to 'yes' or 'no'"),
        ("a,path_beg= x:1", "path_beg cannot be empty"),
        ("a,jsonp_mode=x x:1", "jsonp_mode must be set to 'basic' or 'extended'"),
        ("a,header=x x:1", "header must use format 'name:value'"),
        ("a,header=:x x:1", "header must use format 'name:value'"),
        ("a x", "target bad format"),
        ("a [::1] y:1", "target bad format"),
        ("a x:0", "target invalid port"),
        ("a x:65536", "target invalid port"),
        ("a x:1 y:z", "target invalid port"),
        ("a zhttp/nospec", "target bad ZeroMQ address, expected scheme://address"),
        ("a zhttp/tcp://h:x", "target bad ZeroMQ address, expected scheme://address"),
        ("a x:1,client_cert=no.pem", "failed to open no.pem: none"),
    ] {
        assert_eq!(problem(line), format!("routes:2: {text}"), "{line}");
    }
    assert_eq!(problem("* other:80"), "routes:2 skipping duplicate condition");
}

#[test]
fn quotes_comments_and_spaces() {
    let r = route(r##"  na"me",id="a, \"b\"#\\",path_beg=/a   x:1    y:2,ssl # comment"##);
    assert_eq!((r.domain.as_str(), r.id.as_str()), ("name", r##"a, "b"#\"##));
    assert_eq!(r.targets.len(), 2);
    assert!(!r.targets[0].ssl && r.targets[1].ssl);
    // An unquoted # ends the item wherever it is, and a tab is no separator.
    assert_eq!(problem("b,path_beg=/a#b x:1"), format!("routes:2: {}", Error::NoTarget));
    assert_eq!(route("a\tb x:1").domain, "a\tb");
    let (table, problems) = load("# c\r\n\r\n   \r\nh x:1\r\n");
    assert_eq!((table.routes().len(), problems.len()), (1, 0));
}

#[test]
fn values_and_props() {
    // A first item with = is a prop, and so is what follows a leading comma.
    for line in ["id=foo x:1", ",id=foo x:1"] {
        let r = route(line);
        assert_eq!((r.domain.as_str(), r.id.as_str(), r.explicit_id), ("", "foo", true));
    }
    // The last one counts; unknown names are ignored; a flag counts whatever its text.
    let r = route("a,id=1,id=2,unknown=3,debug=false x:1");
    assert_eq!((r.id.as_str(), r.debug), ("2", true));
    let r = route(r#"a,header=A:1,header="B:  2",header=A:3,header=C: x:1,sub=c1,sub=,sub=c2"#);
    let expect = [("C", ""), ("A", "3"), ("B", "2"), ("A", "1")];
    assert_eq!(r.headers, expect.map(|(n, v)| (n.to_owned(), v.to_owned())));
    assert_eq!(r.targets[0].subscribe, ["c2", "c1"]);
}

#[test]
fn automatic_ids_are_unlike() {
    assert_eq!(route("* x:1").id, "*,*,*,*");
    assert_eq!(route("a,proto=ws x:1").id, "a,ws,*,*");
    assert_eq!(route("a,proto=http,ssl=no,path_beg=/x x:1").id, "a,http,ssl,/x");
    assert_eq!(route("a,ssl=yes x:1").id, "a,*,no-ssl,*");
    assert!(!route("* x:1").explicit_id);
}

#[test]
fn options_of_the_condition() {
    let r = route("a,path_beg=/v1/,path_rem=3,sig_iss=me,sig_key=k,prefix=p-,as_host=h:8 x:1");
    assert_eq!((r.path_remove, r.path_replace.as_str()), (3, ""));
    assert_eq!((r.sig_iss.as_deref(), r.sig_key.as_deref()), (Some("me"), Some("k")));
    assert_eq!((r.prefix.as_str(), r.as_host.as_str()), ("p-", "h:8"));
    let r = route("a,replace_beg=/,path_rem=1,path_beg=/v1/ x:1");
    assert_eq!((r.path_remove, r.path_replace.as_str()), (4, "/"));
    assert_eq!(route("a,path_rem=-1 x:1").path_remove, 0);
    let r = route("a,jsonp_mode=basic,aco,session,sockjs=/s,sockjs_as_path=/w,orig_headers x:1");
    assert_eq!((r.jsonp_mode, r.jsonp_default_method.as_str()), (JsonpMode::Basic, "POST"));
    assert!(r.auto_cross_origin && r.session && r.orig_headers && r.grip);
    assert_eq!((r.sockjs.as_str(), r.sockjs_as_path.as_str()), ("/s", "/w"));
    let r = route("a,no_grip,log_level=x x:1");
    assert_eq!((r.grip, r.log_level, r.jsonp_default_method.as_str()), (false, 0, "GET"));
    assert_eq!((r.jsonp_callback.as_str(), route("a x:1").log_level), ("callback", -1));
}

#[test]
fn targets_and_their_options() {
    let r = route(
        "a x:1,ssl,untrusted,trust_connect_host,insecure,host=h:9,over_http,one_event \
         [::1]:2,client_cert=cert.pem test zhttp/ipc:///tmp/x,ipc_file_mode=770 \
         zhttp/tcp://h:5 zhttpreq/ipc:///tmp/y,ipc_file_mode=9 :80",
    );
    let t = &r.targets[0];
    assert!(t.ssl && !t.trusted && t.trust_connect_host && t.insecure);
    assert!(t.over_http && t.one_event && t.host == "h:9");
    assert_eq!(r.targets[1].destination, Destination::Host("::1".into(), 2));
    assert_eq!(r.targets[1].client_cert, "PEM");
    let shown: Vec<_> = r.targets.iter().map(|t| t.destination.to_string()).collect();
    let expect = ["x:1", "[::1]:2", "test", "zhttp/ipc:///tmp/x", "zhttp/tcp://h:5"];
    assert_eq!(&shown[..5], expect);
    assert_eq!(&shown[5..], ["zhttpreq/ipc:///tmp/y", ":80"]);
    assert_eq!((r.targets[3].ipc_file_mode, r.targets[5].ipc_file_mode), (Some(0o770), None));
}

/// The port of the first target of the route found.
fn find(text: &str, host: &str, proto: Proto, ssl: bool, path: &str) -> Option<u16> {
    let (table, _) = load(text);
    match &table.by_host(host, proto, ssl, path)?.targets[0].destination {
        Destination::Host(_, port) => Some(*port),
        _ => None,
    }
}

#[test]
fn a_host_with_rules_does_not_fall_back() {
    let text = "* x:1\nh,path_beg=/a x:2\n*.h x:3\nid=i x:4\n";
    assert_eq!(find(text, "other", Proto::Http, false, "/"), Some(1));
    assert_eq!(find(text, "h", Proto::Http, false, "/a"), Some(2));
    assert_eq!(find(text, "h", Proto::Http, false, "/b"), None);
    assert_eq!(find(text, "x.h", Proto::Http, false, "/"), Some(1));
    assert_eq!(find("h x:1", "H", Proto::Http, false, "/"), None);
    assert_eq!(find("", "h", Proto::Http, false, "/"), None);
}

#[test]
fn precedence_in_order() {
    let http = |text: &str, ssl, path: &str| find(text, "h", Proto::Http, ssl, path);
    // proto beats path, in either order.
    assert_eq!(http("h,path_beg=/aa x:1\nh,proto=http x:2", false, "/aa"), Some(2));
    assert_eq!(http("h,proto=http x:2\nh,path_beg=/aa x:1", false, "/aa"), Some(2));
    assert_eq!(http("h,proto=ws x:2\nh,path_beg=/aa x:1", false, "/aa"), Some(1));
    // The longer path wins; plain prefixes.
    assert_eq!(http("h,path_beg=/ x:1\nh,path_beg=/foo x:2", false, "/foobar"), Some(2));
    assert_eq!(http("h,path_beg=/foo x:2\nh,path_beg=/ x:1", false, "/foobar"), Some(2));
    // ssl wins against none even with a shorter path if it comes later.
    assert_eq!(http("h,path_beg=/a x:1\nh,ssl=yes x:2", true, "/a"), Some(2));
    assert_eq!(http("h,ssl=yes x:2\nh,path_beg=/a x:1", true, "/a"), Some(1));
    assert_eq!(http("h,ssl=no x:2\nh x:1", true, "/a"), Some(1));
    // On ties the first line wins.
    assert_eq!(http("h,proto=http x:1\nh,proto=http,id=b x:2", false, "/"), Some(1));
}

#[test]
fn ids_shared_ids_and_paths() {
    let (table, problems) = load("a,id=one,path_beg=/p x:1\nb,id=two x:2\nc,id=two x:3\n");
    assert_eq!(problems, [""; 0]);
    assert!(matches!(table.by_id("one", "/path"), ById::Found(r) if r.domain == "a"));
    assert!(matches!(table.by_id("one", "/q"), ById::OtherPath(_)));
    assert_eq!(table.by_id("none", "/"), ById::Unknown);
    assert_eq!(table.by_id("two", "/"), ById::Shared);
    assert!(table.by_host("c", Proto::Ws, true, "/").is_some());
    // Lines without a domain are never duplicates.
    let (table, problems) = load("id=a x:1\nid=b x:2\nid=c x:3\n");
    assert_eq!((table.routes().len(), problems.len()), (3, 0));
}

#[test]
fn options_instead_of_a_file() {
    let lines = ["* x:1", "* x:2", "bad"].map(str::to_owned);
    let (table, problems) = Table::from_options(&lines, &no_file);
    assert_eq!(table.routes().len(), 1);
    assert_eq!(problems, [format!("<route>:1: {}", Error::NoTarget)]);
}

#[test]
fn the_dump_lists_domains() {
    let (table, _) = load("* x:1 y:2\nid=i z:3\nh test\n");
    assert_eq!(table.dump(), ["routes by domain:", "  (default): x;1 y;2", "  h: test"]);
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), parts in "[a-z,=\"\\\\# :/\\[\\]\n]{0,200}") {
        for text in [text, parts] {
            let (table, _) = load(&text);
            table.by_host("a", Proto::Http, false, "/");
            table.by_id("a", "/");
            table.dump();
        }
    }

    #[test]
    fn what_is_quoted_comes_back(name in "[^\r\n]{0,30}") {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let r = route(&format!("h,id=x,prefix=\"{quoted}\" x:1"));
        prop_assert_eq!(r.prefix, name);
    }
}
