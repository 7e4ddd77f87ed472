//! The forms that speak of hosts, storages and networks.

use super::parse::Form;
use crate::words::w;
use shared::Status;
use shared::api::{
    Call, DeleteNetwork, DeleteStorage, PostNetwork, PostStorage, RawCall, UpdateHost, UpdateNetwork,
    UpdateStorage,
};
use shared::place::{
    CreateNetwork, CreateStorage, HostState, NetworkKind, PatchHost, PatchNetwork, PatchStorage,
};

pub fn parse(noun: &str, rest: &[&str], form: Form<'_>) -> Result<RawCall, Status> {
    let own = |name: &&str| (*name).to_owned();
    Ok(match (noun, rest) {
        ("hosts", [host, action @ ("maintenance" | "up")]) => {
            let state = match *action {
                "up" => HostState::Up,
                _ => HostState::Maintenance,
            };
            let request = PatchHost { state };
            UpdateHost {
                host: own(host),
                request,
            }
            .raw()
        }
        ("storages", ["create"]) => {
            let request = CreateStorage {
                name: form.need("name")?,
                path: form.need("path")?,
                default: form.is("default"),
            };
            PostStorage { request }.raw()
        }
        ("storages", [storage, "delete"]) => DeleteStorage {
            storage: own(storage),
        }
        .raw(),
        ("storages", [storage, action @ ("default" | "rename")]) => {
            let default = *action == "default";
            let request = PatchStorage {
                name: if default { None } else { Some(form.need("name")?) },
                default,
            };
            UpdateStorage {
                storage: own(storage),
                request,
            }
            .raw()
        }
        ("networks", ["create"]) => {
            let kind = form.parse("kind")?.unwrap_or(NetworkKind::Isolated);
            let request = CreateNetwork {
                name: form.need("name")?,
                kind,
                bridge: form.parse("bridge")?.filter(|_| kind == NetworkKind::Bridge),
            };
            PostNetwork { request }.raw()
        }
        ("networks", [network, "delete"]) => DeleteNetwork {
            network: own(network),
        }
        .raw(),
        ("networks", [network, "edit"]) => {
            let request = PatchNetwork {
                name: Some(form.need("name")?),
                bridge: form.parse("bridge")?,
            };
            UpdateNetwork {
                network: own(network),
                request,
            }
            .raw()
        }
        _ => return Err(Status::not_found("form", rest.join("/"))),
    })
}

/// What a page says when it was done.
pub fn done(rest: &[&str]) -> &'static str {
    match rest {
        ["create"] => w().flash_added,
        [_, "delete"] => w().flash_removed,
        [_, "maintenance" | "up"] => w().flash_host,
        _ => w().flash_described,
    }
}
