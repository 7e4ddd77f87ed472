//! Forms about people: users, roles, sessions, the second factor.

use super::parse::Form;
use crate::words::w;
use shared::access::{
    CreateGrant, CreateRole, CreateUser, GiveCode, LinkOidc, PatchRole, PatchUser, Privilege, SetPassword,
};
use shared::api::{
    Call, ConfirmTwoFactor, DeleteGrant, DeleteRole, DeleteSession, DeleteTwoFactor, DeleteUser,
    DeleteUserOidc, DeleteUserTwoFactor, PostGrant, PostRole, PostTwoFactor, PostUser, PostUserLink,
    PutUserOidc, PutUserPassword, RawCall, UpdateRole, UpdateUser,
};
use shared::{Status, Timestamp};

/// The last moment of a day that was chosen, in UTC.
pub(super) fn end_of_day(form: Form<'_>, name: &str) -> Result<Option<Timestamp>, Status> {
    let Some(day) = form.get(name) else {
        return Ok(None);
    };
    match format!("{day}T23:59:59Z").parse() {
        Ok(time) => Ok(Some(time)),
        Err(_) => Err(Status::invalid(name, w().not_a_day)),
    }
}

fn twice(form: Form<'_>) -> Result<String, Status> {
    let password = form.get("password").unwrap_or_default().to_owned();
    if form.get("again").unwrap_or_default() != password {
        return Err(Status::invalid("again", w().passwords_differ));
    }
    Ok(password)
}

/// What is done with one's own account, beside the password.
pub(super) fn mine(parts: &[&str], form: Form<'_>) -> Option<Result<RawCall, Status>> {
    let code = || form.need("code").map(|code| GiveCode { code });
    Some(match parts {
        ["me", "twoFactor", "begin"] => Ok(PostTwoFactor {}.raw()),
        ["me", "twoFactor", "confirm"] => code().map(|request| ConfirmTwoFactor { request }.raw()),
        ["me", "twoFactor", "remove"] => code().map(|request| DeleteTwoFactor { request }.raw()),
        ["sessions", id, "end"] => Ok(DeleteSession {
            user: None,
            id: (*id).to_owned(),
        }
        .raw()),
        _ => return None,
    })
}

/// What is done with users and roles.
pub(super) fn others(parts: &[&str], form: Form<'_>) -> Option<Result<RawCall, Status>> {
    Some(match parts {
        ["users", "create"] => create(form),
        ["users", user, rest @ ..] => act(user, rest, form)?,
        ["roles", "create"] => role(form),
        ["roles", role, "update"] => ticked(form).map(|privileges| {
            let request = PatchRole {
                description: Some(form.get("description").unwrap_or_default().to_owned()),
                privileges: Some(privileges),
            };
            UpdateRole {
                role: (*role).to_owned(),
                request,
            }
            .raw()
        }),
        ["roles", role, "delete"] => Ok(DeleteRole {
            role: (*role).to_owned(),
        }
        .raw()),
        _ => return None,
    })
}

fn create(form: Form<'_>) -> Result<RawCall, Status> {
    let password = Some(twice(form)?).filter(|p| !p.is_empty());
    let request = CreateUser {
        name: form.need("name")?,
        password,
        role: form.parse("role")?,
    };
    Ok(PostUser { request }.raw())
}

fn act(user: &str, action: &[&str], form: Form<'_>) -> Option<Result<RawCall, Status>> {
    let user = user.to_owned();
    let change = |request| {
        Ok(UpdateUser {
            user: user.clone(),
            request,
        }
        .raw())
    };
    Some(match action {
        ["rename"] => form.need("name").and_then(|name| {
            change(PatchUser {
                name: Some(name),
                disabled: None,
            })
        }),
        [word @ ("disable" | "enable")] => change(PatchUser {
            name: None,
            disabled: Some(*word == "disable"),
        }),
        ["password"] => twice(form).map(|password| {
            let request = SetPassword { password };
            PutUserPassword { user, request }.raw()
        }),
        ["link"] => Ok(PostUserLink { user }.raw()),
        ["reset-two-factor"] => Ok(DeleteUserTwoFactor { user }.raw()),
        ["oidc", "link"] => form.need("subject").map(|subject| {
            let request = LinkOidc { subject };
            PutUserOidc { user, request }.raw()
        }),
        ["oidc", "unlink"] => Ok(DeleteUserOidc { user }.raw()),
        ["delete"] => {
            let typed = form.get("confirm").unwrap_or_default();
            let name = form.get("name").unwrap_or(&user);
            if typed == name {
                Ok(DeleteUser { user }.raw())
            } else {
                Err(Status::invalid(
                    "confirm",
                    crate::words::put(w().confirm_differs, &[name]),
                ))
            }
        }
        ["grants", "create"] => form.need("role").map(|role| {
            let request = CreateGrant {
                role,
                vm: form.get("vm").map(str::to_owned),
            };
            PostGrant { user, request }.raw()
        }),
        ["grants", grant, "delete"] => Ok(DeleteGrant {
            user,
            grant: (*grant).to_owned(),
        }
        .raw()),
        ["sessions", id, "end"] => Ok(DeleteSession {
            user: Some(user),
            id: (*id).to_owned(),
        }
        .raw()),
        _ => return None,
    })
}

fn ticked(form: Form<'_>) -> Result<Vec<Privilege>, Status> {
    let all = form.0.iter().filter(|(name, _)| name == "privilege");
    all.map(|(_, word)| word.parse().map_err(|e| Status::invalid("privilege", e)))
        .collect()
}

fn role(form: Form<'_>) -> Result<RawCall, Status> {
    let request = CreateRole {
        name: form.need("name")?,
        description: form.get("description").unwrap_or_default().to_owned(),
        privileges: ticked(form)?,
    };
    Ok(PostRole { request }.raw())
}

/// What to tell when it is done.
pub(super) fn done(parts: &[&str]) -> Option<&'static str> {
    Some(match parts {
        ["me", "twoFactor", "begin"] => w().flash_two_factor_begun,
        ["me", "twoFactor", "confirm"] => w().flash_two_factor_on,
        ["me", "twoFactor", "remove"] => w().flash_two_factor_off,
        ["sessions", ..] | ["users", _, "sessions", ..] => w().flash_session_ended,
        ["users", "create"] => w().flash_user_added,
        ["users", _, "link"] => w().flash_link,
        ["users", _, "password"] => w().flash_password,
        ["users", _, "delete"] => w().flash_user_deleted,
        ["users", ..] => w().flash_user_changed,
        ["roles", "create"] => w().flash_role_made,
        ["roles", _, "delete"] => w().flash_role_deleted,
        ["roles", ..] => w().flash_role_changed,
        _ => return None,
    })
}
