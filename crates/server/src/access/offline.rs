//! Tokens without a running server: makes one, and checks one as a server does.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::refused::Refused;
use super::settings::AccessSettings;
use super::token::Verifier;
use crate::errors::refusal_text;

/// A token that a server would reject, or that cannot be made. The text contains the cause,
/// the fix and the code of the server's response, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenError(String);

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TokenError {}

impl From<Refused> for TokenError {
    fn from(refused: Refused) -> TokenError {
        TokenError(format!("{} ({})", refusal_text(&refused), refused.code()))
    }
}

impl AccessSettings {
    /// Returns a token with the claim `pushwheel`, valid for `lifetime` from `now_s` on, in
    /// seconds since 1970.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "seconds fit for 292 billion years"
    )]
    pub(crate) fn make_token(
        &self,
        own: &Map<String, Value>,
        lifetime: Duration,
        now_s: f64,
    ) -> Result<String, TokenError> {
        let key = self.token_keys.secret_key().ok_or_else(|| {
            TokenError(
                "there is no secret to sign the token with. Set --token-secret-file FILE or \
                 PUSHWHEEL_TOKEN_SECRET"
                    .to_owned(),
            )
        })?;
        let made_at_s = now_s as i64;
        let expires_at_s = made_at_s.saturating_add_unsigned(lifetime.as_secs());
        let mut claims = json!({ "iat": made_at_s, "exp": expires_at_s, "pushwheel": own });
        if let Some(name) = self.checks.audiences.first() {
            claims["aud"] = json!(name);
        }
        let of_key = key.issuers.first().map(|name| &**name);
        let issuer = of_key.or(self.checks.issuers.first().map(String::as_str));
        if let Some(name) = issuer {
            claims["iss"] = json!(name);
        }
        let token = key.sign(&claims);
        self.check_token(&token, now_s)?;
        Ok(token)
    }

    /// Checks a token at `now_s`, in seconds since 1970.
    pub(crate) fn check_token(&self, token: &str, now_s: f64) -> Result<(), TokenError> {
        if self.token_keys.is_empty() {
            return Err(TokenError(
                "there is no key to verify the token with. Set --token-secret-file FILE, \
                 --token-public-key-file FILE or --token-jwks-file FILE"
                    .to_owned(),
            ));
        }
        let verifier = Verifier::new(self.token_keys.clone(), self.checks.clone());
        verifier.grant(token, now_s, || Ok(()), || {})?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::TokenKeys;

    const NOW_S: f64 = 1_000_000.5;
    const SECRET: &[u8] = b"a secret of a test, of 32 bytes!!";

    fn settings() -> AccessSettings {
        AccessSettings {
            token_keys: TokenKeys::secret(SECRET).unwrap(),
            ..AccessSettings::default()
        }
    }

    fn own(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_token_is_valid_for_its_lifetime_where_its_settings_are() {
        let mut settings = settings();
        settings.checks.audiences = vec!["push".into(), "other".into()];
        settings.checks.issuers = vec!["app".into()];
        let own = own(json!({"subscribe": ["news"]}));
        let lifetime = Duration::from_secs(60);
        let token = settings.make_token(&own, lifetime, NOW_S).unwrap();
        let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&token).unwrap();
        let wanted = json!({
            "iat": 1_000_000, "exp": 1_000_060, "aud": "push", "iss": "app",
            "pushwheel": {"subscribe": ["news"]},
        });
        assert_eq!(claims, wanted);
        // 60 s, and 10 s of leeway.
        assert_eq!(settings.check_token(&token, NOW_S + 69.0), Ok(()));
        let expired = settings.check_token(&token, NOW_S + 70.0).unwrap_err();
        let wanted = "the token has expired. Get another one (token_expired)";
        assert_eq!(expired.to_string(), wanted);
        settings.checks.audiences.remove(0);
        let misses = settings.check_token(&token, NOW_S).unwrap_err();
        assert!(misses.to_string().ends_with("(token_audience)"), "{misses}");
    }

    #[test]
    fn a_token_that_the_server_would_reject_is_not_made() {
        let (mut settings, lifetime) = (settings(), Duration::from_secs(60));
        let typo = own(json!({"subscibe": ["news"]}));
        let error = settings.make_token(&typo, lifetime, NOW_S).unwrap_err();
        assert!(error.to_string().contains("`subscibe`"), "{error}");
        settings.checks.lifetime_max_s = Some(30.0);
        let error = settings.make_token(&Map::new(), lifetime, NOW_S);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("--token-max-lifetime"), "{error}");
        settings.token_keys = TokenKeys::default();
        let error = settings.make_token(&Map::new(), lifetime, NOW_S);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("Set --token-secret-file FILE"), "{error}");
        let error = settings.check_token("a.b.c", NOW_S).unwrap_err();
        assert!(error.to_string().contains("no key to verify"), "{error}");
    }
}
