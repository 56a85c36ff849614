//! The same requests by way of the gateway and of nginx, and without either.

use std::time::Duration;

use platform::lifecycle::BoxError;
use serde_json::{Value, json};

use crate::client::{Load, Requests, load};
use crate::figures::{median, micros_each, percentile_ms, whole};
use crate::ground::{Ground, WITH_TOKEN, WITHOUT_TOKEN};
use crate::report::{Check, Part, Progress, Section};
use crate::server::Server;

const ROUNDS: usize = 5;
const SLICE: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(700);
const LOADS: [(&str, usize); 4] = [("POST", 64), ("POST", 256), ("GET", 64), ("GET", 256)];
pub(crate) const STEPS: usize = (ROUNDS + 1) * LOADS.len() * WAYS.len();
/// Of nginx's requests a second, with a token.
const LEAST_SHARE: f64 = 0.65;
/// As often as nginx's 99th percentile.
const MOST_LATE: f64 = 1.5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nginx,
    WithToken,
    WithoutToken,
    Service,
}

const WAYS: [Way; 4] = [Way::Nginx, Way::WithToken, Way::WithoutToken, Way::Service];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::WithToken => "gateway, with a token",
            Self::WithoutToken => "gateway, without",
            Self::Service => "the service alone",
        }
    }

    fn server(self, ground: &Ground) -> &Server {
        match self {
            Self::Nginx => &ground.nginx,
            Self::WithToken | Self::WithoutToken => &ground.gateway,
            Self::Service => &ground.upstream,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::WithoutToken => WITHOUT_TOKEN,
            _ => WITH_TOKEN,
        }
    }
}

/// One load by one way.
pub(crate) struct Slice {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    requests: usize,
    cpu: Duration,
}

impl Slice {
    pub(crate) fn take(
        server: &Server,
        connections: usize,
        duration: Duration,
        requests: &Requests,
    ) -> Result<Self, BoxError> {
        let before = server.cpu()?;
        let mut load: Load = load(server.address, connections, duration, requests)?;
        let cpu = server.cpu()?.saturating_sub(before);
        server.forget_log()?;
        Ok(Self {
            rate: load.rate(),
            p50: percentile_ms(&mut load.latencies, 0.5),
            p99: percentile_ms(&mut load.latencies, 0.99),
            requests: load.latencies.len(),
            cpu,
        })
    }
}

/// CPU of the program that was asked, a request.
pub(crate) fn cpu_micros(slices: &[Slice]) -> f64 {
    micros_each(slices.iter().map(|slice| slice.cpu).sum(), slices.iter().map(|slice| slice.requests).sum())
}

pub(crate) fn measure(ground: &Ground, share: u32, progress: &mut Progress) -> Result<Part, BoxError> {
    let mut part = Part { section: section(), checks: Vec::new(), figures: Value::Array(Vec::new()) };
    for (method, connections) in LOADS {
        let requests = |way: Way| ground.requests(method, way.path(), connections);
        let requests = WAYS.into_iter().map(requests).collect::<Result<Vec<_>, _>>()?;
        let mut slices: [Vec<Slice>; WAYS.len()] = Default::default();
        for round in 0..=ROUNDS {
            for turn in 0..WAYS.len() {
                let index = (turn + round) % WAYS.len();
                let way = WAYS[index];
                let (duration, what) = match round {
                    0 => (WARM_UP, "warming up".to_owned()),
                    _ => (SLICE, format!("round {round} of {ROUNDS}")),
                };
                progress.step(&format!("{method}, {connections} connections: {}, {what}", way.name()));
                let slice = Slice::take(way.server(ground), connections, duration / share, &requests[index])?;
                if round > 0 {
                    slices[index].push(slice);
                }
            }
        }
        add(&mut part, &format!("{method}, {connections} connections"), &slices);
    }
    Ok(part)
}

fn section() -> Section {
    Section {
        heading: "As a proxy",
        about: format!(
            "{ROUNDS} rounds of {} s of each way, in turn, after a warm-up. Each figure is the median of its rounds; the \
             ratios to nginx are the medians of the ratios of each round. CPU is what the program that was asked took, \
             in user and system time.",
            SLICE.as_secs()
        ),
        columns: vec![
            "load",
            "way",
            "requests/s",
            "of nginx's",
            "p50 ms",
            "p99 ms",
            "of nginx's p99",
            "CPU µs a request",
        ],
        rows: Vec::new(),
    }
}

fn add(part: &mut Part, load: &str, slices: &[Vec<Slice>; WAYS.len()]) {
    let nginx = &slices[0];
    let ratio = |slices: &[Slice], of: fn(&Slice) -> f64| {
        median(slices.iter().zip(nginx).map(|(slice, nginx)| of(slice) / of(nginx)))
    };
    for (way, slices) in WAYS.into_iter().zip(slices) {
        let of = |of: fn(&Slice) -> f64| median(slices.iter().map(of));
        let (rate, p50, p99) = (of(|slice| slice.rate), of(|slice| slice.p50), of(|slice| slice.p99));
        let (share, late) = (ratio(slices, |slice| slice.rate), ratio(slices, |slice| slice.p99));
        let cpu = cpu_micros(slices);
        part.section.rows.push(vec![
            load.to_owned(),
            way.name().to_owned(),
            whole(rate),
            format!("{share:.2}"),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{late:.2}"),
            format!("{cpu:.1}"),
        ]);
        if let Value::Array(figures) = &mut part.figures {
            figures
                .push(json!({"load": load, "way": way.name(), "requestsPerSecond": rate, "ofNginx": share,
                "p50Ms": p50, "p99Ms": p99, "p99OfNginx": late, "cpuMicros": cpu}));
        }
        if way == Way::WithToken {
            part.checks.extend([
                Check {
                    what: format!("{load}: requests a second, of nginx's"),
                    is: format!("{share:.2}"),
                    must: format!("at least {LEAST_SHARE}"),
                    ok: share >= LEAST_SHARE,
                },
                Check {
                    what: format!("{load}: 99th percentile, of nginx's"),
                    is: format!("{late:.2}"),
                    must: format!("at most {MOST_LATE}"),
                    ok: late <= MOST_LATE,
                },
            ]);
        }
    }
}
