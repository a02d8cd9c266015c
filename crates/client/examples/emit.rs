//! Sends log lines and a counter to an agent: `emit ADDRESS CA_FILE CERT_FILE KEY_FILE SOURCE_ID LINE…`

use loggregator_client::{Emitter, EmitterConfig, message};
use loggregator_net::{ClientTls, TlsFiles};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, ca, cert, key, source, lines @ ..] = args.as_slice() else {
        anyhow::bail!("usage: emit ADDRESS CA_FILE CERT_FILE KEY_FILE SOURCE_ID LINE…");
    };
    let tls = ClientTls::mutual(&TlsFiles {
        ca: ca.into(),
        cert: cert.into(),
        key: key.into(),
    })?;
    let emitter = Emitter::new(EmitterConfig::new(addr, Some(tls)));
    for line in lines {
        emitter
            .emit(
                message::log(line.clone())
                    .source(source, "0")
                    .source_type("APP"),
            )
            .await?;
    }
    emitter
        .emit(message::counter("lines", lines.len() as u64).source(source, "0"))
        .await?;
    let stats = emitter.close(std::time::Duration::from_secs(5)).await;
    anyhow::ensure!(
        stats.sent == stats.emitted,
        "not everything was sent: {stats:?}"
    );
    Ok(())
}
