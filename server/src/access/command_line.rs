//! What the command line does on the database itself, beside a running server: nothing here is told by the feed, whose
//! generations belong to the server's own writer.

use super::secret::Secret;
use super::tokens::new_token;
use super::{Access, LINK_LIFE, Result, audit, new_user, password};
use crate::db::{access as rows, now, roles, users};
use shared::access::{CreateToken, NewToken, User};
use shared::{Name, Status};

impl Access {
    /// Adds a user, with a password or without, with a role on everything or without.
    pub async fn add_user(&self, name: Name, password: Option<String>, role: Option<Name>) -> Result<User> {
        let kept = match password {
            None => None,
            Some(password) => {
                password::check(&password)?;
                Some(password::hash(password).await?)
            }
        };
        let user = new_user(name);
        let row = user.clone();
        let made = self.db.write(move |tx| {
            Box::pin(async move {
                users::insert(tx.conn(), &row, kept.as_deref()).await?;
                if let Some(role) = role {
                    let role = roles::known(tx.conn(), role.as_str()).await?;
                    roles::give(tx.conn(), row.id, role.id, None, row.create_time).await?;
                }
                audit::on_command_line(tx, "user add", &row.name).await
            })
        });
        made.await?;
        Ok(user)
    }

    /// Sets a user's password and ends all their sessions.
    pub async fn reset_password(&self, name: &Name, password: String) -> Result<()> {
        password::check(&password)?;
        let user = self.known(name).await?;
        let kept = password::hash(password).await?;
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                users::set_password(tx.conn(), user.id, &kept).await?;
                rows::end_sessions(tx.conn(), user.id, None).await?;
                audit::on_command_line(tx, "user passwd", &user.name).await
            })
        });
        Ok(done.await?)
    }

    /// Asks a user for no second factor any more.
    pub async fn forget_two_factor(&self, name: &Name) -> Result<()> {
        let user = self.known(name).await?;
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                users::set_second_factor(tx.conn(), user.id, None).await?;
                audit::on_command_line(tx, "user reset-two-factor", &user.name).await
            })
        });
        Ok(done.await?)
    }

    /// Makes a one-time link for a user.
    pub async fn link(&self, name: &Name) -> Result<Secret> {
        let user = self.known(name).await?;
        let link = Secret::new("")?;
        let (kept, end) = (link.hash(), now().plus_micros(LINK_LIFE));
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                rows::insert_link(tx.conn(), &kept, user.id, end).await?;
                audit::on_command_line(tx, "user link", &user.name).await
            })
        });
        done.await?;
        Ok(link)
    }

    /// Makes a token for a user that may do all that the user may.
    pub async fn token_for(&self, user: &Name, name: Name) -> Result<NewToken> {
        let request = CreateToken {
            name,
            role: None,
            expire_time: None,
        };
        self.confined_token_for(user, request).await
    }

    /// Makes a token for a user.
    pub async fn confined_token_for(&self, user: &Name, request: CreateToken) -> Result<NewToken> {
        let user = self.known(user).await?;
        let role = match &request.role {
            None => None,
            Some(name) => Some(self.role(name.as_str()).await?.id),
        };
        let (new, kept) = new_token(request)?;
        let token = new.token.clone();
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                rows::insert_token(tx.conn(), &token, role, user.id, &kept).await?;
                audit::on_command_line(tx, "token create", &user.name).await
            })
        });
        done.await?;
        Ok(new)
    }

    async fn known(&self, name: &Name) -> Result<User> {
        let row = self.found(name.as_str()).await?;
        Ok(row.ok_or_else(|| Status::not_found("user", name))?.user)
    }
}
