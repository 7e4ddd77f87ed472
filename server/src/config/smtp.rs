//! The address of a mail server. Its password is not printed.

use super::ConfigError;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The address of a mail server: `smtps://user:password@host`, or `smtp://host?tls=required` for STARTTLS.
#[derive(Clone, PartialEq, Eq)]
pub struct SmtpUrl(Url);

impl SmtpUrl {
    /// The address without user and password.
    pub fn bare(&self) -> String {
        self.without(true)
    }

    fn without(&self, user: bool) -> String {
        let mut url = self.0.clone();
        // Refused only where there is no host, and there is one.
        let done = url.set_password(None).and_then(|()| match user {
            true => url.set_username(""),
            false => Ok(()),
        });
        done.map(|()| url.to_string()).unwrap_or_default()
    }

    /// The user, if one is named.
    pub fn user(&self) -> Option<String> {
        decoded(self.0.username())
    }

    /// The password, if it is in the address.
    pub fn password(&self) -> Option<String> {
        decoded(self.0.password()?)
    }

    /// Whether what is said to it can be read on the way.
    fn in_the_clear(&self) -> bool {
        let loopback = match self.0.host_str().unwrap_or_default() {
            "localhost" => true,
            host => host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback()),
        };
        self.0.scheme() == "smtp" && self.0.query() != Some("tls=required") && !loopback
    }
}

fn decoded(part: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(part).decode_utf8_lossy();
    Some(text.into_owned()).filter(|t| !t.is_empty())
}

impl FromStr for SmtpUrl {
    type Err = String;

    // What is wrong is said without the address: there may be a password in it.
    fn from_str(s: &str) -> Result<Self, String> {
        let form = "write smtps://user:password@host, or smtp://host?tls=required";
        let url = Url::parse(s).map_err(|e| format!("it is no address ({e}): {form}"))?;
        let tls = match url.scheme() {
            "smtps" => url.query().is_none(),
            "smtp" => matches!(url.query(), None | Some("tls=required" | "tls=opportunistic")),
            _ => false,
        };
        if !tls || url.host_str().is_none_or(str::is_empty) {
            return Err(format!("it is no address of a mail server: {form}"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without(false))
    }
}

impl fmt::Debug for SmtpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SmtpUrl {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SmtpUrl {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Refuses what of the mail settings does not go together.
pub(super) fn check(
    url: Option<&SmtpUrl>,
    password_file: Option<&PathBuf>,
    from: Option<&str>,
) -> Result<(), ConfigError> {
    let Some(url) = url else {
        let given = match (password_file, from) {
            (Some(_), _) => "smtp_password_file",
            (None, Some(_)) => "mail_from",
            (None, None) => return Ok(()),
        };
        return Err(ConfigError::WithoutSmtp(given));
    };
    let from = from.ok_or(ConfigError::NoSender)?;
    if let Err(e) = from.parse::<lettre::message::Mailbox>() {
        return Err(ConfigError::Sender(e.to_string()));
    }
    if password_file.is_some() && url.user().is_none() {
        return Err(ConfigError::NoSmtpUser);
    }
    let password = url.password().is_some() || password_file.is_some();
    if password && url.in_the_clear() {
        return Err(ConfigError::SmtpInTheClear);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> SmtpUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_password_is_not_printed() {
        let smtp = url("smtps://ops:s%40fe@mail.example.org:4650");
        assert_eq!(
            (smtp.user().as_deref(), smtp.password().as_deref()),
            (Some("ops"), Some("s@fe"))
        );
        assert_eq!(smtp.to_string(), "smtps://ops@mail.example.org:4650");
        assert_eq!(format!("{smtp:?}"), smtp.to_string());
        assert_eq!(smtp.bare(), "smtps://mail.example.org:4650");
        for wrong in [
            "https://u:hidden@host",
            "smtps://u:hidden@",
            "smtp://u:hidden@host?tls=no",
            "hidden",
        ] {
            let why = wrong.parse::<SmtpUrl>().unwrap_err();
            assert!(!why.contains("hidden"), "{why}");
        }
    }

    #[test]
    fn a_password_does_not_travel_in_the_clear() {
        let from = Some("Offshoot <offshoot@example.org>");
        let checked = |text: &str, from| check(Some(&url(text)), None, from).map_err(|e| e.to_string());
        for good in [
            "smtps://u:p@host",
            "smtp://u:p@host?tls=required",
            "smtp://host",
            "smtp://u:p@localhost",
            "smtp://u:p@[::1]:25",
        ] {
            assert_eq!(checked(good, from), Ok(()), "{good}");
        }
        for bad in ["smtp://u:p@host", "smtp://u:p@host?tls=opportunistic"] {
            assert!(checked(bad, from).unwrap_err().contains("in the clear"), "{bad}");
        }
        assert!(checked("smtp://host", None).unwrap_err().contains("mail_from"));
        assert!(
            checked("smtp://host", Some("nobody"))
                .unwrap_err()
                .contains("mail_from")
        );
        assert!(check(None, None, from).is_err() && check(None, None, None).is_ok());
        let file = PathBuf::from("/p");
        assert!(check(Some(&url("smtps://host")), Some(&file), from).is_err());
    }
}
