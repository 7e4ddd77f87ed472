//! Hosts, storages and networks.

use super::{Db, DbError, Tx, sql, word};
use shared::feed::Noun;
use shared::place::{HostState, NetworkKind};
use shared::{HostId, Name, NetworkId, StorageId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

/// A host, as the database knows it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct HostRow {
    pub id: HostId,
    pub name: Name,
    pub state: HostState,
}

/// A storage, as the database knows it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StorageRow {
    pub id: StorageId,
    pub name: Name,
    pub path: String,
    pub default: bool,
}

/// A network, as the database knows it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct NetworkRow {
    pub id: NetworkId,
    pub name: Name,
    pub kind: NetworkKind,
    pub bridge: Option<String>,
}

pub use shared::place::{ISOLATED_NETWORK, OWN_STORAGE, USER_NETWORK};

/// Makes this host, its storage and the two networks that there always are, if they are missing.
pub async fn ensure(tx: &mut Tx, storage_path: &str) -> Result<(), DbError> {
    let id = || uuid::Uuid::now_v7().to_string();
    sqlx::query(
        "INSERT INTO hosts (id, name, state) VALUES ($1, 'host-1', 'UP') ON CONFLICT (name) DO NOTHING",
    )
    .bind(id())
    .execute(tx.conn())
    .await
    .map_err(sql("write the host"))?;
    sqlx::query(
        "INSERT INTO storages (id, name, path, is_default) VALUES ($1, $3, $2, 1)
         ON CONFLICT (name) DO UPDATE SET path = excluded.path",
    )
    .bind(id())
    .bind(storage_path)
    .bind(OWN_STORAGE)
    .execute(tx.conn())
    .await
    .map_err(sql("write the storage"))?;
    for (name, kind) in [
        (USER_NETWORK, NetworkKind::User),
        (ISOLATED_NETWORK, NetworkKind::Isolated),
    ] {
        sqlx::query(
            "INSERT INTO networks (id, name, kind) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
        )
        .bind(id())
        .bind(name)
        .bind(kind.word())
        .execute(tx.conn())
        .await
        .map_err(sql("write a network"))?;
    }
    Ok(())
}

fn host_row(row: &SqliteRow) -> Result<HostRow, DbError> {
    Ok(HostRow {
        id: word(row, "id")?,
        name: word(row, "name")?,
        state: word(row, "state")?,
    })
}

/// All hosts, by name.
pub async fn hosts(db: &Db) -> Result<Vec<HostRow>, DbError> {
    let rows = sqlx::query("SELECT id, name, state FROM hosts ORDER BY name")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the hosts"))?;
    rows.iter().map(host_row).collect()
}

/// The host that machines are on, as the transaction sees it.
pub async fn host(tx: &mut Tx) -> Result<HostRow, DbError> {
    let row = sqlx::query("SELECT id, name, state FROM hosts ORDER BY name LIMIT 1")
        .fetch_one(tx.conn())
        .await
        .map_err(sql("read the host"))?;
    host_row(&row)
}

/// Sets whether a host takes new machines.
pub async fn set_host_state(tx: &mut Tx, id: HostId, state: HostState) -> Result<(), DbError> {
    sqlx::query("UPDATE hosts SET state = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(state.word())
        .execute(tx.conn())
        .await
        .map_err(sql("change a host"))?;
    tx.changed(Noun::Host, id, false);
    Ok(())
}

/// The boot of the host that its machines were started in last; none before the first.
pub async fn boot(db: &Db) -> Result<Option<String>, DbError> {
    let row = sqlx::query("SELECT boot FROM hosts ORDER BY name LIMIT 1")
        .fetch_one(db.read())
        .await
        .map_err(sql("read the host"))?;
    Ok(row.get("boot"))
}

/// Notes the boot of the host in which its machines have been started.
pub async fn set_boot(tx: &mut Tx, boot: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE hosts SET boot = $1")
        .bind(boot)
        .execute(tx.conn())
        .await
        .map_err(sql("note the boot of the host"))
        .map(drop)
}

/// Adds a storage.
pub async fn insert_storage(tx: &mut Tx, new: &StorageRow) -> Result<(), DbError> {
    let done = sqlx::query("INSERT INTO storages (id, name, path, is_default) VALUES ($1, $2, $3, 0)")
        .bind(new.id.to_string())
        .bind(new.name.as_str())
        .bind(&new.path)
        .execute(tx.conn())
        .await;
    super::taken("storage", &new.name, done)?;
    tx.changed(Noun::Storage, new.id, false);
    if new.default {
        set_default(tx, new.id).await?;
    }
    Ok(())
}

/// Has new disks go to a storage unless asked otherwise.
pub async fn set_default(tx: &mut Tx, id: StorageId) -> Result<(), DbError> {
    let rows = sqlx::query("UPDATE storages SET is_default = (id = $1) RETURNING id")
        .bind(id.to_string())
        .fetch_all(tx.conn())
        .await
        .map_err(sql("change the default storage"))?;
    for row in &rows {
        tx.changed(Noun::Storage, row.get::<&str, _>("id"), false);
    }
    Ok(())
}

/// Gives a storage another name.
pub async fn rename_storage(tx: &mut Tx, id: StorageId, name: &Name) -> Result<(), DbError> {
    let done = sqlx::query("UPDATE storages SET name = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(name.as_str())
        .execute(tx.conn())
        .await;
    super::taken("storage", name, done)?;
    tx.changed(Noun::Storage, id, false);
    Ok(())
}

/// How many layers are in a storage.
pub async fn layers_in(conn: &mut SqliteConnection, id: StorageId) -> Result<u64, DbError> {
    let row = sqlx::query("SELECT COUNT(*) AS n FROM layers WHERE storage = $1")
        .bind(id.to_string())
        .fetch_one(conn)
        .await
        .map_err(sql("count the layers of a storage"))?;
    Ok(row.get::<i64, _>("n") as u64)
}

/// Takes a storage off the books.
pub async fn delete_storage(tx: &mut Tx, id: StorageId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM storages WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete a storage"))?;
    tx.changed(Noun::Storage, id, true);
    Ok(())
}

/// Adds a network.
pub async fn insert_network(tx: &mut Tx, new: &NetworkRow) -> Result<(), DbError> {
    let done = sqlx::query("INSERT INTO networks (id, name, kind, bridge) VALUES ($1, $2, $3, $4)")
        .bind(new.id.to_string())
        .bind(new.name.as_str())
        .bind(new.kind.word())
        .bind(&new.bridge)
        .execute(tx.conn())
        .await;
    super::taken("network", &new.name, done)?;
    tx.changed(Noun::Network, new.id, false);
    Ok(())
}

/// Changes a network.
pub async fn patch_network(
    tx: &mut Tx,
    id: NetworkId,
    name: &Name,
    bridge: Option<&str>,
) -> Result<(), DbError> {
    let done = sqlx::query("UPDATE networks SET name = $2, bridge = COALESCE($3, bridge) WHERE id = $1")
        .bind(id.to_string())
        .bind(name.as_str())
        .bind(bridge)
        .execute(tx.conn())
        .await;
    super::taken("network", name, done)?;
    tx.changed(Noun::Network, id, false);
    Ok(())
}

/// How many NICs are on a network; those that fork points would make are among them.
pub async fn nics_on(conn: &mut SqliteConnection, id: NetworkId) -> Result<u64, DbError> {
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM vm_nics WHERE network = $1)
             + (SELECT COUNT(*) FROM fork_points, json_each(fork_points.networks) WHERE value = $1) AS n",
    )
    .bind(id.to_string())
    .fetch_one(conn)
    .await
    .map_err(sql("count the NICs of a network"))?;
    Ok(row.get::<i64, _>("n") as u64)
}

/// Takes a network off the books.
pub async fn delete_network(tx: &mut Tx, id: NetworkId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM networks WHERE id = $1")
        .bind(id.to_string())
        .execute(tx.conn())
        .await
        .map_err(sql("delete a network"))?;
    tx.changed(Noun::Network, id, true);
    Ok(())
}

/// All storages, by name.
pub async fn storages(db: &Db) -> Result<Vec<StorageRow>, DbError> {
    let rows = sqlx::query("SELECT id, name, path, is_default FROM storages ORDER BY name")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the storages"))?;
    rows.iter()
        .map(|r| {
            Ok(StorageRow {
                id: word(r, "id")?,
                name: word(r, "name")?,
                path: r.get("path"),
                default: r.get::<i64, _>("is_default") != 0,
            })
        })
        .collect()
}

/// All networks, by name.
pub async fn networks(db: &Db) -> Result<Vec<NetworkRow>, DbError> {
    let rows = sqlx::query("SELECT id, name, kind, bridge FROM networks ORDER BY name")
        .fetch_all(db.read())
        .await
        .map_err(sql("read the networks"))?;
    rows.iter()
        .map(|r| {
            Ok(NetworkRow {
                id: word(r, "id")?,
                name: word(r, "name")?,
                kind: word(r, "kind")?,
                bridge: r.get("bridge"),
            })
        })
        .collect()
}
