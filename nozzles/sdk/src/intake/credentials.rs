//! What an intake shows at the other side's door.

use std::sync::Arc;

use loggregator_service::Lifecycle;

use super::IntakeError;
use super::oauth::{Token, Tokens, check};
use crate::config::{OauthConfig, Secret};

/// A token in the form that all of the platform understands: Go traffic controllers and gateways know no `Bearer`.
pub(super) fn bearer(token: &str) -> String {
    let bare = match token.split_at_checked(7) {
        Some((scheme, bare)) if scheme.eq_ignore_ascii_case("bearer ") => bare,
        _ => token,
    };
    format!("bearer {}", bare.trim())
}

/// What an intake shows at the other side's door.
#[derive(Clone)]
pub(crate) enum Credentials {
    /// Nothing.
    None,
    /// A token that stands in the configuration, read again for each use.
    Fixed(Secret),
    /// Tokens of a UAA.
    Oauth(Tokens),
}

/// What was shown.
pub(crate) enum Shown {
    Nothing,
    Fixed(String),
    Token(Arc<Token>),
}

impl Shown {
    /// The value of an `Authorization` header.
    pub(crate) fn authorization(&self) -> Option<&str> {
        match self {
            Shown::Nothing => None,
            Shown::Fixed(text) => Some(text),
            Shown::Token(token) => Some(token.authorization()),
        }
    }
}

impl Credentials {
    /// Checks what can be checked without the network. Answers whether there is anything secret.
    pub(crate) fn check(
        token: Option<&Secret>,
        oauth: Option<&OauthConfig>,
        key: &'static str,
    ) -> Result<bool, IntakeError> {
        match (token, oauth) {
            (Some(_), Some(_)) => Err(IntakeError::TwoTokens(key)),
            (None, Some(oauth)) => check(oauth, &format!("{key}.oauth")).map(|_| true),
            (token, None) => Ok(token.is_some()),
        }
    }

    pub(crate) fn start(
        token: Option<&Secret>,
        oauth: Option<&OauthConfig>,
        key: &'static str,
        lifecycle: &Lifecycle,
    ) -> Result<Credentials, IntakeError> {
        Credentials::check(token, oauth, key)?;
        Ok(match (token, oauth) {
            (_, Some(oauth)) => {
                Credentials::Oauth(Tokens::start(oauth, &format!("{key}.oauth"), lifecycle)?)
            }
            (Some(token), None) => Credentials::Fixed(token.clone()),
            (None, None) => Credentials::None,
        })
    }

    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        match self {
            Credentials::Oauth(tokens) => Some(tokens),
            Credentials::None | Credentials::Fixed(_) => None,
        }
    }

    /// What to show now; waits until there is something.
    ///
    /// # Errors
    /// When a secret cannot be read, or the program stops.
    pub(crate) async fn show(&self) -> Result<Shown, String> {
        match self {
            Credentials::None => Ok(Shown::Nothing),
            Credentials::Fixed(secret) => match secret.read() {
                Ok(token) => Ok(Shown::Fixed(bearer(&token))),
                Err(error) => Err(error.to_string()),
            },
            Credentials::Oauth(tokens) => match tokens.get().await {
                Some(token) => Ok(Shown::Token(token)),
                None => Err("the nozzle stops".to_owned()),
            },
        }
    }

    /// The other side wants to see something else.
    pub(crate) fn refused(&self, shown: &Shown) {
        if let (Credentials::Oauth(tokens), Shown::Token(token)) = (self, shown) {
            tokens.refused(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sent_as_all_of_the_platform_understands_them() {
        for token in ["abc", "bearer abc", "Bearer abc", "BEARER  abc", "abc\n"] {
            assert_eq!(bearer(token), "bearer abc", "{token:?}");
        }
    }
}
