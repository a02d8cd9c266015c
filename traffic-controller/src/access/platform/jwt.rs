//! Signed tokens: what UAA issues by default.
//!
//! The format, the signature and the issuer are `jsonwebtoken`'s to judge. It is told the one algorithm that
//! the token names, and only RSA with PKCS#1 padding and SHA-2, which is what UAA signs with, gets that far: neither `none`
//! nor a MAC made with the public key can pass. It takes no RSA key below 2048 bits.
//!
//! Beside the library stands what it does not do:
//!
//! - the look at the header beforehand, because what is no signed token goes to UAA, and one with an algorithm that is
//!   refused must not: to the library both are no header. Nor does it refuse critical headers;
//! - the times, because a stream must know when its token ends, a token past its time is refused before a key is looked
//!   for, and the library rounds both to whole seconds and has no clock but its own;
//! - the audience: the library keeps the claims that must be there in a hash set, so of an issuer and an audience that are
//!   both missing it would name now the one, now the other;
//! - that refresh tokens open nothing, which is UAA's own rule.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Number, Value};

use super::config::LocalCheck;
use super::uaa::{FIREHOSE, LOGS_ADMIN};

/// How UAA ends the `jti` of a refresh token, which is signed with the same key and opens nothing.
const REFRESH_TOKEN_SUFFIX: &str = "-r";

/// Why a signed token is refused. Shows nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the token's algorithm is not RS256, RS384 or RS512, or not that of its key")]
    Algorithm,
    #[error("the token names a critical header that is not known here")]
    Critical,
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    #[error("there are no token keys, or they are too old")]
    NoKeys,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token's header or claims are malformed")]
    Claims,
    #[error("the token does not say when it expires")]
    NoExpiry,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("a refresh token opens nothing")]
    RefreshToken,
}

/// A public key, as published.
#[derive(Debug)]
pub(super) struct PublicKey {
    key: DecodingKey,
    /// The one algorithm that it is for, if it says so.
    alg: Option<String>,
}

impl PublicKey {
    /// From the base64url members of a JSON Web Key.
    pub fn new(n: &str, e: &str, alg: Option<String>) -> Option<Self> {
        let (n, e) = (n.trim_end_matches('='), e.trim_end_matches('='));
        let key = DecodingKey::from_rsa_components(n, e).ok()?;
        Some(Self { key, alg })
    }
}

/// A token that says of itself that it is a signed one. Nothing of it is verified yet.
pub(super) struct Jwt<'a> {
    token: &'a [u8],
    header: Header,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Option<Number>,
    #[serde(default)]
    nbf: Option<Number>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    aud: Value,
    #[serde(default)]
    scope: Value,
}

/// What a verified token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Good {
    /// `doppler.firehose` is among its scopes.
    pub firehose: bool,
    /// `logs.admin` is among its scopes.
    pub logs_admin: bool,
    /// Until it will be refused as expired.
    pub holds_for: Duration,
}

impl<'a> Jwt<'a> {
    /// `None` for what is no signed token: not three parts, or the first is no header.
    pub fn parse(token: &'a [u8]) -> Option<Self> {
        let mut parts = token.split(|byte| *byte == b'.');
        let (header, _, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let header = URL_SAFE_NO_PAD.decode(header).ok()?;
        Some(Self {
            token,
            header: serde_json::from_slice(&header).ok()?,
        })
    }

    /// The id of the key that it says it is signed with.
    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Whether the header is one that could pass, before anybody looks for a key.
    pub fn check_header(&self) -> Result<(), Refusal> {
        self.algorithm()?;
        match self.header.crit {
            None => Ok(()),
            Some(_) => Err(Refusal::Critical),
        }
    }

    /// Whether it is past its time by its own word, be that verified or not: that needs no key.
    pub fn check_expiry(&self, check: &LocalCheck, now: f64) -> Result<(), Refusal> {
        let claims: Claims = insecure_decode_claims(self.token).map_err(|_| Refusal::Claims)?;
        claims.left(check, now).map(drop)
    }

    fn algorithm(&self) -> Result<Algorithm, Refusal> {
        match self.header.alg.as_str() {
            "RS256" => Ok(Algorithm::RS256),
            "RS384" => Ok(Algorithm::RS384),
            "RS512" => Ok(Algorithm::RS512),
            _ => Err(Refusal::Algorithm),
        }
    }

    /// Verifies everything: header, signature, issuer, times, and the audience if it matters. `now` is in seconds since
    /// the epoch.
    pub fn verify(&self, key: &PublicKey, check: &LocalCheck, now: f64) -> Result<Good, Refusal> {
        self.check_header()?;
        if key.alg.as_ref().is_some_and(|alg| *alg != self.header.alg) {
            return Err(Refusal::Algorithm);
        }
        let validation = validation(self.algorithm()?, check);
        let decoded = jsonwebtoken::decode::<Claims>(self.token, &key.key, &validation);
        let decoded = decoded.map_err(|error| refusal(&error))?;
        decoded.claims.check(check, now)
    }
}

/// What the library is to check: the signature by this algorithm, and the issuer.
fn validation(algorithm: Algorithm, check: &LocalCheck) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_issuer(&[&check.issuer]);
    // Without this a token passes that has none.
    validation.set_required_spec_claims(&["iss"]);
    validation
}

fn refusal(error: &Error) -> Refusal {
    match error.kind() {
        ErrorKind::InvalidAlgorithm => Refusal::Algorithm,
        ErrorKind::Json(_) => Refusal::Claims,
        ErrorKind::InvalidIssuer | ErrorKind::MissingRequiredClaim(_) => Refusal::Issuer,
        // A signature that does not decode is a wrong one; claims that do not are found out before.
        _ => Refusal::Signature,
    }
}

impl Claims {
    /// Seconds until it is refused as expired.
    fn left(&self, check: &LocalCheck, now: f64) -> Result<f64, Refusal> {
        let exp = self.exp.as_ref().ok_or(Refusal::NoExpiry)?;
        let left = seconds(exp)? + check.leeway.as_secs_f64() - now;
        if left > 0.0 {
            Ok(left)
        } else {
            Err(Refusal::Expired)
        }
    }

    fn check(&self, check: &LocalCheck, now: f64) -> Result<Good, Refusal> {
        let left = self.left(check, now)?;
        if let Some(nbf) = &self.nbf
            && seconds(nbf)? - check.leeway.as_secs_f64() > now
        {
            return Err(Refusal::NotYet);
        }
        if let Some(audience) = &check.audience
            && !lists(&self.aud, audience)
        {
            return Err(Refusal::Audience);
        }
        let jti = self.jti.as_deref().unwrap_or_default();
        if jti.ends_with(REFRESH_TOKEN_SUFFIX) {
            return Err(Refusal::RefreshToken);
        }
        Ok(Good {
            firehose: lists(&self.scope, FIREHOSE),
            logs_admin: lists(&self.scope, LOGS_ADMIN),
            holds_for: Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX),
        })
    }
}

fn seconds(number: &Number) -> Result<f64, Refusal> {
    let seconds = number.as_f64().filter(|seconds| seconds.is_finite());
    seconds.ok_or(Refusal::Claims)
}

/// Whether a claim that is one text or a list of texts has this one.
fn lists(claim: &Value, wanted: &str) -> bool {
    match claim {
        Value::String(text) => text == wanted,
        Value::Array(texts) => texts.iter().any(|text| text == wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{
        KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    };
    use aws_lc_rs::{hmac, signature};
    use serde_json::json;

    use super::*;

    const NOW: f64 = 1_000_000.0;

    struct Signer(KeyPair);

    impl Signer {
        fn new(size: KeySize) -> Self {
            Self(KeyPair::generate(size).unwrap())
        }

        fn public(&self) -> PublicKey {
            let key = self.0.public_key();
            PublicKey {
                key: DecodingKey::from_rsa_raw_components(
                    key.modulus().big_endian_without_leading_zero(),
                    key.exponent().big_endian_without_leading_zero(),
                ),
                alg: None,
            }
        }

        fn sign(&self, header: &Value, claims: &Value) -> String {
            let scheme: &dyn signature::RsaEncoding = match header["alg"].as_str() {
                Some("RS384") => &RSA_PKCS1_SHA384,
                Some("RS512") => &RSA_PKCS1_SHA512,
                _ => &RSA_PKCS1_SHA256,
            };
            let text = unsigned(header, claims);
            let mut signature = vec![0; self.0.public_modulus_len()];
            let random = SystemRandom::new();
            self.0
                .sign(scheme, &random, text.as_bytes(), &mut signature)
                .unwrap();
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn unsigned(header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", encode(header), encode(claims))
    }

    fn claims() -> Value {
        json!({
            "exp": 1_000_100, "iss": "https://uaa", "scope": ["a", "doppler.firehose"], "jti": "x"
        })
    }

    fn check() -> LocalCheck {
        LocalCheck {
            issuer: "https://uaa".to_owned(),
            ..LocalCheck::default()
        }
    }

    fn judge(token: &str, key: &PublicKey, check: &LocalCheck) -> Result<Good, Refusal> {
        Jwt::parse(token.as_bytes())
            .unwrap()
            .verify(key, check, NOW)
    }

    #[test]
    fn the_three_algorithms_pass_and_say_what_the_token_may() {
        let signer = Signer::new(KeySize::Rsa2048);
        for alg in ["RS256", "RS384", "RS512"] {
            let token = signer.sign(&json!({ "alg": alg, "kid": "k" }), &claims());
            let good = Good {
                firehose: true,
                logs_admin: false,
                holds_for: Duration::from_secs(160),
            };
            assert_eq!(judge(&token, &signer.public(), &check()), Ok(good));
            assert_eq!(Jwt::parse(token.as_bytes()).unwrap().key_id(), Some("k"));
            let other = PublicKey {
                alg: Some("RS999".to_owned()),
                ..signer.public()
            };
            let refused = judge(&token, &other, &check());
            assert_eq!(refused, Err(Refusal::Algorithm));
        }
    }

    #[test]
    fn no_other_algorithm_passes() {
        let signer = Signer::new(KeySize::Rsa2048);
        for alg in [
            "none", "None", "", "HS256", "RS1", "PS256", "ES256", "rs256",
        ] {
            let token = signer.sign(&json!({ "alg": alg }), &claims());
            let refused = judge(&token, &signer.public(), &check());
            assert_eq!(refused, Err(Refusal::Algorithm), "{alg}");
        }
        let bare = format!("{}.", unsigned(&json!({ "alg": "none" }), &claims()));
        let refused = judge(&bare, &signer.public(), &check());
        assert_eq!(refused, Err(Refusal::Algorithm));
        // The public key, which everybody has, as the key of a MAC.
        let text = unsigned(&json!({ "alg": "HS256" }), &claims());
        let modulus = signer.0.public_key().modulus();
        let key = modulus.big_endian_without_leading_zero();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let mac = hmac::sign(&key, text.as_bytes());
        let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac));
        let refused = judge(&token, &signer.public(), &check());
        assert_eq!(refused, Err(Refusal::Algorithm));
    }

    #[test]
    fn what_was_changed_or_signed_by_another_is_refused() {
        let signer = Signer::new(KeySize::Rsa2048);
        let header = json!({ "alg": "RS256" });
        let token = signer.sign(&header, &claims());
        let (head, signature) = token.rsplit_once('.').unwrap();
        let more = json!({ "exp": 9_000_000, "scope": ["doppler.firehose"] });
        let refused = Err(Refusal::Signature);
        for token in [
            Signer::new(KeySize::Rsa2048).sign(&header, &claims()),
            format!("{}.{signature}", unsigned(&header, &more)),
            format!("{head}."),
            format!("{head}.!!"),
            format!("{head}.AAAA"),
        ] {
            assert_eq!(judge(&token, &signer.public(), &check()), refused);
        }
        let critical = json!({ "alg": "RS256", "crit": ["b64"], "b64": false });
        let token = signer.sign(&critical, &claims());
        let refused = judge(&token, &signer.public(), &check());
        assert_eq!(refused, Err(Refusal::Critical));
    }

    #[test]
    fn a_key_below_2048_bits_verifies_nothing() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjEwMDAxMDB9.\
            E1VBTpOPGCehzzQfdrB5IMv9i4Af_aPCl4sMNCchJS2QI_u--wxWj-zkmdxtj4eaUdd_qT9O01WRr7Tz3NdweEbJenvITPMO\
            6eEHB0QU2AO9-J7r3DGrikeo3eVL1bONNjNBbiW_LpB_BomskRIPtSLUcyqHxZCun9XB8_-b3PU";
        let n = "2qlQuQaNAHMCAUEpnLAwDbo823a3043BAJaufY_UPkWVRqrVnKv6w0MEas6bExCS5IIGmIZ41LayV9_1PO5hNkfQjdpgRu3J\
            KEjLz6hgYfNK2HrSH5BfQC9SzBO5aImOtMK8Nj_fHh50XoZETlMMqIuwSBP3Dw8gKmtbEHJcC8M";
        let key = PublicKey::new(n, "AQAB", None).unwrap();
        assert_eq!(judge(token, &key, &check()), Err(Refusal::Signature));
        // It is the length alone: without the limit the signature is right.
        let e = [1, 0, 1];
        let n = URL_SAFE_NO_PAD.decode(n).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        signature::RsaPublicKeyComponents {
            n: &n[..],
            e: &e[..],
        }
        .verify(
            &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            signed.as_bytes(),
            &URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn claims_are_checked_one_by_one() {
        let signer = Signer::new(KeySize::Rsa2048);
        let key = signer.public();
        let strict = LocalCheck {
            audience: Some("doppler".to_owned()),
            ..check()
        };
        let with = |changes: Value, check: &LocalCheck| {
            let mut claims = claims();
            for (name, value) in changes.as_object().unwrap() {
                claims[name] = value.clone();
            }
            judge(
                &signer.sign(&json!({ "alg": "RS256" }), &claims),
                &key,
                check,
            )
        };
        for (changes, refusal) in [
            (json!({ "exp": null }), Refusal::NoExpiry),
            (json!({ "exp": "1000100" }), Refusal::Claims),
            (json!({ "exp": 999_940 }), Refusal::Expired),
            (json!({ "exp": -1 }), Refusal::Expired),
            (json!({ "nbf": 1_000_061 }), Refusal::NotYet),
            (json!({ "jti": "abc-r" }), Refusal::RefreshToken),
            (json!({ "iss": "https://uaa.other" }), Refusal::Issuer),
            (json!({ "iss": null }), Refusal::Issuer),
        ] {
            assert_eq!(with(changes.clone(), &check()), Err(refusal), "{changes}");
        }
        for changes in [
            json!({ "exp": 999_941 }),
            json!({ "exp": 1_000_000.5 }),
            json!({ "nbf": 1_000_060 }),
        ] {
            assert!(with(changes.clone(), &check()).is_ok(), "{changes}");
        }
        let good = json!({ "aud": ["x", "doppler"] });
        assert!(with(good, &strict).is_ok());
        let good = json!({ "aud": "doppler" });
        assert!(with(good, &strict).is_ok());
        for other in [json!({}), json!({ "aud": ["dopplers"] })] {
            assert_eq!(with(other, &strict), Err(Refusal::Audience));
        }
        for scope in [
            json!(null),
            json!("doppler.firehose x"),
            json!({ "doppler.firehose": 1 }),
        ] {
            let good = with(json!({ "scope": scope }), &check()).unwrap();
            assert!(!good.firehose && !good.logs_admin);
        }
    }

    #[test]
    fn what_is_no_signed_token_is_left_to_others() {
        for token in [
            "",
            "opaque",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "e30.e30.e30",
            "..",
            "bnVsbA.e30.",
        ] {
            assert!(Jwt::parse(token.as_bytes()).is_none(), "{token}");
        }
    }
}
