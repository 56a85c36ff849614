//! What a process says about itself. Invariant: liveness looks at no external system; readiness is true only between
//! "started" and "stopping", with every required component up.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// The health of one process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    started: AtomicBool,
    stopping: AtomicBool,
    components: RwLock<Vec<Arc<Component>>>,
    /// Told when readiness may have come.
    better: Arc<Notify>,
}

#[derive(Debug)]
struct Component {
    name: &'static str,
    required: bool,
    /// None is up.
    down: RwLock<Option<Cow<'static, str>>>,
    better: Arc<Notify>,
}

/// The states of Spring's actuator that we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Up,
    Down,
    OutOfService,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::OutOfService => "OUT_OF_SERVICE",
        }
    }
}

/// One part's own say in the health of the process. It starts down.
#[derive(Clone, Debug)]
pub struct ComponentHandle(Arc<Component>);

impl Health {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A part without which the process is not ready.
    #[must_use]
    pub fn component(&self, name: &'static str) -> ComponentHandle {
        self.add(name, true)
    }

    /// A part that shows in `/actuator/health`, but whose loss the process can work without.
    #[must_use]
    pub fn optional_component(&self, name: &'static str) -> ComponentHandle {
        self.add(name, false)
    }

    fn add(&self, name: &'static str, required: bool) -> ComponentHandle {
        let down = RwLock::new(Some(Cow::Borrowed("starting")));
        let component = Arc::new(Component { name, required, down, better: Arc::clone(&self.0.better) });
        self.0.components.write().push(component.clone());
        ComponentHandle(component)
    }

    /// The process has connected everything and listens.
    pub fn started(&self) {
        self.0.started.store(true, Ordering::Release);
        self.0.better.notify_waiters();
    }

    /// The process has seen its signal; readiness never comes back.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// The process answers, so it lives.
    #[must_use]
    pub fn liveness(&self) -> Status {
        Status::Up
    }

    #[must_use]
    pub fn readiness(&self) -> Status {
        let Inner { started, stopping, components, .. } = &*self.0;
        if stopping.load(Ordering::Acquire) || !started.load(Ordering::Acquire) {
            return Status::OutOfService;
        }
        let down =
            components.read().iter().any(|component| component.required && component.down.read().is_some());
        if down { Status::Down } else { Status::Up }
    }

    /// Waits until the process is ready.
    pub async fn ready(&self) {
        loop {
            let better = self.0.better.notified(); // before the look, so that no change is missed
            if self.readiness() == Status::Up {
                return;
            }
            better.await;
        }
    }

    /// The whole: readiness, and of the optional parts nothing.
    #[must_use]
    pub fn status(&self) -> Status {
        self.readiness()
    }

    /// The parts, for those who may see them.
    #[must_use]
    pub fn details(&self) -> Value {
        let mut parts = Map::new();
        for component in self.0.components.read().iter() {
            let part = match &*component.down.read() {
                None => json!({"status": "UP", "details": {"required": component.required}}),
                Some(reason) => {
                    json!({"status": "DOWN", "details": {"reason": reason, "required": component.required}})
                }
            };
            parts.insert(component.name.to_owned(), part);
        }
        parts.insert("livenessState".to_owned(), json!({"status": self.liveness().as_str()}));
        parts.insert("readinessState".to_owned(), json!({"status": self.readiness().as_str()}));
        Value::Object(parts)
    }
}

impl ComponentHandle {
    pub fn up(&self) {
        let was = self.0.down.write().take();
        if let Some(reason) = was {
            tracing::info!(component = self.0.name, was = %reason, "component is up");
            self.0.better.notify_waiters();
        }
    }

    /// The reason is shown to those who hold the admin token, and logged when it begins.
    pub fn down(&self, reason: impl Into<Cow<'static, str>>) {
        let reason = reason.into();
        let was = self.0.down.write().replace(reason.clone());
        if was.is_none() {
            tracing::warn!(component = self.0.name, %reason, "component is down");
        }
    }

    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.down.read().is_none()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn readiness_needs_the_start_and_every_required_part() {
        let health = Health::new();
        let mysql = health.component("mysql");
        let redis = health.optional_component("redis");
        assert_eq!(health.readiness(), Status::OutOfService);
        health.started();
        assert_eq!(health.readiness(), Status::Down);
        assert_eq!(health.ready().now_or_never(), None);
        let ready = async {
            health.ready().await;
            health.readiness()
        };
        let (seen, ()) = tokio::join!(ready, async { mysql.up() });
        assert_eq!(seen, Status::Up);
        assert_eq!(health.readiness(), Status::Up);
        assert!(!redis.is_up());
        assert_eq!(health.details()["mysql"]["status"], "UP");
        assert_eq!(health.details()["redis"]["details"]["reason"], "starting");
        mysql.down("gone");
        assert_eq!(health.readiness(), Status::Down);
        assert_eq!(health.liveness(), Status::Up);
        mysql.up();
        health.stopping();
        assert_eq!(health.readiness(), Status::OutOfService);
        assert_eq!(health.liveness(), Status::Up);
    }
}
