//! A target of another server: what goes there, and what does not.

use super::support::{self, by, clean_up, create, ended, engine};
use super::{copy_of, new_vm, task};
use server::cli::serve::Running;
use server::config::Config;
use server::db;
use server::inventory::copies as found;
use server::jobs::Jobs;
use server::jobs::world::Machines;
use shared::copy::{CopyTask, TaskStatus};
use shared::job::JobState;
use shared::target::{CreateTarget, LocalPlace, RemotePlace, TargetKind};

const PASSPHRASE: &str = "correct horse battery";

fn asked(name: &str) -> CreateTarget {
    CreateTarget {
        name: name.parse().unwrap(),
        local: None,
        s3: None,
        remote: None,
        attach: false,
        passphrase: Some(PASSPHRASE.into()),
        recipient: None,
        identity: None,
        bytes_per_second: None,
        at_once: None,
    }
}

async fn copied(jobs: &Jobs, vm: &str) -> CopyTask {
    let job = support::copy(jobs, vm, "far", None).await;
    let job = ended(jobs, job.id).await;
    assert_eq!(job.state, JobState::Succeeded, "{job:#?}");
    task(&job)
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_keeps_what_it_lacks_and_both_bring_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let far = Running::start(Config::simulated(dir.path().join("far")))
        .await
        .unwrap();
    let their = &far.server.world().copies;
    let kept = CreateTarget {
        local: Some(LocalPlace {
            path: dir.path().join("kept").display().to_string(),
        }),
        ..asked("kept")
    };
    let kept = their.create(kept).await.unwrap();
    let access = &far.server.access;
    let token = access
        .token_for(&"admin".parse().unwrap(), "copies".parse().unwrap())
        .await;
    let token = token.unwrap().secret;

    let near = dir.path().join("near");
    std::fs::create_dir(&near).unwrap();
    let jobs = engine(&near, Machines::Simulated, None).await;
    let place = |token: &str| RemotePlace {
        url: format!("http://{}", far.address),
        target: "kept".into(),
        token: Some(token.into()),
    };
    let request = |token: &str, passphrase: &str| CreateTarget {
        remote: Some(place(token)),
        attach: true,
        passphrase: Some(passphrase.into()),
        ..asked("far")
    };
    let copies = &jobs.world().copies;
    let refused = copies.create(request("ofs_no", PASSPHRASE)).await.err().unwrap();
    let refused = shared::Status::from(refused);
    assert!(!refused.message.contains("ofs_no"), "{refused}");
    let refused = copies
        .create(request(&token, "another passphrase"))
        .await
        .err()
        .unwrap();
    let refused = shared::Status::from(refused);
    assert!(refused.message.contains("passphrase does not open"), "{refused}");
    let made = copies.create(request(&token, PASSPHRASE)).await.unwrap();
    assert_eq!((made.kind, made.vault), (TargetKind::Remote, kept.vault));
    assert!(made.found.conditional_put, "{made:#?}");
    assert_eq!(made.place.remote.as_ref().unwrap().token, None);
    // Neither the database nor an answer has the token.
    let database = std::fs::read(near.join("offshoot.db")).unwrap();
    let wal = std::fs::read(near.join("offshoot.db-wal")).unwrap_or_default();
    for bytes in [database, wal] {
        assert!(!bytes.windows(token.len()).any(|w| w == token.as_bytes()));
    }

    let job = jobs.create_vm(create("one", false), by()).await.unwrap();
    ended(&jobs, job.id).await;
    let first = copied(&jobs, "one").await;
    assert_eq!(first.status, TaskStatus::Success, "{first:#?}");
    assert!(first.stats.chunks_new > 0, "{first:#?}");
    // Again, with nothing changed: nothing travels but what says so.
    let second = copied(&jobs, "one").await;
    assert_eq!(
        second.stats.chunks_new, 2,
        "one of each disk: a new layer has bytes of its own: {second:#?}"
    );
    assert!(
        second.stats.stored_bytes < first.stats.stored_bytes,
        "{second:#?}"
    );

    let copy = copy_of(&jobs, &first).await;
    let job = jobs
        .restore(&copy, new_vm("back", false, false), by())
        .await
        .unwrap();
    assert_eq!(ended(&jobs, job.id).await.state, JobState::Succeeded);
    // The server that keeps them has the key: it lists them, and brings them back as well.
    their.check("kept").await.unwrap();
    let there = found::copy(far.server.world(), &copy.id.to_string())
        .await
        .unwrap();
    assert_eq!((there.vm_name.as_str(), there.snapshot), ("one", copy.snapshot));
    let job = far
        .server
        .jobs
        .restore(&there, new_vm("there", false, false), by())
        .await
        .unwrap();
    assert_eq!(ended(&far.server.jobs, job.id).await.state, JobState::Succeeded);

    // Detached and attached again, all copies are known by what the vault says.
    copies.detach("far").await.unwrap();
    assert!(
        db::copies::by_id(&jobs.world().db, copy.id)
            .await
            .unwrap()
            .is_none()
    );
    let again = copies.create(request(&token, PASSPHRASE)).await.unwrap();
    assert_eq!(again.copies, 2);
    clean_up(&jobs).await;
    far.stop().await.unwrap();
}
