//! Roles of one's own. Nobody puts into a role what they may not do themselves, nor takes it out.

use super::{Access, Caller, Result};
use crate::db::list::Listing;
use crate::db::{now, roles as rows};
use shared::access::rights::{Rights, may_change, may_manage};
use shared::access::{CreateRole, PatchRole, Privilege, Role};
use shared::api::{ListQuery, RolePage};
use shared::can::limit;
use shared::{RoleId, Status};

fn checked(description: &str, privileges: Vec<Privilege>) -> std::result::Result<Vec<Privilege>, Status> {
    limit::length("description", description, limit::DESCRIPTION_BYTES)?;
    if privileges.is_empty() {
        return Err(Status::invalid(
            "privileges",
            "a role without privileges allows nothing: name some",
        ));
    }
    // Each once, in order.
    Ok(Rights::on_everything(&privileges).privileges)
}

impl Access {
    /// A page of roles.
    pub async fn list_roles(&self, query: &ListQuery) -> Result<RolePage> {
        let listing = Listing::parse(query, rows::FIELDS, "name")?;
        let page = rows::list(&self.db, &listing).await?;
        Ok(RolePage {
            roles: page.items,
            next_page_token: page.next,
            total_size: page.total,
        })
    }

    /// One role, by name or id.
    pub async fn role(&self, reference: &str) -> Result<Role> {
        let db = &self.db;
        Ok(db
            .reading(async |conn| rows::known(conn, reference).await)
            .await?)
    }

    /// Makes a role.
    pub async fn create_role(&self, caller: &Caller, request: CreateRole) -> Result<Role> {
        caller.must_be_whole()?;
        let role = Role {
            id: RoleId(uuid::Uuid::now_v7()),
            name: request.name,
            privileges: checked(&request.description, request.privileges)?,
            description: request.description,
            built_in: false,
        };
        may_manage(&caller.rights, &Rights::on_everything(&role.privileges))?;
        let row = role.clone();
        self.db
            .write(move |tx| Box::pin(async move { rows::insert(tx, &row, now()).await }))
            .await?;
        Ok(role)
    }

    /// Changes a role: whoever has it may do the new things at once.
    pub async fn update_role(&self, caller: &Caller, reference: &str, request: PatchRole) -> Result<Role> {
        caller.must_be_whole()?;
        let (rights, reference) = (caller.rights.clone(), reference.to_owned());
        let changed = self.db.write(move |tx| {
            Box::pin(async move {
                let mut role = rows::known(tx.conn(), &reference).await?;
                may_change(&role)?;
                may_manage(&rights, &Rights::on_everything(&role.privileges))?;
                if let Some(description) = request.description {
                    role.description = description;
                }
                let privileges = request.privileges.unwrap_or(role.privileges);
                role.privileges = checked(&role.description, privileges)?;
                may_manage(&rights, &Rights::on_everything(&role.privileges))?;
                rows::update(tx, &role).await?;
                Ok(role)
            })
        });
        Ok(changed.await?)
    }

    /// Deletes a role that nobody has.
    pub async fn delete_role(&self, caller: &Caller, reference: &str) -> Result<()> {
        caller.must_be_whole()?;
        let (rights, reference) = (caller.rights.clone(), reference.to_owned());
        let done = self.db.write(move |tx| {
            Box::pin(async move {
                let role = rows::known(tx.conn(), &reference).await?;
                may_change(&role)?;
                may_manage(&rights, &Rights::on_everything(&role.privileges))?;
                rows::delete(tx, &role).await
            })
        });
        Ok(done.await?)
    }
}
