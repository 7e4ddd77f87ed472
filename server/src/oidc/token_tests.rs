use super::*;
use serde_json::json;

const EXPECTED: Expected<'static> = Expected {
    issuer: "https://login.example",
    client_id: "offshoot",
    nonce: "n",
};

/// Tokens of one person, each signed by another method, and the keys to check them; the private halves are kept nowhere.
/// They end in the year 2100.
fn signed() -> (JwkSet, Vec<String>) {
    let all: Value = serde_json::from_str(include_str!("signed.json")).unwrap();
    let keys = serde_json::from_value(json!({"keys": all["keys"]})).unwrap();
    (keys, serde_json::from_value(all["tokens"].clone()).unwrap())
}

#[test]
fn every_method_that_providers_sign_with_is_known() {
    let (keys, tokens) = signed();
    for token in &tokens {
        let claims = verify(token, &keys, &EXPECTED).unwrap();
        assert_eq!(claims["sub"], "eve");
        // The same for another server, of another provider, in another sign-in.
        for other in [
            Expected {
                client_id: "other",
                ..EXPECTED
            },
            Expected {
                issuer: "https://login.example/",
                ..EXPECTED
            },
            Expected {
                nonce: "",
                ..EXPECTED
            },
        ] {
            assert!(verify(token, &keys, &other).is_err());
        }
    }
}

#[test]
fn a_letter_of_difference_is_another_token() {
    let (keys, tokens) = signed();
    for token in &tokens {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{signed}.{first}{}", &signature[1..]);
        let why = verify(&forged, &keys, &EXPECTED).unwrap_err();
        assert!(
            matches!(&why, TokenError::Refused(e) if *e.kind() == ErrorKind::InvalidSignature),
            "{why:?}"
        );
        assert!(verify(signed, &keys, &EXPECTED).is_err());
        assert!(verify(&format!("{signed}."), &keys, &EXPECTED).is_err());
    }
}

#[test]
fn a_key_is_used_for_what_it_is_for() {
    let (keys, tokens) = signed();
    let with = |change: fn(&mut Jwk)| {
        let mut keys = keys.clone();
        keys.keys.iter_mut().for_each(change);
        verify(&tokens[0], &keys, &EXPECTED)
    };
    assert!(with(|_| {}).is_ok());
    assert!(with(|key| key.common.public_key_use = None).is_ok());
    for change in [
        (|key| key.common.public_key_use = Some(PublicKeyUse::Encryption)) as fn(&mut Jwk),
        |key| key.common.key_algorithm = Some(KeyAlgorithm::RS384),
        |key| key.common.key_id = Some("another".to_owned()),
        |key| key.common.key_id = None,
        // All have the one name.
        |key| key.common.key_id = Some("PS512".to_owned()),
    ] {
        let why = with(change).unwrap_err();
        assert!(matches!(why, TokenError::UnknownKey(_)), "{why:?}");
    }
}
