//! The forms of the console: what every button that changes something posts.
//!
//! Each is a real `<form method="post" action="/do/…">`, so that a click before the WASM is there, or without it,
//! does the same. For `POST /do/{*path}` the server asks [`parse`] for the calls of the API (or the theme or language to remember),
//! runs them through its own API with the person's session, one after another, also when one fails, and asks [`after`]
//! where to go then and what to tell the person: the [`Done`]. The live page sends the same post, with
//! `Accept: application/json`, and gets the [`Done`]; else the [`Flash`] is kept for the session's next page
//! ([`crate::ShellOptions::flash`], once), and the answer is 303 to [`Done::to`]. The session's forms `/login` (`name`,
//! `password`, `next`) and `/logout` are the server's own.
//!
//! | action | fields | call |
//! |---|---|---|
//! | `/do/vms/create` | name description image imageGib blankGib storage cpus memoryMib network disconnected forwards labels autostart adapt userData metaData networkConfig start | `PostVm` |
//! | `/do/vms/{vm}/describe` | name description labels autostart | `UpdateVm` |
//! | `/do/vms/{vm}/edit` | cpus memoryMib bootFirst grow-N removeDisk blankGib image network-N mac-N forwards-N removeNic addNetwork | `Edit` |
//! | `/do/hosts/{host}/maintenance` `up` | | `UpdateHost` |
//! | `/do/storages/create`, `/do/storages/{storage}/default` `rename` `delete` | name path default | `PostStorage` … |
//! | `/do/networks/create`, `/do/networks/{network}/edit` `delete` | name kind bridge | `PostNetwork` … |
//! | `/do/vms/bulk` | action, id … | one call for each id |
//! | `/do/vms/{vm}/start` `shutdown` `power-off` `reset` `pause` `resume` | | `Start` … |
//! | `/do/vms/{vm}/connect` `disconnect` | nic | `Connect`, `Disconnect` |
//! | `/do/vms/{vm}/snapshot` | name description with | `PostSnapshot` |
//! | `/do/vms/{vm}/revert` | snapshot keepCurrent name memory start | `PostRevert` |
//! | `/do/vms/{vm}/delete-snapshot` | snapshot | `DeleteSnapshot` |
//! | `/do/vms/{vm}/clone` | source mode name cpus memoryMib start bootTimeoutSeconds bootPattern network adapt userData metaData networkConfig quiesce | `PostCloneJob` |
//! | `/do/vms/{vm}/fork` | names count networkInterfaces keepPoint pointName config | `PostInstantClone` |
//! | `/do/forkPoints/{point}/fork` `delete` | | `PostPointClone`, `DeleteForkPoint` |
//! | `/do/vms/{vm}/delete` | name confirm | `DeleteVm` |
//! | `/do/vms/{vm}/image` | name snapshot disk | `PostImage` |
//! | `/do/vms/{vm}/export` | of format disk | `PostExport` |
//! | `/do/vms/{vm}/copy` | target snapshot memory quiesce boot | `PostCopyTask` |
//! | `/do/copyTasks/{task}/hold` `release` | | `HoldCopyTask`, `ReleaseCopyTask` |
//! | `/do/copies/{copy}/restore` | way, and what its way asks | `PostRestore` |
//! | `/do/copies/{copy}/boot` | bootTimeoutSeconds bootPattern | `PostBoot` |
//! | `/do/copies/{copy}/hold` `release` `delete` | | `UpdateCopy`, `DeleteCopy` |
//! | `/do/targets/create`, `/do/targets/{target}/edit` | name kind attach passphrase again recipient identity mibPerSecond atOnce, and the fields of its kind as the API has them | `PostTarget`, `UpdateTarget` |
//! | `/do/targets/{target}/check` `verify` `prune` `detach` | percent | `CheckTarget` … |
//! | `/do/policies/create`, `/do/policies/{policy}/edit` | name schedule.cron schedule.timeZone vms label targets … retention.… with window verify.bootEvery enabled | `PostPolicy`, `UpdatePolicy` |
//! | `/do/policies/{policy}/retention` `on` `off` `run` `delete` | retention.… | `UpdatePolicy` … |
//! | `/do/sources/create`, `/do/sources/{source}/remove` | name kind disks.path | `PostSource`, `DeleteSource` |
//! | `/do/migrations/create`, `/do/migrations/{vm}/edit` | name source sourceVm target group policy.… targetDefaults.… network storage | `PostMigratingVm`, `UpdateMigratingVm` |
//! | `/do/migrationGroups/{group}/act`, `/do/migrationGroups/{group}/cutover` | action wave; cutoverWave powerOffAfterSeconds | `PostGroupAction`, `PostGroupCutover` |
//! | `/do/migrations/{vm}/start` `pause` `resume` `cycle` `extend` `check` `adapt` `delete` | | `StartMigration` … |
//! | `/do/migrations/{vm}/clone`, `/do/migrations/{vm}/judge/{clone}` | target.name isolated start keepHours; action note | `PostMigrationClone`, `PostJudgement` |
//! | `/do/migrations/{vm}/cutover` `finalize` | target.name powerOffAfterSeconds; keepCopies | `PostCutover`, `PostFinalize` |
//! | `/do/images/import` | name, url or path, format sha256 | `PostImage` |
//! | `/do/images/{image}/rename` `delete` | name | `UpdateImage`, `DeleteImage` |
//! | `/do/uploads/{upload}/delete`, `/do/exports/{export}/delete` | | `DeleteUpload`, `DeleteExport` |
//! | `/do/jobs/bulk` | action, id … | one call for each id |
//! | `/do/jobs/{job}/cancel` `retry` | | `CancelJob`, `RetryJob` |
//! | `/do/me/password` | password again | `PutPassword` |
//! | `/do/tokens/create` | name | `PostToken` |
//! | `/do/tokens/{token}/revoke` | | `DeleteToken` |
//! | `/do/notices/create`, `/do/notices/{channel}/edit` | name kind url to event … | `PostNoticeChannel`, `UpdateNoticeChannel` |
//! | `/do/notices/{channel}/on` `off` `test` `roll` `delete` | | `UpdateNoticeChannel` … |
//! | `/do/theme` | theme | the cookie `theme` |
//! | `/do/language` | language | the cookie `offshoot_language` |
//!
//! Every form may have `back`, the page it stands on, and `inline`, when it shows its own errors.

// What only the server runs is nothing for the browser to load.
#[cfg(not(feature = "hydrate"))]
mod copy;
#[cfg(not(feature = "hydrate"))]
mod image;
#[cfg(not(feature = "hydrate"))]
mod machine;
#[cfg(not(feature = "hydrate"))]
mod migration;
#[cfg(not(feature = "hydrate"))]
mod notice;
#[cfg(not(feature = "hydrate"))]
mod parse;
#[cfg(not(feature = "hydrate"))]
mod people;
#[cfg(not(feature = "hydrate"))]
mod place;
#[cfg(not(feature = "hydrate"))]
mod policy;

#[cfg(not(feature = "hydrate"))]
pub use parse::{Action, after, parse};

use serde::{Deserialize, Serialize};
use shared::Status;

/// The fields of a form, in order; a name may come twice.
pub type Fields = [(String, String)];

/// The cookie that keeps the [`crate::Theme`], for a year.
pub const THEME_COOKIE: &str = "theme";
/// The cookie that keeps the [`crate::Language`], for a year.
pub const LANGUAGE_COOKIE: &str = "offshoot_language";
/// The form that chooses the language. Its post is the browser's: the page is loaded anew, in other words.
pub(crate) const LANGUAGE: &str = "/do/language";
/// What `source` says for "snapshot now and clone"; else it is a snapshot's id, or nothing for the latest.
pub(crate) const SOURCE_NOW: &str = "now";
/// What `network` says for no NIC at all; else it is a network, or nothing for the isolated one.
pub(crate) const NETWORK_NONE: &str = "none";
/// What `network` says where all stays as it is. No network is called so.
pub(crate) const NETWORK_SAME: &str = "=";

/// What `way` says of a restore.
pub(crate) mod way {
    pub const VM: &str = "vm";
    pub const OVER: &str = "over";
    pub const DISKS: &str = "disks";
    pub const FILE: &str = "file";
}
/// What `kind` says of a source: the machines of this server.
pub(crate) const SOURCE_LOCAL: &str = "local";
/// Or exported machines in a directory.
pub(crate) const SOURCE_DISKS: &str = "disks";
/// A libvirt.
pub(crate) const SOURCE_LIBVIRT: &str = "libvirt";
/// What `adaptation` says: adapt uploads, or leave them as they are. Else as usual.
pub(crate) const ADAPT_YES: &str = "adapt";
pub(crate) const ADAPT_NO: &str = "skip";
/// What `start` says: at once, from the copy; or when all is there. Else it stays off.
pub(crate) const START_INSTANT: &str = "instant";
pub(crate) const START_AFTER: &str = "after";

/// What `of` says for a snapshot taken now; else it is a snapshot's name, or nothing for the machine as it is.
pub(crate) const EXPORT_NOW: &str = "now";

/// How a form went, as the page shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flash {
    /// The form's action.
    pub action: String,
    /// Whether the form shows its errors itself.
    #[serde(default)]
    pub inline: bool,
    /// What was done, in a few words.
    #[serde(default)]
    pub text: String,
    /// The job that does it.
    #[serde(default)]
    pub job: Option<String>,
    /// The secret of a new token, shown this once.
    #[serde(default)]
    pub secret: Option<String>,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<Status>,
    /// What was typed, when it went wrong; never a password.
    #[serde(default)]
    pub fields: Vec<(String, String)>,
}

/// What follows a form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Where to go; always a path of this console.
    pub to: String,
    /// What to tell.
    pub flash: Flash,
}

/// The path without the dialog that stood open in it.
pub(crate) fn without_dialog(path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let kept: Vec<_> = query
        .split('&')
        .filter(|p| !p.is_empty() && !["do=", "way=", "snapshot="].iter().any(|of| p.starts_with(of)))
        .collect();
    if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    }
}
