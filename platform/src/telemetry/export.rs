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
        // A batch leaves every five seconds, and a kept connection that the collector has closed meanwhile would cost one.
        client: reqwest::Client::builder().no_proxy().timeout(TIMEOUT).pool_max_idle_per_host(0).build()?,
        runtime: Handle::current(),
        zipkin_service: (settings.exporter == Exporter::Zipkin).then_some(service),
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
    /// opentelemetry-zipkin leaves the service's name out of its spans; it is put in as they pass.
    zipkin_service: Option<&'static str>,
}

/// Names the service in each span of a Zipkin v2 batch; what is not one passes as it is.
fn name_service(batch: &Bytes, service: &str) -> Bytes {
    let Ok(mut spans) = serde_json::from_slice::<Vec<serde_json::Value>>(batch) else { return batch.clone() };
    for span in &mut spans {
        span["localEndpoint"]["serviceName"] = service.into();
    }
    serde_json::to_vec(&spans).map_or_else(|_| batch.clone(), Bytes::from)
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
        let request = match self.zipkin_service {
            Some(service) => request.map(|batch| name_service(&batch, service)),
            None => request,
        };
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
    use super::{endpoint, name_service};

    #[test]
    fn every_zipkin_span_names_its_service() {
        let batch = br#"[{"id":"1","localEndpoint":{}},{"id":"2","localEndpoint":{"port":1}}]"#;
        let named = name_service(&batch.as_slice().into(), "gateway");
        let spans: serde_json::Value = serde_json::from_slice(&named).unwrap();
        assert_eq!(spans[0]["localEndpoint"]["serviceName"], "gateway");
        assert_eq!(spans[1]["localEndpoint"], serde_json::json!({ "port": 1, "serviceName": "gateway" }));
    }

    #[test]
    fn an_endpoint_may_be_whole_or_a_base() {
        assert_eq!(endpoint("", "http://usual/x", "/x"), "http://usual/x");
        assert_eq!(endpoint("http://host:1", "u", "/x"), "http://host:1/x");
        assert_eq!(endpoint("http://host:1/", "u", "/x"), "http://host:1/x");
        assert_eq!(endpoint("http://host:1/own", "u", "/x"), "http://host:1/own");
    }
}
