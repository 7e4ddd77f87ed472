//! Roles, who has them, and what that comes to.

use super::list::{By, Field, Listing, Page};
use super::{Db, DbError, Tx, json, sql, to_json, word, word_opt};
use shared::access::rights::{self, ADMIN, EVERYBODY, Rights};
use shared::access::{Grant, Privilege, Role};
use shared::feed::Noun;
use shared::{Code, GrantId, RoleId, Status, Timestamp, UserId, VmId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use std::collections::HashMap;

fn read_role(row: &SqliteRow) -> Result<Role, DbError> {
    let id = word(row, "id")?;
    let built_in = rights::built_in(id);
    Ok(Role {
        id,
        name: word(row, "name")?,
        description: row.get("description"),
        built_in: built_in.is_some(),
        privileges: match built_in {
            Some(privileges) => privileges,
            None => json(row, "privileges")?,
        },
    })
}

/// The role with this name or id.
pub async fn find(conn: &mut SqliteConnection, reference: &str) -> Result<Option<Role>, DbError> {
    let row = sqlx::query("SELECT * FROM roles WHERE name = $1 OR id = $1")
        .bind(reference)
        .fetch_optional(conn)
        .await
        .map_err(sql("read a role"))?;
    row.as_ref().map(read_role).transpose()
}

/// The role with this name or id, or NOT_FOUND.
pub async fn known(conn: &mut SqliteConnection, reference: &str) -> Result<Role, DbError> {
    Ok(find(conn, reference)
        .await?
        .ok_or_else(|| Status::not_found("role", reference))?)
}

/// What roles may be listed by.
pub const FIELDS: &[Field] = &[Field {
    name: "name",
    column: "roles.name",
    by: By::Text,
}];

/// A page of roles.
pub async fn list(db: &Db, listing: &Listing) -> Result<Page<Role>, DbError> {
    let select = "SELECT roles.* FROM roles WHERE 1 = 1";
    listing
        .run(db, select, "FROM roles WHERE 1 = 1", "roles.id", read_role)
        .await
}

/// Makes a role.
pub async fn insert(tx: &mut Tx, role: &Role, now: Timestamp) -> Result<(), DbError> {
    let done = sqlx::query(
        "INSERT INTO roles (id, name, description, privileges, create_time) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(role.id.to_string())
    .bind(role.name.as_str())
    .bind(&role.description)
    .bind(to_json(&role.privileges)?)
    .bind(now.micros())
    .execute(tx.conn())
    .await;
    super::taken("role", &role.name, done)?;
    tx.changed(Noun::Role, role.id, false);
    Ok(())
}

/// Changes a role.
pub async fn update(tx: &mut Tx, role: &Role) -> Result<(), DbError> {
    sqlx::query("UPDATE roles SET description = $2, privileges = $3 WHERE id = $1")
        .bind(role.id.to_string())
        .bind(&role.description)
        .bind(to_json(&role.privileges)?)
        .execute(tx.conn())
        .await
        .map_err(sql("change a role"))?;
    tx.changed(Noun::Role, role.id, false);
    Ok(())
}

/// Deletes a role that neither a user nor a token has.
pub async fn delete(tx: &mut Tx, role: &Role) -> Result<(), DbError> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM user_grants WHERE role_id = $1) AS users,
            (SELECT COUNT(*) FROM tokens WHERE role_id = $1 AND delete_time IS NULL) AS tokens",
    )
    .bind(role.id.to_string())
    .fetch_one(tx.conn())
    .await
    .map_err(sql("look who has a role"))?;
    let (users, tokens) = (row.get::<i64, _>("users"), row.get::<i64, _>("tokens"));
    if users + tokens > 0 {
        let why = format!(
            "the role {} is in use: {users} times given to users, by {tokens} tokens; take it away there first",
            role.name
        );
        return Err(Status::precondition(why).into());
    }
    sqlx::query("DELETE FROM roles WHERE id = $1")
        .bind(role.id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete a role"))?;
    tx.changed(Noun::Role, role.id, true);
    Ok(())
}

const GRANTS: &str = "SELECT user_grants.id, user_grants.user_id, user_grants.vm, roles.name AS role_name,
        vms.name AS vm_name
    FROM user_grants JOIN roles ON roles.id = user_grants.role_id LEFT JOIN vms ON vms.id = user_grants.vm";

fn read_grant(row: &SqliteRow) -> Result<Grant, DbError> {
    Ok(Grant {
        id: word(row, "id")?,
        role: word(row, "role_name")?,
        vm: word_opt(row, "vm")?,
        vm_name: word_opt(row, "vm_name")?,
    })
}

/// The roles of a user.
pub async fn grants(conn: &mut SqliteConnection, user: UserId) -> Result<Vec<Grant>, DbError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{GRANTS} WHERE user_grants.user_id = $1 ORDER BY user_grants.create_time, user_grants.id"
    )))
    .bind(user.to_string())
    .fetch_all(conn)
    .await
    .map_err(sql("read a user's roles"))?;
    rows.iter().map(read_grant).collect()
}

/// The roles of all users.
pub async fn all_grants(db: &Db) -> Result<HashMap<UserId, Vec<Grant>>, DbError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{GRANTS} ORDER BY user_grants.create_time, user_grants.id"
    )))
    .fetch_all(db.read())
    .await
    .map_err(sql("read the roles of users"))?;
    let mut all: HashMap<UserId, Vec<Grant>> = HashMap::new();
    for row in &rows {
        all.entry(word(row, "user_id")?)
            .or_default()
            .push(read_grant(row)?);
    }
    Ok(all)
}

/// Gives a user a role, on everything or on a machine.
pub async fn give(
    conn: &mut SqliteConnection,
    user: UserId,
    role: RoleId,
    vm: Option<VmId>,
    now: Timestamp,
) -> Result<(), DbError> {
    let done = sqlx::query(
        "INSERT INTO user_grants (id, user_id, role_id, vm, create_time) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(GrantId(uuid::Uuid::now_v7()).to_string())
    .bind(user.to_string())
    .bind(role.to_string())
    .bind(vm.map(|vm| vm.to_string()))
    .bind(now.micros())
    .execute(conn)
    .await;
    done.map(drop).map_err(|e| match e.as_database_error() {
        Some(d) if d.is_unique_violation() => DbError::Refused(Status::new(
            Code::AlreadyExists,
            "the user has that role there already",
        )),
        _ => sql("give a role")(e),
    })
}

/// The role of a grant, and the machine that it is on; NOT_FOUND if the user has no such grant.
pub async fn granted(
    conn: &mut SqliteConnection,
    user: UserId,
    grant: &str,
) -> Result<(Role, Option<VmId>), DbError> {
    let row = sqlx::query(
        "SELECT roles.*, user_grants.vm FROM user_grants JOIN roles ON roles.id = user_grants.role_id
         WHERE user_grants.id = $1 AND user_grants.user_id = $2",
    )
    .bind(grant)
    .bind(user.to_string())
    .fetch_optional(conn)
    .await
    .map_err(sql("read a user's role"))?;
    let row = row.ok_or_else(|| Status::not_found("grant", grant))?;
    Ok((read_role(&row)?, word_opt(&row, "vm")?))
}

/// Takes a role away from a user.
pub async fn take(conn: &mut SqliteConnection, grant: &str) -> Result<(), DbError> {
    sqlx::query("DELETE FROM user_grants WHERE id = $1")
        .bind(grant)
        .execute(conn)
        .await
        .map_err(sql("take a role away"))?;
    Ok(())
}

/// How many may do everything and may sign in.
pub async fn admins(conn: &mut SqliteConnection) -> Result<u64, DbError> {
    let row = sqlx::query(
        "SELECT COUNT(DISTINCT users.id) AS n FROM users JOIN user_grants ON user_grants.user_id = users.id
         WHERE users.disabled = 0 AND user_grants.role_id = $1 AND user_grants.vm IS NULL",
    )
    .bind(ADMIN.to_string())
    .fetch_one(conn)
    .await
    .map_err(sql("count the administrators"))?;
    Ok(row.get::<i64, _>("n") as u64)
}

/// What a user may do.
pub async fn rights(conn: &mut SqliteConnection, user: UserId) -> Result<Rights, DbError> {
    let rows = sqlx::query(
        "SELECT roles.*, user_grants.vm FROM user_grants JOIN roles ON roles.id = user_grants.role_id
         WHERE user_grants.user_id = $1",
    )
    .bind(user.to_string())
    .fetch_all(conn)
    .await
    .map_err(sql("read what a user may do"))?;
    let mut rights = Rights::on_everything(&EVERYBODY);
    for row in &rows {
        rights.give(&read_role(row)?.privileges, word_opt(row, "vm")?);
    }
    Ok(rights)
}

/// The privileges of a role; none if it is gone.
pub async fn privileges(conn: &mut SqliteConnection, role: RoleId) -> Result<Vec<Privilege>, DbError> {
    let found = find(conn, &role.to_string()).await?;
    Ok(found.map(|role| role.privileges).unwrap_or_default())
}
