//! Where sampled spans go: in batches, by a thread of the SDK's, over HTTP.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Handle;

use super::spans::{Decided, RequestIds};
use crate::config::{Exporter, TelemetrySettings};
use crate::lifecycle::BoxError;

const ZIPKIN: &str = "http://127.0.0.1:9411/api/v2/spans";
const OTLP: &str = "http://127.0.0.1:4318/v1/traces";
const TIMEOUT: Duration = Duration::from_secs(3);

static ON: AtomicBool = AtomicBool::new(false);

/// Whether spans are exported at all.
pub(super) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// None when nothing is exported.
pub(super) fn provider(
    settings: &TelemetrySettings,
    service: &'static str,
    instance: &str,
) -> Result<Option<SdkTracerProvider>, BoxError> {
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .build();
    let builder = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_id_generator(RequestIds::default())
        .with_sampler(Decided(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            settings.sample_ratio,
        )))));
    let client = OnRuntime {
        client: reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?,
        runtime: Handle::current(),
    };
    let provider = match settings.exporter {
        Exporter::None => return Ok(None),
        Exporter::Zipkin => {
            #[expect(
                deprecated,
                reason = "Zipkin's server takes no OTLP without a module that it isn't shipped with"
            )]
            let exporter = opentelemetry_zipkin::ZipkinExporter::builder()
                .with_http_client(client)
                .with_collector_endpoint(endpoint(&settings.endpoint, ZIPKIN, "/api/v2/spans"))
                .build()?;
            builder.with_batch_exporter(exporter).build()
        }
        Exporter::Otlp => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_http_client(client)
                .with_endpoint(endpoint(&settings.endpoint, OTLP, "/v1/traces"))
                .build()?;
            builder.with_batch_exporter(exporter).build()
        }
    };
    opentelemetry::global::set_tracer_provider(provider.clone());
    ON.store(true, Ordering::Relaxed);
    Ok(Some(provider))
}

/// A base URL gets the usual path; nothing the usual place.
fn endpoint(given: &str, usual: &str, path: &str) -> String {
    let given = given.trim_end_matches('/');
    match given.split_once("://") {
        None => usual.to_owned(),
        Some((_, host)) if host.contains('/') => given.to_owned(),
        Some(_) => format!("{given}{path}"),
    }
}

/// The SDK exports from a thread without a runtime, where the client can't work: it works in ours.
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

impl fmt::Debug for OnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRuntime")
    }
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let send = async move {
            let response = client.execute(request.try_into()?).await?;
            let status = response.status();
            let body = response.bytes().await?;
            let mut answer = Response::new(body);
            *answer.status_mut() = status;
            Ok::<_, HttpError>(answer)
        };
        self.runtime.spawn(send).await?
    }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn an_endpoint_may_be_whole_or_a_base() {
        assert_eq!(endpoint("", "http://usual/x", "/x"), "http://usual/x");
        assert_eq!(endpoint("http://host:1", "u", "/x"), "http://host:1/x");
        assert_eq!(endpoint("http://host:1/", "u", "/x"), "http://host:1/x");
        assert_eq!(endpoint("http://host:1/own", "u", "/x"), "http://host:1/own");
    }
}
