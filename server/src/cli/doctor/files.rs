//! Whether the files of copies can be looked at on this host.

use super::Check;
use guestfs::{Why, installed};

const NAME: &str = "files of copies";

/// Guests run without it: what is missing is a warning.
pub fn browser() -> Check {
    told(installed())
}

fn told(installed: Result<String, Why>) -> Check {
    match installed {
        Ok(version) => Check::ok(
            NAME,
            format!("libguestfs {version} looks into copies without a restore, and adapts what is migrated"),
        ),
        Err(why) => {
            let text = why.to_string();
            let (found, fix) = text.split_once("; ").unwrap_or((
                text.as_str(),
                "`apt install --reinstall guestfish` brings it anew",
            ));
            let found = format!(
                "the files of a copy cannot be seen without a restore, and what is migrated is not adapted: {found}"
            );
            Check::warn(NAME, found, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let all = [
            Why::Program { program: "supermin" },
            Why::NoKernel,
            Why::Unreadable {
                kernel: "/boot/vmlinuz-6".into(),
            },
            Why::Version("?".into()),
        ];
        for why in all {
            let check = told(Err(why));
            assert_eq!(check.level, Level::Warn);
            assert!(
                check.fix.is_some_and(|fix| fix.starts_with('`')),
                "{}",
                check.found
            );
        }
    }
}
