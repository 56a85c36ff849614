//! Routes that change while the gateway runs.
//!
//! Invariant: a configuration that is wrong changes nothing: the last good routes stay, and the log, the health and the
//! metrics say why.

use std::sync::Arc;
use std::time::Duration;

use platform::config::{ConfigError, Configuration};
use platform::health::{ComponentHandle, Health};
use platform::lifecycle::BoxError;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::app::Gateway;
use crate::config::{GatewaySettings, RoutingSettings};
use crate::standalone::Standalone;
use crate::standalone::document::{Document, Fixed};

/// A change is in force within this and the time of one question.
const INTERVAL: Duration = Duration::from_secs(2);
/// The route file is on the same machine. A change is in force after two looks.
const FILE_INTERVAL: Duration = Duration::from_millis(500);

/// Keeps a gateway's routes as they are configured.
pub struct Keeper {
    gateway: Arc<Gateway>,
    current: RoutingSettings,
    health: ComponentHandle,
    /// What was refused last, so that it is said once.
    refused: Option<String>,
}

impl Keeper {
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, current: RoutingSettings, health: &Health) -> Self {
        let health = health.optional_component("routes");
        health.up();
        Self { gateway, current, health, refused: None }
    }

    /// Asks the configuration server now and then.
    pub async fn follow_server(
        mut self,
        configuration: Configuration,
        stop: CancellationToken,
    ) -> Result<(), BoxError> {
        while pause(INTERVAL, &stop).await {
            match configuration.load::<GatewaySettings>().await {
                Ok(loaded) => self.offer(loaded.settings.routing(), loaded.commit.as_deref()),
                // Nothing is known of what it has; what was there goes on.
                Err(error @ ConfigError::Unavailable { .. }) => {
                    tracing::debug!(%error, "configuration not asked");
                }
                Err(error) => self.refuse(error.to_string().replace('\n', "; ")),
            }
        }
        Ok(())
    }

    /// Looks at the file. What it says is taken when two looks in a row find the same, so that half of a file that is
    /// still being written never counts.
    pub async fn follow_file(mut self, start: Standalone, stop: CancellationToken) -> Result<(), BoxError> {
        let Standalone { file, mut fixed, .. } = start;
        let (mut seen, mut judged) = (None, None);
        while pause(FILE_INTERVAL, &stop).await {
            let path = file.clone();
            let read = move || std::fs::read_to_string(&path).map_err(|error| error.to_string());
            let text = Some(tokio::task::spawn_blocking(read).await?);
            if text != seen {
                seen = text;
                continue;
            }
            if judged == seen {
                continue;
            }
            judged.clone_from(&seen);
            let document = match text {
                Some(Ok(text)) => Document::of(&file, &text).map_err(|unusable| unusable.to_string()),
                Some(Err(error)) => Err(format!("can't read {}: {error}", file.display())),
                None => continue,
            };
            match document {
                Ok(document) => {
                    if let Some(reason) = needs_restart(&fixed, &document.fixed) {
                        self.refuse(reason.to_owned());
                        continue;
                    }
                    if document.fixed != fixed {
                        tracing::warn!(
                            "in the route file: what is not about routes and instances counts from the next start on"
                        );
                        fixed = document.fixed;
                    }
                    let news = document.warnings.iter().filter(|_| document.routing != self.current);
                    news.for_each(|warning| tracing::warn!(%warning, "in the route file"));
                    self.gateway.list(document.services);
                    self.offer(document.routing, None);
                }
                Err(problems) => self.refuse(problems.replace('\n', "; ")),
            }
        }
        Ok(())
    }

    fn offer(&mut self, settings: RoutingSettings, commit: Option<&str>) {
        if settings == self.current {
            if self.refused.take().is_some() {
                tracing::info!("the routes are again as they are in force");
                self.health.up();
            }
            return;
        }
        match self.gateway.route(&settings) {
            Ok(()) => {
                tracing::info!(routes = settings.routes.len(), config.commit = commit, "routes changed");
                metrics::counter!("firstcome_gateway_route_reloads_total", "outcome" => "changed")
                    .increment(1);
                (self.current, self.refused) = (settings, None);
                self.health.up();
            }
            Err(problems) => self.refuse(crate::app::listed(&problems)),
        }
    }

    fn refuse(&mut self, reason: String) {
        if self.refused.as_ref() == Some(&reason) {
            return;
        }
        tracing::error!(%reason, "the new routes are refused, the last good ones stay");
        metrics::counter!("firstcome_gateway_route_reloads_total", "outcome" => "refused").increment(1);
        self.health.down(format!("the last good routes stay, the new ones are wrong: {reason}"));
        self.refused = Some(reason);
    }
}

/// Why a changed file is refused while the gateway runs: it would be more open than it was started, or with a key set
/// that nobody fetches.
fn needs_restart(start: &Fixed, changed: &Fixed) -> Option<&'static str> {
    if start.is_spring != changed.is_spring {
        return Some(
            "the form of the file, Spring's or our own, has changed, which needs a restart: it decides whether routes \
             that do not say it ask for a token",
        );
    }
    (start.jwt != changed.jwt)
        .then_some("spring.security: whose tokens are believed has changed, which needs a restart")
}

/// False when it is time to stop.
async fn pause(interval: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = sleep(interval) => true,
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("refused", &self.refused).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(prefix: &str, beside: &str) -> Fixed {
        let text = format!("{prefix}routes: [{{id: a, uri: 'no://op', predicates: [Path=/a]}}]\n{beside}");
        Document::parse(&text, &|_| None).unwrap().fixed
    }

    #[test]
    fn what_could_open_routes_waits_for_a_restart() {
        let own = fixed("", "");
        let spring = fixed("spring.cloud.gateway.", "");
        let newer = fixed("spring.cloud.gateway.server.webflux.", "server.port: 1");
        let issuer = "spring.security.oauth2.resourceserver.jwt.issuer-uri: 'https://id.example'";
        let guarded = fixed("spring.cloud.gateway.", issuer);
        for (start, changed, named) in [
            (&own, &spring, "the form of the file"),
            (&spring, &own, "the form of the file"),
            (&guarded, &spring, "spring.security"),
            (&spring, &guarded, "spring.security"),
        ] {
            let reason = needs_restart(start, changed).unwrap();
            assert!(reason.starts_with(named) && reason.contains("needs a restart"), "{reason}");
        }
        for (start, changed) in [(&own, &own), (&spring, &newer), (&guarded, &guarded)] {
            assert_eq!(needs_restart(start, changed), None);
        }
    }
}
