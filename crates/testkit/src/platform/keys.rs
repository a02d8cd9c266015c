//! The keys that the stub UAA signs with, and those that it publishes.

use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What becomes of the keys so far when there is a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// They stay published: tokens signed with them hold.
    Add,
    /// They are gone, and the tokens signed with them no good.
    Replace,
}

/// Keys by their id; the last signs.
pub(super) struct Keys {
    keys: Vec<(String, KeyPair)>,
    made: usize,
}

impl Keys {
    pub fn new() -> Result<Self> {
        let mut keys = Self {
            keys: Vec::new(),
            made: 0,
        };
        keys.rotate(Rotation::Add)?;
        Ok(keys)
    }

    pub fn rotate(&mut self, how: Rotation) -> Result<()> {
        let key = KeyPair::generate(KeySize::Rsa2048)
            .ok()
            .context("an RSA key")?;
        if how == Rotation::Replace {
            self.keys.clear();
        }
        self.made += 1;
        self.keys.push((format!("key-{}", self.made), key));
        Ok(())
    }

    /// The key that signs.
    pub fn newest(&self) -> &(String, KeyPair) {
        &self.keys[self.keys.len() - 1]
    }

    /// Whether a key of this id is published.
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|(known, _)| known == id)
    }

    /// A JWT in its compact form.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String> {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(header), encode(claims));
        let (_, key) = self.newest();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            text.as_bytes(),
            &mut signature,
        )
        .ok()
        .context("a signature")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The answer of `GET /token_keys`.
    pub fn published(&self) -> Value {
        let keys: Vec<_> = self
            .keys
            .iter()
            .map(|(id, key)| {
                let public = key.public_key();
                let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
                json!({
                    "kty": "RSA",
                    "use": "sig",
                    "kid": id,
                    "alg": "RS256",
                    "n": encode(public.modulus().big_endian_without_leading_zero()),
                    "e": encode(public.exponent().big_endian_without_leading_zero()),
                })
            })
            .collect();
        json!({ "keys": keys })
    }
}
