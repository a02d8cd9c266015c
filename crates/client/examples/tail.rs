//! Shows the logs of one source: `tail CA_FILE CERT_FILE KEY_FILE SOURCE_ID DOPPLER…`

use loggregator_client::{Connector, DOPPLER, DopplerSet, EgressStream, Selectors};
use loggregator_net::{ClientTls, TlsFiles};

#[tokio::main]
#[allow(clippy::print_stdout)] // that is what it is for
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ca, cert, key, source, dopplers @ ..] = args.as_slice() else {
        anyhow::bail!("usage: tail CA_FILE CERT_FILE KEY_FILE SOURCE_ID DOPPLER…");
    };
    let tls = ClientTls::mutual(&TlsFiles {
        ca: ca.into(),
        cert: cert.into(),
        key: key.into(),
    })?;
    let set = DopplerSet::fixed(dopplers.to_vec(), Connector::new(DOPPLER, Some(tls)));
    let mut stream = EgressStream::open(&set, Selectors::new().logs_of(source));
    while let Some(batch) = stream.next().await {
        let frame = batch.frame()?;
        for log in frame
            .entries()
            .iter()
            .filter_map(|entry| frame.envelope(entry).log())
        {
            println!("{}", String::from_utf8_lossy(log.payload));
        }
    }
    Ok(())
}
