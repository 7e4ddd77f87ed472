//! Who comes by an OpenID Connect provider.
//!
//! Somebody is what the provider calls them, its subject. A name is taken from it once, for whoever comes for the first time, and makes
//! nobody a user who was there before.

use super::sign_in::{Origin, SignedIn, disabled};
use super::{Access, Caller, Result, new_user};
use crate::db::identities::{self, Meant};
use crate::db::{DbError, Tx, access as rows, now, roles, users};
use shared::access::User;
use shared::can::limit;
use shared::{Code, Name, RoleId, Status};
use std::time::Instant;

/// How many sign-ins an address may begin within a minute without ending one.
const BEGUN: u32 = super::guesses::FREE_OF_ADDRESS;

/// Somebody, as the provider tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The provider.
    pub issuer: String,
    /// What it calls them, for ever.
    pub subject: String,
    /// What they are called by people; empty if it does not say.
    pub name: String,
    /// The roles that their groups give.
    pub roles: Vec<Name>,
}

/// The name that a person gets: what the provider says, as far as it makes a name here.
fn name_of(person: &Person) -> std::result::Result<Name, Status> {
    let short = person.name.split('@').next().unwrap_or_default();
    let letters = short.chars().map(|c| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    });
    let text: String = letters.collect();
    text.trim_matches('-').parse().map_err(|why| {
        refused(format!(
            "the provider calls you {:?}, which makes no name here ({why}): an administrator adds a user for you and links it, by \
             `offshoot user link-oidc NAME {}`; oidc_name_claim says which claim is taken",
            person.name, person.subject
        ))
    })
}

fn refused(why: String) -> Status {
    Status::new(Code::PermissionDenied, why)
}

async fn ids(tx: &mut Tx, names: &[Name]) -> std::result::Result<Vec<RoleId>, DbError> {
    let mut ids = Vec::with_capacity(names.len());
    for name in names {
        let role = roles::find(tx.conn(), name.as_str()).await?.ok_or_else(|| {
            let why = format!(
                "the configuration gives the role {name}, which is not there: an administrator makes it, or changes oidc_roles and \
                 oidc_default_role"
            );
            Status::precondition(why)
        })?;
        ids.push(role.id);
    }
    Ok(ids)
}

/// The user that a person is, added if it is the first time, with the roles that they have now.
async fn settle(
    tx: &mut Tx,
    person: &Person,
) -> std::result::Result<std::result::Result<User, Status>, DbError> {
    let roles = ids(tx, &person.roles).await?;
    let meant = identities::find(tx.conn(), &person.issuer, &person.subject).await?;
    let user = match meant {
        Meant::Removed => {
            return Ok(Err(refused(format!(
                "your user was removed here: an administrator adds another and links it, by `offshoot user link-oidc NAME {}`",
                person.subject
            ))));
        }
        Meant::User(id) => users::known(tx.conn(), &id.to_string()).await?,
        Meant::Nobody if roles.is_empty() => return Ok(Err(without_role())),
        Meant::Nobody => {
            let user = new_user(name_of(person)?);
            if users::find(tx.conn(), user.name.as_str()).await?.is_some() {
                return Ok(Err(refused(format!(
                    "there is a user {} here already, who does not sign in by the provider: if that is you, an administrator links \
                     the two, by `offshoot user link-oidc {} {}`",
                    user.name, user.name, person.subject
                ))));
            }
            users::insert(tx.conn(), &user, None).await?;
            identities::link(tx, &person.issuer, &person.subject, user.id, user.create_time).await?;
            user
        }
    };
    if user.disabled {
        return Ok(Err(disabled(&user)));
    }
    identities::renew_roles(tx, user.id, &roles, now()).await?;
    if roles::admins(tx.conn()).await? == 0 {
        // What the provider says of its people holds; the command line makes another.
        tracing::warn!(user = %user.name, "the provider's groups have left no administrator");
    }
    let user = users::known(tx.conn(), &user.id.to_string()).await?;
    // Taken away is what the groups gave, also from whoever is refused for it.
    Ok(if user.grants.is_empty() {
        Err(without_role())
    } else {
        Ok(user)
    })
}

fn without_role() -> Status {
    refused(
        "none of your groups gives you a role here: ask who manages them at the provider, or an administrator of this server, \
         who sets oidc_roles or oidc_default_role"
            .to_owned(),
    )
}

fn count(from: &Origin) -> String {
    format!("provider from {}", from.address)
}

impl Access {
    /// Refuses an address that has begun too many sign-ins by the provider without ending one.
    pub fn may_begin(&self, from: &Origin) -> std::result::Result<(), Status> {
        let attempt = self.guesses.attempt_of(&count(from), BEGUN, Instant::now());
        attempt.map_err(|wait| {
            let seconds = wait.as_secs().max(1);
            let why = format!(
                "too many sign-ins were begun from {}: wait {seconds} seconds",
                from.address
            );
            Status::new(Code::ResourceExhausted, why)
        })
    }

    /// Signs in whom the provider knows. A second factor is its business, and is not asked for here.
    pub async fn enter_by_provider(&self, person: Person, from: &Origin) -> Result<SignedIn> {
        let settled = self
            .db
            .write(move |tx| Box::pin(async move { settle(tx, &person).await }));
        let user = settled.await??;
        self.guesses.right(&count(from));
        self.begin(user, from).await
    }

    /// Has somebody of the provider sign in as a user from now on; the user's sessions end.
    pub async fn link_oidc(
        &self,
        caller: &Caller,
        reference: &str,
        issuer: &str,
        subject: String,
    ) -> Result<User> {
        limit::length("subject", &subject, limit::SUBJECT_BYTES)?;
        if subject.is_empty() {
            let why = "it is what the provider calls the person, and cannot be empty";
            return Err(Status::invalid("subject", why).into());
        }
        let issuer = issuer.to_owned();
        self.change(caller, reference, move |tx, user, _| {
            Box::pin(async move {
                identities::free_for(tx.conn(), &issuer, &subject, user.id).await?;
                identities::link(tx, &issuer, &subject, user.id, now()).await?;
                rows::end_sessions(tx.conn(), user.id, None).await
            })
        })
        .await
    }

    /// Lets nobody of the provider sign in as a user any more; the user's sessions end, and the roles that groups gave go.
    pub async fn unlink_oidc(&self, caller: &Caller, reference: &str) -> Result<User> {
        self.change(caller, reference, move |tx, user, _| {
            Box::pin(async move {
                if !identities::unlink(tx, user.id).await? {
                    let why = format!("{} does not sign in by the provider", user.name);
                    return Err(Status::precondition(why).into());
                }
                rows::end_sessions(tx.conn(), user.id, None).await
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_the_provider_says() {
        let name = |text: &str| {
            name_of(&Person {
                issuer: String::new(),
                subject: "s-1".to_owned(),
                name: text.to_owned(),
                roles: Vec::new(),
            })
        };
        for (said, made) in [
            ("eve", "eve"),
            ("Eve.Adams@example.com", "eve-adams"),
            ("_eve_", "eve"),
        ] {
            assert_eq!(name(said).unwrap().as_str(), made);
        }
        for bad in ["", "@example.com", "1st", "\u{263a}"] {
            let why = name(bad).unwrap_err().message;
            assert!(why.contains("link-oidc NAME s-1"), "{why}");
        }
    }
}
