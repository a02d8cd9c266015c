//! Tokens for SASL OAUTHBEARER (RFC 7628).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use serde::Deserialize;

use crate::config::OAuth;
use crate::grant::Grant;

/// A life beyond a year is none.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A token cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// There is none in the configuration.
    #[error("no token is configured")]
    None,
    /// Who gives them gives none.
    #[error("sasl.oauth.url: {0}")]
    Grant(String),
    /// It cannot be read.
    #[error("sasl.oauth.token: {0}")]
    Secret(String),
    /// It says that it has expired.
    #[error("the token expired {0} s ago")]
    Expired(u64),
}

/// What a JSON web token says about itself (RFC 7519, section 4.1).
#[derive(Debug, Default, Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
}

/// The token as it is now. librdkafka asks again when four fifths of its time are over.
///
/// # Errors
/// When there is none, or it has expired.
pub(crate) fn token(config: &OAuth) -> Result<OAuthToken, TokenError> {
    let (token, lifetime) = match (&config.token, &config.url) {
        (Some(secret), _) => {
            let token = secret.read();
            let token = token.map_err(|error| TokenError::Secret(error.to_string()))?;
            (token, config.lifetime.0)
        }
        (None, Some(_)) => {
            let grant = Grant::of(config).map_err(|(_, message)| TokenError::Grant(message))?;
            let granted = grant.ask().map_err(TokenError::Grant)?;
            let told = granted.expires_in.map(Duration::from_secs);
            (
                granted.token,
                told.unwrap_or(config.lifetime.0).min(LONGEST),
            )
        }
        (None, None) => return Err(TokenError::None),
    };
    let token = token
        .strip_prefix("bearer ")
        .or_else(|| token.strip_prefix("Bearer "))
        .map_or(token.clone(), str::to_owned);
    let claims = claims(&token);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let lifetime_ms = match claims.exp {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970")]
        Some(exp) if exp > now.as_secs_f64() => (exp * 1000.0) as i64,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive"
        )]
        Some(exp) => return Err(TokenError::Expired((now.as_secs_f64() - exp) as u64)),
        None => i64::try_from((now + lifetime).as_millis()).unwrap_or(i64::MAX),
    };
    let principal_name = config
        .principal
        .clone()
        .or(claims.sub)
        .or_else(|| config.client.clone())
        .unwrap_or_else(|| "loggregator".to_owned());
    Ok(OAuthToken {
        token,
        principal_name,
        lifetime_ms,
    })
}

/// What a token says, if it is a JSON web token.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('='));
    json.ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use loggregator_nozzle::config::{Secret, Time};

    use super::*;

    fn config(token: &str) -> OAuth {
        OAuth {
            token: Some(Secret::Text(token.to_owned())),
            url: None,
            client: None,
            secret: None,
            scope: None,
            ca_file: None,
            skip_verify: false,
            principal: None,
            lifetime: Time(Duration::from_secs(60)),
        }
    }

    fn jwt(claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims))
    }

    #[test]
    fn a_web_token_says_whose_it_is_and_how_long() {
        let text = jwt(r#"{"sub":"nozzle","exp":4102444800}"#);
        let token = token(&config(&format!("bearer {text}"))).unwrap();
        assert_eq!(token.token, text);
        assert_eq!(token.principal_name, "nozzle");
        assert_eq!(token.lifetime_ms, 4_102_444_800_000);
    }

    #[test]
    fn an_expired_one_is_refused_without_showing_it() {
        let text = jwt(r#"{"sub":"nozzle","exp":1}"#);
        let error = token(&config(&text)).err().unwrap().to_string();
        assert!(error.starts_with("the token expired "), "{error}");
        assert!(!error.contains(&text));
    }

    #[test]
    fn any_other_token_lives_as_configured() {
        let token = token(&config("opaque")).unwrap();
        assert_eq!(token.principal_name, "loggregator");
        assert!(token.lifetime_ms > 1_700_000_000_000);
    }
}
