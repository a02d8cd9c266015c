//! `web-shop`: requests of people who look around and sometimes buy something.

use super::origin::Origin;
use super::{Actor, app, around, request_id};
use loggregator_proto::v2::Envelope;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const HOST: &str = "web-shop.apps.example.com";
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
    "curl/8.14.1",
];

/// A kind of request: method, path, usual status, usual milliseconds, weight among all.
const REQUESTS: [(&str, &str, u16, f64, u32); 6] = [
    ("GET", "/", 200, 8.0, 30),
    ("GET", "/products", 200, 24.0, 30),
    ("GET", "/products/{}", 200, 15.0, 25),
    ("POST", "/cart", 201, 31.0, 8),
    ("POST", "/orders", 201, 120.0, 4),
    ("GET", "/favicon.ico", 404, 2.0, 3),
];

pub(super) struct Shop {
    instances: [Origin; 2],
    router: Origin,
}

impl Shop {
    pub(super) fn new() -> Self {
        let instance = |index| app("web-shop", index, "APP/PROC/WEB").tag("process_type", "web");
        Self {
            instances: [instance("0"), instance("1")],
            router: app("web-shop", "0", "RTR"),
        }
    }
}

struct Request {
    method: &'static str,
    path: String,
    status: u16,
    took: Duration,
    bytes: u32,
    agent: &'static str,
    id: String,
    instance: usize,
}

impl Request {
    fn random(rng: &mut fastrand::Rng) -> Self {
        let total: u32 = REQUESTS.iter().map(|request| request.4).sum();
        let mut pick = rng.u32(..total);
        let chosen = REQUESTS.iter().find(|request| {
            let here = pick < request.4;
            pick = pick.saturating_sub(request.4);
            here
        });
        let &(method, path, usual, millis, _) = chosen.unwrap_or(&REQUESTS[0]);
        let slow = if rng.u32(..40) == 0 { 12.0 } else { 1.0 };
        Self {
            method,
            path: path.replace("{}", &rng.u32(1000..1060).to_string()),
            status: if rng.u32(..60) == 0 { 502 } else { usual },
            took: Duration::from_secs_f64(millis * slow * (0.5 + rng.f64()) / 1000.0),
            bytes: rng.u32(180..24_000),
            agent: AGENTS[rng.usize(..AGENTS.len())],
            id: request_id(rng),
            instance: rng.usize(..2),
        }
    }

    /// The line as the platform's router writes it.
    fn access_line(&self, at: i64, rng: &mut fastrand::Rng) -> String {
        let when = OffsetDateTime::from_unix_timestamp_nanos(at.into())
            .ok()
            .and_then(|when| when.format(&Rfc3339).ok())
            .unwrap_or_default();
        let (client, backend) = (rng.u32(1024..65_000), rng.u32(61_000..61_100));
        format!(
            "{HOST} - [{when}] \"{} {} HTTP/1.1\" {} 0 {} \"-\" \"{}\" \"10.0.16.5:{client}\" \"10.0.32.8:{backend}\" \
             x_forwarded_for:\"203.0.113.{}\" x_forwarded_proto:\"https\" vcap_request_id:\"{}\" \
             response_time:{:.6} gorouter_time:0.000{} app_id:\"web-shop\" app_index:\"{}\" x_cf_routererror:\"{}\"",
            self.method,
            self.path,
            self.status,
            self.bytes,
            self.agent,
            rng.u8(1..250),
            self.id,
            self.took.as_secs_f64(),
            rng.u32(100..900),
            self.instance,
            if self.status == 502 {
                "endpoint_failure"
            } else {
                "-"
            },
        )
    }
}

impl Actor for Shop {
    fn step(&mut self, at: i64, rng: &mut fastrand::Rng, out: &mut Vec<Envelope>) -> Duration {
        let request = Request::random(rng);
        let origin = &self.instances[request.instance];
        let millis = request.took.as_secs_f64() * 1000.0;
        let line = format!(
            "{} {} {} {:.1}ms request_id={}",
            request.method, request.path, request.status, millis, request.id
        );
        out.push(if request.status >= 500 {
            origin.err(
                at,
                format!("upstream connection reset while serving {line}"),
            )
        } else {
            origin.out(at, line)
        });
        if request.path == "/orders" && request.status == 201 {
            out.push(origin.counter(at, "orders_placed", 1));
        }
        out.push(self.router.out(at + 1, request.access_line(at, rng)));
        let timed = origin
            .clone()
            .tag("peer_type", "Server")
            .tag("method", request.method)
            .tag("uri", format!("https://{HOST}{}", request.path))
            .tag("status_code", request.status.to_string())
            .tag("user_agent", request.agent)
            .tag("request_id", &request.id)
            .tag("remote_address", "10.0.16.5:443")
            .tag("content_length", request.bytes.to_string());
        out.push(timed.timer("http", at, request.took));
        around(rng, Duration::from_millis(150))
    }
}
