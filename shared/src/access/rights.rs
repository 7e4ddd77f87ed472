//! What roles come to: who may do what on what. Server and console ask the same functions.

use super::{Privilege, Role};
use crate::can::Verdict;
use crate::job::JobKind;
use crate::{Code, Name, RoleId, Status, VmId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The role of those who only look.
pub const VIEWER: RoleId = RoleId(Uuid::from_u128(1));
/// The role of those who work with machines.
pub const OPERATOR: RoleId = RoleId(Uuid::from_u128(2));
/// The role of those who may do everything. There is always somebody who has it.
pub const ADMIN: RoleId = RoleId(Uuid::from_u128(3));

/// What everybody may do who may sign in.
pub const EVERYBODY: [Privilege; 2] = [Privilege::EventRead, Privilege::SelfManage];

/// How far a privilege reaches that is given with a role on a single machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// That machine, its snapshots, jobs and fork points.
    Machine,
    /// Everywhere: whoever works with a machine has to see what there is around it.
    Everywhere,
    /// Nowhere: it has to be given on everything. Making machines is among these, for they use what all share.
    Nowhere,
}

impl Privilege {
    /// What the privilege is about: the word before the dot.
    fn noun(self) -> &'static str {
        let word = self.word();
        word.split_once('.').map_or(word, |(noun, _)| noun)
    }

    /// How far it reaches when it is given on a single machine.
    pub fn reach(self) -> Reach {
        match (self, self.noun()) {
            (Self::VmCreate, _) => Reach::Nowhere,
            (_, "vm" | "snapshot" | "fork" | "job" | "copy") => Reach::Machine,
            (Self::TargetRead, _) => Reach::Everywhere,
            (Self::PlaceRead | Self::EventRead | Self::SelfManage, _) => Reach::Everywhere,
            _ => Reach::Nowhere,
        }
    }

    /// Whether viewers have it: all that reads, but for who did what.
    fn of_viewer(self) -> bool {
        self.word().ends_with(".read") && self != Self::AuditRead
    }

    /// Whether operators have it: all that is done with machines.
    fn of_operator(self) -> bool {
        let machines = [
            "vm",
            "snapshot",
            "clone",
            "fork",
            "copy",
            "migration",
            "job",
            "VirtualMachine",
            "Datastore",
            "Resource",
        ];
        self.of_viewer() || machines.contains(&self.noun())
    }

    /// What asks the same when a job of this kind is tried again.
    pub const fn of_job(kind: JobKind) -> Self {
        match kind {
            JobKind::CreateVm => Self::VmCreate,
            JobKind::PowerVm => Self::VmPower,
            JobKind::ConnectVm | JobKind::EditVm => Self::VmUpdate,
            JobKind::TakeSnapshot => Self::SnapshotCreate,
            JobKind::RevertVm => Self::SnapshotRevert,
            JobKind::DeleteSnapshot => Self::SnapshotDelete,
            JobKind::CloneVm => Self::CloneCreate,
            JobKind::InstantCloneVm => Self::ProvisioningClone,
            JobKind::DeleteVm => Self::VmDelete,
            JobKind::DeleteForkPoint => Self::ForkDelete,
            JobKind::ImportImage | JobKind::ImageOfSnapshot => Self::ImageCreate,
            JobKind::ExportDisk => Self::ImageExport,
            JobKind::DeleteImage => Self::ImageDelete,
            JobKind::CopySnapshot | JobKind::BootCopy => Self::CopyCreate,
            JobKind::RestoreCopy => Self::CopyRestore,
            JobKind::VerifyTarget | JobKind::PruneTarget => Self::TargetManage,
            JobKind::CutOver | JobKind::FinalizeMigration => Self::MigrationManage,
            JobKind::AdaptCopy | JobKind::CutOverGroup => Self::MigrationManage,
        }
    }
}

/// The privileges of a role that comes with Offshoot; none for one that does not.
pub fn built_in(role: RoleId) -> Option<Vec<Privilege>> {
    let those =
        |has: fn(Privilege) -> bool| Some(Privilege::ALL.iter().copied().filter(|p| has(*p)).collect());
    match role {
        VIEWER => those(Privilege::of_viewer),
        OPERATOR => those(Privilege::of_operator),
        ADMIN => those(|_| true),
        _ => None,
    }
}

/// What somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rights {
    /// On everything.
    pub privileges: Vec<Privilege>,
    /// On single machines, beside that.
    #[serde(default)]
    pub vms: Vec<RightsOnVm>,
}

/// What somebody may do on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RightsOnVm {
    /// The machine.
    pub vm: VmId,
    /// What may be done with it.
    pub privileges: Vec<Privilege>,
}

/// Which machines somebody may do something with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sees {
    /// All of them.
    All,
    /// These.
    Only(Vec<VmId>),
}

impl Sees {
    /// Whether this machine is among them.
    pub fn has(&self, vm: VmId) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.contains(&vm),
        }
    }
}

fn add(to: &mut Vec<Privilege>, privilege: Privilege) {
    if !to.contains(&privilege) {
        to.push(privilege);
        to.sort_unstable();
    }
}

impl Rights {
    /// These on everything.
    pub fn on_everything(privileges: &[Privilege]) -> Self {
        let mut rights = Self::default();
        rights.give(privileges, None);
        rights
    }

    /// Adds those of a role, on everything or on a machine.
    pub fn give(&mut self, privileges: &[Privilege], vm: Option<VmId>) {
        for privilege in privileges {
            match (vm, privilege.reach()) {
                (None, _) | (Some(_), Reach::Everywhere) => add(&mut self.privileges, *privilege),
                (Some(vm), Reach::Machine) => {
                    let at = self.vms.iter().position(|on| on.vm == vm).unwrap_or_else(|| {
                        self.vms.push(RightsOnVm {
                            vm,
                            privileges: Vec::new(),
                        });
                        self.vms.len() - 1
                    });
                    add(&mut self.vms[at].privileges, *privilege);
                }
                (Some(_), Reach::Nowhere) => {}
            }
        }
    }

    /// What is left of them where only these may be used.
    #[must_use]
    pub fn confined_to(mut self, privileges: &[Privilege]) -> Self {
        self.privileges.retain(|p| privileges.contains(p));
        for on in &mut self.vms {
            on.privileges.retain(|p| privileges.contains(p));
        }
        self
    }

    /// Whether this may be done: on everything if no machine is named.
    pub fn has(&self, privilege: Privilege, vm: Option<VmId>) -> bool {
        self.privileges.contains(&privilege)
            || vm.is_some_and(|vm| {
                self.vms
                    .iter()
                    .any(|on| on.vm == vm && on.privileges.contains(&privilege))
            })
    }

    /// Whether this may be done at all.
    pub fn somewhere(&self, privilege: Privilege) -> bool {
        self.privileges.contains(&privilege) || self.vms.iter().any(|on| on.privileges.contains(&privilege))
    }

    /// The machines that this may be done with.
    pub fn sees(&self, privilege: Privilege) -> Sees {
        if self.privileges.contains(&privilege) {
            return Sees::All;
        }
        let on = self.vms.iter().filter(|on| on.privileges.contains(&privilege));
        Sees::Only(on.map(|on| on.vm).collect())
    }

    /// A privilege that these have and others have not, with the machine it is on.
    pub fn beyond(&self, others: &Self) -> Option<Privilege> {
        let everywhere = self.privileges.iter().find(|p| !others.has(**p, None));
        let mut on = self
            .vms
            .iter()
            .flat_map(|on| on.privileges.iter().map(move |p| (*p, on.vm)));
        everywhere
            .copied()
            .or_else(|| on.find(|(p, vm)| !others.has(*p, Some(*vm))).map(|(p, _)| p))
    }
}

/// Whether somebody who is called so may do this; PERMISSION_DENIED names the privilege.
pub fn may(who: &str, rights: &Rights, privilege: Privilege, vm: Option<VmId>) -> Verdict {
    if rights.has(privilege, vm) {
        return Ok(());
    }
    let mut status = Status::new(
        Code::PermissionDenied,
        format!("{who} lacks the privilege {privilege}"),
    );
    status.details.push(serde_json::json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "PRIVILEGE_MISSING",
        "domain": "offshoot", "metadata": {"privilege": privilege.word()},
    }));
    Err(status)
}

/// Whether somebody with these rights may give others, or take them away. Nobody deals with more than they have.
pub fn may_manage(rights: &Rights, others: &Rights) -> Verdict {
    match others.beyond(rights) {
        None => Ok(()),
        Some(privilege) => Err(Status::new(
            Code::PermissionDenied,
            format!(
                "this goes with the privilege {privilege}, which you do not have: nobody deals with more than they have"
            ),
        )),
    }
}

/// Whether a role may be changed or deleted.
pub fn may_change(role: &Role) -> Verdict {
    if role.built_in {
        return Err(Status::precondition(format!(
            "the role {} comes with Offshoot and stays as it is: make one of your own",
            role.name
        )));
    }
    Ok(())
}

/// The refusal to take the last administrator away.
pub fn last_admin(name: &Name) -> Status {
    Status::precondition(format!(
        "{name} is the last administrator who can sign in: give somebody else the role admin on everything first"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(n: u128) -> VmId {
        VmId(Uuid::from_u128(n))
    }

    #[test]
    fn roles_that_come_with_it_contain_each_other() {
        let [viewer, operator, admin] = [VIEWER, OPERATOR, ADMIN].map(|r| built_in(r).unwrap());
        assert!(viewer.iter().all(|p| operator.contains(p)));
        assert_eq!(admin, Privilege::ALL);
        for never in [
            Privilege::UserManage,
            Privilege::AuditRead,
            Privilege::PlaceUpdate,
            Privilege::SimRelease,
        ] {
            assert!(!operator.contains(&never), "{never}");
        }
        for power in super::super::FORKING
            .into_iter()
            .chain([Privilege::VmPower, Privilege::CloneCreate])
        {
            assert!(operator.contains(&power) && !viewer.contains(&power), "{power}");
        }
        assert_eq!(built_in(RoleId(Uuid::from_u128(9))), None);
    }

    #[test]
    fn a_role_on_a_machine_reaches_no_other_and_makes_none() {
        let mut rights = Rights::default();
        rights.give(&built_in(ADMIN).unwrap(), Some(vm(1)));
        assert!(rights.has(Privilege::VmPower, Some(vm(1))));
        assert!(!rights.has(Privilege::VmPower, Some(vm(2))) && !rights.has(Privilege::VmPower, None));
        assert!(rights.has(Privilege::PlaceRead, None));
        for never in [
            Privilege::VmCreate,
            Privilege::CloneCreate,
            Privilege::UserManage,
            Privilege::PlaceUpdate,
        ] {
            assert!(!rights.somewhere(never), "{never}");
        }
        assert_eq!(rights.sees(Privilege::VmRead), Sees::Only(vec![vm(1)]));
        assert!(may("eve", &rights, Privilege::VmRead, Some(vm(1))).is_ok());
        let no = may("eve", &rights, Privilege::VmRead, None).unwrap_err();
        assert_eq!(no.message, "eve lacks the privilege vm.read");
    }

    #[test]
    fn nobody_deals_with_more_than_they_have() {
        let mine = Rights::on_everything(&[Privilege::VmRead, Privilege::UserManage]);
        let mut theirs = Rights::default();
        theirs.give(&[Privilege::VmRead], Some(vm(1)));
        assert!(may_manage(&mine, &theirs).is_ok());
        theirs.give(&[Privilege::VmPower], Some(vm(1)));
        assert!(
            may_manage(&mine, &theirs)
                .unwrap_err()
                .message
                .contains("vm.power")
        );
        assert!(may_manage(&theirs, &mine).is_err());
        let confined = theirs.clone().confined_to(&[Privilege::VmRead]);
        assert!(may_manage(&mine, &confined).is_ok());
    }
}
