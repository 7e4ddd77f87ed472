//! Sources, and the machines that are carried over from them.

use super::{accepted, accepted_job, by};
use crate::access::Caller;
use crate::http::Server;
use crate::http::error::ApiResult;
use crate::http::extract::{Body, Nothing, Path, Query};
use crate::http::route::Api;
use crate::inventory::migrations as inventory;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use shared::access::Privilege;
use shared::api::{CutoverPage, CyclePage, ListQuery, MigratingVmPage, MigrationClonePage, SourcePage};
use shared::job::Job;
use shared::migrate::groups::{CutOverGroup, Group, GroupAction, GroupResults, GroupVerb, Groups};
use shared::migrate::views::{CutoverJob, Forecast, Judged, MigrationClone};
use shared::migrate::{
    CreateCutover, CreateMigratingVm, CreateMigrationClone, CreateSource, FinalizeMigration, Inventory,
    JudgeClone, MigratingVm, PatchMigratingVm, Source,
};
use shared::{Code, Status};
use utoipa_axum::routes;

pub(super) fn routes(api: Api) -> Api {
    let (read, manage) = (Privilege::MigrationRead, Privilege::MigrationManage);
    api.route(read, routes!(list_sources))
        .route(manage, routes!(create_source))
        .route(read, routes!(get_source))
        .route(manage, routes!(delete_source))
        .route(read, routes!(get_inventory))
        .route(read, routes!(list_migrating_vms))
        .route(manage, routes!(create_migrating_vm))
        .route(read, routes!(get_migrating_vm))
        .route(manage, routes!(update_migrating_vm))
        .route(manage, routes!(delete_migrating_vm))
        .route(manage, routes!(start_migration))
        .route(manage, routes!(pause_migration))
        .route(manage, routes!(resume_migration))
        .route(manage, routes!(cycle_now))
        .route(manage, routes!(extend_migration))
        .route(manage, routes!(check_migration))
        .route(manage, routes!(finalize_migration))
        .route(read, routes!(list_cycles))
        .route(read, routes!(list_migration_clones))
        .route(manage, routes!(create_migration_clone))
        .route(manage, routes!(judge_clone))
        .route(read, routes!(list_cutovers))
        .route(manage, routes!(create_cutover))
        .route(read, routes!(get_forecast))
        .route(manage, routes!(adapt_migration))
        .route(manage, routes!(check_os))
        .route(read, routes!(list_groups))
        .route(read, routes!(get_group))
        .route(manage, routes!(act_on_group))
        .route(manage, routes!(cut_over_group))
}

/// Where machines live that are carried over.
#[utoipa::path(get, path = "/api/v1/sources", tag = "migration", params(ListQuery),
    responses((status = 200, body = SourcePage)))]
async fn list_sources(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<SourcePage>> {
    let page = inventory::sources(server.world(), &query).await?;
    Ok(Json(SourcePage {
        sources: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Adds a source.
#[utoipa::path(post, path = "/api/v1/sources", tag = "migration", request_body = CreateSource,
    responses((status = 201, body = Source)))]
async fn create_source(
    State(server): State<Server>,
    Body(request): Body<CreateSource>,
) -> ApiResult<impl IntoResponse> {
    let id = server.jobs.create_source(request).await?.to_string();
    let made = inventory::source(server.world(), &id).await?;
    let location = format!("/api/v1/sources/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

/// One source, by name or id.
#[utoipa::path(get, path = "/api/v1/sources/{source}", tag = "migration", responses((status = 200, body = Source)),
    params(("source" = String, Path, description = "Name or id")))]
async fn get_source(State(server): State<Server>, Path(source): Path<String>) -> ApiResult<Json<Source>> {
    Ok(Json(inventory::source(server.world(), &source).await?))
}

/// Removes a source that nothing is carried over from.
#[utoipa::path(delete, path = "/api/v1/sources/{source}", tag = "migration", responses((status = 204)),
    params(("source" = String, Path, description = "Name or id")))]
async fn delete_source(State(server): State<Server>, Path(source): Path<String>) -> ApiResult<StatusCode> {
    server.jobs.delete_source(&source).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The machines that a source has.
#[utoipa::path(get, path = "/api/v1/sources/{source}/inventory", tag = "migration",
    responses((status = 200, body = Inventory)), params(("source" = String, Path, description = "Name or id")))]
async fn get_inventory(
    State(server): State<Server>,
    Path(source): Path<String>,
) -> ApiResult<Json<Inventory>> {
    Ok(Json(inventory::inventory(server.world(), &source).await?))
}

/// Machines that are carried over.
#[utoipa::path(get, path = "/api/v1/migratingVms", tag = "migration", params(ListQuery),
    responses((status = 200, body = MigratingVmPage)))]
async fn list_migrating_vms(
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<MigratingVmPage>> {
    let page = inventory::migrating_vms(server.world(), &query).await?;
    Ok(Json(MigratingVmPage {
        migrating_vms: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Carries a machine over: it is looked at, and then waits to be started.
#[utoipa::path(post, path = "/api/v1/migratingVms", tag = "migration", request_body = CreateMigratingVm,
    responses((status = 201, body = MigratingVm)))]
async fn create_migrating_vm(
    State(server): State<Server>,
    Body(request): Body<CreateMigratingVm>,
) -> ApiResult<impl IntoResponse> {
    let id = server.jobs.create_migrating_vm(request).await?.to_string();
    let made = inventory::migrating_vm(server.world(), &id).await?;
    let location = format!("/api/v1/migratingVms/{id}");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(made)))
}

/// One machine that is carried over, by its migration's name or id.
#[utoipa::path(get, path = "/api/v1/migratingVms/{vm}", tag = "migration",
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn get_migrating_vm(
    State(server): State<Server>,
    Path(vm): Path<String>,
) -> ApiResult<Json<MigratingVm>> {
    Ok(Json(inventory::migrating_vm(server.world(), &vm).await?))
}

/// Changes what is asked of a migration.
#[utoipa::path(patch, path = "/api/v1/migratingVms/{vm}", tag = "migration", request_body = PatchMigratingVm,
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn update_migrating_vm(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(request): Body<PatchMigratingVm>,
) -> ApiResult<Json<MigratingVm>> {
    let id = server.jobs.update_migrating_vm(&vm, request).await?.id;
    Ok(Json(
        inventory::migrating_vm(server.world(), &id.to_string()).await?,
    ))
}

/// Takes a migration off the books. Its uploads stay at the target, as copies like any other.
#[utoipa::path(delete, path = "/api/v1/migratingVms/{vm}", tag = "migration", responses((status = 204)),
    params(("vm" = String, Path, description = "Name or id")))]
async fn delete_migrating_vm(State(server): State<Server>, Path(vm): Path<String>) -> ApiResult<StatusCode> {
    server.jobs.delete_migrating_vm(&vm).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The migration as it is after a change.
async fn now(server: &Server, changed: MigratingVm) -> ApiResult<Json<MigratingVm>> {
    Ok(Json(
        inventory::migrating_vm(server.world(), &changed.id.to_string()).await?,
    ))
}

/// Starts the cycles of a migration.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/start", tag = "migration",
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn start_migration(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<MigratingVm>> {
    now(&server, server.jobs.start_migration(&vm).await?).await
}

/// Stops the cycles. One that is at work is cancelled; what it has uploaded is found again.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/pause", tag = "migration",
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn pause_migration(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<MigratingVm>> {
    now(&server, server.jobs.pause_migration(&vm).await?).await
}

/// Goes on with the cycles: after a pause, or after a cutover that is not finalized.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/resume", tag = "migration",
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn resume_migration(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<MigratingVm>> {
    now(&server, server.jobs.resume_migration(&vm).await?).await
}

/// Has the next cycle begin now.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/cycle", tag = "migration",
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn cycle_now(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<MigratingVm>> {
    now(&server, server.jobs.cycle_now(&vm).await?).await
}

/// Gives a migration as much time again until it expires.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/extend", tag = "migration",
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn extend_migration(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<MigratingVm>> {
    now(&server, server.jobs.extend_migration(&vm).await?).await
}

/// Looks again whether a machine can be carried over.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/check", tag = "migration",
    responses((status = 200, body = MigratingVm)), params(("vm" = String, Path, description = "Name or id")))]
async fn check_migration(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Json<MigratingVm>> {
    now(&server, server.jobs.check_migration(&vm).await?).await
}

/// Adapts the last upload of a migration again, alone. After each cycle it is done by itself, unless the policy skips it.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/adapt", tag = "migration",
    responses((status = 202, body = Job)), params(("vm" = String, Path, description = "Name or id")))]
async fn adapt_migration(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let job = server.jobs.adapt_migration(&vm, by(&caller)).await?;
    Ok(accepted_job(&job))
}

/// Looks whether the last upload of a migration can be adapted, and what that would change: before a cutover, or where the policy
/// skips adaptation. Nothing is written.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/checkOs", tag = "migration",
    responses((status = 202, body = Job)), params(("vm" = String, Path, description = "Name or id")))]
async fn check_os(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(Nothing {}): Body<Nothing>,
) -> ApiResult<Response> {
    let job = server.jobs.check_os(&vm, by(&caller)).await?;
    Ok(accepted_job(&job))
}

/// Groups of machines that are carried over, by name. A group is there as long as a migration names it.
#[utoipa::path(get, path = "/api/v1/migrationGroups", tag = "migration", responses((status = 200, body = Groups)))]
async fn list_groups(State(server): State<Server>) -> ApiResult<Json<Groups>> {
    Ok(Json(inventory::groups(server.world()).await?))
}

/// One group: its waves, and how far it has come.
#[utoipa::path(get, path = "/api/v1/migrationGroups/{group}", tag = "migration",
    responses((status = 200, body = Group)), params(("group" = String, Path, description = "Its name")))]
async fn get_group(State(server): State<Server>, Path(group): Path<String>) -> ApiResult<Json<Group>> {
    Ok(Json(inventory::group(server.world(), &group).await?))
}

/// Asks something of all machines of a group, or of one of its waves: each answers for itself. What is asked of each asks for
/// the same privileges here.
#[utoipa::path(post, path = "/api/v1/migrationGroups/{group}/act", tag = "migration", request_body = GroupAction,
    responses((status = 200, body = GroupResults)), params(("group" = String, Path, description = "Its name")))]
async fn act_on_group(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(group): Path<String>,
    Body(request): Body<GroupAction>,
) -> ApiResult<Json<GroupResults>> {
    if request.verb == GroupVerb::Clone {
        caller.must(Privilege::VmCreate, None)?;
    }
    Ok(Json(
        server.jobs.act_on_group(&group, request, by(&caller)).await?,
    ))
}

/// Cuts a group over, wave by wave: those of a wave at the same time, and the next when all of them run where they were to go.
/// It asks for `vm.create` and `vm.power`, too.
#[utoipa::path(post, path = "/api/v1/migrationGroups/{group}/cutoverJobs", tag = "migration",
    request_body = CutOverGroup, responses((status = 202, body = Job)),
    params(("group" = String, Path, description = "Its name")))]
async fn cut_over_group(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(group): Path<String>,
    Body(request): Body<CutOverGroup>,
) -> ApiResult<Response> {
    caller.must(Privilege::VmCreate, None)?;
    caller.must(Privilege::VmPower, None)?;
    let job = server.jobs.cut_over_group(&group, request, by(&caller)).await?;
    Ok(accepted_job(&job))
}

/// Removes what a migration kept, after its cutover.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/finalize", tag = "migration", request_body = FinalizeMigration,
    responses((status = 202, body = Job)), params(("vm" = String, Path, description = "Name or id")))]
async fn finalize_migration(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<FinalizeMigration>,
) -> ApiResult<Response> {
    let job = server.jobs.finalize_migration(&vm, request, by(&caller)).await?;
    Ok(accepted_job(&job))
}

/// The cycles of a migration, newest first.
#[utoipa::path(get, path = "/api/v1/migratingVms/{vm}/replicationCycles", tag = "migration",
    params(("vm" = String, Path, description = "Name or id"), ListQuery), responses((status = 200, body = CyclePage)))]
async fn list_cycles(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<CyclePage>> {
    let page = inventory::cycles(server.world(), &vm, &query).await?;
    Ok(Json(CyclePage {
        replication_cycles: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// The test clones of a migration, newest first.
#[utoipa::path(get, path = "/api/v1/migratingVms/{vm}/cloneJobs", tag = "migration",
    params(("vm" = String, Path, description = "Name or id"), ListQuery),
    responses((status = 200, body = MigrationClonePage)))]
async fn list_migration_clones(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<MigrationClonePage>> {
    let page = inventory::clones(server.world(), &vm, &query).await?;
    Ok(Json(MigrationClonePage {
        clone_jobs: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Makes a test clone of what was uploaded, while cycles go on. It asks for `vm.create`, too.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/cloneJobs", tag = "migration",
    request_body = CreateMigrationClone, params(("vm" = String, Path, description = "Name or id")),
    responses((status = 202, body = MigrationClone)))]
async fn create_migration_clone(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<CreateMigrationClone>,
) -> ApiResult<Response> {
    caller.must(Privilege::VmCreate, None)?;
    let job = server.jobs.migration_clone(&vm, request, by(&caller)).await?;
    let clone = MigrationClone::of(&job, Judged::default());
    let clone =
        clone.ok_or_else(|| Status::new(Code::Internal, format!("job {} is no test clone", job.id)))?;
    Ok(accepted(format!("/api/v1/jobs/{}", job.id), clone))
}

/// Says whether a test clone does what it should; the last word counts.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/cloneJobs/{clone}/judge", tag = "migration",
    request_body = JudgeClone, responses((status = 200, body = MigrationClone)),
    params(("vm" = String, Path, description = "Name or id"), ("clone" = String, Path, description = "Its id")))]
async fn judge_clone(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path((vm, clone)): Path<(String, String)>,
    Body(request): Body<JudgeClone>,
) -> ApiResult<Json<MigrationClone>> {
    Ok(Json(
        server.jobs.judge_clone(&vm, &clone, request, by(&caller)).await?,
    ))
}

/// The cutovers of a migration, newest first.
#[utoipa::path(get, path = "/api/v1/migratingVms/{vm}/cutoverJobs", tag = "migration",
    params(("vm" = String, Path, description = "Name or id"), ListQuery), responses((status = 200, body = CutoverPage)))]
async fn list_cutovers(
    State(server): State<Server>,
    Path(vm): Path<String>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<CutoverPage>> {
    let page = inventory::cutovers(server.world(), &vm, &query).await?;
    Ok(Json(CutoverPage {
        cutover_jobs: page.items,
        next_page_token: page.next,
        total_size: page.total,
    }))
}

/// Cuts a machine over: its source is shut down, what has changed last is uploaded, and it starts where it goes. It asks for
/// `vm.create` and `vm.power`, too.
#[utoipa::path(post, path = "/api/v1/migratingVms/{vm}/cutoverJobs", tag = "migration", request_body = CreateCutover,
    responses((status = 202, body = CutoverJob)), params(("vm" = String, Path, description = "Name or id")))]
async fn create_cutover(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Path(vm): Path<String>,
    Body(request): Body<CreateCutover>,
) -> ApiResult<Response> {
    caller.must(Privilege::VmCreate, None)?;
    caller.must(Privilege::VmPower, None)?;
    let job = server.jobs.cut_over(&vm, request, by(&caller)).await?;
    let cutover = CutoverJob::of(&job);
    let cutover =
        cutover.ok_or_else(|| Status::new(Code::Internal, format!("job {} is no cutover", job.id)))?;
    Ok(accepted(format!("/api/v1/jobs/{}", job.id), cutover))
}

/// How long a cutover would take, by what was measured in this migration; nothing where nothing was.
#[utoipa::path(get, path = "/api/v1/migratingVms/{vm}/forecast", tag = "migration",
    responses((status = 200, body = Forecast)), params(("vm" = String, Path, description = "Name or id")))]
async fn get_forecast(State(server): State<Server>, Path(vm): Path<String>) -> ApiResult<Json<Forecast>> {
    Ok(Json(inventory::forecast(server.world(), &vm).await?))
}
