//! Whether the OpenID Connect provider answers, if there is to be one.

use super::Check;
use crate::config::Config;
use crate::oidc::{ClientSecret, Provider};

const NAME: &str = "single sign-on";

/// Guests run without it: what fails here is a warning.
pub async fn provider(config: &Config) -> Option<Check> {
    let (oidc, public_url) = (config.oidc.as_ref()?, config.public_url.as_ref()?);
    let secret = oidc.client_secret_file.as_deref().map(ClientSecret::read);
    let secret = match secret.transpose() {
        Ok(secret) => secret,
        Err(e) => {
            return Some(Check::warn(
                NAME,
                crate::db::chain(&e),
                "write the secret into that file, readable for who starts the server, or leave oidc_client_secret_file out",
            ));
        }
    };
    crate::use_ring();
    let provider = match Provider::new(oidc.clone(), secret, public_url) {
        Ok(provider) => provider,
        Err(e) => {
            return Some(Check::warn(
                NAME,
                crate::db::chain(&e),
                "see that this system has the certificates that it trusts",
            ));
        }
    };
    Some(match provider.look().await {
        Ok(keys) => Check::ok(NAME, format!("{} answers, with {keys} keys", oidc.issuer)),
        Err(e) => Check::warn(
            NAME,
            crate::db::chain(&e),
            "see that oidc_issuer is right and can be reached from here; passwords work all the same",
        ),
    })
}
