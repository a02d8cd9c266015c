//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub mod peers;
pub mod rfc5424;
pub mod vectors;

use std::sync::Arc;

use loggregator_nozzle::config::Section;
use loggregator_nozzle::{BufferIdentity, Context, DynDestination, Event, Kind as _, Plan};
use loggregator_nozzle_syslog::SyslogKind;
use loggregator_service::Lifecycle;
use loggregator_service::metrics::Metrics;

/// The plan of a section.
pub fn plan(section: &str) -> Box<dyn Plan> {
    SyslogKind
        .plan(&Section::from_text(section).unwrap())
        .unwrap()
}

/// A destination that runs, and what belongs to it.
pub struct Running {
    pub destination: Arc<dyn DynDestination>,
    pub lifecycle: Lifecycle,
    pub metrics: Metrics,
}

/// Starts a destination.
pub async fn start(section: &str) -> Running {
    let (lifecycle, metrics) = (Lifecycle::new(), Metrics::empty());
    let context = Context {
        nozzle: "test".to_owned(),
        name: "siem".to_owned(),
        metrics: metrics.clone(),
        lifecycle: lifecycle.clone(),
        buffer: BufferIdentity::new("test"),
        state_dir: None,
    };
    let destination = plan(section).start(context).await.unwrap();
    Running {
        destination,
        lifecycle,
        metrics,
    }
}

/// A log of this source with this text.
pub fn log(seq: u64, source_id: &str, text: &str) -> Event {
    envelope(
        seq,
        loggregator_proto::v2::Envelope {
            timestamp: 1_700_000_000_000_000_000,
            source_id: source_id.to_owned(),
            instance_id: "0".to_owned(),
            message: Some(loggregator_proto::v2::envelope::Message::Log(
                loggregator_proto::v2::Log {
                    payload: text.as_bytes().to_vec().into(),
                    r#type: 0,
                },
            )),
            ..Default::default()
        },
    )
}

/// The event of an envelope.
pub fn envelope(seq: u64, envelope: loggregator_proto::v2::Envelope) -> Event {
    use prost::Message as _;
    Event::new(seq, 0, envelope.encode_to_vec().into())
}

/// `[tls]` of a destination that shows a client certificate.
pub fn tls(certs: &loggregator_testkit::Certs) -> String {
    let files = certs.tls("client");
    format!(
        "[tls]\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\nserver_name = \"doppler\"\n",
        files.ca, files.cert, files.key
    )
}
