//! Looking at the ledger, and at the equation that it must satisfy.

use anyhow::{Context as _, Result, ensure};
use loggregator_service::ledger::{Report, Subscription};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Fetches a component's ledger from its admin server.
///
/// # Errors
/// When it does not answer within ten seconds, or not with a ledger.
pub async fn fetch(admin: SocketAddr) -> Result<Report> {
    let body = get(admin, "/ledger").await?;
    serde_json::from_slice(&body)
        .with_context(|| format!("{admin}: {}", String::from_utf8_lossy(&body)))
}

/// Fetches a path of an admin server.
///
/// # Errors
/// When it does not answer 200 within ten seconds.
pub async fn get(admin: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(admin).await?;
        // HTTP/1.0: the answer ends with the connection, and is not cut into chunks.
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .context("no answer")??;
    let head = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no HTTP answer")?;
    let status = String::from_utf8_lossy(&answer[..head])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    ensure!(status.contains(" 200"), "{admin}{path}: {status}");
    Ok(answer[head + 4..].to_vec())
}

/// Everything in these ledgers that does not add up, one line each.
pub fn imbalances(reports: &[Report]) -> String {
    let mut out = String::new();
    for report in reports {
        if !report.ingress.balanced() {
            out.push_str(&format!(
                "{} {}: ingress {:?}\n",
                report.component, report.instance, report.ingress
            ));
        }
        for row in report.subscriptions.iter().filter(|row| !row.balanced()) {
            out.push_str(&format!(
                "{} {}: {row:?}\n",
                report.component, report.instance
            ));
        }
    }
    out
}

/// Fails with the rows that do not add up. Only meaningful at rest: nothing being sent, everybody done reading.
///
/// # Panics
/// When the equation does not hold.
#[track_caller]
pub fn assert_ledger_balanced(reports: &[Report]) {
    assert!(!reports.is_empty(), "no ledger to check");
    let wrong = imbalances(reports);
    assert!(wrong.is_empty(), "the ledger does not balance:\n{wrong}");
}

/// The sum of these rows.
pub fn sum<'a>(rows: impl IntoIterator<Item = &'a Subscription>) -> Subscription {
    rows.into_iter()
        .fold(Subscription::default(), |mut sum, row| {
            sum.received += row.received;
            sum.delivered += row.delivered;
            sum.pending += row.pending;
            for (reason, count) in &row.dropped {
                *sum.dropped.entry(reason.clone()).or_default() += count;
            }
            sum
        })
}
