//! The keys that tokens are verified with.
//!
//! The kind of a key alone determines the algorithm: a secret HS256, a public key of RSA
//! RS256, of P-256 ES256, of Ed25519 `EdDSA`. The algorithm in a token's header has to be
//! the same, and never selects one.

use std::fmt;

use super::credential::CredentialId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Value, json};

/// Maximum keys.
const KEYS_MAX: usize = 256;
/// Minimum bytes of a secret for HS256 (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Bytes of a modulus: at least 2048 bits (RFC 7518 section 3.3), and at most 4096,
/// because longer ones take too long for each token.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// Bytes of a modulus and its exponent as DER, which adds their heads and the exponent, of
/// 1 to 8 bytes.
const RSA_DER_BYTES: std::ops::RangeInclusive<usize> = 268..=540;
/// An uncompressed point of P-256.
const P256_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;

/// Keys that verify tokens, for
/// [`Config::token_keys`](crate::Config::token_keys).
///
/// ```
/// use pushwheel_server::TokenKeys;
///
/// let keys = TokenKeys::secret(b"0123456789abcdef0123456789abcdef")?;
/// assert!(TokenKeys::secret(b"too short").is_err());
/// # Ok::<(), pushwheel_server::TokenKeyError>(())
/// ```
#[derive(Clone, Default)]
pub struct TokenKeys {
    pub(super) keys: Vec<TokenKey>,
}

/// A key that cannot be used. The text names the reason, and never quotes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeyError(String);

impl fmt::Display for TokenKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TokenKeyError {}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKeys({} keys)", self.keys.len())
    }
}

#[derive(Clone)]
pub(super) struct TokenKey {
    /// The name in the `kid` of tokens.
    pub(super) kid: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    pub(super) id: CredentialId,
    /// The issuers whose tokens it signs. Empty: the issuers of the configuration.
    pub(super) issuers: Vec<Box<str>>,
}

impl TokenKeys {
    /// Returns a secret for HS256, which the program that makes tokens has too.
    ///
    /// # Errors
    /// If it has less than 32 bytes, or is a key in PEM: with a public key as the secret,
    /// any client could sign tokens.
    pub fn secret(secret: &[u8]) -> Result<TokenKeys, TokenKeyError> {
        if secret.starts_with(b"-----BEGIN") {
            return Err(error(
                "this is a key in PEM, not a secret. Set it as a public key",
            ));
        }
        TokenKey::new(None, DecodingKey::from_secret(secret)).map(TokenKeys::from)
    }

    /// Returns a public key from PEM, as `openssl pkey -pubout` writes it: of RSA (RS256,
    /// 2048 to 4096 bits), of P-256 (ES256) or of Ed25519 (`EdDSA`).
    ///
    /// # Errors
    /// If it is not one of them. A private key is an error too.
    pub fn public_pem(pem: &str) -> Result<TokenKeys, TokenKeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(error(
                "this is a private key, and the server needs the public one, as \
                 `openssl pkey -pubout` writes it",
            ));
        }
        if !pem.contains("PUBLIC KEY-----") {
            return Err(error(
                "this is not a public key in PEM, which begins with \
                 `-----BEGIN PUBLIC KEY-----`. Of a certificate, \
                 `openssl x509 -pubkey -noout` prints it",
            ));
        }
        let bytes = pem.as_bytes();
        // Each reads keys of one kind only.
        let key = DecodingKey::from_ec_pem(bytes)
            .or_else(|_| DecodingKey::from_ed_pem(bytes))
            .or_else(|_| DecodingKey::from_rsa_pem(bytes));
        let key = key.map_err(|_| unusable())?;
        TokenKey::new(None, key).map(TokenKeys::from)
    }

    /// Returns the keys of a JSON Web Key Set (RFC 7517). Keys for other purposes or
    /// algorithms are left out.
    ///
    /// # Errors
    /// If it is not a key set, if one of its keys is broken, or if none can be used.
    pub fn jwks(json: &str) -> Result<TokenKeys, TokenKeyError> {
        let set: JwkSet = serde_json::from_str(json).map_err(|wrong| {
            // The text of the error may quote a secret, its line and column do not.
            let (line, column) = (wrong.line(), wrong.column());
            TokenKeyError(format!(
                "this is not a JSON Web Key Set, `{{\"keys\": [...]}}` (line {line}, column \
                 {column})"
            ))
        })?;
        let mut keys = Vec::new();
        for jwk in set.keys.iter().filter(|jwk| is_for_us(jwk)) {
            let named = |wrong: TokenKeyError| match &jwk.common.key_id {
                Some(kid) => TokenKeyError(format!("key `{kid}`: {wrong}")),
                None => wrong,
            };
            let key = DecodingKey::from_jwk(jwk).map_err(|_| named(unusable()))?;
            let kid = jwk.common.key_id.as_deref();
            keys.push(TokenKey::new(kid, key).map_err(named)?);
        }
        match keys.is_empty() {
            false => Ok(TokenKeys { keys }),
            true => Err(error(
                "the key set has no key for HS256, RS256, ES256 or EdDSA signatures. Use the key \
                 set of the program that signs the tokens",
            )),
        }
    }

    /// Binds these keys to an issuer: they sign tokens with this `iss` only
    /// (RFC 8725 section 3.8). A second call adds another issuer. Keys without an issuer
    /// sign for every issuer that
    /// [`Config::token_issuers`](crate::Config::token_issuers) accepts.
    #[must_use]
    pub fn issued_by(mut self, issuer: &str) -> TokenKeys {
        for key in &mut self.keys {
            key.issuers.push(issuer.into());
        }
        self
    }

    /// Adds other keys.
    ///
    /// # Errors
    /// If there are more than 256.
    pub fn and(mut self, others: TokenKeys) -> Result<TokenKeys, TokenKeyError> {
        self.keys.extend(others.keys);
        match self.keys.len() <= KEYS_MAX {
            true => Ok(self),
            false => Err(TokenKeyError(format!(
                "there are more than {KEYS_MAX} keys for tokens. Remove some"
            ))),
        }
    }

    /// Returns these keys and others, without a maximum.
    pub(super) fn with(mut self, others: TokenKeys) -> TokenKeys {
        self.keys.extend(others.keys);
        self
    }

    /// Returns the public keys of a JSON Web Key Set that other programs can read too. A
    /// secret in it is left out, because it is not secret.
    ///
    /// # Errors
    /// As [`jwks`](Self::jwks).
    pub fn public_jwks(json: &str) -> Result<TokenKeys, TokenKeyError> {
        let mut set = TokenKeys::jwks(json)?;
        set.keys.retain(|key| key.algorithm != Algorithm::HS256);
        match set.keys.is_empty() {
            false => TokenKeys::default().and(set),
            true => Err(error(
                "the key set has secrets only, and other programs can read them. Use one with \
                 public keys",
            )),
        }
    }

    /// Returns the number of keys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Returns the first secret, which can make tokens.
    pub(super) fn secret_key(&self) -> Option<&TokenKey> {
        let mut keys = self.keys.iter();
        keys.find(|key| key.algorithm == Algorithm::HS256)
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl From<TokenKey> for TokenKeys {
    fn from(key: TokenKey) -> TokenKeys {
        TokenKeys { keys: vec![key] }
    }
}

impl TokenKey {
    fn new(kid: Option<&str>, key: DecodingKey) -> Result<TokenKey, TokenKeyError> {
        let algorithm = algorithm_of(&key)?;
        let id = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => CredentialId::of(&[bytes]),
            DecodingKeyKind::RsaModulusExponent { n, e } => CredentialId::of(&[n, e]),
        };
        Ok(TokenKey {
            kid: kid.map(Into::into),
            algorithm,
            key,
            id,
            issuers: Vec::new(),
        })
    }
}

impl TokenKey {
    /// Returns a token with these claims. The key has to be a secret.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let DecodingKeyKind::SecretOrDer(secret) = self.key.kind() else {
            unreachable!("keys of HS256 are secrets");
        };
        let mut header = json!({ "alg": "HS256", "typ": "JWT" });
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether the key, or the private key to it, has made the signature.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let by = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature)
        };
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                // Compares in a constant time.
                hmac::verify(&key, message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => by(RS256, der),
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(RS256, message, signature)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                by(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => {
                by(&signature::ED25519, point)
            }
            // `algorithm_of` returns no other.
            _ => return false,
        };
        verified.is_ok()
    }
}

const RS256: &signature::RsaParameters = &signature::RSA_PKCS1_2048_8192_SHA256;

/// Returns the algorithm of a key, by its kind and its size.
fn algorithm_of(key: &DecodingKey) -> Result<Algorithm, TokenKeyError> {
    use jsonwebtoken::AlgorithmFamily::{Ec, Ed, Hmac, Rsa};
    let (length, is_der) = match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => (bytes.len(), true),
        DecodingKeyKind::RsaModulusExponent { n, .. } => (n.len(), false),
    };
    match key.family() {
        Hmac if length >= SECRET_BYTES_MIN => Ok(Algorithm::HS256),
        Hmac => Err(TokenKeyError(format!(
            "a secret for tokens has at least {SECRET_BYTES_MIN} bytes. Make one with \
             `openssl rand -hex 32`"
        ))),
        Rsa if is_der && RSA_DER_BYTES.contains(&length) => Ok(Algorithm::RS256),
        Rsa if !is_der && MODULUS_BYTES.contains(&length) => Ok(Algorithm::RS256),
        Rsa => Err(error(
            "a key of RSA has 2048 to 4096 bits. Make another one",
        )),
        Ec if length == P256_BYTES => Ok(Algorithm::ES256),
        Ed if length == ED25519_BYTES => Ok(Algorithm::EdDSA),
        Ec | Ed => Err(unusable()),
    }
}

/// Whether a key is for signatures of a supported algorithm.
fn is_for_us(jwk: &Jwk) -> bool {
    use jsonwebtoken::jwk::KeyAlgorithm as Named;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => Named::HS256,
        AlgorithmParameters::RSA(_) => Named::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Named::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Named::EdDSA
        }
        _ => return false,
    };
    let common = &jwk.common;
    common.key_algorithm.is_none_or(|named| named == algorithm)
        && !matches!(common.public_key_use, Some(PublicKeyUse::Encryption))
}

fn error(text: &str) -> TokenKeyError {
    TokenKeyError(text.to_owned())
}

fn unusable() -> TokenKeyError {
    error("this is not a whole key of RSA, P-256 or Ed25519, and tokens need one of these")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_its_algorithm() {
        let pems = [
            (
                include_str!("../../tests/server/keys/rsa.pub.pem"),
                Algorithm::RS256,
            ),
            (
                include_str!("../../tests/server/keys/ec.pub.pem"),
                Algorithm::ES256,
            ),
            (
                include_str!("../../tests/server/keys/ed.pub.pem"),
                Algorithm::EdDSA,
            ),
        ];
        for (pem, algorithm) in pems {
            assert_eq!(
                TokenKeys::public_pem(pem).unwrap().keys[0].algorithm,
                algorithm
            );
            assert!(TokenKeys::secret(pem.as_bytes()).is_err());
        }
        let set = TokenKeys::jwks(include_str!("../../tests/server/keys/jwks.json")).unwrap();
        let found: Vec<_> = set
            .keys
            .iter()
            .map(|k| (k.kid.as_deref(), k.algorithm))
            .collect();
        assert_eq!(
            found,
            [
                (Some("rsa"), Algorithm::RS256),
                (Some("ec"), Algorithm::ES256),
                (Some("ed"), Algorithm::EdDSA),
                (Some("hmac"), Algorithm::HS256),
            ]
        );
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_to_do() {
        let private = include_str!("../../tests/server/keys/rsa.pem");
        for (pem, text) in [
            (private, "openssl pkey -pubout"),
            ("", "BEGIN PUBLIC KEY"),
            (
                "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----",
                "x509 -pubkey",
            ),
            (
                "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----",
                "Ed25519",
            ),
        ] {
            let error = TokenKeys::public_pem(pem).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        for (json, text) in [
            ("s3cret", "line 1"),
            ("{}", "line 1"),
            (r#"{"keys": []}"#, "has no key for"),
            (
                r#"{"keys": [{"kty": "EC", "crv": "P-521", "x": "", "y": ""}]}"#,
                "has no key for",
            ),
            (
                r#"{"keys": [{"kty": "oct", "kid": "a", "k": "c2hvcnQ"}]}"#,
                "`a`: a secret",
            ),
            (
                r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#,
                "2048",
            ),
            (
                r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}]}"#,
                "whole",
            ),
        ] {
            let error = TokenKeys::jwks(json).unwrap_err().to_string();
            assert!(error.contains(text) && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_public_set_has_no_secrets() {
        let set = include_str!("../../tests/server/keys/jwks.json");
        assert_eq!(TokenKeys::jwks(set).unwrap().count(), 4);
        assert_eq!(TokenKeys::public_jwks(set).unwrap().count(), 3);
        let secret =
            r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}"#;
        assert!(TokenKeys::jwks(secret).is_ok());
        let error = TokenKeys::public_jwks(secret).unwrap_err().to_string();
        assert!(error.contains("secrets only"), "{error}");
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = TokenKeys::secret(b"s3cret s3cret s3cret s3cret s3cret").unwrap();
        assert_eq!(format!("{keys:?}"), "TokenKeys(1 keys)");
    }
}
