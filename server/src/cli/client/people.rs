//! `offshoot user …`, `role`, `session` and `token`, as far as they speak to a server.

use super::table::Table;
use super::{Api, Failure, List, joined};
use crate::cli::access::read_password;
use clap::Subcommand;
use shared::Name;
use shared::access::{
    CreateGrant, CreateRole, CreateUser, GiveCode, Grant, LinkOidc, PatchRole, PatchUser, Privilege,
    RecoveryCodes, Role, SetPassword, TwoFactorSecret, User,
};
use shared::api::{
    ConfirmTwoFactor, DeleteGrant, DeleteRole, DeleteSession, DeleteToken, DeleteTwoFactor, DeleteUser,
    DeleteUserOidc, DeleteUserTwoFactor, GetMe, GetRole, GetUser, ListQuery, ListRoles, ListSessions,
    ListTokens, ListUsers, PostGrant, PostRole, PostTwoFactor, PostUser, PostUserLink, PutPassword,
    PutUserOidc, PutUserPassword, UpdateRole, UpdateUser,
};

/// The commands of `offshoot user` that speak to a server.
#[derive(Subcommand)]
pub enum UserCommand {
    /// Lists users, with their roles.
    List {
        #[command(flatten)]
        list: List,
        #[command(flatten)]
        api: Api,
    },
    /// Shows a user.
    Show {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Says who the token is of, and what it may do.
    Me {
        #[command(flatten)]
        api: Api,
    },
    /// Adds a user on the server that OFFSHOOT_URL names; without a password `user make-link` lets the user in.
    Create {
        /// The name to sign in with.
        name: Name,
        /// Read a password from standard input.
        #[arg(long)]
        password_stdin: bool,
        /// A role on everything; none if not given.
        #[arg(long)]
        role: Option<Name>,
        #[command(flatten)]
        api: Api,
    },
    /// Gives a user another name.
    Rename {
        /// Name or id.
        user: String,
        /// The new name.
        name: Name,
        #[command(flatten)]
        api: Api,
    },
    /// Keeps a user out: sessions end, tokens are refused.
    Disable {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Lets a user in again.
    Enable {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Removes a user.
    Delete {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Sets a user's password on the server that OFFSHOOT_URL names, read from standard input.
    SetPassword {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Makes a link on the server that OFFSHOOT_URL names that signs a user in once.
    MakeLink {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Asks a user for no second factor any more, on the server that OFFSHOOT_URL names.
    RemoveTwoFactor {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Has somebody of the OpenID Connect provider sign in as a user; the user's sessions end.
    LinkOidc {
        /// Name or id.
        user: String,
        /// What the provider calls the person: the claim `sub`.
        subject: String,
        #[command(flatten)]
        api: Api,
    },
    /// Lets nobody of the OpenID Connect provider sign in as a user any more.
    UnlinkOidc {
        /// Name or id.
        user: String,
        #[command(flatten)]
        api: Api,
    },
    /// Sets the password of the token's owner, read from standard input; their sessions end.
    MyPassword {
        #[command(flatten)]
        api: Api,
    },
    /// Begins to set a second factor up for the token's owner: prints what an authenticator app needs to know.
    SetUpTwoFactor {
        #[command(flatten)]
        api: Api,
    },
    /// Asks the token's owner for the second factor from now on, and prints recovery codes.
    ConfirmTwoFactor {
        /// The code that the app shows.
        code: String,
        #[command(flatten)]
        api: Api,
    },
    /// Asks the token's owner for no second factor any more.
    DropTwoFactor {
        /// The code that the app shows, or a recovery code.
        code: String,
        #[command(flatten)]
        api: Api,
    },
    /// Gives a user a role.
    Grant {
        /// Name or id.
        user: String,
        /// The role.
        role: Name,
        /// On this machine, by name or id; on everything if not given.
        #[arg(long)]
        vm: Option<String>,
        #[command(flatten)]
        api: Api,
    },
    /// Takes a role away from a user.
    Revoke {
        /// Name or id.
        user: String,
        /// The role, or the id of the grant.
        role: String,
        /// On this machine, by name or id; on everything if not given.
        #[arg(long)]
        vm: Option<String>,
        #[command(flatten)]
        api: Api,
    },
}

fn given(grants: &[Grant]) -> String {
    joined(grants.iter().map(|g| match (&g.vm_name, g.vm) {
        (Some(name), _) => format!("{} on {name}", g.role),
        (None, Some(vm)) => format!("{} on {vm}", g.role),
        (None, None) => g.role.to_string(),
    }))
}

fn shown(user: &User) -> String {
    let word = |yes| if yes { "yes" } else { "no" };
    let mut lines = vec![
        format!("name        {}", user.name),
        format!("id          {}", user.id),
        format!("roles       {}", given(&user.grants)),
        format!("disabled    {}", word(user.disabled)),
        format!("password    {}", word(user.has_password)),
        format!("two-factor  {}", word(user.two_factor)),
        format!("added       {}", user.create_time),
    ];
    if let Some(subject) = &user.oidc_subject {
        lines.push(format!("oidc        {subject}"));
    }
    if let Some(time) = user.last_sign_in_time {
        lines.push(format!("signed in   {time}"));
    }
    lines.join("\n")
}

impl UserCommand {
    /// Runs it.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { list, api } => {
                let query = list.into();
                let show = |page: shared::api::UserPage| {
                    let mut table = Table::new(["NAME", "ROLES", "DISABLED", "TWO-FACTOR", "LAST SIGN-IN"]);
                    for user in &page.users {
                        let mark = |yes| if yes { "yes" } else { "" }.to_owned();
                        table.row([
                            user.name.to_string(),
                            given(&user.grants),
                            mark(user.disabled),
                            mark(user.two_factor),
                            user.last_sign_in_time.map(|t| t.to_string()).unwrap_or_default(),
                        ]);
                    }
                    table.of(page.total_size)
                };
                api.show(&ListUsers { query }, show).await
            }
            Self::Show { user, api } => api.show(&GetUser { user }, |user| shown(&user)).await,
            Self::Me { api } => {
                let show = |me: shared::access::Me| {
                    let all = joined(me.rights.privileges);
                    let name = |vm| {
                        let grant = me.user.grants.iter().find(|g| g.vm == Some(vm));
                        let name = grant.and_then(|g| g.vm_name.as_ref());
                        name.map_or_else(|| vm.to_string(), ToString::to_string)
                    };
                    let on = me
                        .rights
                        .vms
                        .iter()
                        .map(|on| format!("\non {}  {}", name(on.vm), joined(&on.privileges)));
                    format!("{}\nmay         {all}{}", shown(&me.user), on.collect::<String>())
                };
                api.show(&GetMe {}, show).await
            }
            Self::Create {
                name,
                password_stdin,
                role,
                api,
            } => {
                let password = if password_stdin {
                    Some(read_password()?)
                } else {
                    None
                };
                let request = CreateUser { name, password, role };
                api.show(&PostUser { request }, |user| shown(&user)).await
            }
            Self::Rename { user, name, api } => {
                let request = PatchUser {
                    name: Some(name),
                    disabled: None,
                };
                api.show(&UpdateUser { user, request }, |user| shown(&user)).await
            }
            Self::Disable { user, api } => disable(&api, user, true).await,
            Self::Enable { user, api } => disable(&api, user, false).await,
            Self::Delete { user, api } => {
                let told = format!("user {user} is deleted");
                api.show(&DeleteUser { user }, |()| told).await
            }
            Self::SetPassword { user, api } => {
                let request = SetPassword {
                    password: read_password()?,
                };
                let told = format!("the password of {user} is set");
                api.show(&PutUserPassword { user, request }, |()| told).await
            }
            Self::MakeLink { user, api } => api.show(&PostUserLink { user }, |link| link.secret).await,
            Self::RemoveTwoFactor { user, api } => {
                api.show(&DeleteUserTwoFactor { user }, |user| shown(&user)).await
            }
            Self::LinkOidc { user, subject, api } => {
                let request = LinkOidc { subject };
                api.show(&PutUserOidc { user, request }, |user| shown(&user))
                    .await
            }
            Self::UnlinkOidc { user, api } => api.show(&DeleteUserOidc { user }, |user| shown(&user)).await,
            Self::MyPassword { api } => {
                let request = SetPassword {
                    password: read_password()?,
                };
                api.show(&PutPassword { request }, |()| "the password is set")
                    .await
            }
            Self::SetUpTwoFactor { api } => {
                let show = |told: TwoFactorSecret| format!("{}\n{}", told.secret, told.url);
                api.show(&PostTwoFactor {}, show).await
            }
            Self::ConfirmTwoFactor { code, api } => {
                let request = GiveCode { code };
                let show = |codes: RecoveryCodes| codes.secret.replace(' ', "\n");
                api.show(&ConfirmTwoFactor { request }, show).await
            }
            Self::DropTwoFactor { code, api } => {
                let request = GiveCode { code };
                let told = "no second factor is asked for any more";
                api.show(&DeleteTwoFactor { request }, |()| told).await
            }
            Self::Grant { user, role, vm, api } => {
                let request = CreateGrant { role, vm };
                api.show(&PostGrant { user, request }, |user| shown(&user)).await
            }
            Self::Revoke { user, role, vm, api } => {
                let grants = api.client()?.call(&GetUser { user: user.clone() }).await?.grants;
                let on = |g: &&Grant| match (&vm, g.vm) {
                    (None, None) => true,
                    (Some(vm), Some(id)) => {
                        id.to_string() == *vm || g.vm_name.as_ref().is_some_and(|n| n.as_str() == vm)
                    }
                    _ => false,
                };
                let by_role = grants.iter().find(|g| g.role.as_str() == role && on(g));
                let found = grants.iter().find(|g| g.id.to_string() == role).or(by_role);
                let grant = found
                    .ok_or_else(|| format!("{user} has not the role {role} there: {}", given(&grants)))?;
                let grant = grant.id.to_string();
                api.show(&DeleteGrant { user, grant }, |user| shown(&user)).await
            }
        }
    }
}

async fn disable(api: &Api, user: String, disabled: bool) -> Result<(), Failure> {
    let request = PatchUser {
        name: None,
        disabled: Some(disabled),
    };
    api.show(&UpdateUser { user, request }, |user| shown(&user)).await
}

/// `offshoot role …`
#[derive(Subcommand)]
pub enum RoleCommand {
    /// Lists roles.
    List(#[command(flatten)] List),
    /// Shows a role, with its privileges.
    Show {
        /// Name or id.
        role: String,
    },
    /// Makes a role.
    Create {
        /// Its name.
        name: Name,
        /// What whoever has it may do, with commas between.
        #[arg(long, value_delimiter = ',', required = true)]
        privilege: Vec<Privilege>,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Changes a role: for whoever has it, at once.
    Update {
        /// Name or id.
        role: String,
        /// What whoever has it may do, all of it, with commas between.
        #[arg(long, value_delimiter = ',')]
        privilege: Option<Vec<Privilege>>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    },
    /// Deletes a role that nobody has.
    Delete {
        /// Name or id.
        role: String,
    },
}

fn role_shown(role: &Role) -> String {
    let kind = if role.built_in {
        " (comes with Offshoot)"
    } else {
        ""
    };
    let head = format!("{}{kind}\n{}", role.name, role.description);
    let all = role.privileges.iter().map(|p| format!("\n  {p}"));
    format!("{}{}", head.trim_end(), all.collect::<String>())
}

impl RoleCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List(list) => {
                let query = list.into();
                api.show(&ListRoles { query }, |page| {
                    let mut table = Table::new(["NAME", "PRIVILEGES", "FOR"]);
                    for role in &page.roles {
                        table.row([
                            role.name.to_string(),
                            role.privileges.len().to_string(),
                            role.description.clone(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::Show { role } => api.show(&GetRole { role }, |role| role_shown(&role)).await,
            Self::Create {
                name,
                privilege,
                description,
            } => {
                let request = CreateRole {
                    name,
                    description,
                    privileges: privilege,
                };
                api.show(&PostRole { request }, |role| role_shown(&role)).await
            }
            Self::Update {
                role,
                privilege,
                description,
            } => {
                let request = PatchRole {
                    description,
                    privileges: privilege,
                };
                api.show(&UpdateRole { role, request }, |role| role_shown(&role))
                    .await
            }
            Self::Delete { role } => {
                let told = format!("role {role} is deleted");
                api.show(&DeleteRole { role }, |()| told).await
            }
        }
    }
}

/// `offshoot session …`
#[derive(Subcommand)]
pub enum SessionCommand {
    /// Lists where the token's owner is signed in, or a user.
    List {
        /// A user, by name or id.
        #[arg(long)]
        user: Option<String>,
    },
    /// Ends a session.
    End {
        /// Its id.
        session: String,
        /// Whose it is, by name or id; the token's owner's if not given.
        #[arg(long)]
        user: Option<String>,
    },
}

impl SessionCommand {
    /// Runs it.
    pub async fn run(self, api: &Api) -> Result<(), Failure> {
        match self {
            Self::List { user } => {
                api.show(&ListSessions { user }, |page| {
                    let mut table = Table::new(["ID", "SIGNED IN", "FROM", "BROWSER"]);
                    for session in &page.sessions {
                        table.row([
                            session.id.to_string(),
                            session.create_time.to_string(),
                            session.address.clone(),
                            session.user_agent.clone(),
                        ]);
                    }
                    table.of(page.total_size)
                })
                .await
            }
            Self::End { session: id, user } => {
                let told = format!("session {id} has ended");
                api.show(&DeleteSession { user, id }, |()| told).await
            }
        }
    }
}

/// The commands of `offshoot token` that speak to a server.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Lists one's own tokens.
    List {
        #[command(flatten)]
        list: List,
        #[command(flatten)]
        api: Api,
    },
    /// Takes a token back: it is refused from now on.
    Revoke {
        // Not called `token`: that is what the commands sign in with.
        /// Its name or id.
        #[arg(value_name = "TOKEN")]
        name: String,
        #[command(flatten)]
        api: Api,
    },
}

impl TokenCommand {
    /// Runs it.
    pub async fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { list, api } => {
                let query = list.into();
                let show = |page: shared::api::TokenPage| {
                    let mut table = Table::new(["NAME", "ROLE", "ENDS", "LAST USED", "ID"]);
                    let time = |t: Option<shared::Timestamp>| t.map(|t| t.to_string()).unwrap_or_default();
                    for token in &page.tokens {
                        table.row([
                            token.name.to_string(),
                            token.role.as_ref().map(ToString::to_string).unwrap_or_default(),
                            time(token.expire_time),
                            time(token.last_used_time),
                            token.id.to_string(),
                        ]);
                    }
                    table.of(page.total_size)
                };
                api.show(&ListTokens { query }, show).await
            }
            Self::Revoke { name, api } => {
                let query = ListQuery {
                    filter: Some(format!("name={name}")),
                    ..ListQuery::default()
                };
                let found = api.client()?.call(&ListTokens { query }).await?.tokens;
                let id = found.first().map_or(name.clone(), |t| t.id.to_string());
                let told = format!("token {name} is taken back");
                api.show(&DeleteToken { id }, |()| told).await
            }
        }
    }
}
