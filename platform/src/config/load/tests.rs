use std::io::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::{AdminSettings, Bootstrap, Common, ConsulSettings, Secret};
use super::*;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Example {
    server: ServerSettings,
    admin: AdminSettings,
    consul: ConsulSettings,
    telemetry: TelemetrySettings,
    redis: RedisSettings,
    identity: IdentitySettings,
    own: Own,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Own {
    names: Vec<String>,
    limits: Vec<Limit>,
    #[serde(with = "super::super::duration")]
    wait: Duration,
    count: u32,
    key: Secret,
    maybe: Option<u16>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Limit {
    id: String,
    rate: u32,
}

impl Settings for Example {
    fn common(&self) -> Common<'_> {
        Common { server: &self.server, admin: &self.admin, consul: &self.consul, telemetry: &self.telemetry }
    }

    fn validate(&self, problems: &mut Problems) {
        if self.own.count > 100 {
            problems.add("own.count", "must be at most 100");
        }
        if self.own.wait.is_zero() {
            problems.add("own.wait", "must be longer than 0s");
        }
    }
}

const SECRET: &str = "a secret of at least thirty-two bytes";

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn flat(name: &str, pairs: Value) -> Source {
    Source::from_flat(name.to_owned(), pairs.as_object().unwrap())
}

fn sources(more: Vec<Source>) -> Vec<Source> {
    let base =
        flat("application.yml", json!({"identity.secret": SECRET, "own.wait": "1s", "unknown.section": 1}));
    more.into_iter().chain([base]).collect()
}

fn problems_of(sources: Vec<Source>) -> Vec<String> {
    match resolve::<Example>(sources) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(str::to_owned).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_stronger_source_wins_by_the_leaf_and_a_list_as_a_whole() {
    let (settings, origins) = resolve::<Example>(sources(vec![
        Source::from_variable("FIRSTCOME_OWN__COUNT", "7"),
        flat("strong.yml", json!({"own.count": 5, "own.names[0]": "a", "redis.sentinels": "", "redis.address": "h:1"})),
        flat(
            "weak.yml",
            json!({
                "own.count": 1, "own.names[0]": "x", "own.names[1]": "y", "own.wait": "250ms", "own.maybe": "",
                "own.limits[0].id": "l", "own.limits[0].rate": 3, "server.body-limit": "1MiB", "own.key": 12345,
            }),
        ),
    ]))
    .unwrap();
    assert_eq!(settings.own.count, 7);
    assert_eq!(settings.own.names, ["a"]);
    assert_eq!(settings.own.wait, Duration::from_millis(250));
    assert_eq!(settings.own.maybe, None);
    assert_eq!((settings.own.limits[0].id.as_str(), settings.own.limits[0].rate), ("l", 3));
    assert_eq!(settings.own.key.expose(), "12345");
    assert_eq!(settings.server.body_limit, 1 << 20);
    assert!(settings.redis.sentinels.is_empty());
    assert_eq!(origins["own.count"], "environment variable FIRSTCOME_OWN__COUNT");
    assert_eq!(origins["own.wait"], "weak.yml");
    assert_eq!(origins["own.names[0]"], "strong.yml");
}

#[test]
fn text_from_the_environment_becomes_what_the_field_wants() {
    let (settings, _) = resolve::<Example>(sources(vec![
        Source::from_variable("FIRSTCOME_SERVER__PORT", "8080"),
        Source::from_variable("FIRSTCOME_CONSUL__ENABLED", "false"),
        Source::from_variable("FIRSTCOME_TELEMETRY__SAMPLE_RATIO", "0.5"),
        Source::from_variable("FIRSTCOME_TELEMETRY__EXPORTER", "zipkin"),
        Source::from_variable("FIRSTCOME_OWN__NAMES", "a, b,c"),
        Source::from_variable("FIRSTCOME_OWN__MAYBE", "9"),
        Source::from_variable("FIRSTCOME_SERVER__ADDRESS", "0.0.0.0"),
    ]))
    .unwrap();
    assert_eq!(settings.server.port, 8080);
    assert!(!settings.consul.enabled);
    assert!((settings.telemetry.sample_ratio - 0.5).abs() < 1e-9);
    assert_eq!(settings.telemetry.exporter, super::super::Exporter::Zipkin);
    assert_eq!(settings.own.names, ["a", "b", "c"]);
    assert_eq!(settings.own.maybe, Some(9));
    assert!(settings.server.address.is_unspecified());
}

#[test]
fn all_problems_are_listed_at_once() {
    let problems = problems_of(vec![flat(
        "bad.yml",
        json!({
            "server.port": 99999, "server.body-limit": "big", "server.header-timeout": 5, "server.prot": 1,
            "telemetry.log-format": "xml", "telemetry.sample-ratio": 2, "telemetry.log-level": "loud=yes=no",
            "redis.sentinels[0]": "nowhere", "own.count": 101, "own.wait": "soon", "own.limits[0].id": "l",
            "own.limits[1].id": "m", "own.limits[1].rate": "fast", "identity.secret": "short",
        }),
    )]);
    let of = |path: &str| problems.iter().filter(|line| line.starts_with(&format!("{path}: "))).count();
    for path in [
        "server.port",
        "server.body-limit",
        "server.header-timeout",
        "server.prot",
        "telemetry.log-format",
        "telemetry.sample-ratio",
        "telemetry.log-level",
        "redis.sentinels",
        "own.count",
        "own.wait",
        "identity.secret",
        "own.limits[0].rate",
        "own.limits[1].rate",
    ] {
        assert_eq!(of(path), 1, "{path} in {problems:#?}");
    }
    assert_eq!(problems.len(), 13, "{problems:#?}");
}

#[test]
fn each_worker_has_a_connection_that_it_may_take() {
    let of = |connections: usize, workers: usize| {
        let server = json!({"server.max-connections": connections, "server.workers": workers});
        sources(vec![flat("a.yml", server)])
    };
    for (connections, workers) in [(1, 0), (1, 1), (4, 4), (5, 4)] {
        assert!(resolve::<Example>(of(connections, workers)).is_ok(), "{connections} for {workers}");
    }
    for (connections, workers, problem) in [
        (0, 4, "server.max-connections: must be at least 1"),
        (3, 4, "server.max-connections: must be at least one for each of the 4 server.workers"),
    ] {
        assert_eq!(problems_of(of(connections, workers)), [problem]);
    }
}

#[test]
fn a_secret_may_come_from_a_file_but_not_twice() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "from the file").unwrap();
    let path = file.path().to_str().unwrap();
    let given =
        |pairs| sources(vec![Source::from_variable("FIRSTCOME_OWN__KEY_FILE", path), flat("a.yml", pairs)]);
    let (settings, origins) = resolve::<Example>(given(json!({"own.key": ""}))).unwrap();
    assert_eq!(settings.own.key.expose(), "from the file");
    let shown = environment(&serde_json::to_value(&settings).unwrap(), &origins, "local");
    let text = shown.to_string();
    assert!(text.contains("environment variable FIRSTCOME_OWN__KEY_FILE"), "{text}");
    let problems = problems_of(given(json!({"own.key": "as well"})));
    assert_eq!(problems, ["own.key-file: is given, and so is own.key: only one of them may be"]);
    let missing = vec![Source::from_variable("FIRSTCOME_OWN__KEY_FILE", "/nowhere/at/all")];
    let problems = problems_of(sources(missing));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("own.key-file: can't read /nowhere/at/all: "), "{problems:?}");
}

#[test]
fn sections_of_others_are_not_our_business() {
    let more = vec![Source::from_variable("FIRSTCOME_FIRST_ADMIN__PASSWORD_FILE", "/nowhere")];
    assert!(resolve::<Example>(sources(more)).is_ok());
}

#[test]
fn no_secret_is_shown() {
    let (settings, origins) = resolve::<Example>(sources(vec![flat(
        "a.yml",
        json!({"own.key": "hunter2", "redis.password": "hunter2", "admin.token": "hunter2"}),
    )]))
    .unwrap();
    let shown = serde_json::to_value(&settings).unwrap();
    let texts = [
        format!("{settings:?}"),
        shown.to_string(),
        environment(&shown, &origins, "local").to_string(),
        format!(
            "{:?}",
            Bootstrap::from_variables(None, [("FIRSTCOME_A__B".to_owned(), "hunter2".to_owned())])
        ),
    ];
    for text in texts {
        assert!(!text.contains("hunter2") && !text.contains(SECRET), "{text}");
        assert!(text.contains("******"), "{text}");
    }
    // A secret of a wrong type is not shown either.
    let problems = problems_of(sources(vec![flat(
        "a.yml",
        json!({"own.key.deeper": "hunter2", "own.count": "hunter2"}),
    )]));
    assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
}

#[tokio::test]
async fn a_local_folder_is_layered_like_the_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "application.yml",
        "identity: {secret: a secret of at least thirty-two bytes}\nown: {count: 1, wait: 1s}\n",
    );
    write("example.yml", "own: {count: 2, names: [base]}\n");
    write("application-a.yml", "own: {count: 3}\n");
    write("example-a.yml", "own: {count: 4}\n");
    write("application-b.yml", "own: {count: 5}\n");
    write("empty.yml", "");
    let bootstrap = |profile: &str| Bootstrap {
        config_url: format!("file:{}", folder.path().display()),
        profile: profile.to_owned(),
        ..Bootstrap::from_variables(None, [])
    };
    for (profile, count) in [("default", 2), ("a", 4), ("a,b", 5), ("b,a", 4)] {
        let loaded = load::<Example>("example", &bootstrap(profile)).await.unwrap();
        assert_eq!(loaded.settings.own.count, count, "{profile}");
        assert_eq!(loaded.settings.own.names, ["base"]);
    }
    write("example.yml", "own: [");
    assert!(matches!(load::<Example>("example", &bootstrap("a")).await, Err(ConfigError::Refused { .. })));
}

#[tokio::test]
async fn a_server_is_asked_and_its_order_is_kept() {
    use axum::extract::Path;
    use axum::routing::get;
    let answer = |Path((app, profile, label)): Path<(String, String, String)>| async move {
        axum::Json(json!({
            "name": app, "profiles": [profile], "label": label, "version": "c0ffee", "state": "",
            "propertySources": [
                {"name": "strong", "source": {"own.count": 2}},
                {"name": "weak", "source": {"own.count": 1, "own.wait": "1s", "identity.secret": SECRET}},
            ],
        }))
    };
    let settings = ServerSettings::default();
    let unreadable = async || {
        let detail = "example.yml can't be read:\nline 3";
        crate::http::problem::Problem::new(http::StatusCode::NOT_FOUND, "UNREADABLE_FILE", detail)
    };
    let router = axum::Router::new()
        .route("/base/{app}/{profile}/{label}", get(answer))
        .route("/broken/{app}/{profile}/{label}", get(unreadable));
    let server = crate::http::server::Server::start(&settings, move |_| router.clone()).unwrap();
    let bootstrap = Bootstrap {
        config_url: format!("http://{}/base/", server.address()),
        profile: "a,b".to_owned(),
        label: Some("feature/x".to_owned()),
        ..Bootstrap::from_variables(None, [("FIRSTCOME_OWN__MAYBE".to_owned(), "3".to_owned())])
    };
    let loaded = load::<Example>("example", &bootstrap).await.unwrap();
    assert_eq!(loaded.commit.as_deref(), Some("c0ffee"));
    assert_eq!((loaded.settings.own.count, loaded.settings.own.maybe), (2, Some(3)));
    assert_eq!(loaded.origins["own.count"], "strong");
    // What the server refuses is refused at once, and the message has no credentials in it.
    let wrong =
        Bootstrap { config_url: format!("http://me:hunter2@{}/broken", server.address()), ..bootstrap };
    let error = load::<Example>("example", &wrong).await.unwrap_err().to_string();
    assert!(error.ends_with("404 Not Found: example.yml can't be read: line 3"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    server.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_server_is_asked_six_times_unless_it_is_optional() {
    let address = crate::testing::free_address();
    let bootstrap = |url: String| Bootstrap {
        config_url: url,
        ..Bootstrap::from_variables(
            None,
            [("FIRSTCOME_IDENTITY__SECRET", SECRET), ("FIRSTCOME_OWN__WAIT", "1s")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        )
    };
    let begun = tokio::time::Instant::now();
    let error = load::<Example>("example", &bootstrap(format!("http://{address}"))).await.unwrap_err();
    assert!(matches!(error, ConfigError::Unavailable { .. }), "{error}");
    // 1 + 1.1 + 1.21 + 1.331 + 1.4641 s
    assert!((6.0..6.5).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    let loaded = load::<Example>("example", &bootstrap(format!("optional:http://{address}"))).await.unwrap();
    assert_eq!(loaded.settings.own.wait, Duration::from_secs(1));
}
