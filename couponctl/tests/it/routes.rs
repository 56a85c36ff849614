//! `couponctl routes check`.

use std::path::Path;

use serde_json::Value;

use crate::couponctl;

fn check(file: &Path, json: bool) -> (i32, String, String) {
    let mut arguments = vec!["routes", "check", file.to_str().unwrap()];
    arguments.extend(json.then_some("--json"));
    let output = couponctl(&arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_shipped_routes_are_right() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config-repo/gateway.yml");
    let (code, shown, said) = check(&file, false);
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(shown.contains("coupon-issues-claim") && shown.contains("nothing wrong"), "{shown}");
    let (_, shown, _) = check(&file, true);
    let report: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(report["ok"], true);
    assert!(report["routes"].as_array().unwrap().len() > 5);
}

#[test]
fn what_is_wrong_is_one_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yml");
    std::fs::write(&file, "routes: [{id: a, uri: 'lb://x', predicates: [Pth=/a], filters: [StripPrefx=1]}]")
        .unwrap();
    let (code, shown, said) = check(&file, false);
    assert_eq!((code, shown.as_str(), said.lines().count()), (1, "", 2), "{said}");
    assert!(said.contains("routes[0].predicates[0]: Pth is no predicate; did you mean `Path`?"), "{said}");
    assert!(
        said.contains("routes[0].filters[0]: StripPrefx is no filter; did you mean `StripPrefix`?"),
        "{said}"
    );
    let (code, shown, _) = check(&file, true);
    let report: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, report["problems"].as_array().unwrap().len()), (1, 2));
}
