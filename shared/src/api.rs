//! The calls of the native API: each a type with its method, path, query, body and answer.
//! Console, command line and tests speak through these; the server's routes serve them.

use crate::access::audit::AuditEvent;
use crate::access::{
    CreateGrant, CreateRole, CreateToken, CreateUser, GiveCode, LinkOidc, Me, NewToken, OneTimeLink,
    PatchRole, PatchUser, RecoveryCodes, Role, Session, SetPassword, Token, TwoFactorSecret, User,
};
use crate::clone::{CloneJobView, CloneVm};
use crate::copy::{
    BootCopy, Copy, CopyFileSystems, CopyRun, CopyTask, CreateCopyTask, FileEntry, FilesQuery, PatchCopy,
    RestoreCopy,
};
use crate::edit::EditVm;
use crate::fork::{ForkPoint, InstantClone, MemoryUse};
use crate::image::{CreateExport, CreateImage, CreateUpload, Export, PatchImage, Upload};
use crate::job::{Job, LogLine};
use crate::migrate::groups::{CutOverGroup, Group, GroupAction, GroupResults, Groups};
use crate::migrate::views::{CutoverJob, Forecast, MigrationClone, ReplicationCycle};
use crate::migrate::{
    CreateCutover, CreateMigratingVm, CreateMigrationClone, CreateSource, FinalizeMigration, Inventory,
    JudgeClone, MigratingVm, PatchMigratingVm, Source,
};
use crate::notice::{CreateNoticeChannel, NewNoticeChannel, Notice, NoticeChannel, PatchNoticeChannel};
use crate::place::{
    CreateNetwork, CreateStorage, Host, Image, Network, PatchHost, PatchNetwork, PatchStorage, Storage,
};
use crate::policy::retain::{PreviewRetention, RetentionPreview};
use crate::policy::{CreatePolicy, PatchPolicy, Policy};
use crate::snapshot::{RevertSnapshot, Snapshot, TakeSnapshot};
use crate::target::{CreateTarget, PatchTarget, Target, VerifyTarget};
use crate::vm::{ConnectNics, CreateVm, PatchVm, StopVm, Vm};
use crate::{Code, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// A method of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
    Patch,
    Put,
    Delete,
}

impl Method {
    /// As it stands in a request line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// A call without its types: what goes over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCall {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The JSON body.
    pub body: Option<String>,
}

/// A typed call of the API.
pub trait Call {
    /// What a success answers.
    type Answer: DeserializeOwned + Serialize;

    /// The call as it goes over the wire.
    fn raw(&self) -> RawCall;
}

/// Reads the answer of a call from the HTTP status and body that came back.
pub fn answer<A: DeserializeOwned>(http: u16, body: &str) -> Result<A, Status> {
    if (200..300).contains(&http) {
        let body = if body.is_empty() { "null" } else { body };
        return serde_json::from_str(body)
            .map_err(|e| Status::new(Code::Internal, format!("the server's answer cannot be read: {e}")));
    }
    match serde_json::from_str::<crate::status::ErrorBody>(body) {
        Ok(body) => Err(body.error.into()),
        Err(_) => Err(Status::new(
            Code::Unknown,
            format!("the server answered HTTP {http} without an error of its own"),
        )),
    }
}

/// What a list call may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListQuery {
    /// At most this many, 1 to 1000; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u32>,
    /// `nextPageToken` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_token: Option<String>,
    /// Terms with a space between, all of which must hold: `state=RUNNING`, `name:web` (contains), `vm=<id or name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// A field, then perhaps ` desc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<String>,
}

/// Page size unless asked otherwise.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// Largest page.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// Percent-encodes what stands between two slashes, or behind a `=`.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            // Writing to a String cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

impl ListQuery {
    /// As a query, with its `?`; empty if it asks nothing.
    pub fn to_query(&self) -> String {
        let mut out = String::new();
        let mut put = |key: &str, value: &str| {
            out.push(if out.is_empty() { '?' } else { '&' });
            out.push_str(key);
            out.push('=');
            out.push_str(&encode(value));
        };
        if let Some(n) = self.page_size {
            put("pageSize", &n.to_string());
        }
        for (key, value) in [
            ("pageToken", &self.page_token),
            ("filter", &self.filter),
            ("orderBy", &self.order_by),
        ] {
            if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
                put(key, value);
            }
        }
        out
    }
}

macro_rules! pages {
    ($($(#[$doc:meta])* $name:ident { $field:ident: $item:ty })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The items of this page.
            pub $field: Vec<$item>,
            /// Asks for the next page; empty on the last.
            #[serde(default, skip_serializing_if = "String::is_empty")]
            pub next_page_token: String,
            /// How many there are on all pages, as the filter has it.
            #[serde(default)]
            pub total_size: u64,
        }
    )*};
}

pages! {
    /// A page of machines.
    VmPage { vms: Vm }
    /// A page of snapshots.
    SnapshotPage { snapshots: Snapshot }
    /// A page of jobs.
    JobPage { jobs: Job }
    /// A page of clone jobs.
    CloneJobPage { clone_jobs: CloneJobView }
    /// A page of fork points.
    ForkPointPage { fork_points: ForkPoint }
    /// A page of hosts.
    HostPage { hosts: Host }
    /// A page of storages.
    StoragePage { storages: Storage }
    /// A page of networks.
    NetworkPage { networks: Network }
    /// A page of images.
    ImagePage { images: Image }
    /// A page of uploads.
    UploadPage { uploads: Upload }
    /// A page of disks that were written to files.
    ExportPage { exports: Export }
    /// A page of tokens.
    TokenPage { tokens: Token }
    /// A page of a job's log.
    LogPage { lines: LogLine }
    /// A page of users.
    UserPage { users: User }
    /// A page of roles.
    RolePage { roles: Role }
    /// A page of sessions.
    SessionPage { sessions: Session }
    /// A page of what was done and refused.
    AuditPage { events: AuditEvent }
    /// A page of channels that notices go through.
    NoticeChannelPage { notice_channels: NoticeChannel }
    /// A page of notices.
    NoticePage { notices: Notice }
    /// A page of places that copies go to.
    TargetPage { targets: Target }
    /// A page of copies.
    CopyPage { copies: Copy }
    /// A page of copy tasks.
    CopyTaskPage { copy_tasks: CopyTask }
    /// A page of policies.
    PolicyPage { policies: Policy }
    /// A page of a directory in a copy.
    FilePage { entries: FileEntry }
    /// A page of copy runs.
    CopyRunPage { copy_runs: CopyRun }
    /// A page of sources.
    SourcePage { sources: Source }
    /// A page of machines that are carried over.
    MigratingVmPage { migrating_vms: MigratingVm }
    /// A page of cycles.
    CyclePage { replication_cycles: ReplicationCycle }
    /// A page of test clones.
    MigrationClonePage { clone_jobs: MigrationClone }
    /// A page of cutovers.
    CutoverPage { cutover_jobs: CutoverJob }
}

/// How many there are of what the console counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Machines.
    pub vms: u64,
    /// Machines that run.
    pub running_vms: u64,
    /// Machines in ERROR, or paused for want of space or by an I/O error.
    pub troubled_vms: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Jobs that are not over.
    pub active_jobs: u64,
    /// Jobs that failed in the last day.
    pub failed_jobs_last_day: u64,
    /// Whether the server simulates: nothing is real.
    pub simulated: bool,
    /// Version of the server.
    pub version: String,
}

/// The machines that go back to one instant, and what their memory costs the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Bytes that the frozen memory takes, once for all of them; nothing where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_bytes: Option<u64>,
    /// The machines: the one that was asked for first.
    pub members: Vec<FamilyMember>,
}

/// One of a family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct FamilyMember {
    /// The machine.
    pub vm: crate::VmId,
    /// Its name.
    pub name: crate::Name,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// What it costs; nothing for one that does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryUse>,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* } -> $answer:ty: |$me:ident| $method:ident $path:expr $(, $body:expr)?;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $ty),* }

        impl Call for $name {
            type Answer = $answer;
            fn raw(&self) -> RawCall {
                let $me = self;
                #[allow(unused_mut, unused_assignments)]
                let mut body = None;
                // A request is made of strings, numbers and maps with string keys: it always serialises.
                $(body = Some(serde_json::to_string(&$body).unwrap_or_default());)?
                RawCall { method: Method::$method, path: $path, body }
            }
        }
    )*};
}

fn vm_path(vm: &str, rest: &str) -> String {
    format!("/api/v1/vms/{}{rest}", encode(vm))
}

fn point_path(point: &str, rest: &str) -> String {
    format!("/api/v1/forkPoints/{}{rest}", encode(point))
}

fn user_path(user: &str, rest: &str) -> String {
    format!("/api/v1/users/{}{rest}", encode(user))
}

fn role_path(role: &str) -> String {
    format!("/api/v1/roles/{}", encode(role))
}

fn image_path(image: &str) -> String {
    format!("/api/v1/images/{}", encode(image))
}

fn upload_path(id: &str, rest: &str) -> String {
    format!("/api/v1/uploads/{}{rest}", encode(id))
}

fn export_path(id: &str, rest: &str) -> String {
    format!("/api/v1/exports/{}{rest}", encode(id))
}

/// Where a part of an upload goes that begins at `offset`.
pub fn part_path(upload: &str, offset: u64) -> String {
    upload_path(upload, &format!("/content?offset={offset}"))
}

/// Where the file is that a disk was written to.
pub fn content_path(export: &str) -> String {
    export_path(export, "/content")
}

fn channel_path(channel: &str, rest: &str) -> String {
    format!("/api/v1/noticeChannels/{}{rest}", encode(channel))
}

fn target_path(target: &str, rest: &str) -> String {
    format!("/api/v1/targets/{}{rest}", encode(target))
}

fn copy_path(copy: &str, rest: &str) -> String {
    format!("/api/v1/copies/{}{rest}", encode(copy))
}

fn migrating_path(vm: &str, rest: &str) -> String {
    format!("/api/v1/migratingVms/{}{rest}", encode(vm))
}

fn group_path(group: &str, rest: &str) -> String {
    format!("/api/v1/migrationGroups/{}{rest}", encode(group))
}

fn policy_path(policy: &str, rest: &str) -> String {
    format!("/api/v1/policies/{}{rest}", encode(policy))
}

/// Where a file of a copy is, or a directory as tar: its path as a list of its directory has it.
pub fn file_content_path(copy: &str, file_system: &str, path: &str) -> String {
    let query = format!("fileSystem={}&path={}", encode(file_system), encode(path));
    copy_path(copy, &format!("/files/content?{query}"))
}

fn files_path(copy: &str, query: &FilesQuery) -> String {
    let mut path = copy_path(copy, "/files?fileSystem=");
    path.push_str(&encode(&query.file_system));
    path.push_str(&format!("&path={}", encode(&query.path)));
    if let Some(n) = query.page_size {
        path.push_str(&format!("&pageSize={n}"));
    }
    if let Some(token) = query.page_token.as_deref().filter(|token| !token.is_empty()) {
        path.push_str(&format!("&pageToken={}", encode(token)));
    }
    path
}

fn task_path(task: &str, rest: &str) -> String {
    format!("/api/v1/copyTasks/{}{rest}", encode(task))
}

fn job_path(job: &str, rest: &str) -> String {
    format!("/api/v1/jobs/{}{rest}", encode(job))
}

calls! {
    /// Counts for the overview and the rail.
    GetSummary {} -> Summary: |_c| Get "/api/v1/summary".to_owned();
    /// Who is calling.
    GetMe {} -> Me: |_c| Get "/api/v1/me".to_owned();
    /// Sets one's own password.
    PutPassword { request: SetPassword } -> (): |c| Put "/api/v1/me/password".to_owned(), c.request;

    /// Machines.
    ListVms { query: ListQuery } -> VmPage: |c| Get format!("/api/v1/vms{}", c.query.to_query());
    /// Makes a machine.
    PostVm { request: CreateVm } -> Job: |c| Post "/api/v1/vms".to_owned(), c.request;
    /// One machine, by name or id.
    GetVm { vm: String } -> Vm: |c| Get vm_path(&c.vm, "");
    /// Renames a machine; changes its labels, its description, and whether it is started with its host.
    UpdateVm { vm: String, request: PatchVm } -> Vm: |c| Patch vm_path(&c.vm, ""), c.request;
    /// Deletes a machine.
    DeleteVm { vm: String } -> Job: |c| Delete vm_path(&c.vm, "");
    /// Starts a machine.
    Start { vm: String } -> Job: |c| Post vm_path(&c.vm, "/start"), serde_json::json!({});
    /// Stops a machine.
    Stop { vm: String, request: StopVm } -> Job: |c| Post vm_path(&c.vm, "/stop"), c.request;
    /// Resets a machine.
    Reset { vm: String } -> Job: |c| Post vm_path(&c.vm, "/reset"), serde_json::json!({});
    /// Pauses a machine.
    Pause { vm: String } -> Job: |c| Post vm_path(&c.vm, "/pause"), serde_json::json!({});
    /// Lets a paused machine go on.
    Resume { vm: String } -> Job: |c| Post vm_path(&c.vm, "/resume"), serde_json::json!({});

    /// Changes what a machine is made of.
    Edit { vm: String, request: EditVm } -> Job: |c| Post vm_path(&c.vm, "/edit"), c.request;
    /// Connects NICs of a machine to their networks.
    Connect { vm: String, request: ConnectNics } -> Job: |c| Post vm_path(&c.vm, "/connect"), c.request;
    /// Takes NICs of a machine off their networks.
    Disconnect { vm: String, request: ConnectNics } -> Job: |c| Post vm_path(&c.vm, "/disconnect"), c.request;

    /// Snapshots of a machine.
    ListSnapshots { vm: String, query: ListQuery } -> SnapshotPage:
        |c| Get vm_path(&c.vm, &format!("/snapshots{}", c.query.to_query()));
    /// Takes a snapshot.
    PostSnapshot { vm: String, request: TakeSnapshot } -> Job: |c| Post vm_path(&c.vm, "/snapshots"), c.request;
    /// One snapshot, by name or id.
    GetSnapshot { vm: String, snapshot: String } -> Snapshot:
        |c| Get vm_path(&c.vm, &format!("/snapshots/{}", encode(&c.snapshot)));

    /// Takes a machine back to a snapshot.
    PostRevert { vm: String, snapshot: String, request: RevertSnapshot } -> Job:
        |c| Post vm_path(&c.vm, &format!("/snapshots/{}/revert", encode(&c.snapshot))), c.request;
    /// Deletes a snapshot.
    DeleteSnapshot { vm: String, snapshot: String } -> Job:
        |c| Delete vm_path(&c.vm, &format!("/snapshots/{}", encode(&c.snapshot)));

    /// Clone jobs of a machine, newest first.
    ListCloneJobs { vm: String, query: ListQuery } -> CloneJobPage:
        |c| Get vm_path(&c.vm, &format!("/cloneJobs{}", c.query.to_query()));
    /// Clones a machine.
    PostCloneJob { vm: String, request: CloneVm } -> CloneJobView: |c| Post vm_path(&c.vm, "/cloneJobs"), c.request;
    /// One clone job.
    GetCloneJob { id: String } -> CloneJobView: |c| Get format!("/api/v1/cloneJobs/{}", encode(&c.id));
    /// Cancels a clone job.
    CancelCloneJob { id: String } -> CloneJobView:
        |c| Post format!("/api/v1/cloneJobs/{}/cancel", encode(&c.id)), serde_json::json!({});

    /// Jobs that fork a machine, newest first.
    ListInstantClones { vm: String, query: ListQuery } -> JobPage:
        |c| Get vm_path(&c.vm, &format!("/instantClones{}", c.query.to_query()));
    /// Forks a running machine.
    PostInstantClone { vm: String, request: InstantClone } -> Job: |c| Post vm_path(&c.vm, "/instantClones"), c.request;
    /// What a machine's memory, and that of those that were forked with it, costs the host.
    GetFamily { vm: String } -> Family: |c| Get vm_path(&c.vm, "/family");

    /// Fork points.
    ListForkPoints { query: ListQuery } -> ForkPointPage: |c| Get format!("/api/v1/forkPoints{}", c.query.to_query());
    /// One fork point, by name or id.
    GetForkPoint { point: String } -> ForkPoint: |c| Get point_path(&c.point, "");
    /// Forks a fork point.
    PostPointClone { point: String, request: InstantClone } -> Job: |c| Post point_path(&c.point, "/instantClones"), c.request;
    /// Deletes a fork point.
    DeleteForkPoint { point: String } -> Job: |c| Delete point_path(&c.point, "");

    /// Jobs, newest first.
    ListJobs { query: ListQuery } -> JobPage: |c| Get format!("/api/v1/jobs{}", c.query.to_query());
    /// One job.
    GetJob { id: String } -> Job: |c| Get job_path(&c.id, "");
    /// A job's log.
    GetJobLog { id: String, query: ListQuery } -> LogPage:
        |c| Get job_path(&c.id, &format!("/log{}", c.query.to_query()));
    /// Cancels a job.
    CancelJob { id: String } -> Job: |c| Post job_path(&c.id, "/cancel"), serde_json::json!({});
    /// Tries a job again, as a new one.
    RetryJob { id: String } -> Job: |c| Post job_path(&c.id, "/retry"), serde_json::json!({});

    /// Hosts.
    ListHosts { query: ListQuery } -> HostPage: |c| Get format!("/api/v1/hosts{}", c.query.to_query());
    /// One host.
    GetHost { host: String } -> Host: |c| Get format!("/api/v1/hosts/{}", encode(&c.host));
    /// Storages.
    ListStorages { query: ListQuery } -> StoragePage: |c| Get format!("/api/v1/storages{}", c.query.to_query());
    /// One storage.
    GetStorage { storage: String } -> Storage: |c| Get format!("/api/v1/storages/{}", encode(&c.storage));
    /// Networks.
    ListNetworks { query: ListQuery } -> NetworkPage: |c| Get format!("/api/v1/networks{}", c.query.to_query());
    /// One network.
    GetNetwork { network: String } -> Network: |c| Get format!("/api/v1/networks/{}", encode(&c.network));
    /// Takes a host out for maintenance, or back.
    UpdateHost { host: String, request: PatchHost } -> Host:
        |c| Patch format!("/api/v1/hosts/{}", encode(&c.host)), c.request;
    /// Adds a storage.
    PostStorage { request: CreateStorage } -> Storage: |c| Post "/api/v1/storages".to_owned(), c.request;
    /// Changes a storage.
    UpdateStorage { storage: String, request: PatchStorage } -> Storage:
        |c| Patch format!("/api/v1/storages/{}", encode(&c.storage)), c.request;
    /// Removes a storage; its directory stays.
    DeleteStorage { storage: String } -> (): |c| Delete format!("/api/v1/storages/{}", encode(&c.storage));
    /// Adds a network.
    PostNetwork { request: CreateNetwork } -> Network: |c| Post "/api/v1/networks".to_owned(), c.request;
    /// Changes a network.
    UpdateNetwork { network: String, request: PatchNetwork } -> Network:
        |c| Patch format!("/api/v1/networks/{}", encode(&c.network)), c.request;
    /// Removes a network.
    DeleteNetwork { network: String } -> (): |c| Delete format!("/api/v1/networks/{}", encode(&c.network));

    /// Places that copies go to.
    ListTargets { query: ListQuery } -> TargetPage: |c| Get format!("/api/v1/targets{}", c.query.to_query());
    /// One target, by name or id.
    GetTarget { target: String } -> Target: |c| Get target_path(&c.target, "");
    /// Adds a target: makes a vault there, or takes the one that is there.
    PostTarget { request: CreateTarget } -> Target: |c| Post "/api/v1/targets".to_owned(), c.request;
    /// Changes a target.
    UpdateTarget { target: String, request: PatchTarget } -> Target: |c| Patch target_path(&c.target, ""), c.request;
    /// Detaches a target: what is there stays.
    DeleteTarget { target: String } -> (): |c| Delete target_path(&c.target, "");
    /// Tries a target again, and reads which copies are there.
    CheckTarget { target: String } -> Target: |c| Post target_path(&c.target, "/check"), serde_json::json!({});
    /// Looks at all that a target has.
    VerifyTargetNow { target: String, request: VerifyTarget } -> Job:
        |c| Post target_path(&c.target, "/verify"), c.request;
    /// Takes out of a target what no copy needs.
    PruneTarget { target: String } -> Job: |c| Post target_path(&c.target, "/prune"), serde_json::json!({});

    /// Tasks that copy snapshots of a machine, newest first.
    ListCopyTasks { vm: String, query: ListQuery } -> CopyTaskPage:
        |c| Get vm_path(&c.vm, &format!("/copyTasks{}", c.query.to_query()));
    /// Copies a snapshot of a machine.
    PostCopyTask { vm: String, request: CreateCopyTask } -> CopyTask: |c| Post vm_path(&c.vm, "/copyTasks"), c.request;
    /// Tasks that copy snapshots, newest first.
    ListAllCopyTasks { query: ListQuery } -> CopyTaskPage: |c| Get format!("/api/v1/copyTasks{}", c.query.to_query());
    /// One copy task.
    GetCopyTask { task: String } -> CopyTask: |c| Get task_path(&c.task, "");
    /// Cancels a copy task.
    CancelCopyTask { task: String } -> CopyTask: |c| Post task_path(&c.task, "/cancel"), serde_json::json!({});
    /// Has a copy task stand still.
    HoldCopyTask { task: String } -> CopyTask: |c| Post task_path(&c.task, "/hold"), serde_json::json!({});
    /// Lets a copy task go on.
    ReleaseCopyTask { task: String } -> CopyTask: |c| Post task_path(&c.task, "/release"), serde_json::json!({});

    /// Copies, newest first.
    ListCopies { query: ListQuery } -> CopyPage: |c| Get format!("/api/v1/copies{}", c.query.to_query());
    /// One copy, by its id.
    GetCopy { copy: String } -> Copy: |c| Get copy_path(&c.copy, "");
    /// Puts a copy under legal hold, or takes that back.
    UpdateCopy { copy: String, request: PatchCopy } -> Copy: |c| Patch copy_path(&c.copy, ""), c.request;
    /// Removes a copy.
    DeleteCopy { copy: String } -> (): |c| Delete copy_path(&c.copy, "");
    /// Brings a copy back.
    PostRestore { copy: String, request: RestoreCopy } -> Job: |c| Post copy_path(&c.copy, "/restore"), c.request;
    /// Boots a copy, to see that it does.
    PostBoot { copy: String, request: BootCopy } -> Job: |c| Post copy_path(&c.copy, "/boot"), c.request;
    /// The file systems of a copy: opens them, and says how far that is.
    ListFileSystems { copy: String } -> CopyFileSystems: |c| Get copy_path(&c.copy, "/fileSystems");
    /// A directory of a copy whose file systems are open.
    ListFiles { copy: String, query: FilesQuery } -> FilePage: |c| Get files_path(&c.copy, &c.query);
    /// Closes the file systems of a copy, before they are by themselves.
    CloseFileSystems { copy: String } -> (): |c| Delete copy_path(&c.copy, "/fileSystems");

    /// Policies.
    ListPolicies { query: ListQuery } -> PolicyPage: |c| Get format!("/api/v1/policies{}", c.query.to_query());
    /// One policy, by name or id.
    GetPolicy { policy: String } -> Policy: |c| Get policy_path(&c.policy, "");
    /// Makes a policy.
    PostPolicy { request: CreatePolicy } -> Policy: |c| Post "/api/v1/policies".to_owned(), c.request;
    /// Changes a policy.
    UpdatePolicy { policy: String, request: PatchPolicy } -> Policy: |c| Patch policy_path(&c.policy, ""), c.request;
    /// Removes a policy: the copies that it made stay.
    DeletePolicy { policy: String } -> (): |c| Delete policy_path(&c.policy, "");
    /// Which copies these rules would keep in the place of the policy's.
    PreviewPolicy { policy: String, request: PreviewRetention } -> RetentionPreview:
        |c| Post policy_path(&c.policy, "/preview"), c.request;
    /// Makes the copies of a policy now.
    RunPolicy { policy: String } -> CopyRun: |c| Post policy_path(&c.policy, "/run"), serde_json::json!({});
    /// Copy runs, newest first.
    ListCopyRuns { query: ListQuery } -> CopyRunPage: |c| Get format!("/api/v1/copyRuns{}", c.query.to_query());
    /// One copy run, by its id.
    GetCopyRun { run: String } -> CopyRun: |c| Get format!("/api/v1/copyRuns/{}", encode(&c.run));

    /// Where machines live that are carried over.
    ListSources { query: ListQuery } -> SourcePage: |c| Get format!("/api/v1/sources{}", c.query.to_query());
    /// One source, by name or id.
    GetSource { source: String } -> Source: |c| Get format!("/api/v1/sources/{}", encode(&c.source));
    /// Adds a source.
    PostSource { request: CreateSource } -> Source: |c| Post "/api/v1/sources".to_owned(), c.request;
    /// Removes a source that nothing is carried over from.
    DeleteSource { source: String } -> (): |c| Delete format!("/api/v1/sources/{}", encode(&c.source));
    /// What a source has.
    GetInventory { source: String } -> Inventory:
        |c| Get format!("/api/v1/sources/{}/inventory", encode(&c.source));

    /// Machines that are carried over.
    ListMigratingVms { query: ListQuery } -> MigratingVmPage:
        |c| Get format!("/api/v1/migratingVms{}", c.query.to_query());
    /// One of them, by name or id.
    GetMigratingVm { vm: String } -> MigratingVm: |c| Get migrating_path(&c.vm, "");
    /// Carries a machine over.
    PostMigratingVm { request: CreateMigratingVm } -> MigratingVm: |c| Post "/api/v1/migratingVms".to_owned(), c.request;
    /// Changes what is asked of it.
    UpdateMigratingVm { vm: String, request: PatchMigratingVm } -> MigratingVm:
        |c| Patch migrating_path(&c.vm, ""), c.request;
    /// Takes a migration off the books: its uploads stay at the target.
    DeleteMigratingVm { vm: String } -> (): |c| Delete migrating_path(&c.vm, "");
    /// Starts its cycles.
    StartMigration { vm: String } -> MigratingVm: |c| Post migrating_path(&c.vm, "/start"), serde_json::json!({});
    /// Stops its cycles; one that is at work is cancelled, and what it has uploaded is found again.
    PauseMigration { vm: String } -> MigratingVm: |c| Post migrating_path(&c.vm, "/pause"), serde_json::json!({});
    /// Goes on with its cycles.
    ResumeMigration { vm: String } -> MigratingVm: |c| Post migrating_path(&c.vm, "/resume"), serde_json::json!({});
    /// Begins a cycle now.
    CycleNow { vm: String } -> MigratingVm: |c| Post migrating_path(&c.vm, "/cycle"), serde_json::json!({});
    /// Gives it more time until it expires.
    ExtendMigration { vm: String } -> MigratingVm: |c| Post migrating_path(&c.vm, "/extend"), serde_json::json!({});
    /// Looks at it again.
    CheckMigration { vm: String } -> MigratingVm: |c| Post migrating_path(&c.vm, "/check"), serde_json::json!({});
    /// Removes what it kept, after its cutover.
    PostFinalize { vm: String, request: FinalizeMigration } -> Job:
        |c| Post migrating_path(&c.vm, "/finalize"), c.request;
    /// Its cycles, newest first.
    ListCycles { vm: String, query: ListQuery } -> CyclePage:
        |c| Get migrating_path(&c.vm, &format!("/replicationCycles{}", c.query.to_query()));
    /// Its test clones, newest first.
    ListMigrationClones { vm: String, query: ListQuery } -> MigrationClonePage:
        |c| Get migrating_path(&c.vm, &format!("/cloneJobs{}", c.query.to_query()));
    /// Makes a test clone of what was uploaded.
    PostMigrationClone { vm: String, request: CreateMigrationClone } -> MigrationClone:
        |c| Post migrating_path(&c.vm, "/cloneJobs"), c.request;
    /// Says whether a test clone does what it should.
    PostJudgement { vm: String, clone: String, request: JudgeClone } -> MigrationClone:
        |c| Post migrating_path(&c.vm, &format!("/cloneJobs/{}/judge", encode(&c.clone))), c.request;
    /// Its cutovers, newest first.
    ListCutovers { vm: String, query: ListQuery } -> CutoverPage:
        |c| Get migrating_path(&c.vm, &format!("/cutoverJobs{}", c.query.to_query()));
    /// Cuts it over.
    PostCutover { vm: String, request: CreateCutover } -> CutoverJob:
        |c| Post migrating_path(&c.vm, "/cutoverJobs"), c.request;
    /// Adapts its last upload again.
    AdaptMigration { vm: String } -> Job: |c| Post migrating_path(&c.vm, "/adapt"), serde_json::json!({});
    /// Looks whether its last upload can be adapted, and what that would change.
    CheckOs { vm: String } -> Job: |c| Post migrating_path(&c.vm, "/checkOs"), serde_json::json!({});
    /// Groups of machines that are carried over, by name.
    ListGroups {} -> Groups: |_c| Get "/api/v1/migrationGroups".to_owned();
    /// One group, by name.
    GetGroup { group: String } -> Group: |c| Get group_path(&c.group, "");
    /// Asks something of all machines of a group, or of one of its waves.
    PostGroupAction { group: String, request: GroupAction } -> GroupResults:
        |c| Post group_path(&c.group, "/act"), c.request;
    /// Cuts a group over, wave by wave.
    PostGroupCutover { group: String, request: CutOverGroup } -> Job:
        |c| Post group_path(&c.group, "/cutoverJobs"), c.request;
    /// What a cutover would do, and how long it would take by what was measured.
    GetForecast { vm: String } -> Forecast: |c| Get migrating_path(&c.vm, "/forecast");

    /// Images.
    ListImages { query: ListQuery } -> ImagePage: |c| Get format!("/api/v1/images{}", c.query.to_query());
    /// One image.
    GetImage { image: String } -> Image: |c| Get image_path(&c.image);
    /// Brings an image in, by address or by path, or makes one of a snapshot.
    PostImage { request: CreateImage } -> Job: |c| Post "/api/v1/images".to_owned(), c.request;
    /// Renames an image.
    UpdateImage { image: String, request: PatchImage } -> Image: |c| Patch image_path(&c.image), c.request;
    /// Deletes an image.
    DeleteImage { image: String } -> Job: |c| Delete image_path(&c.image);

    /// Uploads that are not finished.
    ListUploads { query: ListQuery } -> UploadPage: |c| Get format!("/api/v1/uploads{}", c.query.to_query());
    /// Begins an upload; its parts go as they are to [`part_path`].
    PostUpload { request: CreateUpload } -> Upload: |c| Post "/api/v1/uploads".to_owned(), c.request;
    /// One upload: how much has arrived.
    GetUpload { id: String } -> Upload: |c| Get upload_path(&c.id, "");
    /// Makes an image of what was uploaded.
    FinishUpload { id: String } -> Job: |c| Post upload_path(&c.id, "/finish"), serde_json::json!({});
    /// Throws an upload away.
    DeleteUpload { id: String } -> (): |c| Delete upload_path(&c.id, "");

    /// Writes a disk of a machine to a file.
    PostExport { vm: String, request: CreateExport } -> Job: |c| Post vm_path(&c.vm, "/exports"), c.request;
    /// Disks that were written to files.
    ListExports { query: ListQuery } -> ExportPage: |c| Get format!("/api/v1/exports{}", c.query.to_query());
    /// One of them; its file is at [`content_path`].
    GetExport { id: String } -> Export: |c| Get export_path(&c.id, "");
    /// Removes one.
    DeleteExport { id: String } -> (): |c| Delete export_path(&c.id, "");

    /// One's own tokens.
    ListTokens { query: ListQuery } -> TokenPage: |c| Get format!("/api/v1/tokens{}", c.query.to_query());
    /// Makes a token.
    PostToken { request: CreateToken } -> NewToken: |c| Post "/api/v1/tokens".to_owned(), c.request;
    /// Takes a token back.
    DeleteToken { id: String } -> (): |c| Delete format!("/api/v1/tokens/{}", encode(&c.id));

    /// One's own sessions, or those of a user.
    ListSessions { user: Option<String> } -> SessionPage: |c| Get match &c.user {
        None => "/api/v1/sessions".to_owned(),
        Some(user) => user_path(user, "/sessions"),
    };
    /// Ends a session: one's own, or that of a user.
    DeleteSession { user: Option<String>, id: String } -> (): |c| Delete match &c.user {
        None => format!("/api/v1/sessions/{}", encode(&c.id)),
        Some(user) => user_path(user, &format!("/sessions/{}", encode(&c.id))),
    };
    /// Begins to ask for a second factor: what an app needs to know.
    PostTwoFactor {} -> TwoFactorSecret: |_c| Post "/api/v1/me/twoFactor".to_owned(), serde_json::json!({});
    /// The same again, while it is being set up.
    GetTwoFactor {} -> TwoFactorSecret: |_c| Get "/api/v1/me/twoFactor".to_owned();
    /// Asks for a second factor from now on, which a code proves to be there.
    ConfirmTwoFactor { request: GiveCode } -> RecoveryCodes: |c| Post "/api/v1/me/twoFactor/confirm".to_owned(), c.request;
    /// Asks for no second factor any more.
    DeleteTwoFactor { request: GiveCode } -> (): |c| Post "/api/v1/me/twoFactor/remove".to_owned(), c.request;

    /// Users.
    ListUsers { query: ListQuery } -> UserPage: |c| Get format!("/api/v1/users{}", c.query.to_query());
    /// One user, by name or id.
    GetUser { user: String } -> User: |c| Get user_path(&c.user, "");
    /// Adds a user.
    PostUser { request: CreateUser } -> User: |c| Post "/api/v1/users".to_owned(), c.request;
    /// Changes a user.
    UpdateUser { user: String, request: PatchUser } -> User: |c| Patch user_path(&c.user, ""), c.request;
    /// Removes a user.
    DeleteUser { user: String } -> (): |c| Delete user_path(&c.user, "");
    /// Sets a user's password.
    PutUserPassword { user: String, request: SetPassword } -> (): |c| Put user_path(&c.user, "/password"), c.request;
    /// Makes a link that signs a user in once.
    PostUserLink { user: String } -> OneTimeLink: |c| Post user_path(&c.user, "/link"), serde_json::json!({});
    /// Asks a user for no second factor any more.
    DeleteUserTwoFactor { user: String } -> User: |c| Delete user_path(&c.user, "/twoFactor");
    /// Has somebody of the OpenID Connect provider sign in as a user.
    PutUserOidc { user: String, request: LinkOidc } -> User: |c| Put user_path(&c.user, "/oidc"), c.request;
    /// Lets nobody of the provider sign in as a user any more.
    DeleteUserOidc { user: String } -> User: |c| Delete user_path(&c.user, "/oidc");
    /// Gives a user a role.
    PostGrant { user: String, request: CreateGrant } -> User: |c| Post user_path(&c.user, "/grants"), c.request;
    /// Takes a role away from a user.
    DeleteGrant { user: String, grant: String } -> User:
        |c| Delete user_path(&c.user, &format!("/grants/{}", encode(&c.grant)));

    /// Roles.
    ListRoles { query: ListQuery } -> RolePage: |c| Get format!("/api/v1/roles{}", c.query.to_query());
    /// One role, by name or id.
    GetRole { role: String } -> Role: |c| Get role_path(&c.role);
    /// Makes a role.
    PostRole { request: CreateRole } -> Role: |c| Post "/api/v1/roles".to_owned(), c.request;
    /// Changes a role.
    UpdateRole { role: String, request: PatchRole } -> Role: |c| Patch role_path(&c.role), c.request;
    /// Deletes a role that nobody has.
    DeleteRole { role: String } -> (): |c| Delete role_path(&c.role);

    /// What was done and refused, newest first.
    ListAudit { query: ListQuery } -> AuditPage: |c| Get format!("/api/v1/audit{}", c.query.to_query());

    /// Channels that notices go through.
    ListNoticeChannels { query: ListQuery } -> NoticeChannelPage:
        |c| Get format!("/api/v1/noticeChannels{}", c.query.to_query());
    /// One channel, by name or id.
    GetNoticeChannel { channel: String } -> NoticeChannel: |c| Get channel_path(&c.channel, "");
    /// Makes a channel.
    PostNoticeChannel { request: CreateNoticeChannel } -> NewNoticeChannel:
        |c| Post "/api/v1/noticeChannels".to_owned(), c.request;
    /// Changes a channel.
    UpdateNoticeChannel { channel: String, request: PatchNoticeChannel } -> NoticeChannel:
        |c| Patch channel_path(&c.channel, ""), c.request;
    /// Deletes a channel, with what waits there.
    DeleteNoticeChannel { channel: String } -> (): |c| Delete channel_path(&c.channel, "");
    /// Has a webhook sign with another secret.
    RollNoticeSecret { channel: String } -> NewNoticeChannel:
        |c| Post channel_path(&c.channel, "/rollSecret"), serde_json::json!({});
    /// Sends a notice of nothing.
    TestNoticeChannel { channel: String } -> Notice: |c| Post channel_path(&c.channel, "/test"), serde_json::json!({});
    /// What went through a channel, newest first.
    ListNotices { channel: String, query: ListQuery } -> NoticePage:
        |c| Get channel_path(&c.channel, &format!("/notices{}", c.query.to_query()));

    /// Releases the jobs that wait at this step in the simulation; only with `--sim`.
    ReleaseSim { name: String } -> (): |c| Post format!("/api/v1/sim/{}/release", encode(&c.name)), serde_json::json!({});
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_typed_cannot_change_the_path() {
        assert_eq!(
            GetVm {
                vm: "../users?x=/".into()
            }
            .raw()
            .path,
            "/api/v1/vms/..%2Fusers%3Fx%3D%2F"
        );
        let query = ListQuery {
            filter: Some("name:a b&c".into()),
            page_size: Some(5),
            ..Default::default()
        };
        assert_eq!(
            ListVms { query }.raw().path,
            "/api/v1/vms?pageSize=5&filter=name%3Aa%20b%26c"
        );
    }

    #[test]
    fn a_path_in_a_copy_arrives_as_it_is() {
        let path = file_content_path("1/2", "/dev/sda1", "/a b&c\\xff");
        let query = "fileSystem=%2Fdev%2Fsda1&path=%2Fa%20b%26c%5Cxff";
        assert_eq!(path, format!("/api/v1/copies/1%2F2/files/content?{query}"));
    }

    #[test]
    fn an_error_comes_back_as_a_status() {
        let body = r#"{"error":{"code":409,"status":"FAILED_PRECONDITION","message":"no","details":[],"traceId":"t1"}}"#;
        let e = answer::<()>(409, body).unwrap_err();
        assert_eq!(
            (e.code, e.message.as_str(), e.trace_id()),
            (Code::FailedPrecondition, "no", Some("t1"))
        );
        assert_eq!(answer::<()>(502, "<html>").unwrap_err().code, Code::Unknown);
        assert_eq!(answer::<()>(204, ""), Ok(()));
    }
}
