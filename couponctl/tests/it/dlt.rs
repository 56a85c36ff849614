//! `dlt` on a real dead-letter topic: what waits, what can be redriven, and that a resolution is for good.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::couponctl;
use crate::log::{self, Log, MALFORMED, claimed, envelope};

struct Office {
    log: Log,
    coupon: u64,
}

impl Office {
    /// Rubbish, a claim in the wrong partition, and a claim that is too short.
    async fn open() -> Self {
        let (mut log, coupon) = (Log::create().await, log::coupon_in(1));
        let values = [b"rubbish".to_vec(), claimed(coupon, 7), envelope(2, &[1; 15])];
        for value in values {
            let offset = log.append(0, &[(value.clone(), MALFORMED, 0)]).await[0].offset;
            log.set_aside(0, offset, &value).await;
        }
        log.set_aside(0, 0, b"rubbish").await;
        Self { log, coupon }
    }

    /// Whether it succeeded, its JSON, and what it said beside.
    fn dlt(&self, args: &[&str]) -> (bool, Value, String) {
        let options = self.log.options();
        let all = ["dlt"].iter().chain(args).copied().chain(options.iter().map(String::as_str));
        let output = couponctl(&all.chain(["--json"]).collect::<Vec<_>>());
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.success(), report, String::from_utf8(output.stderr).unwrap())
    }

    /// What it says on standard error where its input is a terminal, on which somebody types this.
    fn typed(&self, args: &[&str], answer: &str) -> String {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_couponctl"));
        command.arg("dlt").args(args).args(self.log.options()).env_remove("FIRSTCOME_STATE");
        command.stdin(File::from(terminal.slave)).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut keyboard = File::from(terminal.master);
        keyboard.write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn waiting(&self) -> Vec<String> {
        let (_, list, _) = self.dlt(&["list"]);
        let letters = list["letters"].as_array().unwrap().clone();
        assert_eq!(list["waiting"], letters.len(), "{list}");
        letters.iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn letters_are_listed_once_and_shown_with_their_bytes() {
    let office = Office::open().await;
    assert_eq!(office.waiting(), ["0/0", "0/1", "0/2"]);
    let (_, letter, _) = office.dlt(&["show", "0/0"]);
    assert_eq!((&letter["repeats"], &letter["valueHex"]), (&json!(1), &json!(hex::encode(b"rubbish"))));
    assert_eq!(
        (&letter["partition"], &letter["offset"], &letter["state"]),
        (&json!(0), &json!(0), &json!("waiting"))
    );
    let options = office.log.options();
    let text = |id: &str| {
        let output = couponctl(
            &[&["dlt", "show", id], options.iter().map(String::as_str).collect::<Vec<_>>().as_slice()]
                .concat(),
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(
        text("0/0").contains("727562626973680") || text("0/0").contains("72756262697368"),
        "{}",
        text("0/0")
    );
    assert!(text("0/0").contains("it can only be discarded: it is malformed"), "{}", text("0/0"));
    assert!(text("0/1").contains("it can be redriven"), "{}", text("0/1"));
    let (success, _, error) = office.dlt(&["show", "9/9"]);
    assert!(!success && error.contains("there is no letter 9/9"), "{error}");
    office.log.remove().await;
}

#[tokio::test]
async fn what_can_be_read_is_redriven_where_it_belongs_and_the_rest_refused() {
    let office = Office::open().await;
    let (success, report, _) = office.dlt(&["redrive", "--all", "--yes", "--by", "ada"]);
    assert!(!success, "two were refused");
    assert_eq!(
        report["resolved"],
        json!([{"letter": "0/1", "action": "redriven", "redrivenTo": "1/0"}]),
        "{report}"
    );
    let refused: Vec<&str> =
        report["refused"].as_array().unwrap().iter().map(|it| it["why"].as_str().unwrap()).collect();
    assert!(
        refused[0].starts_with("it is malformed, and stays so")
            && refused[1].starts_with("it is invalid, and stays so")
    );
    assert_eq!(office.waiting(), ["0/0", "0/2"]);
    let (_, letter, _) = office.dlt(&["show", "0/1"]);
    assert_eq!(
        (&letter["state"], &letter["resolution"]["by"]),
        (&json!("resolved"), &json!("ada")),
        "{letter}"
    );

    // It stands where its coupon belongs, byte for byte.
    let options = office.log.options();
    let tail = ["ledger", "tail", "--partition", "1", "--json"];
    let output =
        couponctl(&[&tail, options.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
    let line: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(
        (&line["kind"], &line["coupon"], &line["user"]),
        (&json!("claim"), &json!(office.coupon), &json!(7))
    );
    let (success, _, error) = office.dlt(&["redrive", "0/1", "--yes"]);
    assert!(!success && error.contains("is resolved"), "{error}");
    office.log.remove().await;
}

#[tokio::test]
async fn what_is_discarded_stays_so_and_nobody_is_asked_without_a_terminal() {
    let office = Office::open().await;
    let (success, _, error) = office.dlt(&["discard", "0/0", "--reason", "a test"]);
    assert!(!success && error.contains("--yes") && error.lines().count() == 1, "{error}");
    let (success, _, error) = office.dlt(&["discard", "0/0", "--reason", " ", "--yes"]);
    assert!(!success && error.contains("--reason is empty"), "{error}");
    assert_eq!(office.waiting().len(), 3);
    let (success, report, error) = office.dlt(&["discard", "0/0", "0/2", "--reason", "a test", "--yes"]);
    assert!(success, "{report} {error}");
    assert_eq!(office.waiting(), ["0/1"]);
    // A consumer that began again sets it aside once more.
    office.log.set_aside(0, 0, b"rubbish").await;
    assert_eq!(office.waiting(), ["0/1"]);
    let (_, all, _) = office.dlt(&["list", "--all"]);
    assert_eq!(all["letters"][0]["resolution"]["reason"], "a test", "{all}");
    let (success, report, _) = office.dlt(&["discard", "--all", "--reason", "the rest", "--yes"]);
    assert_eq!((success, report["resolved"].as_array().unwrap().len()), (true, 1));
    let (success, report, _) = office.dlt(&["discard", "--all", "--reason", "none left", "--yes"]);
    assert_eq!((success, &report), (true, &json!({"resolved": [], "refused": []})));
    office.log.remove().await;
}

#[tokio::test]
async fn on_a_terminal_only_a_yes_is_one() {
    let office = Office::open().await;
    let question = office.typed(&["discard", "0/0", "--reason", "a test"], "\n");
    assert!(
        question.contains("0/0: malformed: a test") && question.ends_with("discard these? [y/N] "),
        "{question}"
    );
    let question = office.typed(&["redrive", "0/1"], "n\n");
    assert!(
        question.contains(&format!("user 7's claim on coupon {}, to partition 1", office.coupon)),
        "{question}"
    );
    assert_eq!(office.waiting().len(), 3);
    office.typed(&["discard", "0/0", "--reason", "a test"], "y\n");
    assert_eq!(office.waiting(), ["0/1", "0/2"]);
    office.log.remove().await;
}
