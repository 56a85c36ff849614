//! Paths: what passes is read in one way only, and no reading of it leads to what is reserved.

use std::sync::LazyLock;

use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;

use crate::config::RoutingSettings;
use crate::routes::definition::{Definition, RouteDefinition};
use crate::routes::path::normalise;
use crate::routes::predicate::Asked;
use crate::routes::weight::Draws;
use crate::routes::{RouteTable, Target};

const RESERVED: [&str; 2] = ["internal", "actuator"];

/// A gateway that routes everything.
static TABLE: LazyLock<RouteTable> = LazyLock::new(|| {
    let definition = serde_json::json!({"id": "all", "uri": "no://op", "authentication": "none"});
    let mut route: RouteDefinition = serde_json::from_value(definition).expect("a route");
    route.predicates = vec![Definition::shortcut("Path=/**")];
    let settings = RoutingSettings {
        routes: vec![route],
        reserved_paths: RESERVED.map(str::to_owned).to_vec(),
        ..RoutingSettings::default()
    };
    RouteTable::build(&settings, &RouteTable::default(), |_| Target::Nowhere).expect("a table")
});

pub fn run(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let Ok(normal) = normalise(path) else { return };
    assert_eq!(normalise(&normal).as_deref(), Ok(&*normal), "its own form");
    assert!(normal.is_ascii(), "{normal:?}");
    let decoded: Vec<u8> = percent_decode_str(&normal).collect();
    assert!(!decoded.contains(&b'%'), "{normal}: decoding it once more would say something else");
    assert_eq!(count(normal.as_bytes()), count(&decoded), "{normal}: an encoded slash");
    assert!(!decoded.iter().any(|byte| matches!(byte, b';' | b'\\' | 0..=0x1f | 0x7f)), "{normal}");
    let segments: Vec<&[u8]> = decoded.split(|byte| *byte == b'/').skip(1).collect();
    let last = segments.len() - 1;
    for (at, segment) in segments.iter().enumerate() {
        assert!(!matches!(*segment, b"." | b".."), "{normal}: a dot segment");
        assert!(at == last || !segment.is_empty(), "{normal}: an empty segment");
    }
    if RESERVED.contains(&&*lenient(path)) || RESERVED.contains(&&*lenient(&normal)) {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let asked = Asked {
            method: &method,
            path: &normal,
            query: None,
            headers: &headers,
            peer: None,
            now_ms: 0,
            draws: Draws::default(),
        };
        assert!(TABLE.find(&asked).is_err(), "{path} reaches what is reserved");
    }
}

fn count(path: &[u8]) -> usize {
    path.iter().filter(|byte| **byte == b'/').count()
}

/// The first segment as the most lenient of servers would read it: decoded as often as there is something to decode,
/// parameters cut off, dots resolved, case forgotten.
fn lenient(path: &str) -> String {
    let mut path = path.to_owned();
    for _ in 0..8 {
        path = percent_decode_str(&path).decode_utf8_lossy().into_owned();
    }
    let mut kept: Vec<String> = Vec::new();
    for segment in path.replace('\\', "/").split('/') {
        let segment: String = segment.chars().take_while(|c| *c != ';').collect();
        match &*segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment.to_ascii_lowercase()),
        }
    }
    kept.into_iter().next().unwrap_or_default()
}
