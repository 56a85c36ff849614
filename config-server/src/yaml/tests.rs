use proptest::prelude::*;

use super::*;

fn flat(text: &str) -> String {
    let documents = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
    documents.iter().map(|document| serde_json::to_string(document).unwrap()).collect::<Vec<_>>().join("\n")
}

fn wrong(text: &str) -> String {
    parse(text.as_bytes()).unwrap_err().to_string()
}

fn scalar(text: &str) -> String {
    let flat = flat(&format!("v: {text}"));
    flat.trim_start_matches("{\"v\":").trim_end_matches('}').to_owned()
}

#[test]
fn scalars_are_those_of_yaml_1_1() {
    for (text, value) in [
        ("010", "8"),
        ("08", "\"08\""),
        ("0", "0"),
        ("-0", "0"),
        ("0x1F", "31"),
        ("0b1_01", "5"),
        ("-017", "-15"),
        ("1_000", "1000"),
        ("_1", "\"_1\""),
        ("12:34", "754"),
        ("1:30:00", "5400"),
        ("12:60", "\"12:60\""),
        ("01:30", "\"01:30\""),
        ("1:30.5", "90.5"),
        ("8080", "8080"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "\"18446744073709551616\""),
        ("1e3", "1000.0"),
        ("1.", "1.0"),
        (".5", "0.5"),
        ("-.5", "\"-.5\""),
        ("1.5e+3", "1500.0"),
        ("1e", "\"1e\""),
        (".inf", "\"Infinity\""),
        ("-.INF", "\"-Infinity\""),
        (".NaN", "\"NaN\""),
        ("127.0.0.1", "\"127.0.0.1\""),
        ("127.0.0.1:8500", "\"127.0.0.1:8500\""),
        ("1.2.3", "\"1.2.3\""),
        ("on", "true"),
        ("Off", "false"),
        ("YES", "true"),
        ("y", "\"y\""),
        ("tRue", "\"tRue\""),
        ("2026-11-21", "\"2026-11-21\""),
        ("2026-11-21T10:00:00Z", "\"2026-11-21T10:00:00Z\""),
        ("5s", "\"5s\""),
        ("~", "\"\""),
        ("null", "\"\""),
        ("", "\"\""),
        ("'010'", "\"010\""),
        ("\"on\"", "\"on\""),
        ("!!str 010", "\"010\""),
        ("! 010", "\"010\""),
        ("!!int '12'", "12"),
        ("!!float 1", "1"),
        ("|\n  a\n  b\n", "\"a\\nb\\n\""),
        (">-\n  a\n  b\n", "\"a b\""),
        ("한글", "\"한글\""),
    ] {
        assert_eq!(scalar(text), value, "{text}");
    }
}

#[test]
fn keys_are_flat_and_in_order() {
    assert_eq!(
        flat(
            "b:\n  z: 1\n  a: [x, {c: y}, [1, 2]]\na.b: 3\n'[x/y]': 4\nm:\n  '[x/y]': 5\n  x/y: 6\n  8: 7\n  on: 9"
        ),
        r#"{"b.z":1,"b.a[0]":"x","b.a[1].c":"y","b.a[2][0]":1,"b.a[2][1]":2,"a.b":3,"[x/y]":4,"m[x/y]":5,"m.x/y":6,"m[8]":7,"m[true]":9}"#
    );
}

#[test]
fn nothing_becomes_empty_text_and_an_empty_map_disappears() {
    assert_eq!(
        flat("a: {}\nb: []\nc:\nd: [null, {}, []]\ne: 1"),
        r#"{"b":"","c":"","d[0]":"","d[2]":"","e":1}"#
    );
}

#[test]
fn documents_are_apart_and_empty_ones_none() {
    assert_eq!(flat("a: 1\n---\n---\n# nothing\n---\nb: 2\n"), "{\"a\":1}\n{\"b\":2}");
    assert_eq!(flat(""), "");
    assert_eq!(flat("# only a comment"), "");
    assert_eq!(flat("[1, 2]"), r#"{"document[0]":1,"document[1]":2}"#);
}

#[test]
fn anchors_aliases_and_merges() {
    assert_eq!(
        flat("base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: {<<: [{y: 4}, *b]}\nalso: *b"),
        r#"{"base.x":1,"base.y":2,"one.x":1,"one.y":3,"two.y":4,"two.x":1,"also.x":1,"also.y":2}"#
    );
}

#[test]
fn what_cannot_be_read_says_where_and_nothing_of_what() {
    let secret = "password: hunter2\n";
    for (text, message) in [
        ("a: [hunter2", "line 3: is no YAML: "),
        ("hunter2: 1\nhunter2: 2", "line 3: a key is there twice"),
        ("a: !hunter2 1", "line 2: has a tag that is not supported"),
        ("a: *hunter2", "line 2: is no YAML: while parsing node, found unknown anchor"),
        ("a: !!int hunter2", "line 2: a value is not what its tag says"),
        ("a: \u{1}hunter2", "line 2: has a character that YAML does not allow"),
        ("? {hunter2: 1}\n: 1", "line 2: a key is no scalar"),
        ("<<: hunter2", "<< is neither a map nor a list of maps"),
        ("a: hunter2: b", "line 2: is no YAML: "),
        ("\ta: hunter2", "line 1: is no YAML: "),
    ] {
        let error = wrong(&format!("{secret}{text}"));
        assert!(error.contains(message) && !error.contains("hunter2"), "{text}: {error}");
    }
    assert_eq!(parse(b"a: 1\nb: \xff").unwrap_err().to_string(), "line 2: is not UTF-8");
}

#[test]
fn neither_depth_nor_repetition_gets_out_of_hand() {
    assert!(wrong(&"[".repeat(60)).ends_with("is nested too deeply"));
    assert!(wrong(&"[".repeat(100_000)).starts_with("line "));
    assert!(wrong(&format!("a: {}1", "- ".repeat(10_000))).starts_with("line "));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}, ", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", alias.repeat(10));
    }
    assert_eq!(wrong(&bomb), "unfolds to too many values");
    let mut ladder = "a0: &a0 [x]\n".to_owned();
    for level in 1..200 {
        ladder += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert!(wrong(&ladder).ends_with("is nested too deeply"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_near_yaml_makes_it_panic(text in "([a-c0-9:,\\[\\]{}&*!|>'\"%@`?#~<=. \t\n-]|---\n|\\.\\.\\.\n|: |- |\n  |<<: |&a |\\*a|!!str |%YAML 1.1\n){0,60}") {
        let _ = parse(text.as_bytes());
    }

    #[test]
    fn plain_numbers_are_numbers(number in any::<i64>()) {
        prop_assert_eq!(scalar(&number.to_string()), number.to_string());
    }
}
