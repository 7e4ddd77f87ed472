//! How far what converts images from outside can be shut in on this host.

use super::Check;
use crate::config::Config;
use crate::disks::helper::{Helper, Shut, probe};

const NAME: &str = "image helper";

pub async fn helper(config: &Config) -> Check {
    let program = match &config.program {
        Some(program) => Ok(program.clone()),
        None => std::env::current_exe(),
    };
    let helper = match program {
        Ok(program) => Helper {
            program,
            user: config.image_helper_user.clone(),
        },
        Err(e) => {
            return Check::warn(
                NAME,
                format!("the program that runs is not found: {e}"),
                "start it by its path",
            );
        }
    };
    match probe(&helper).await {
        Ok(shut) => told(&shut, rustix::process::geteuid().is_root()),
        Err(why) => Check::fail(
            NAME,
            format!("images cannot be imported: {why}"),
            "create the user that image_helper_user names, or leave that out",
        ),
    }
}

fn told(shut: &Shut, root: bool) -> Check {
    let mut open = Vec::new();
    let mut fixes = Vec::new();
    if shut.files == "none" {
        open.push("it can open every file that its user can");
        fixes.push("use a kernel with Landlock (5.13 or newer, with landlock among its security modules)");
    }
    if !shut.network {
        open.push("it has the host's network");
        fixes.push("allow user namespaces to the server's user");
    }
    if root && !shut.user {
        open.push("it runs as root");
        fixes.push("set image_helper_user to a user that has nothing else on this host");
    }
    if open.is_empty() {
        let files = if shut.files == "full" {
            ""
        } else {
            ", as far as this kernel can"
        };
        return Check::ok(
            NAME,
            format!("sees nothing but the image that it converts{files}"),
        );
    }
    Check::warn(NAME, open.join("; "), fixes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn what_is_open_is_said_with_what_to_do() {
        let shut = Shut {
            files: "full".into(),
            network: true,
            user: false,
        };
        assert_eq!(told(&shut, false).level, Level::Ok);
        let root = told(&shut, true);
        assert_eq!(root.level, Level::Warn);
        assert!(root.fix.unwrap().contains("image_helper_user"));
        let open = Shut {
            files: "none".into(),
            network: false,
            user: false,
        };
        let found = told(&open, false).found;
        assert!(
            found.contains("every file") && found.contains("network"),
            "{found}"
        );
    }
}
