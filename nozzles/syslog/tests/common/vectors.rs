//! The golden vectors: envelopes, and what the platform's agents make of them.

use base64::Engine as _;
use loggregator_nozzle::Event;
use serde::Deserialize;

/// One of them.
#[derive(Debug, Deserialize)]
pub struct Vector {
    pub name: String,
    v2_envelope_hex: String,
    /// The host name of events without the names of an app.
    pub hostname: String,
    pub metadata_enabled: bool,
    expected_lines_base64: Vec<String>,
    /// The lines may come in any order.
    pub any_order: bool,
    /// The envelope is refused.
    pub error: bool,
}

impl Vector {
    pub fn event(&self) -> Event {
        let hex = self.v2_envelope_hex.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        Event::new(0, 0, hex.map(byte).collect::<Vec<u8>>().into())
    }

    pub fn lines(&self) -> Vec<Vec<u8>> {
        let decode = |line| base64::prelude::BASE64_STANDARD.decode(line).unwrap();
        self.expected_lines_base64.iter().map(decode).collect()
    }

    /// The settings with which the platform's agents write it.
    pub fn settings(&self, url: &str) -> String {
        format!(
            "url = {url:?}\nhostname = {:?}\nomit_metadata = {}\ninvalid_utf8 = \"keep\"\n",
            self.hostname, !self.metadata_enabled
        )
    }
}

/// All of them.
pub fn all() -> Vec<Vector> {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../rfc5424-vectors.json")).unwrap();
    assert_eq!(vectors.len(), 42);
    vectors
}
