//! Another user in root's place: nothing that guests can reach runs as root.

use super::Failure;
use crate::config::Config;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;

/// The user that is taken where none is named.
const DEFAULT: &str = "offshoot";
/// The group that may use `/dev/kvm`.
const KVM: &str = "kvm";

/// Somebody to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// What becomes of a server that root starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: it is not root that starts it, or that is wanted.
    Stay,
    /// It stays root because there is nobody to become.
    NobodyToBecome,
    /// It becomes somebody else.
    Become(Who),
}

/// A line of /etc/passwd or /etc/group that has this name in front, or this number in its third field.
fn line<'a>(text: &'a str, reference: &str) -> Option<Vec<&'a str>> {
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = fields.filter(|f| f.len() > 3 && (f[0] == reference || f[2] == reference));
    found.next()
}

fn look_up(reference: &str, passwd: &str, group: &str) -> Option<Who> {
    let (name, uid, gid) = match line(passwd, reference) {
        Some(fields) => (
            fields[0].to_owned(),
            fields[2].parse().ok()?,
            fields[3].parse().ok()?,
        ),
        // A number needs no name.
        None => {
            let uid = reference.parse().ok()?;
            (reference.to_owned(), uid, uid)
        }
    };
    let mut groups = vec![gid];
    for fields in group.lines().map(|line| line.split(':').collect::<Vec<_>>()) {
        let member = fields.get(3).is_some_and(|all| all.split(',').any(|m| m == name));
        if let Some(gid) = fields.get(2).and_then(|gid| gid.parse().ok())
            && (member || fields[0] == KVM)
            && !groups.contains(&gid)
        {
            groups.push(gid);
        }
    }
    Some(Who {
        name,
        uid,
        gid,
        groups,
    })
}

/// What is to be done, by the settings and by who starts the server.
pub fn plan(config: &Config) -> Result<Plan, Failure> {
    if !geteuid().is_root() {
        return match &config.run_as {
            Some(name) if look_up(name, &read("/etc/passwd"), "").map(|w| w.uid) != Some(geteuid().as_raw()) => {
                Err(format!("run_as = {name:?}: only root can become somebody else; start the server as root, or as {name}").into())
            }
            _ => Ok(Plan::Stay),
        };
    }
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    match config.run_as.as_deref() {
        Some("root" | "0") => Ok(Plan::Stay),
        Some(name) => match look_up(name, &passwd, &group) {
            Some(who) if who.uid != 0 => Ok(Plan::Become(who)),
            Some(_) => Ok(Plan::Stay),
            None => Err(format!(
                "run_as = {name:?}: there is no such user; `useradd --system {name}` adds one"
            )
            .into()),
        },
        None => Ok(
            match line(&passwd, DEFAULT).and_then(|_| look_up(DEFAULT, &passwd, &group)) {
                Some(who) => Plan::Become(who),
                None => Plan::NobodyToBecome,
            },
        ),
    }
}

/// A file that may be missing: a container may have none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

impl Who {
    /// Sees to it that the data directory is this user's: made if it is not there, refused if it is another's.
    fn own(&self, dir: &Path) -> Result<(), Failure> {
        let failed = |e: std::io::Error| format!("cannot make the data directory {}: {e}", dir.display());
        if !dir.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(failed)?;
            chown(dir, Some(self.uid), Some(self.gid)).map_err(failed)?;
            return Ok(());
        }
        // The database is looked at as well: a directory may have been given away without what is in it.
        for path in [dir.to_owned(), dir.join("offshoot.db")] {
            let Ok(found) = fs::metadata(&path) else { continue };
            if found.uid() != self.uid {
                return Err(format!(
                    "{} belongs to the user {}, and the server would run as {}: stop it and its machines, then \
                     `chown -R {}:{} {}`; or set run_as = \"root\"",
                    path.display(),
                    found.uid(),
                    self.name,
                    self.uid,
                    self.gid,
                    dir.display(),
                )
                .into());
            }
        }
        Ok(())
    }

    /// Becomes this user, for good. Only while the process has one thread: the kernel changes one at a time.
    pub fn take_over(&self, config: &Config) -> Result<(), Failure> {
        let threads = fs::read_dir("/proc/self/task")?.count();
        if threads != 1 {
            return Err(format!("cannot become {} with {threads} threads", self.name).into());
        }
        self.own(&config.data_dir)?;
        let failed = |e: rustix::io::Errno| format!("cannot become {}: {e}", self.name);
        let groups: Vec<_> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups).map_err(failed)?;
        set_thread_res_gid(gid, gid, gid).map_err(failed)?;
        set_thread_res_uid(uid, uid, uid).map_err(failed)?;
        Ok(())
    }

    /// The name, or the number where there is none.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\noffshoot:x:990:991::/var/lib/offshoot:/usr/sbin/nologin\n";
    const GROUP: &str = "root:x:0:\nkvm:x:104:\noffshoot:x:991:\ndisk:x:6:alice,offshoot\n";

    #[test]
    fn a_user_comes_with_its_groups_and_that_of_kvm() {
        let who = look_up("offshoot", PASSWD, GROUP).unwrap();
        assert_eq!((who.uid, who.gid, who.groups), (990, 991, vec![991, 104, 6]));
        assert_eq!(look_up("990", PASSWD, GROUP).unwrap().name, "offshoot");
    }

    #[test]
    fn a_number_needs_no_name_and_a_name_does_not_come_from_nowhere() {
        let who = look_up("65534", PASSWD, GROUP).unwrap();
        assert_eq!((who.uid, who.gid, who.groups), (65534, 65534, vec![65534, 104]));
        assert_eq!(look_up("nobody-here", PASSWD, GROUP), None);
    }
}
