//! Hosts, storages and networks: where machines run, where their disks are, and what they are connected to.

use crate::components::button::{self, Button};
use crate::components::field::{Fields, Line};
use crate::components::frame::bar;
use crate::components::load::{Bodies, all, body, load};
use crate::components::place;
use crate::components::state::{Tone, pill};
use crate::env::{flash, may};
use crate::feed::on_change;
use crate::format;
use crate::words::{put, w};
use leptos::prelude::*;
use leptos_meta::Title;
use shared::Status;
use shared::access::Privilege;
use shared::api::{
    Call, HostPage, ListHosts, ListNetworks, ListQuery, ListStorages, NetworkPage, RawCall, StoragePage,
};
use shared::can;
use shared::feed::Noun;
use shared::place::{Host, HostState, Network, NetworkKind, Storage};

/// A page of things that come whole: asked for again when one has changed.
fn listed<T: Send + Sync + 'static>(
    title: &'static str,
    lead: &'static str,
    noun: Noun,
    call: fn() -> RawCall,
    read: fn(&Bodies) -> Result<Vec<T>, Status>,
    row: fn(&T) -> AnyView,
    add: fn() -> AnyView,
) -> AnyView {
    let looks = RwSignal::new(0_u32);
    on_change(move |change| {
        // What a host runs is counted by the server.
        if change.noun() == noun || (noun == Noun::Host && change.noun() == Noun::Vm) {
            looks.update(|n| *n += 1);
        }
    });
    // A form of this page changes what the page shows, also where there is no feed.
    let flash = flash();
    Effect::new(move |_| {
        if flash.with(|f| f.as_ref().is_some_and(|f| f.error.is_none())) {
            looks.update(|n| *n += 1);
        }
    });
    let shown = move |data: RwSignal<Vec<T>>| {
        let rows = move || data.with(|all| all.iter().map(row).collect::<Vec<_>>());
        view! {
            <div class="cols">
                <div class="stack">
                    <section class="panel" aria-label=title>
                        <ul class="short">{rows}</ul>
                    </section>
                </div>
                <div class="stack">{add()}</div>
            </div>
        }
        .into_any()
    };
    view! {
        <Title text=title/>
        {bar(Vec::new(), title.to_owned())}
        <div class="title">
            <h1 tabindex="-1">{title}</h1>
            <span class="faint">{lead}</span>
        </div>
        {load(move || looks.get().to_string(), move |_| all([call()]), read, |old, new| *old = new, shown)}
    }
    .into_any()
}

pub fn hosts() -> AnyView {
    listed(
        w().hosts,
        w().hosts_lead,
        Noun::Host,
        || {
            ListHosts {
                query: ListQuery::default(),
            }
            .raw()
        },
        |bodies| Ok(body::<HostPage>(bodies, 0)?.hosts),
        host,
        || ().into_any(),
    )
}

pub fn storages() -> AnyView {
    listed(
        w().storages,
        w().storages_lead,
        Noun::Storage,
        || {
            ListStorages {
                query: ListQuery::default(),
            }
            .raw()
        },
        |bodies| Ok(body::<StoragePage>(bodies, 0)?.storages),
        storage,
        new_storage,
    )
}

pub fn networks() -> AnyView {
    listed(
        w().networks,
        w().networks_lead,
        Noun::Network,
        || {
            ListNetworks {
                query: ListQuery::default(),
            }
            .raw()
        },
        |bodies| Ok(body::<NetworkPage>(bodies, 0)?.networks),
        network,
        new_network,
    )
}

/// Whether the person may change what all machines share.
fn may_change() -> can::Verdict {
    may(Privilege::PlaceUpdate, None)
}

fn host(host: &Host) -> AnyView {
    let up = host.state == HostState::Up;
    let (tone, word) = if up {
        (Tone::Good, w().host_up)
    } else {
        (Tone::Warn, w().host_maintenance)
    };
    let (to, label) = if up {
        ("maintenance", w().begin_maintenance)
    } else {
        ("up", w().end_maintenance)
    };
    let switch = Button {
        to: format!("/do/hosts/{}/{to}", host.name),
        label,
        back: "/hosts".to_owned(),
        of: host.name.to_string(),
        ..Button::default()
    };
    let (used, whole) = format::bytes_of(host.memory_in_use_mib << 20, host.memory_mib << 20);
    let runs = put(
        w().host_runs,
        &[&host.running_vms.to_string(), &host.cpus.to_string()],
    );
    let qemu = format!("QEMU {} · {}", host.qemu_version, host.accelerator);
    let memory = put(w().memory_in_use, &[&used, &whole]);
    let most = host.memory_mib.max(1).to_string();
    view! {
        <li>
            <span class="what">
                <b>{host.name.to_string()}</b> " " {pill(tone, word)}
                <span class="sub">{runs} " · " {qemu}</span>
            </span>
            {button::post(switch, &may_change())}
            <span class="meter">
                <progress max=most value=host.memory_in_use_mib.to_string() aria-label=w().memory></progress>
                <span class="soft figures-of">{memory}</span>
            </span>
        </li>
    }
    .into_any()
}

fn storage(storage: &Storage) -> AnyView {
    let act = |action: &str, label, class| Button {
        to: format!("/do/storages/{}/{action}", storage.name),
        label,
        class,
        back: "/storages".to_owned(),
        of: storage.name.to_string(),
        ..Button::default()
    };
    let used = storage.total_bytes.saturating_sub(storage.free_bytes);
    let layers = put(w().storage_layers, &[&format::count(storage.layers)]);
    let default = if storage.default {
        pill(Tone::Good, w().default_storage)
    } else {
        button::post(act("default", w().make_default, "quiet"), &may_change())
    };
    view! {
        <li>
            <span class="what">
                <b>{storage.name.to_string()}</b>
                <span class="sub"><code>{storage.path.clone()}</code> " · " {layers}</span>
            </span>
            {default}
            {button::post(act("delete", w().remove, "danger quiet"), &may_change().and_then(|()| can::can_delete_storage(storage)))}
            <span class="meter">
                <progress
                    max=storage.total_bytes.max(1).to_string()
                    value=used.to_string()
                    aria-label=put(w().used_of, &[storage.name.as_str()])
                ></progress>
                <span class="soft figures-of">{place::room(storage)}</span>
            </span>
            {renames(format!("/do/storages/{}/rename", storage.name), &storage.name, "/storages", &can::can_rename_storage(storage), ().into_any())}
        </li>
    }
    .into_any()
}

/// A name that can be changed, folded away.
fn renames(
    action: String,
    name: &shared::Name,
    back: &'static str,
    verdict: &can::Verdict,
    more: AnyView,
) -> Option<AnyView> {
    verdict.as_ref().ok()?;
    let fields = Fields::of(&action);
    let open = fields.typed("name").is_some();
    let label = put(w().new_name_of, &[name.as_str()]);
    let value = fields.typed("name").unwrap_or_else(|| name.to_string());
    let id = format!("rename-{name}");
    Some(
        view! {
            <details class="unfold" open=open>
                <summary>{w().change}</summary>
                <form method="post" action=action class="inline">
                    {fields.error(back)}
                    <div class="field">
                        <label for=id.clone()>{label}</label>
                        <input id=id name="name" value=value required autocomplete="off" spellcheck="false"/>
                    </div>
                    {more}
                    {fields.submit("", w().save, may_change)}
                </form>
            </details>
        }
        .into_any(),
    )
}

fn new_storage() -> AnyView {
    let action = "/do/storages/create";
    let fields = Fields::of(action);
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let path = fields.line(Line {
        name: "path",
        label: w().directory,
        hint: w().directory_hint.to_owned(),
        placeholder: "/srv/machines".to_owned(),
        required: true,
        ..Line::default()
    });
    view! {
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                <h2>{w().add_storage}</h2>
                {fields.error("/storages")}
                {name}
                {path}
                {fields.tick("default", w().new_disks_go_there.to_owned(), "", false)}
            </div>
            <footer>
                {fields.submit("go", w().add_it, may_change)}
            </footer>
        </form>
    }
    .into_any()
}

fn network(network: &Network) -> AnyView {
    let delete = Button {
        to: format!("/do/networks/{}/delete", network.name),
        label: w().remove,
        class: "danger quiet",
        back: "/networks".to_owned(),
        of: network.name.to_string(),
        ..Button::default()
    };
    let over = network.bridge.as_ref().map(|b| format!(" · {b}"));
    let nics = put(w().network_nics, &[&format::count(network.nics)]);
    let about = match network.kind {
        NetworkKind::User => w().user_about,
        NetworkKind::Bridge => w().bridge_about,
        NetworkKind::Isolated => w().isolated_about,
    };
    let id = format!("bridge-{}", network.name);
    let bridge = network.bridge.clone().map(|bridge| {
        view! {
            <div class="field">
                <label for=id.clone()>{w().bridge}</label>
                <input id=id name="bridge" value=bridge autocomplete="off" spellcheck="false"/>
            </div>
        }
    });
    view! {
        <li>
            <span class="what">
                <b>{network.name.to_string()}</b>
                <span class="sub">{place::kind(network.kind)} {over} " · " {nics}</span>
                <span class="sub">{about}</span>
            </span>
            {button::post(delete, &may_change().and_then(|()| can::can_delete_network(network)))}
            {renames(format!("/do/networks/{}/edit", network.name), &network.name, "/networks", &can::can_rename_network(network), bridge.into_any())}
        </li>
    }
    .into_any()
}

fn new_network() -> AnyView {
    let action = "/do/networks/create";
    let fields = Fields::of(action);
    let name = fields.line(Line {
        name: "name",
        label: w().name,
        hint: w().name_hint.to_owned(),
        required: true,
        is_name: true,
        ..Line::default()
    });
    let kinds = [NetworkKind::Isolated, NetworkKind::Bridge, NetworkKind::User]
        .map(|k| (k.word().to_owned(), place::kind(k).to_owned()))
        .to_vec();
    let bridge = fields.line(Line {
        name: "bridge",
        label: w().bridge,
        hint: w().bridge_hint.to_owned(),
        placeholder: "br0".to_owned(),
        ..Line::default()
    });
    view! {
        <form method="post" action=action class="sheet">
            <div class="sheet-in">
                <h2>{w().add_network}</h2>
                {fields.error("/networks")}
                {name}
                {fields.choice("kind", w().kind, w().network_kind_hint.to_owned(), kinds, NetworkKind::Isolated.word())}
                {bridge}
            </div>
            <footer>
                {fields.submit("go", w().add_it, may_change)}
            </footer>
        </form>
    }
    .into_any()
}
