//! Hosts, storages and networks.

use super::{Db, DbError, Tx, sql, word, word_opt};
use shared::place::{HostState, NetworkKind};
use shared::{HostId, Name, NetworkId, StorageId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

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

/// Name of the network that leads out through the host.
pub const USER_NETWORK: &str = "user";
/// Name of the network that leads nowhere.
pub const ISOLATED_NETWORK: &str = "isolated";

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
        "INSERT INTO storages (id, name, path, is_default) VALUES ($1, 'local', $2, 1)
         ON CONFLICT (name) DO UPDATE SET path = excluded.path",
    )
    .bind(id())
    .bind(storage_path)
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
        .map_err(sql("change a host"))
        .map(drop)
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
                bridge: word_opt(r, "bridge")?,
            })
        })
        .collect()
}
