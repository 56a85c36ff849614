//! A gateway of the shipped configuration with services of the test's own behind it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use axum::Router;
use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use platform::clock::{self, Clock};
use platform::config::ServerSettings;
use platform::consul::Instance;
use platform::health::Health;
use platform::http::server::{Edge, Front, Server, layered_edge};
use platform::lifecycle::Lifecycle;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::app::{Gateway, Parts, build, edge, router};
use crate::config::GatewaySettings;
use crate::discovery::{Discovery, Source};

const SHIPPED: [&str; 2] = [
    include_str!("../../../../config-repo/application.yml"),
    include_str!("../../../../config-repo/gateway.yml"),
];
const KID: &str = "key-1";

/// What stands behind the gateway under the names of the real services.
pub(super) struct Setting {
    pub(super) clock: Clock,
    pub(super) signer: Signer,
    pub(super) services: HashMap<&'static str, watch::Sender<Arc<Vec<Instance>>>>,
    pub(super) settings: Value,
    pub(super) lifecycle: Lifecycle,
    tasks: JoinSet<()>,
    app: Option<(Front, Arc<Gateway>)>,
}

/// An issuer's key pair.
pub(super) struct Signer {
    kid: String,
    algorithm: Algorithm,
    private: EncodingKey,
    /// Of the public key, what is no RFC 7517 member of every key.
    jwk: Value,
    pub(super) public: Vec<u8>,
}

impl Signer {
    /// As the user service's.
    pub(super) fn new(kid: &str) -> Self {
        let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec();
        let public = Ed25519KeyPair::from_pkcs8(&private).unwrap().public_key().as_ref().to_vec();
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::EdDSA,
            private: EncodingKey::from_ed_der(&private),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&public)}),
            public,
        }
    }

    pub(super) fn rsa(kid: &str, algorithm: Algorithm) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(pkcs8.as_ref())
        );
        let public = pair.public_key();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Self {
            kid: kid.to_owned(),
            algorithm,
            private: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
            jwk: json!({"kty": "RSA", "n": number(public.modulus().big_endian_without_leading_zero()),
                        "e": number(public.exponent().big_endian_without_leading_zero())}),
            public: public.as_ref().to_vec(),
        }
    }

    pub(super) fn p256(kid: &str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let public = pair.public_key().as_ref().to_vec();
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::ES256,
            private: EncodingKey::from_ec_der(pkcs8.as_ref()),
            // 0x04 and the two coordinates.
            jwk: json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(&public[1..33]),
                        "y": URL_SAFE_NO_PAD.encode(&public[33..])}),
            public,
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let mut jwk = self.jwk.clone();
        merge(&mut jwk, &json!({"use": "sig", "kid": self.kid}));
        jwk
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as(Some("at+jwt"), claims)
    }

    /// With this `typ`.
    pub(super) fn sign_as(&self, typ: Option<&str>, claims: &Value) -> String {
        let header = Header {
            kid: Some(self.kid.clone()),
            typ: typ.map(str::to_owned),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }

    /// With an RSA key's other algorithms.
    pub(super) fn with(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }
}

/// Valid claims for 15 minutes from now on.
pub(super) fn claims(user: u64) -> Value {
    let now = clock::now_ms() / 1000;
    json!({"iss": "firstcome", "aud": "firstcome", "sub": user.to_string(), "iat": now, "exp": now + 900,
           "jti": "j", "sid": "s", "roles": ["USER"]})
}

impl Setting {
    /// All three services, each one echo.
    pub(super) async fn new() -> Self {
        let mut setting = Self::empty();
        setting.serve_keys().await;
        for service in ["coupon-service", "issue-service"] {
            let echo = setting.echo(service).await;
            setting.publish(service, &[(service, echo)]);
        }
        setting
    }

    pub(super) fn empty() -> Self {
        let services = ["user-service", "coupon-service", "issue-service"];
        let mut settings = json!({});
        for text in SHIPPED {
            let section: Value = serde_yaml_ng::from_str(text).unwrap();
            merge(&mut settings, &section);
        }
        // Its secrets are files of the running system.
        settings.as_object_mut().unwrap().remove("redis");
        // Its questions would be counted with those of the tests; `openapi.rs` switches it on.
        settings.as_object_mut().unwrap().remove("openapi");
        merge(&mut settings, &json!({"identity": {"secret": "0123456789abcdef0123456789abcdef"}}));
        Self {
            clock: Clock::manual(clock::now_ms()),
            signer: Signer::new(KID),
            services: services.map(|name| (name, watch::Sender::default())).into(),
            settings,
            lifecycle: Lifecycle::new(),
            tasks: JoinSet::new(),
            app: None,
        }
    }

    pub(super) fn configure(&mut self, change: &Value) {
        merge(&mut self.settings, change);
    }

    /// A user service that has the key set, and echoes that question as any other; counts how often it was asked for the set.
    pub(super) async fn serve_keys(&mut self) -> Arc<AtomicUsize> {
        let asked = Arc::new(AtomicUsize::new(0));
        let (counter, keys) = (Arc::clone(&asked), json!([self.signer.jwk()]));
        let jwks = axum::routing::get(async move |method: Method, uri: Uri, headers: HeaderMap| {
            counter.fetch_add(1, SeqCst);
            let (own, axum::Json(mut seen)) = echo(None, method, uri, headers, Ok(Bytes::new())).await;
            // Of a key set every other member is ignored (RFC 7517, section 5).
            seen["keys"] = keys;
            (own, axum::Json(seen))
        });
        let app = Router::new().route("/.well-known/jwks.json", jwks).fallback(echo);
        let address = self.serve(app).await;
        self.publish("user-service", &[("users", address)]);
        asked
    }

    pub(super) async fn serve(&mut self, app: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        self.tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    /// A service that answers with what it received.
    pub(super) async fn echo(&mut self, name: &'static str) -> SocketAddr {
        self.serve(Router::new().fallback(echo).layer(axum::Extension(name))).await
    }

    /// A task of the test's own for as long as the setting lives.
    pub(super) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(super) fn publish(&self, service: &str, instances: &[(&str, SocketAddr)]) {
        let instances = instances
            .iter()
            .map(|(id, address)| Instance {
                id: (*id).to_owned(),
                address: *address,
                meta: BTreeMap::new(),
                zone: String::new(),
                weight: 1,
            })
            .collect();
        self.services[service].send_replace(Arc::new(instances));
    }

    /// The gateway as it serves, the platform's layers around it; made at the first request.
    pub(super) fn app(&mut self) -> Front {
        self.started().0
    }

    fn started(&mut self) -> (Front, Arc<Gateway>) {
        if self.app.is_none() {
            let (gateway, server, edge) = self.build();
            let front = layered_edge(router(Arc::clone(&gateway)), &server, edge);
            self.app = Some((front, gateway));
        }
        self.app.clone().unwrap()
    }

    /// The gateway takes over what of the settings it can while it runs.
    pub(super) fn reload(&mut self) {
        let settings: GatewaySettings = serde_json::from_value(self.settings.clone()).unwrap();
        self.started().1.route(&settings.routing()).unwrap();
    }

    /// As the user service tells it.
    pub(super) fn end_login(&mut self, session: &str) {
        self.started().1.auth.revocations().add([(session.into(), u64::MAX)], 0);
    }

    /// Ids of the instances that are left out for a while.
    pub(super) fn avoided(&mut self) -> Vec<String> {
        let all = self.started().1.describe_instances().into_iter().flat_map(|service| match service {
            Value::Array(instances) => instances,
            other => vec![other],
        });
        let avoided = all.filter(|instance| instance["avoided"] == true);
        avoided.map(|instance| instance["instance"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A gateway with a port, for what a request alone does not show.
    pub(super) fn open(&mut self) -> (Arc<Gateway>, Server) {
        self.configure(&json!({"server": {"port": 0, "workers": 0}}));
        let (gateway, server, edge) = self.build();
        let routed = router(Arc::clone(&gateway));
        (gateway, Server::start_edge(&server, edge, move |_| routed.clone()).unwrap())
    }

    fn build(&self) -> (Arc<Gateway>, ServerSettings, Edge) {
        let settings: GatewaySettings = serde_json::from_value(self.settings.clone()).unwrap();
        let fixed =
            self.services.iter().map(|(name, sender)| ((*name).to_owned(), sender.subscribe())).collect();
        let discovery = Discovery::new(Source::Fixed(fixed), self.lifecycle.clone(), settings.balancing());
        let (server, edge) = (settings.server.clone(), edge(&settings));
        let parts = Parts {
            discovery,
            clock: self.clock.clone(),
            lifecycle: self.lifecycle.clone(),
            health: Health::new(),
            redis: None,
        };
        (build(settings, parts).unwrap(), server, edge)
    }

    pub(super) fn token(&self) -> String {
        self.signer.sign(&claims(7))
    }

    pub(super) async fn send(&mut self, request: Request<Body>) -> Answer {
        Answer::read(self.app().oneshot(request).await.unwrap()).await
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A claim with the given token.
    pub(super) async fn claim(&mut self, token: &str) -> Answer {
        let request = Request::post("/coupon-issues")
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from(r#"{"couponId":1}"#))
            .unwrap();
        self.send(request).await
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

async fn echo(
    name: Option<axum::Extension<&'static str>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> (HeaderMap, axum::Json<Value>) {
    let mut seen = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in &headers {
        seen.entry(name.to_string())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let mut own = HeaderMap::new();
    own.insert("x-internal-node", http::HeaderValue::from_static("secret"));
    own.insert("x-shown", http::HeaderValue::from_static("yes"));
    own.insert("content-language", http::HeaderValue::from_static("ko"));
    let body = body.map(|body| String::from_utf8_lossy(&body).into_owned()).ok();
    let seen = json!({"service": name.map(|name| name.0), "method": method.as_str(), "uri": uri.to_string(),
                      "headers": seen, "body": body});
    (own, axum::Json(seen))
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await;
        Self { status: parts.status, headers: parts.headers, body: body.unwrap() }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Status and code of a problem.
    pub(super) fn problem(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(
            self.headers.get("content-type").map(|v| v.as_bytes()),
            Some(&b"application/problem+json"[..]),
            "{self:?}"
        );
        assert_eq!(json["status"], self.status.as_u16());
        (self.status.as_u16(), json["code"].as_str().unwrap_or_default().to_owned())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}
