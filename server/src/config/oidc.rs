//! What the server is told of an OpenID Connect provider.

use reqwest::Url;
use serde::{Deserialize, Serialize};
use shared::Name;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What is asked of the provider unless it is said.
const SCOPES: [&str; 3] = ["openid", "profile", "email"];
/// The claim that is a person's name unless it is said.
const NAME_CLAIM: &str = "preferred_username";
/// The claim that has a person's groups unless it is said.
const GROUPS_CLAIM: &str = "groups";

/// The role that a group of the provider gives, written `group=role`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRole {
    /// The group, as the provider names it.
    pub group: String,
    /// The role on everything.
    pub role: Name,
}

impl FromStr for GroupRole {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        // From behind: a group may be called `cn=admins`.
        let (group, role) = s
            .rsplit_once('=')
            .ok_or_else(|| format!("{s:?} gives no role: write group=role"))?;
        if group.is_empty() {
            return Err(format!("{s:?} names no group: write group=role"));
        }
        let role = role.parse().map_err(|why| format!("role {role:?}: {why}"))?;
        Ok(Self {
            group: group.to_owned(),
            role,
        })
    }
}

impl fmt::Display for GroupRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.group, self.role)
    }
}

impl Serialize for GroupRole {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GroupRole {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A provider, and what is made of those whom it knows. The secret itself stands in a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Oidc {
    /// Its address, letter for letter as it names itself.
    #[serde(rename = "oidc_issuer")]
    pub issuer: String,
    /// What it calls this server.
    #[serde(rename = "oidc_client_id")]
    pub client_id: String,
    /// The file with the secret that they share; none for a public client.
    #[serde(rename = "oidc_client_secret_file", skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for.
    #[serde(rename = "oidc_scopes")]
    pub scopes: Vec<String>,
    /// The claim that is a person's name.
    #[serde(rename = "oidc_name_claim")]
    pub name_claim: String,
    /// The claim that has a person's groups.
    #[serde(rename = "oidc_groups_claim")]
    pub groups_claim: String,
    /// The roles that groups give.
    #[serde(rename = "oidc_roles")]
    pub roles: Vec<GroupRole>,
    /// The role of those whose groups give none; they are refused if none.
    #[serde(rename = "oidc_default_role", skip_serializing_if = "Option::is_none")]
    pub default_role: Option<Name>,
    /// The text of the button.
    #[serde(rename = "oidc_label", skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// The same as it was given.
pub(super) struct Given {
    pub issuer: Option<String>,
    pub client_id: Option<String>,
    pub client_secret_file: Option<PathBuf>,
    pub scopes: Option<Vec<String>>,
    pub name_claim: Option<String>,
    pub groups_claim: Option<String>,
    pub roles: Option<Vec<GroupRole>>,
    pub default_role: Option<Name>,
    pub label: Option<String>,
}

/// Why the settings of a provider are refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OidcError {
    #[error("{given} is given without {missing}: sign-in by OpenID Connect needs both")]
    Half {
        given: &'static str,
        missing: &'static str,
    },
    #[error("{setting} = {value:?}: it must be an address such as https://login.example, without a query")]
    NoAddress { setting: &'static str, value: String },
    #[error(
        "{setting} = {value:?}: in the clear whoever is on the network signs in as anybody. It must begin with https:// unless it \
         is on this machine"
    )]
    InTheClear { setting: &'static str, value: String },
    #[error("public_url = {0:?}: the console has no path of its own; give scheme, host and port only")]
    Path(String),
    #[error("oidc_scopes lacks \"openid\": without it the provider says nothing of who somebody is")]
    Scopes,
}

/// Whether an address is of this machine, by what it says.
pub(crate) fn on_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// Whether what is asked at an address can be believed.
pub(crate) fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" || url.scheme() == "http" && on_this_machine(url)
}

fn address(setting: &'static str, value: &str) -> Result<Url, OidcError> {
    let wrong = || OidcError::NoAddress {
        setting,
        value: value.to_owned(),
    };
    let url: Url = value.parse().map_err(|_| wrong())?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !plain || url.host_str().is_none() || !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    Ok(url)
}

/// Where browsers come by: scheme, host and port.
pub(super) fn public_url(value: &str, plainly: bool) -> Result<String, OidcError> {
    let url = address("public_url", value)?;
    if url.path() != "/" {
        return Err(OidcError::Path(value.to_owned()));
    }
    if !is_safe(&url) && !plainly {
        return Err(OidcError::InTheClear {
            setting: "public_url",
            value: value.to_owned(),
        });
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

impl Given {
    /// What was given without an issuer, if anything was.
    fn astray(&self) -> Option<&'static str> {
        [
            (self.client_id.is_some(), "oidc_client_id"),
            (self.client_secret_file.is_some(), "oidc_client_secret_file"),
            (self.scopes.is_some(), "oidc_scopes"),
            (self.name_claim.is_some(), "oidc_name_claim"),
            (self.groups_claim.is_some(), "oidc_groups_claim"),
            (self.roles.is_some(), "oidc_roles"),
            (self.default_role.is_some(), "oidc_default_role"),
            (self.label.is_some(), "oidc_label"),
        ]
        .into_iter()
        .find_map(|(given, setting)| given.then_some(setting))
    }

    /// The provider, if one was given.
    pub(super) fn check(self, public_url: Option<&str>) -> Result<Option<Oidc>, OidcError> {
        let half = |given, missing| Err(OidcError::Half { given, missing });
        let astray = self.astray();
        let Some(issuer) = self.issuer else {
            return match astray {
                Some(given) => half(given, "oidc_issuer"),
                None => Ok(None),
            };
        };
        if !is_safe(&address("oidc_issuer", &issuer)?) {
            return Err(OidcError::InTheClear {
                setting: "oidc_issuer",
                value: issuer,
            });
        }
        let Some(client_id) = self.client_id else {
            return half("oidc_issuer", "oidc_client_id");
        };
        if public_url.is_none() {
            return half("oidc_issuer", "public_url");
        }
        let scopes = self.scopes.unwrap_or_else(|| SCOPES.map(str::to_owned).to_vec());
        if !scopes.iter().any(|s| s == "openid") {
            return Err(OidcError::Scopes);
        }
        Ok(Some(Oidc {
            issuer,
            client_id,
            client_secret_file: self.client_secret_file,
            scopes,
            name_claim: self.name_claim.unwrap_or_else(|| NAME_CLAIM.to_owned()),
            groups_claim: self.groups_claim.unwrap_or_else(|| GROUPS_CLAIM.to_owned()),
            roles: self.roles.unwrap_or_default(),
            default_role: self.default_role,
            label: self.label,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_have_the_sign_in_its_name() {
        let given: GroupRole = "cn=admins=admin".parse().unwrap();
        assert_eq!(
            (given.group.as_str(), given.role.as_str()),
            ("cn=admins", "admin")
        );
        assert_eq!(given.to_string(), "cn=admins=admin");
        for bad in ["admins", "=admin", "admins=", "admins=A"] {
            assert!(bad.parse::<GroupRole>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_cannot_be_listened_to_is_believed() {
        let safe = |text: &str| is_safe(&text.parse().unwrap());
        for good in [
            "https://login.example",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(safe(good), "{good}");
        }
        for bad in [
            "http://login.example",
            "http://10.0.0.1",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "ftp://127.0.0.1",
        ] {
            assert!(!safe(bad), "{bad}");
        }
    }

    #[test]
    fn browsers_come_by_an_address_without_a_path() {
        let read = |text| public_url(text, false);
        assert_eq!(
            read("https://Console.example/").unwrap(),
            "https://console.example"
        );
        assert_eq!(read("http://127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080");
        for bad in [
            "console.example",
            "https://c.example/offshoot",
            "https://c.example?a=b",
            "https://me@c.example",
            "http://c.example",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(public_url("http://c.example", true).is_ok());
    }
}
