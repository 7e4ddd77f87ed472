//! What commands do with those who sign in by an OpenID Connect provider.

use super::{Site, offshoot, ran};
use server::config::Oidc;

/// The address of a provider that is away.
fn away() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_is_linked_to_a_user_and_unlinked() {
    let issuer = away();
    let site = Site::start_with(|config| {
        config.public_url = Some("http://127.0.0.1:1".to_owned());
        config.oidc = Some(Oidc {
            issuer,
            client_id: "offshoot".to_owned(),
            client_secret_file: None,
            scopes: vec!["openid".to_owned()],
            name_claim: "name".to_owned(),
            groups_claim: "groups".to_owned(),
            roles: Vec::new(),
            default_role: None,
            label: None,
        });
    })
    .await;
    site.ok("user create eve --role viewer").await;
    let linked = site.ok("user link-oidc eve s-eve").await;
    assert!(linked.contains("oidc        s-eve"), "{linked}");
    let taken = site.run("user link-oidc admin s-eve").await;
    assert_eq!(taken.code, 3, "{taken:?}");
    assert!(
        taken
            .stderr
            .contains("the provider means eve by \"s-eve\" already"),
        "{taken:?}"
    );
    let unlinked = site.json("user unlink-oidc eve").await;
    assert!(unlinked.get("oidcSubject").is_none(), "{unlinked}");
    site.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_that_a_provider_is_away_and_does_not_fail_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let command = |more: &str| {
        let mut command = offshoot("doctor --sim --public-url http://127.0.0.1:1 --oidc-client-id o");
        command
            .args(more.split_whitespace())
            .args(["--oidc-issuer", &away()]);
        command.env("OFFSHOOT_DATA_DIR", dir.path());
        command
    };
    let told = ran(command("")).await;
    assert_eq!(told.code, 0, "{told:?}");
    assert!(
        told.stdout.contains("warn  single sign-on") && told.stdout.contains("what it says of itself"),
        "{told:?}"
    );
    let told = ran(command("--oidc-client-secret-file /nowhere")).await;
    assert!(told.stdout.contains("/nowhere"), "{told:?}");
}
