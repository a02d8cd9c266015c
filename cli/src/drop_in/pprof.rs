//! The profiler's port. Go programs serve their runtime's profiler there; scripts of the platform look for
//! `/debug/pprof/`. Here it answers with what a program without such a runtime can tell.

use super::faults::{Fault, listen_text};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use loggregator_net::http::{Handler, Request, Response, Server, Settings, full};
use loggregator_service::Lifecycle;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

/// Exit code when the port cannot be had; Go panics.
const EXIT: u8 = 2;
/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 64;
const TEXT: &str = "text/plain; charset=utf-8";

/// A fault of the profiler's port.
pub fn fault(reason: String) -> Fault {
    Fault::late(EXIT, format!("Error creating pprof listener: {reason}"))
}

/// Binds the port on loopback; 0 takes a free one.
pub fn bind(port: u16) -> Result<Server, Fault> {
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Server::bind(addr).map_err(|error| fault(listen_text(&addr.to_string(), &error)))
}

/// Serves until the program stops, and announces the port.
pub fn start(server: Server, lifecycle: &Lifecycle) {
    tracing::info!("pprof bound to: {}", server.local_addr());
    let settings = Settings {
        max_connections: MAX_CONNECTIONS,
        ..Settings::default()
    };
    let pages = Arc::new(Pages(lifecycle.clone()));
    lifecycle.spawn(
        "pprof",
        server.serve(None, pages, settings, lifecycle.token()),
    );
}

struct Pages(Lifecycle);

impl Handler for Pages {
    fn handle(
        &self,
        request: Request,
        _: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Response> + Send>> {
        Box::pin(std::future::ready(self.answer(request.uri().path())))
    }
}

impl Pages {
    fn answer(&self, path: &str) -> Response {
        match path {
            "/debug/pprof/" => {
                respond(StatusCode::OK, "text/html; charset=utf-8", INDEX.to_owned())
            }
            "/debug/pprof/cmdline" => {
                let args: Vec<String> = std::env::args().collect();
                respond(StatusCode::OK, TEXT, args.join("\0"))
            }
            "/debug/pprof/goroutine" => {
                let mut tasks = self.0.tasks();
                tasks.sort_unstable();
                respond(
                    StatusCode::OK,
                    TEXT,
                    format!("tasks: {}\n{}\n", tasks.len(), tasks.join("\n")),
                )
            }
            "/debug/pprof/heap" | "/debug/pprof/allocs" => status_lines(&["Vm", "Rss", "Hugetlb"]),
            "/debug/pprof/threadcreate" => status_lines(&["Threads"]),
            "/debug/pprof/profile"
            | "/debug/pprof/trace"
            | "/debug/pprof/symbol"
            | "/debug/pprof/block"
            | "/debug/pprof/mutex" => respond(
                StatusCode::NOT_IMPLEMENTED,
                TEXT,
                "This program has no Go runtime that could record this. Use perf on the process.\n"
                    .to_owned(),
            ),
            _ => respond(
                StatusCode::NOT_FOUND,
                TEXT,
                "404 page not found\n".to_owned(),
            ),
        }
    }
}

/// Lines of `/proc/self/status` that begin like this.
fn status_lines(beginnings: &[&str]) -> Response {
    match std::fs::read_to_string("/proc/self/status") {
        Ok(status) => {
            let lines = status.lines();
            let wanted =
                lines.filter(|line| beginnings.iter().any(|start| line.starts_with(start)));
            let text: String = wanted.flat_map(|line| [line, "\n"]).collect();
            respond(StatusCode::OK, TEXT, text)
        }
        Err(error) => respond(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            format!("/proc/self/status: {error}\n"),
        ),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

const INDEX: &str = "\
<html>
<head><title>/debug/pprof/</title></head>
<body>
<h1>/debug/pprof/</h1>
<table>
<tr><td><a href=\"allocs\">allocs</a></td><td>memory of the process, as heap</td></tr>
<tr><td><a href=\"block\">block</a></td><td>not recorded</td></tr>
<tr><td><a href=\"cmdline\">cmdline</a></td><td>the command line</td></tr>
<tr><td><a href=\"goroutine\">goroutine</a></td><td>the tasks that run</td></tr>
<tr><td><a href=\"heap\">heap</a></td><td>memory of the process</td></tr>
<tr><td><a href=\"mutex\">mutex</a></td><td>not recorded</td></tr>
<tr><td><a href=\"profile\">profile</a></td><td>not recorded</td></tr>
<tr><td><a href=\"threadcreate\">threadcreate</a></td><td>number of threads</td></tr>
<tr><td><a href=\"trace\">trace</a></td><td>not recorded</td></tr>
</table>
</body>
</html>
";
