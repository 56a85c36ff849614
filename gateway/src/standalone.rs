//! The gateway on its own: a Spring Cloud Gateway YAML in, no other service needed.
//!
//! Invariant: what a file asks for is done or refused by name; nothing in it is passed over in silence.

mod boot;
pub mod document;
pub mod door;
mod instances;
mod overlooked;
mod placeholders;
mod redis;
mod resilience4j;
mod resource_server;
mod tree;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use platform::config::{ConsulSettings, IdentitySettings, Problems, ServerSettings};

use crate::balance::Known;
use crate::config::{Authentication, GatewaySettings, LimitSettings, UpstreamSettings};
use document::{Document, Fixed};

/// A file that is no gateway's.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Unusable(pub Vec<String>);

/// What the file says beside the routes.
#[derive(Debug, Clone)]
pub struct Standalone {
    pub file: PathBuf,
    pub services: HashMap<String, Vec<Known>>,
    /// Of routes that do not say it: none in a Spring file that asks for no tokens.
    pub default_authentication: Authentication,
    /// What a change of the file can't change.
    pub fixed: Fixed,
    /// What is in the file and means nothing here.
    pub warnings: Vec<String>,
}

/// Settings of a gateway that has only this file.
pub fn settings(
    file: &Path,
    address: Option<IpAddr>,
    port: Option<u16>,
) -> Result<GatewaySettings, Unusable> {
    let Document { routing, services, warnings, fixed } = Document::read(file)?;
    let mut upstream = UpstreamSettings::default();
    upstream.connect_timeout = fixed.timeouts.connect.unwrap_or(upstream.connect_timeout);
    upstream.response_timeout = fixed.timeouts.response.unwrap_or(upstream.response_timeout);
    let defaults = ServerSettings::default();
    let server = ServerSettings {
        address: address.or(fixed.door.address).unwrap_or(defaults.address),
        port: port.or(fixed.door.port).unwrap_or(document::DEFAULT_PORT),
        // Above the services' time, so that the more telling answer wins.
        request_timeout: upstream.response_timeout.saturating_add(upstream.connect_timeout),
        tls: fixed.door.tls.clone(),
        ..defaults
    };
    let mut problems = Problems::default();
    server.validate(&mut problems);
    if !problems.is_empty() {
        return Err(Unusable(problems.iter().map(str::to_owned).collect()));
    }
    Ok(GatewaySettings {
        server,
        admin: platform::config::AdminSettings::default(),
        consul: ConsulSettings {
            enabled: fixed.consul.is_some(),
            url: fixed.consul.clone().unwrap_or_else(|| ConsulSettings::default().url),
            ..ConsulSettings::default()
        },
        telemetry: platform::config::TelemetrySettings::default(),
        redis: fixed.redis.clone().unwrap_or_default(),
        trace: crate::config::TraceSettings::default(),
        identity: IdentitySettings::default(),
        jwt: fixed.jwt.clone().unwrap_or_default(),
        upstream,
        limits: LimitSettings {
            request_body: fixed.request_body,
            // As in Spring: a caller may be a service of many users.
            in_flight_per_user: u32::MAX,
            ..LimitSettings::default()
        },
        openapi: crate::config::OpenApiSettings::default(),
        routes: routing.routes,
        default_filters: routing.default_filters,
        globalcors: routing.globalcors,
        trusted_proxies: routing.trusted_proxies,
        public_paths: routing.public_paths,
        reserved_paths: routing.reserved_paths,
        route_enabled: routing.route_enabled,
        standalone: Some(Standalone {
            file: file.to_owned(),
            services,
            default_authentication: routing.default_authentication,
            fixed,
            warnings,
        }),
    })
}
