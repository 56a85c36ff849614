//! `GET /{application}/{profile}[/{label}]`. Invariant: names are checked before git hears of them, and no answer holds
//! anything of a file that could not be read.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use platform::http::extract::{Json, Path};
use platform::http::problem::Problem;

use crate::app::AppState;
use crate::environment::{Environment, EnvironmentError, Question, answer};

/// A file's name has at most 255 bytes.
const MAX_NAME: usize = 200;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/{application}/{profile}", get(without_label))
        .route("/{application}/{profile}/{label}", get(with_label))
}

async fn without_label(
    State(state): State<AppState>,
    Path((application, profile)): Path<(String, String)>,
) -> Result<Json<Environment>, Problem> {
    environment(&state, application, profile, None).await
}

async fn with_label(
    State(state): State<AppState>,
    Path((application, profile, label)): Path<(String, String, String)>,
) -> Result<Json<Environment>, Problem> {
    // A slash can't stand in a part of the path, so that Spring's clients send this.
    environment(&state, application, profile, Some(label.replace("(_)", "/"))).await
}

async fn environment(
    state: &AppState,
    application: String,
    profile: String,
    label: Option<String>,
) -> Result<Json<Environment>, Problem> {
    check("application", &application)?;
    check("profile", &profile)?;
    let question = Question { application, profile, label };
    answer(state, &question).await.map(Json).map_err(problem)
}

fn check(field: &'static str, list: &str) -> Result<(), Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ',' | '-');
    if list.len() > MAX_NAME || !list.chars().all(allowed) {
        return Err(Problem::validation().field(
            field,
            format!("must have at most {MAX_NAME} characters, of A-Z, a-z, 0-9, '.', '_', '-' and ','"),
        ));
    }
    if list.split(',').any(str::is_empty) {
        return Err(Problem::not_found());
    }
    if list.split(',').any(|part| part.starts_with('.') || part.contains("..")) {
        return Err(Problem::validation().field(field, "must not begin with a dot or hold two in a row"));
    }
    Ok(())
}

fn problem(error: EnvironmentError) -> Problem {
    match &error {
        EnvironmentError::NoSuchLabel => Problem::new(
            StatusCode::NOT_FOUND,
            "LABEL_NOT_FOUND",
            "The repository has no such branch, tag or commit.",
        )
        .korean("저장소에 그런 브랜치, 태그 또는 커밋이 없습니다."),
        // 404, as Spring's server says it: a client that fails fast stops at once instead of trying again.
        EnvironmentError::Unreadable { file, commit, .. } => {
            Problem::new(StatusCode::NOT_FOUND, "UNREADABLE_FILE", format!("{error}."))
                .korean(format!("커밋 {commit}의 {file} 파일을 읽을 수 없습니다."))
                .source(error)
        }
        EnvironmentError::Git(_) => Problem::internal(error),
    }
}
