//! Users as those who manage them see them. Nobody deals with a user who may do more than they may themselves.

use super::secret::Secret;
use super::{Access, Caller, LINK_LIFE, Result, new_user, password};
use crate::db::list::Listing;
use crate::db::{self, DbError, Tx, access as rows, now, roles, users};
use futures::future::BoxFuture;
use shared::access::rights::{Rights, last_admin, may_manage};
use shared::access::{CreateGrant, CreateUser, OneTimeLink, PatchUser, User};
use shared::api::{ListQuery, UserPage};
use shared::feed::Noun;
use shared::{Status, VmId};
use std::sync::Arc;

/// The user, as far as the caller may manage them.
async fn managed(tx: &mut Tx, rights: &Rights, reference: &str) -> std::result::Result<User, DbError> {
    let user = users::known(tx.conn(), reference).await?;
    may_manage(rights, &roles::rights(tx.conn(), user.id).await?)?;
    Ok(user)
}

impl Access {
    /// Changes a user in one transaction, and answers the user as they are then. Afterwards there is still an
    /// administrator, or nothing has changed.
    pub(super) async fn change<F>(&self, caller: &Caller, reference: &str, work: F) -> Result<User>
    where
        F: for<'t> FnOnce(&'t mut Tx, User, Arc<Rights>) -> BoxFuture<'t, std::result::Result<(), DbError>>
            + Send
            + 'static,
    {
        caller.must_be_whole()?;
        let (rights, reference) = (caller.rights.clone(), reference.to_owned());
        let changed = self.db.write(move |tx| {
            Box::pin(async move {
                let user = managed(tx, &rights, &reference).await?;
                work(tx, user.clone(), rights).await?;
                if roles::admins(tx.conn()).await? == 0 {
                    return Err(last_admin(&user.name).into());
                }
                tx.changed(Noun::User, user.id, false);
                users::known(tx.conn(), &user.id.to_string()).await
            })
        });
        Ok(changed.await?)
    }

    /// A page of users.
    pub async fn list_users(&self, query: &ListQuery) -> Result<UserPage> {
        let listing = Listing::parse(query, users::FIELDS, "name")?;
        let page = users::list(&self.db, &listing).await?;
        Ok(UserPage {
            users: page.items,
            next_page_token: page.next,
            total_size: page.total,
        })
    }

    /// One user, by name or id.
    pub async fn user(&self, reference: &str) -> Result<User> {
        let db = &self.db;
        Ok(db
            .reading(async |conn| users::known(conn, reference).await)
            .await?)
    }

    /// What is kept of the user with this name or id.
    pub(super) async fn found(&self, reference: &str) -> Result<Option<users::UserRow>> {
        let db = &self.db;
        Ok(db
            .reading(async |conn| users::find(conn, reference).await)
            .await?)
    }

    /// Adds a user, with a role on everything or with none.
    pub async fn create_user(&self, caller: &Caller, request: CreateUser) -> Result<User> {
        caller.must_be_whole()?;
        let kept = match request.password {
            None => None,
            Some(password) => {
                password::check(&password)?;
                Some(password::hash(password).await?)
            }
        };
        let (user, rights) = (new_user(request.name), caller.rights.clone());
        let made = self.db.write(move |tx| {
            Box::pin(async move {
                users::insert(tx.conn(), &user, kept.as_deref()).await?;
                if let Some(role) = request.role {
                    let role = roles::known(tx.conn(), role.as_str()).await?;
                    may_manage(&rights, &Rights::on_everything(&role.privileges))?;
                    roles::give(tx.conn(), user.id, role.id, None, now()).await?;
                }
                tx.changed(Noun::User, user.id, false);
                users::known(tx.conn(), &user.id.to_string()).await
            })
        });
        Ok(made.await?)
    }

    /// Changes a user's name, or keeps the user out: sessions end at once.
    pub async fn update_user(&self, caller: &Caller, reference: &str, request: PatchUser) -> Result<User> {
        self.change(caller, reference, move |tx, user, _| {
            Box::pin(async move {
                if let Some(name) = request.name.filter(|n| *n != user.name) {
                    users::rename(tx, user.id, &name).await?;
                }
                if let Some(disabled) = request.disabled {
                    users::set_disabled(tx, user.id, disabled).await?;
                    if disabled {
                        rows::end_sessions(tx.conn(), user.id, None).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    /// Removes a user; what the user did stays written down.
    pub async fn delete_user(&self, caller: &Caller, reference: &str) -> Result<()> {
        caller.must_be_whole()?;
        let (rights, reference) = (caller.rights.clone(), reference.to_owned());
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                let user = managed(tx, &rights, &reference).await?;
                users::delete(tx, user.id).await?;
                if roles::admins(tx.conn()).await? == 0 {
                    return Err(last_admin(&user.name).into());
                }
                Ok(())
            })
        });
        Ok(done.await?)
    }

    /// Sets the caller's password; their other sessions end.
    pub async fn set_password(&self, caller: &Caller, password: String) -> Result<()> {
        caller.must_be_whole()?;
        password::check(&password)?;
        let kept = password::hash(password).await?;
        let (user, keep) = (caller.user.id, caller.session());
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                users::set_password(tx.conn(), user, &kept).await?;
                rows::end_sessions(tx.conn(), user, keep).await?;
                tx.changed(Noun::User, user, false);
                Ok(())
            })
        });
        Ok(done.await?)
    }

    /// Sets a user's password; all their sessions end.
    pub async fn set_user_password(
        &self,
        caller: &Caller,
        reference: &str,
        password: String,
    ) -> Result<User> {
        password::check(&password)?;
        let kept = password::hash(password).await?;
        self.change(caller, reference, move |tx, user, _| {
            Box::pin(async move {
                users::set_password(tx.conn(), user.id, &kept).await?;
                rows::end_sessions(tx.conn(), user.id, None).await
            })
        })
        .await
    }

    /// Makes a link that signs a user in, once.
    /// `origin` is where the server is come by.
    pub async fn link_for(&self, caller: &Caller, reference: &str, origin: &str) -> Result<OneTimeLink> {
        let link = Secret::new("")?;
        let (kept, end) = (link.hash(), now().plus_micros(LINK_LIFE));
        self.change(caller, reference, move |tx, user, _| {
            Box::pin(async move { rows::insert_link(tx.conn(), &kept, user.id, end).await })
        })
        .await?;
        Ok(OneTimeLink {
            secret: format!("{origin}/welcome/{}", link.expose()),
            expire_time: end,
        })
    }

    /// Asks a user for no second factor any more: for those who have lost it.
    pub async fn reset_two_factor(&self, caller: &Caller, reference: &str) -> Result<User> {
        self.change(caller, reference, move |tx, user, _| {
            Box::pin(async move { users::set_second_factor(tx.conn(), user.id, None).await })
        })
        .await
    }

    /// Gives a user a role, on everything or on a machine.
    pub async fn give_role(&self, caller: &Caller, reference: &str, request: CreateGrant) -> Result<User> {
        let vm: Option<VmId> = match &request.vm {
            None => None,
            Some(vm) => {
                let found = db::vms::find(&self.db, vm).await?;
                Some(found.ok_or_else(|| Status::not_found("VM", vm))?.id)
            }
        };
        self.change(caller, reference, move |tx, user, rights| {
            Box::pin(async move {
                let role = roles::known(tx.conn(), request.role.as_str()).await?;
                let mut given = Rights::default();
                given.give(&role.privileges, vm);
                may_manage(&rights, &given)?;
                roles::give(tx.conn(), user.id, role.id, vm, now()).await
            })
        })
        .await
    }

    /// Takes a role away from a user.
    pub async fn take_role(&self, caller: &Caller, reference: &str, grant: &str) -> Result<User> {
        let grant = grant.to_owned();
        self.change(caller, reference, move |tx, user, _| {
            Box::pin(async move {
                roles::granted(tx.conn(), user.id, &grant).await?;
                roles::take(tx.conn(), &grant).await
            })
        })
        .await
    }
}
