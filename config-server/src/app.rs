//! Puts the server together: the repository, the task that keeps it fresh, the routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use platform::health::ComponentHandle;
use platform::lifecycle::{App, BoxError, Context};

use crate::config::ConfigServerSettings;
use crate::document::Documents;
use crate::http;
use crate::repository::Repository;

/// How soon readiness hears of a repository that can't be read any more.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct AppState {
    pub repository: Arc<Repository>,
    pub documents: Arc<Documents>,
}

/// The routes over a repository.
pub fn build(repository: Arc<Repository>) -> Router {
    http::environment::routes().with_state(AppState { repository, documents: Arc::default() })
}

/// # Errors
/// When the repository can't be opened: a server without one would only tell everybody lies.
pub async fn start(context: Context, settings: ConfigServerSettings) -> Result<App, BoxError> {
    let repository = Arc::new(Repository::open(&settings.repository).await?);
    tracing::info!(repository = repository.uri(), "repository is open");
    let health = context.health.component("repository");
    look(&repository, &health).await;
    let interval = if repository.is_mirror() { settings.repository.fetch_interval } else { LOOK_INTERVAL };
    let stop = context.lifecycle.background_stop();
    context.lifecycle.spawn("repository", {
        let repository = repository.clone();
        async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(interval) => {}
                }
                // What was fetched before goes on being served.
                if let Err(error) = repository.fetch().await {
                    tracing::warn!(%error, "not fetched");
                }
                look(&repository, &health).await;
            }
        }
    });
    Ok(App::new(build(repository)))
}

async fn look(repository: &Repository, health: &ComponentHandle) {
    match repository.snapshot(None).await {
        Ok(Some(_)) => health.up(),
        Ok(None) => health.down("the repository has no commit on its default branch"),
        Err(error) => health.down(error.to_string()),
    }
}
