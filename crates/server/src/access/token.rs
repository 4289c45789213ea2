//! Verifies tokens, the cheap checks first.
//!
//! First come the form, the header, a key for its algorithm and `kid`, and for public keys
//! the rate of forged tokens from the client's address. The signature follows, then the
//! claims: reading 8 KiB of claims takes longer than verifying them, so only the holder of a key can cause that. A signed token is verified and read
//! once, accepted or not: the outcome is remembered.
//!
//! HS256 has no rate. Verifying it takes hardly longer than refusing it, so a rate would
//! save nothing, and would lock out other clients behind the same address.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, dangerous};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claims::{Claims, OneOrMany};
use super::credential::CredentialId;
use super::grant::Grant;
use super::refused::Refused;
use super::token_keys::{TokenKey, TokenKeys};
use crate::limits::TOKEN_BYTES_MAX;

/// Maximum keys that one token is verified with.
const CANDIDATES_MAX: usize = 4;
/// Maximum bytes of remembered tokens and their grants. Beyond it the server forgets all
/// of them, and verifies each again when it is sent again.
const REMEMBERED_BYTES_MAX: usize = 4 << 20;
/// The end of the year 9999, the latest `exp`. The program of a token beyond it most
/// likely counts milliseconds.
const EXPIRY_MAX_S: f64 = 253_402_300_799.0;

/// The checks of a token's claims.
#[derive(Clone, Debug)]
pub(crate) struct Checks {
    /// `aud` has to contain one of these. Empty: a token must not have `aud`.
    pub(crate) audiences: Vec<String>,
    /// `iss` has to be one of these. Empty: every issuer is accepted.
    pub(crate) issuers: Vec<String>,
    /// Maximum difference between clocks.
    pub(crate) leeway_s: f64,
    pub(crate) needs_expiry: bool,
    /// Maximum time from `iat` (now, for a token without it) to `exp`.
    pub(crate) lifetime_max_s: Option<f64>,
}

/// Verifies tokens.
pub(super) struct Verifier {
    keys: TokenKeys,
    checks: Checks,
    /// Whether more keys will arrive, so that a token without a key may be valid.
    awaits_keys: bool,
    /// The outcomes of signed tokens. A reload starts with none.
    remembered: Mutex<Remembered>,
    /// Hashes tokens with a secret, so that no client can choose the number of its token.
    numbers: RandomState,
}

#[derive(Default)]
struct Remembered {
    outcomes: HashMap<Box<str>, Outcome>,
    bytes: usize,
}

/// The outcome of a signed token, without the check of its times.
type Outcome = Result<Arc<Grant>, Refused>;

/// The fields of a token's header that select its keys. The others are skipped, which
/// takes little time for any length.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verifier { keys, checks, .. } = self;
        write!(f, "Verifier({keys:?}, {checks:?})")
    }
}

impl Verifier {
    pub(super) fn new(keys: TokenKeys, checks: Checks) -> Verifier {
        Verifier {
            keys,
            checks,
            awaits_keys: false,
            remembered: Mutex::default(),
            numbers: RandomState::new(),
        }
    }

    /// Sets whether more keys will arrive.
    pub(super) fn awaiting_keys(mut self, awaits_keys: bool) -> Verifier {
        self.awaits_keys = awaits_keys;
        self
    }

    /// Returns what a token grants at `now_s`, in seconds since 1970. Calls `may_verify`
    /// before it verifies a signature with a public key, and `count_forged` after a wrong
    /// one.
    pub(super) fn grant(
        &self,
        token: &str,
        now_s: f64,
        may_verify: impl FnOnce() -> Result<(), Refused>,
        count_forged: impl FnOnce(),
    ) -> Result<Arc<Grant>, Refused> {
        if let Some(outcome) = self.recall(token) {
            return outcome?.holds_at(now_s);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused::invalid("it is longer than 8 KiB"));
        }
        if !has_form(token) {
            return Err(Refused::invalid(
                "it does not have the form HEADER.CLAIMS.SIGNATURE",
            ));
        }
        let candidates = self.candidates(token)?;
        let has_rate = (candidates.iter()).any(|key| key.algorithm != Algorithm::HS256);
        if has_rate {
            may_verify()?;
        }
        let Some(signer) = signer_of(token, &candidates) else {
            if has_rate {
                count_forged();
            }
            return Err(self.without_key("none of this server's keys has signed it"));
        };
        let outcome = self.read(token, signer, now_s);
        self.remember(token, &outcome);
        outcome?.holds_at(now_s)
    }

    /// Reads the claims of a token that this key has signed.
    fn read(&self, token: &str, signer: &TokenKey, now_s: f64) -> Outcome {
        // `signer_of` has verified the signature.
        let claims = dangerous::insecure_decode_claims(token);
        let claims = claims.map_err(|_| Refused::unfit("its claims are not JSON"))?;
        let claims = Claims::read(claims)?;
        self.checks.names(&claims, signer)?;
        let (starts_at_s, expires_at_s) = self.checks.times(&claims, now_s)?;
        Ok(Arc::new(Grant {
            starts_at_s,
            expires_at_s,
            token: Some(self.number_of(token)),
            key: Some(signer.id),
            ..claims.grant
        }))
    }

    /// Whether a key verifies tokens.
    pub(super) fn has_key(&self, id: CredentialId) -> bool {
        self.keys.keys.iter().any(|key| key.id == id)
    }

    /// Returns the keys that may have signed a token.
    fn candidates(&self, token: &str) -> Result<Vec<&TokenKey>, Refused> {
        let unreadable = || Refused::invalid("its header cannot be read");
        let (header, _) = token.split_once('.').ok_or_else(unreadable)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| unreadable())?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| unreadable())?;
        // RFC 7515 section 4.1.11: the server has to reject extensions that it lacks.
        if header.crit.is_some() {
            return Err(Refused::invalid("its header has `crit`"));
        }
        let kid = header.kid.as_deref();
        let may_be_of = |key: &&TokenKey| {
            let is_named = match (kid, &key.kid) {
                (Some(kid), Some(name)) => kid == &**name,
                // A token without `kid`, or a key without a name, matches all.
                _ => true,
            };
            is_named && key.algorithm == header.alg
        };
        let keys = self.keys.keys.iter().filter(may_be_of);
        let mut keys: Vec<&TokenKey> = keys.collect();
        // Keys with the name in `kid` come first.
        keys.sort_by_key(|key| key.kid.is_none() || kid.is_none());
        keys.truncate(CANDIDATES_MAX);
        match keys.is_empty() {
            false => Ok(keys),
            true => Err(self.without_key("there is no key for its `alg` and `kid`")),
        }
    }

    fn without_key(&self, why: &'static str) -> Refused {
        match self.awaits_keys {
            true => Refused::KeysMissing,
            false => Refused::invalid(why),
        }
    }

    /// Returns the number of a token. It does not depend on the signature, because a valid
    /// signature of ES256 has a twin that is valid too, and that any client can compute.
    fn number_of(&self, token: &str) -> u64 {
        let message = token.rsplit_once('.').map(|(message, _)| message);
        self.numbers.hash_one(message)
    }

    fn recall(&self, token: &str) -> Option<Outcome> {
        let remembered = self.remembered.lock();
        let remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        remembered.outcomes.get(token).cloned()
    }

    fn remember(&self, token: &str, outcome: &Outcome) {
        let granted_bytes = outcome.as_ref().map_or(0, |grant| grant.bytes());
        let bytes = token.len() + granted_bytes;
        let mut forgotten = Remembered::default();
        let remembered = self.remembered.lock();
        let mut remembered = remembered.unwrap_or_else(PoisonError::into_inner);
        if remembered.bytes + bytes > REMEMBERED_BYTES_MAX {
            // Dropping thousands of tokens takes long: below, without the lock.
            forgotten = std::mem::take(&mut *remembered);
        }
        let before = remembered.outcomes.insert(token.into(), outcome.clone());
        if before.is_none() {
            remembered.bytes += bytes;
        }
        drop(remembered);
        drop(forgotten);
    }
}

/// Returns the key that has made the signature of a token, which is over all bytes before
/// it (RFC 7515 section 5.2).
fn signer_of<'a>(token: &str, keys: &[&'a TokenKey]) -> Option<&'a TokenKey> {
    let (message, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let has_signed = |key: &&TokenKey| key.has_signed(message.as_bytes(), &signature);
    keys.iter().copied().find(has_signed)
}

/// Whether a text after `Bearer` is a token, valid or not, and not a key. The header of
/// almost every token begins with `{"`.
pub(super) fn looks_like_a_token(text: &str) -> bool {
    text.starts_with("eyJ") || has_form(text)
}

/// Returns a token without its signature, which has more than one valid form, or another
/// text as it is.
pub(super) fn without_signature(text: &str) -> &str {
    match text.rsplit_once('.') {
        Some((message, _)) if has_form(text) => message,
        _ => text,
    }
}

/// Whether a text has the form of a token: three parts of base64url.
pub(super) fn has_form(token: &str) -> bool {
    let is_base64 = |part: &str| {
        let is_one = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !part.is_empty() && part.bytes().all(is_one)
    };
    let mut parts = token.split('.');
    (0..3).all(|_| parts.next().is_some_and(is_base64)) && parts.next().is_none()
}

impl Checks {
    /// Checks the audience and the issuer. A server without audiences is in no `aud`
    /// (RFC 7519 section 4.1.3).
    fn names(&self, claims: &Claims, signer: &TokenKey) -> Result<(), Refused> {
        let given: &[String] = match &claims.aud {
            None => &[],
            Some(OneOrMany::One(name)) => std::slice::from_ref(name),
            Some(OneOrMany::Many(names)) => names,
        };
        let is_for_us = match self.audiences.is_empty() {
            true => claims.aud.is_none(),
            false => given.iter().any(|name| self.audiences.contains(name)),
        };
        let issuer = claims.iss.as_deref();
        let is_of = |name: &str| issuer == Some(name);
        let is_from_ours = match (&signer.issuers[..], &self.issuers[..]) {
            ([], []) => true,
            ([], all) => all.iter().any(|name| is_of(name)),
            (own, _) => own.iter().any(|name| is_of(name)),
        };
        match (is_for_us, is_from_ours) {
            (true, true) => Ok(()),
            (false, _) => Err(Refused::TokenAudience),
            (true, false) => Err(Refused::TokenIssuer),
        }
    }

    /// Returns the start and the end of a token's validity, with the leeway.
    fn times(&self, claims: &Claims, now_s: f64) -> Result<(Option<f64>, Option<f64>), Refused> {
        let starts_at_s = claims.nbf.map(|from| from - self.leeway_s);
        let Some(expiry) = claims.exp else {
            return match self.needs_expiry || self.lifetime_max_s.is_some() {
                true => Err(Refused::unfit("it has no `exp`")),
                false => Ok((starts_at_s, None)),
            };
        };
        if expiry > EXPIRY_MAX_S {
            return Err(Refused::unfit(
                "its claim `exp` is later than the year 9999, and has to be in seconds",
            ));
        }
        // A token without `iat`, or with one in the future, counts as made now.
        let made_at_s = claims.iat.map_or(now_s, |made| made.min(now_s));
        if (self.lifetime_max_s).is_some_and(|max| expiry > made_at_s + max + self.leeway_s) {
            return Err(Refused::unfit(
                "from its `iat`, or from now, to its `exp` it is longer than --token-max-lifetime",
            ));
        }
        Ok((starts_at_s, Some(expiry + self.leeway_s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use pushwheel::ClientId;
    use serde_json::{Value, json};
    use std::cell::Cell;

    const SECRET: &[u8] = b"a secret of a test, of 32 bytes!!";
    const NOW_S: f64 = 1_000_000.0;

    fn checks() -> Checks {
        Checks {
            audiences: Vec::new(),
            issuers: Vec::new(),
            leeway_s: 10.0,
            needs_expiry: true,
            lifetime_max_s: None,
        }
    }

    fn verifier() -> Verifier {
        Verifier::new(TokenKeys::secret(SECRET).unwrap(), checks())
    }

    fn sign(claims: &Value) -> String {
        encode(
            &Header::default(),
            claims,
            &EncodingKey::from_secret(SECRET),
        )
        .unwrap()
    }

    /// Returns the grant, whether the rate was checked, and whether a forged signature was
    /// counted.
    fn tried(verifier: &Verifier, token: &str) -> (Result<Arc<Grant>, Refused>, bool, bool) {
        let (was_tried, was_forged) = (Cell::new(false), Cell::new(false));
        let may_verify = || {
            was_tried.set(true);
            Ok(())
        };
        let grant = verifier.grant(token, NOW_S, may_verify, || was_forged.set(true));
        (grant, was_tried.get(), was_forged.get())
    }

    fn code(verifier: &Verifier, claims: &Value) -> &'static str {
        tried(verifier, &sign(claims))
            .0
            .map_or_else(|refused| refused.code(), |_| "ok")
    }

    #[test]
    fn claims_come_to_a_grant() {
        let token = sign(&json!({"exp": NOW_S + 5.0, "sub": "7", "pushwheel": {
            "subscribe": ["news", "user.7.*"], "publish": ["chat"],
            "client": "seven", "metadata": {"role": "admin"},
        }}));
        let verifier = verifier();
        let (grant, was_tried, was_forged) = tried(&verifier, &token);
        let grant = grant.unwrap();
        assert!(!was_tried && !was_forged);
        assert!(grant.subscribe.has("user.7.inbox") && !grant.subscribe.has("user.8"));
        assert!(grant.publish.has("chat") && !grant.publish.has("news"));
        assert_eq!(grant.client, Some(ClientId::new("seven").unwrap()));
        assert_eq!(grant.metadata.as_ref().unwrap()["role"], "admin");
        assert_eq!(grant.expires_at_s, Some(NOW_S + 15.0));
        assert!(!grant.is_believed);
        // It is remembered until it expires.
        let (again, _, _) = tried(&verifier, &token);
        assert!(Arc::ptr_eq(&again.unwrap(), &grant));
        let late = verifier.grant(&token, NOW_S + 15.0, || Ok(()), || {});
        assert_eq!(late.unwrap_err().code(), "token_expired");
    }

    #[test]
    fn times_hold_with_a_leeway() {
        let verifier = verifier();
        for (claims, wanted) in [
            (json!({"exp": NOW_S - 9.0}), "ok"),
            (json!({"exp": NOW_S - 10.0}), "token_expired"),
            (json!({"exp": NOW_S - 9.5}), "ok"),
            (json!({"exp": -1}), "token_expired"),
            (json!({"exp": EXPIRY_MAX_S}), "ok"),
            (json!({"exp": 1e300}), "token_invalid"),
            // Milliseconds.
            (json!({"exp": 1_790_000_000_000_u64}), "token_invalid"),
            (json!({"exp": "soon"}), "token_invalid"),
            (json!({}), "token_invalid"),
            (json!({"exp": NOW_S, "nbf": NOW_S + 10.0}), "ok"),
            (
                json!({"exp": NOW_S, "nbf": NOW_S + 11.0}),
                "token_not_yet_valid",
            ),
        ] {
            assert_eq!(code(&verifier, &claims), wanted, "{claims}");
        }
        let mut lenient = checks();
        lenient.needs_expiry = false;
        let verifier = Verifier::new(TokenKeys::secret(SECRET).unwrap(), lenient);
        assert_eq!(code(&verifier, &json!({})), "ok");
    }

    #[test]
    fn a_lifetime_counts_from_the_time_at_which_a_token_was_made() {
        let mut short = checks();
        (short.lifetime_max_s, short.needs_expiry) = (Some(60.0), false);
        let verifier = Verifier::new(TokenKeys::secret(SECRET).unwrap(), short);
        for (claims, wanted) in [
            (json!({"exp": NOW_S + 70.0}), "ok"),
            (json!({"exp": NOW_S + 71.0}), "token_invalid"),
            (json!({"exp": NOW_S + 5.0, "iat": NOW_S - 65.0}), "ok"),
            (
                json!({"exp": NOW_S + 5.0, "iat": NOW_S - 66.0}),
                "token_invalid",
            ),
            // A later `iat` makes no token that lasts longer.
            (
                json!({"exp": NOW_S + 71.0, "iat": NOW_S + 9.0}),
                "token_invalid",
            ),
            (json!({}), "token_invalid"),
        ] {
            assert_eq!(code(&verifier, &claims), wanted, "{claims}");
        }
    }

    #[test]
    fn audience_and_issuer_have_to_match_the_settings() {
        let with = |audiences: &[&str], issuers: &[&str]| {
            let mut checks = checks();
            checks.audiences = audiences.iter().map(ToString::to_string).collect();
            checks.issuers = issuers.iter().map(ToString::to_string).collect();
            Verifier::new(TokenKeys::secret(SECRET).unwrap(), checks)
        };
        let (strict, lax) = (with(&["push", "b"], &["idp"]), with(&[], &[]));
        for (claims, strictly, laxly) in [
            (json!({"aud": "push", "iss": "idp"}), "ok", "token_audience"),
            (
                json!({"aud": ["x", "b"], "iss": "idp"}),
                "ok",
                "token_audience",
            ),
            (json!({"iss": "idp"}), "token_audience", "ok"),
            (
                json!({"aud": "x", "iss": "idp"}),
                "token_audience",
                "token_audience",
            ),
            (json!({"aud": "push"}), "token_issuer", "token_audience"),
            (
                json!({"aud": "push", "iss": "x"}),
                "token_issuer",
                "token_audience",
            ),
        ] {
            let mut claims = claims;
            claims["exp"] = json!(NOW_S);
            assert_eq!(code(&strict, &claims), strictly, "{claims}");
            assert_eq!(code(&lax, &claims), laxly, "{claims}");
        }
    }

    #[test]
    fn what_cannot_be_right_costs_no_verification() {
        let verifier = verifier();
        let fine = sign(&json!({"exp": NOW_S}));
        let long = format!("{fine}{}", "A".repeat(TOKEN_BYTES_MAX));
        let with_header = |json: &str| {
            let header = base64url(json);
            format!("{header}{}", &fine[fine.find('.').unwrap()..])
        };
        let others = [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None","typ":"JWT"}"#,
            r#"{"alg":""}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"HS512"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"HS256","crit":["b64"]}"#,
        ]
        .map(with_header);
        let shapeless = ["", "..", "a.b", "a.b.c.d", "a.b.", "a b.c.d", &long].map(str::to_owned);
        for token in shapeless.into_iter().chain(others) {
            let (grant, was_tried, was_forged) = tried(&verifier, &token);
            assert_eq!(grant.unwrap_err().code(), "token_invalid", "{token}");
            assert!(!was_tried && !was_forged, "{token}");
        }
    }

    fn signed_by_ec(claims: &Value) -> String {
        let key = include_bytes!("../../tests/server/keys/ec.pem");
        let key = EncodingKey::from_ec_pem(key).unwrap();
        encode(&Header::new(Algorithm::ES256), claims, &key).unwrap()
    }

    fn verifier_of_ec() -> Verifier {
        let pem = include_str!("../../tests/server/keys/ec.pub.pem");
        Verifier::new(TokenKeys::public_pem(pem).unwrap(), checks())
    }

    fn forged(token: &str) -> String {
        format!("{}AAAA", &token[..token.len() - 4])
    }

    /// A forged token counts for its address, whatever its claims are.
    #[test]
    fn no_claim_is_read_before_the_rate_and_the_signature() {
        let verifier = verifier_of_ec();
        let many: Vec<String> = (0..600).map(|n| format!("c{n}")).collect();
        for claims in [
            json!({"exp": 1, "pushwheel": {"subscribe": many}}),
            json!({"exp": NOW_S, "aud": "others"}),
            json!([1]),
        ] {
            let token = forged(&signed_by_ec(&claims));
            let (grant, was_tried, was_forged) = tried(&verifier, &token);
            assert_eq!(grant.unwrap_err().code(), "token_invalid", "{claims}");
            assert!(was_tried && was_forged, "{claims}");
            let retry_after = std::time::Duration::ZERO;
            let refuse = || Err(Refused::TooManyForged { retry_after });
            let grant = verifier.grant(&token, NOW_S, refuse, || panic!("it was tried"));
            assert_eq!(grant.unwrap_err().code(), "too_many_forged", "{claims}");
        }
    }

    #[test]
    fn a_signed_token_is_verified_once_whatever_comes_of_it() {
        let verifier = verifier_of_ec();
        for (claims, code) in [
            (json!({"exp": 1}), Some("token_expired")),
            (
                json!({"exp": NOW_S, "nbf": NOW_S + 60.0}),
                Some("token_not_yet_valid"),
            ),
            (
                json!({"exp": NOW_S, "aud": "others"}),
                Some("token_audience"),
            ),
            (json!({"exp": "soon"}), Some("token_invalid")),
            (json!({"exp": NOW_S}), None),
        ] {
            let token = signed_by_ec(&claims);
            for is_first in [true, false] {
                let (grant, was_tried, was_forged) = tried(&verifier, &token);
                assert_eq!(grant.err().map(|refused| refused.code()), code, "{claims}");
                assert_eq!((was_tried, was_forged), (is_first, false), "{claims}");
            }
        }
        // The times are checked again each time.
        let later = signed_by_ec(&json!({"exp": NOW_S + 99.0, "nbf": NOW_S + 60.0}));
        assert!(tried(&verifier, &later).0.is_err());
        assert!(
            verifier
                .grant(&later, NOW_S + 60.0, || panic!("it was verified"), || {})
                .is_ok()
        );
    }

    #[test]
    fn a_secret_has_no_rate() {
        let verifier = verifier();
        let token = forged(&sign(&json!({"exp": NOW_S})));
        let (grant, was_tried, was_counted) = tried(&verifier, &token);
        assert_eq!(grant.unwrap_err().code(), "token_invalid");
        assert!(!was_tried && !was_counted);
    }

    /// Base64url as RFC 4648 section 5 has it, without padding.
    fn base64url(text: &str) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut encoded = String::new();
        for three in text.as_bytes().chunks(3) {
            let at = |n: usize| u32::from(*three.get(n).unwrap_or(&0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for n in 0..=three.len() {
                let digit = bits >> (18 - 6 * n) & 63;
                encoded.push(char::from(DIGITS[digit as usize]));
            }
        }
        encoded
    }

    #[test]
    fn a_public_key_is_no_secret() {
        // The classic attack: a client signs with the public key as the secret of HS256.
        let pem = include_str!("../../tests/server/keys/rsa.pub.pem");
        let verifier = Verifier::new(TokenKeys::public_pem(pem).unwrap(), checks());
        let claims = json!({"exp": NOW_S});
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes()] {
            let key = EncodingKey::from_secret(secret);
            let token = encode(&Header::default(), &claims, &key).unwrap();
            let (grant, was_tried, _) = tried(&verifier, &token);
            assert_eq!(grant.unwrap_err().code(), "token_invalid");
            assert!(!was_tried);
        }
    }

    /// Returns a token with the other valid signature of ES256: of (r, s) it is (r, n - s).
    fn twin(token: &str) -> String {
        const ORDER: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2,
            0xfc, 0x63, 0x25, 0x51,
        ];
        let (message, signature) = token.rsplit_once('.').unwrap();
        let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let mut borrows = false;
        for (digit, of_order) in signature[32..].iter_mut().zip(ORDER).rev() {
            let (less, once) = of_order.overflowing_sub(*digit);
            let (less, twice) = less.overflowing_sub(u8::from(borrows));
            (*digit, borrows) = (less, once || twice);
        }
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_twin_of_a_token_is_the_same_token() {
        let verifier = verifier_of_ec();
        let sign = |n: u8| signed_by_ec(&json!({"exp": NOW_S, "n": n}));
        let number = |token: &str| tried(&verifier, token).0.unwrap().token;
        let (one, other) = (sign(1), sign(2));
        assert_ne!(one, twin(&one));
        assert_eq!(number(&one), number(&twin(&one)));
        assert_ne!(number(&one), number(&other));
    }

    #[test]
    fn a_kid_chooses_among_keys() {
        let set = include_str!("../../tests/server/keys/jwks.json");
        let verifier = Verifier::new(TokenKeys::jwks(set).unwrap(), checks());
        let claims = json!({"exp": NOW_S});
        for (kid, wanted) in [
            (None, true),
            (Some("hmac"), true),
            (Some("rsa"), false),
            (Some("x"), false),
        ] {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = kid.map(str::to_owned);
            let token = encode(&header, &claims, &EncodingKey::from_secret(SECRET)).unwrap();
            assert_eq!(tried(&verifier, &token).0.is_ok(), wanted, "{kid:?}");
        }
    }

    #[test]
    fn claims_of_ours_that_are_misspelled_are_refused() {
        let verifier = verifier();
        for own in [
            json!({"subcribe": ["news"]}),
            json!({"subscribe": "news"}),
            json!({"subscribe": ["a*b"]}),
            json!({"publish": [""]}),
            json!({"client": ""}),
            json!({"metadata": "admin"}),
            json!("news"),
        ] {
            let claims = json!({"exp": NOW_S, "pushwheel": own});
            assert_eq!(code(&verifier, &claims), "token_invalid", "{claims}");
        }
    }

    #[test]
    fn only_errors_of_signed_tokens_quote_them() {
        let verifier = verifier_of_ec();
        for (claims, text) in [
            (
                json!({"exp": NOW_S, "pushwheel": {"subscibe": []}}),
                "subscibe",
            ),
            (
                json!({"exp": NOW_S, "pushwheel": {"publish": ["b*c"]}}),
                "b*c",
            ),
            (json!({"exp": "soon"}), "`exp` is a string"),
        ] {
            let token = signed_by_ec(&claims);
            let (grant, _, was_forged) = tried(&verifier, &token);
            let refused = format!("{:?}", grant.unwrap_err());
            assert!(refused.contains(text), "{refused}");
            assert!(!was_forged);
            let (grant, _, was_forged) = tried(&verifier, &forged(&token));
            let why = "none of this server's keys has signed it";
            assert_eq!(grant.unwrap_err(), Refused::invalid(why));
            assert!(was_forged);
        }
    }

    #[test]
    fn a_token_that_names_no_key_is_tried_with_four() {
        let secrets: Vec<[u8; 32]> = (0..5).map(|n| [n; 32]).collect();
        let keys = secrets
            .iter()
            .map(|secret| TokenKeys::secret(secret).unwrap());
        let keys = keys.reduce(|all, more| all.and(more).unwrap()).unwrap();
        let verifier = Verifier::new(keys, checks());
        for (index, wanted) in [(0, true), (3, true), (4, false)] {
            let key = EncodingKey::from_secret(&secrets[index]);
            let token = encode(&Header::default(), &json!({"exp": NOW_S}), &key).unwrap();
            assert_eq!(tried(&verifier, &token).0.is_ok(), wanted, "{index}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let verifier = verifier();
        let padding = "x".repeat(5000);
        for n in 0..1000 {
            let token = sign(&json!({"exp": NOW_S, "n": n, "padding": padding}));
            assert!(tried(&verifier, &token).0.is_ok());
            let remembered = verifier.remembered.lock().unwrap();
            assert!(remembered.bytes <= REMEMBERED_BYTES_MAX);
        }
    }
}
